//! Snapshots of volumes, and what they count against limits: one snapshot, and the bytes that its row holds.

use super::{check, ids, texts};
use crate::check::Check;
use crate::check::Settle::{Moment, Work};
use crate::check::Severity::{Grave, Late, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "snapshot-state",
        Grave,
        Moment,
        ids("snapshots"),
        "A snapshot says it is on secondary storage and has no bytes, or one that failed counts some; or its states contradict each \
         other.",
        "deleteSnapshot, then take another one.",
        "SELECT 'snapshot/' || s.uuid, 'is ' || s.state || CASE WHEN s.removed IS NULL THEN '' ELSE ', removed' END || ', of ' || \
         s.physical_size || ' bytes with a disk of ' || s.size || ', holds ' || s.held_bytes, '' || s.changed FROM snapshots s \
         WHERE {page:s.id} AND NOT ((s.removed IS NULL AND ((s.state = 'BackedUp' AND s.size > 0 AND s.physical_size > 0 \
         AND s.held_bytes = s.physical_size) OR (s.state IN ('Allocated', 'Creating', 'BackingUp') AND s.physical_size = 0) \
         OR (s.state = 'Error' AND s.held_bytes = 0))) OR (s.removed IS NOT NULL AND s.state = 'Destroyed'))",
    ),
    check(
        "snapshot-reference",
        Grave,
        Moment,
        ids("snapshots"),
        "A snapshot lies on an image store that is gone, or refers to a zone or volume that never was.",
        "Nobody can read it any more: deleteSnapshot.",
        "SELECT 'snapshot/' || s.uuid, 'is of volume ' || s.volume_id || ' in zone ' || s.zone_id || ' on store ' || s.store_id, \
         '' || s.changed FROM snapshots s WHERE {page:s.id} AND s.removed IS NULL AND ((s.state <> 'Error' AND NOT EXISTS (SELECT 1 \
         FROM image_stores i WHERE i.id = s.store_id AND i.removed IS NULL)) OR NOT EXISTS (SELECT 1 FROM zones z \
         WHERE z.id = s.zone_id) OR NOT EXISTS (SELECT 1 FROM volumes o WHERE o.id = s.volume_id)) \
         AND {free:'snapshot/' || s.id}",
    ),
    check(
        "snapshot-owner",
        Grave,
        Moment,
        ids("snapshots"),
        "A snapshot belongs to an account that doesn't exist, was removed, or lies in another domain than noted.",
        "Correct account and domain of the row, or have an administrator delete the snapshot.",
        "SELECT 'snapshot/' || s.uuid, 'is of account ' || s.account_id || ' in domain ' || s.domain_path, NULL FROM snapshots s \
         LEFT JOIN accounts a ON a.id = s.account_id WHERE {page:s.id} AND s.removed IS NULL AND (a.id IS NULL OR a.removed IS NOT NULL \
         OR a.domain_id <> s.domain_id OR a.domain_path <> s.domain_path) AND {free:'account/' || s.account_id}",
    ),
    check(
        "snapshot-transitional",
        Late,
        Work,
        ids("snapshots"),
        "A snapshot is being made, and no job does it: it is stuck, and can't be deleted.",
        "Set `state` to Error and `held_bytes` to 0, write its path into `image_deletions`, then deleteSnapshot.",
        "SELECT 'snapshot/' || s.uuid, 'is ' || s.state || ' and no job works on it', '' || s.changed FROM snapshots s \
         WHERE {page:s.id} AND s.removed IS NULL AND s.state IN ('Allocated', 'Creating', 'BackingUp') \
         AND {free:'snapshot/' || s.id} AND {free:'volume/' || s.volume_id}",
    ),
    check(
        "image-deletion-of-snapshot",
        Grave,
        Moment,
        texts("image_deletions", "path"),
        "The image of a snapshot that is there, or being made, is about to be deleted.",
        "Delete the row of `image_deletions`.",
        "SELECT 'image/' || d.path, 'is of snapshot ' || s.uuid || ' on store ' || s.store_id, NULL FROM image_deletions d \
         JOIN snapshots s ON s.path = d.path AND s.store_id = d.store_id AND s.removed IS NULL AND s.state <> 'Error' WHERE {page:d.path}",
    ),
    check(
        "limit-leaked-snapshot",
        Leak,
        Work,
        texts("limit_reservations", "holder"),
        "Something is counted against its owner's limit and doesn't exist.",
        "updateResourceCount of the account gives it back; so does identity by itself within two hours.",
        "SELECT l.holder || '/' || l.type, 'is counted and doesn''t exist', '' || l.created FROM limit_reservations l \
         LEFT JOIN snapshots s ON s.uuid = SUBSTR(l.holder, 10) WHERE {page:l.holder} AND l.type >= 0 \
         AND (l.reserved_by = '' OR s.id IS NOT NULL) AND l.holder LIKE 'snapshot:%' AND (s.id IS NULL OR s.removed IS NOT NULL \
         OR s.state = 'Error') AND {free:'snapshot/' || s.id}",
    ),
    check(
        "limit-missing-snapshot",
        Grave,
        Work,
        ids("snapshots"),
        "A snapshot exists and isn't counted, or with other bytes: a limit can be exceeded.",
        "Write the missing rows of `limit_reservations`, then updateResourceCount of the account.",
        "SELECT 'snapshot/' || s.uuid, 'has ' || s.n || ' of its 2 counts (snapshot, bytes); it holds ' || s.held_bytes, '' || s.changed \
         FROM (SELECT x.uuid, x.held_bytes, x.changed, (SELECT COUNT(*) FROM limit_reservations l WHERE l.holder = 'snapshot:' || x.uuid \
         AND l.account_id + 0 = x.account_id AND ((l.type = 3 AND l.amount = 1) OR (l.type = 11 AND l.amount = x.held_bytes))) AS n \
         FROM snapshots x WHERE {page:x.id} AND x.removed IS NULL AND x.state <> 'Error' AND {free:'snapshot/' || x.id}) s \
         WHERE s.n <> 2",
    ),
];
