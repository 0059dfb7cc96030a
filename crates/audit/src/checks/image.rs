//! Copies of templates on secondary storage, who may use templates, and images that are still to be deleted. What templates
//! count against limits is here, too: a template counts once, and its copies with the bytes that their rows hold.

use super::{check, ids, numbers, texts};
use crate::check::Check;
use crate::check::Settle::{Moment, Work};
use crate::check::Severity::{Grave, Late, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "template-copy-state",
        Grave,
        Moment,
        numbers("template_store_refs", "template_id"),
        "A copy of a template says it is ready and has no bytes, or another size than the template; or its states contradict each \
         other.",
        "deleteTemplate in the copy's zone, then register or copy it anew.",
        "SELECT 'templatecopy/' || r.template_id || '/store/' || r.store_id, 'is ' || r.state || ', ' || r.download_state || ', of ' || \
         r.physical_size || ' bytes with a disk of ' || r.size || ', holds ' || r.held_bytes, '' || r.changed FROM template_store_refs r \
         JOIN templates t ON t.id = r.template_id WHERE {page:r.template_id} AND NOT ((r.state = 'Ready' \
         AND r.download_state = 'DOWNLOADED' AND r.size > 0 AND r.physical_size > 0 AND r.size = t.size) OR (r.state = 'Creating' \
         AND r.download_state IN ('NOT_DOWNLOADED', 'DOWNLOAD_IN_PROGRESS')) OR (r.state = 'Failed' \
         AND r.download_state = 'DOWNLOAD_ERROR' AND r.held_bytes = 0))",
    ),
    check(
        "template-copy-unwanted",
        Leak,
        Moment,
        numbers("template_store_refs", "template_id"),
        "A copy of a template that was deleted, or in a zone that the template isn't in: nobody deletes it.",
        "Write its path into `image_deletions`, and delete the row.",
        "SELECT 'templatecopy/' || r.template_id || '/store/' || r.store_id, 'nobody wants it', '' || r.changed FROM template_store_refs r \
         JOIN templates t ON t.id = r.template_id WHERE {page:r.template_id} AND (t.removed IS NOT NULL OR (r.zone_id IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM template_zones z WHERE z.template_id = r.template_id AND z.zone_id = r.zone_id \
         AND z.removed IS NULL)))",
    ),
    check(
        "template-copy-late",
        Late,
        Moment,
        numbers("template_store_refs", "template_id"),
        "A copy of a template has made no progress for a day.",
        "Connect a host of the zone that can fetch it, or delete the template (forced).",
        "SELECT 'templatecopy/' || r.template_id || '/store/' || r.store_id, 'is at ' || r.percent || ' per cent', '' || r.changed \
         FROM template_store_refs r WHERE {page:r.template_id} AND r.state = 'Creating' AND r.changed < {now-86400s}",
    ),
    check(
        "template-share",
        Leak,
        Moment,
        numbers("template_shares", "template_id"),
        "A template that is gone is shared, or one with an account that never was.",
        "Delete the row of `template_shares`.",
        "SELECT 'templateshare/' || s.template_id || '/' || s.account_id, 'is of a template or an account that is gone', NULL \
         FROM template_shares s WHERE {page:s.template_id} AND (NOT EXISTS (SELECT 1 FROM templates t WHERE t.id = s.template_id \
         AND t.removed IS NULL) OR NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = s.account_id))",
    ),
    check(
        "image-deletion-of-living",
        Grave,
        Moment,
        texts("image_deletions", "path"),
        "The image of a copy that is ready, or on its way, is about to be deleted.",
        "Delete the row of `image_deletions`.",
        "SELECT 'image/' || d.path, 'is the copy of template ' || r.template_id || ' on store ' || r.store_id, NULL FROM image_deletions d \
         JOIN template_store_refs r ON r.path = d.path AND r.store_id = d.store_id AND r.state <> 'Failed' WHERE {page:d.path}",
    ),
    check(
        "image-deletion-late",
        Late,
        Moment,
        texts("image_deletions", "path"),
        "An image couldn't be deleted for a day, or lies on a store that is gone.",
        "See `last_error`; connect a host of the zone, or delete the row and the image by hand.",
        "SELECT 'image/' || d.path, 'on store ' || d.store_id || ' was tried ' || d.tries || ' times', NULL FROM image_deletions d \
         WHERE {page:d.path} AND (d.created < {now-86400s} OR NOT EXISTS (SELECT 1 FROM image_stores s WHERE s.id = d.store_id \
         AND s.removed IS NULL))",
    ),
    check(
        "limit-leaked-template",
        Leak,
        Work,
        texts("limit_reservations", "holder"),
        "Something is counted against its owner's limit and doesn't exist.",
        "updateResourceCount of the account gives it back; so does identity by itself within two hours.",
        "SELECT l.holder || '/' || l.type, 'is counted and doesn''t exist', '' || l.created FROM limit_reservations l \
         LEFT JOIN templates t ON t.uuid = SUBSTR(l.holder, 10) WHERE {page:l.holder} AND l.type >= 0 \
         AND (l.reserved_by = '' OR t.id IS NOT NULL) AND l.holder LIKE 'template:%' AND (t.id IS NULL OR t.removed IS NOT NULL) \
         AND {free:'template/' || t.id}",
    ),
    check(
        "limit-missing-template",
        Grave,
        Work,
        ids("templates"),
        "A template exists and isn't counted, or its copies with other bytes: a limit can be exceeded.",
        "Write the missing rows of `limit_reservations`, then updateResourceCount of the account.",
        "SELECT 'template/' || s.uuid, 'has ' || s.n || ' of its 2 counts (template, bytes); its copies hold ' || s.held, '' || s.changed \
         FROM (SELECT t.uuid, h.held, h.changed, (SELECT COUNT(*) FROM limit_reservations l WHERE l.holder = 'template:' || t.uuid \
         AND l.account_id + 0 = t.account_id AND ((l.type = 4 AND l.amount = 1) OR (l.type = 11 AND l.amount = h.held))) AS n \
         FROM templates t JOIN (SELECT x.id, (SELECT CAST(COALESCE(SUM(r.held_bytes), 0) AS SIGNED) FROM template_store_refs r \
         WHERE r.template_id = x.id) AS held, (SELECT COALESCE(MAX(r.changed), 0) FROM template_store_refs r \
         WHERE r.template_id = x.id) AS changed FROM templates x WHERE x.removed IS NULL AND x.template_type = 'USER') h ON h.id = t.id \
         WHERE {page:t.id} AND {free:'template/' || t.id}) s WHERE s.n <> 2",
    ),
];
