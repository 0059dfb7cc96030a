//! What is counted against limits, against what there is.
//!
//! `account_id + 0` keeps SQLite from looking through all that an account has instead of what a holder has.
//!
//! A reservation is made before what it is for: `reserved_by` names who was about to make it. It counts as leaked when what
//! it is for is there and gone, when it was seen, or when it is a minute old.
//!
//! By resource type: machines (0), CPUs (8) and memory (9) are counted by machines; volumes (2) and primary storage (10) by
//! volumes; public addresses (1) and networks (6) by themselves; templates (4) and secondary storage (11) by templates, see
//! `image`; snapshots (3), and secondary storage (11) again, by snapshots, see `snapshot`. Projects (5) and VPCs (7) aren't counted
//! by anything yet: their reservations are looked at as sums only.

use super::{check, ids, texts};
use crate::check::Check;
use crate::check::Settle::{Moment, Work};
use crate::check::Severity::{Grave, Leak};

const LEAK: &str = "Something is counted against its owner's limit and doesn't exist.";
const BACK: &str = "updateResourceCount of the account gives it back; so does identity by itself within two hours.";
const MISSING: &str = "Something exists and isn't counted, or with another amount or account: a limit can be exceeded.";
const COUNT: &str = "Write the missing rows of `limit_reservations`, then updateResourceCount of the account.";

pub(super) const CHECKS: &[Check] = &[
    check(
        "limit-count",
        Grave,
        Moment,
        texts("resource_counts", "slot"),
        "What an account is counted with isn't the sum of its reservations.",
        "updateResourceCount of the account.",
        "SELECT 'count/' || s.slot, 'counts ' || s.used || '; its reservations hold ' || s.held, NULL FROM (SELECT c.slot, c.used, \
         (SELECT CAST(COALESCE(SUM(l.amount), 0) AS SIGNED) FROM limit_reservations l WHERE l.account_id = c.owner_id AND l.type = c.type) \
         AS held FROM resource_counts c WHERE {page:c.slot} AND c.owner_kind = 'account') s WHERE s.used <> s.held",
    ),
    check(
        "limit-domain-count",
        Grave,
        Moment,
        texts("resource_counts", "slot"),
        "What a domain is counted with isn't the sum over the accounts in it.",
        "updateResourceCount of the domain.",
        "SELECT 'count/' || s.slot, 'counts ' || s.used || '; the accounts below have ' || s.held, NULL FROM (SELECT c.slot, c.used, \
         (SELECT CAST(COALESCE(SUM(b.used), 0) AS SIGNED) FROM accounts a JOIN resource_counts b ON b.owner_kind = 'account' \
         AND b.owner_id = a.id AND b.type = c.type WHERE SUBSTR(a.domain_path, 1, LENGTH(d.path)) = d.path) AS held FROM resource_counts c \
         JOIN domains d ON d.id = c.owner_id WHERE {page:c.slot} AND c.owner_kind = 'domain') s WHERE s.used <> s.held",
    ),
    check(
        "limit-of-nobody",
        Leak,
        Moment,
        None,
        "A limit or a count of an account or domain that doesn't exist or was removed.",
        "Delete it from `resource_limits` or `resource_counts`.",
        "SELECT 'count/' || c.slot, 'is of an owner that is gone', NULL FROM resource_counts c LEFT JOIN accounts a ON a.id = c.owner_id \
         LEFT JOIN domains d ON d.id = c.owner_id WHERE (c.owner_kind = 'account' AND (a.id IS NULL OR a.removed IS NOT NULL)) OR \
         (c.owner_kind = 'domain' AND (d.id IS NULL OR d.removed IS NOT NULL)) UNION ALL \
         SELECT 'limit/' || c.slot, 'is of an owner that is gone', NULL FROM resource_limits c LEFT JOIN accounts a ON a.id = c.owner_id \
         LEFT JOIN domains d ON d.id = c.owner_id WHERE (c.owner_kind = 'account' AND (a.id IS NULL OR a.removed IS NOT NULL)) OR \
         (c.owner_kind = 'domain' AND (d.id IS NULL OR d.removed IS NOT NULL))",
    ),
    check(
        "limit-uncounted",
        Grave,
        Moment,
        ids("accounts"),
        "An account has no count of a resource type: whatever it makes of it is refused, or isn't limited.",
        "updateResourceCount of the account.",
        "SELECT 'account/' || s.uuid, 'has counts of ' || s.n || ' of 12 resource types', NULL FROM (SELECT a.uuid, (SELECT COUNT(*) \
         FROM resource_counts c WHERE c.owner_kind = 'account' AND c.owner_id = a.id) AS n FROM accounts a WHERE {page:a.id} \
         AND a.removed IS NULL) s WHERE s.n < 12",
    ),
    check(
        "limit-leaked-vm",
        Leak,
        Work,
        texts("limit_reservations", "holder"),
        LEAK,
        BACK,
        "SELECT l.holder || '/' || l.type, 'is counted and doesn''t exist', '' || l.created FROM limit_reservations l WHERE {page:l.holder} \
         AND l.type >= 0 AND (l.reserved_by = '' OR ((l.created < {now-60s} OR LENGTH(l.holder) = 39) AND EXISTS (SELECT 1 FROM vms w \
         WHERE w.uuid = SUBSTR(l.holder, 4, 36)))) AND l.holder LIKE 'vm:%' AND NOT EXISTS (SELECT 1 FROM vms v WHERE \
         v.uuid = SUBSTR(l.holder, 4, 36) AND v.limits_key = l.holder AND v.removed IS NULL AND v.state NOT IN ('Destroyed', 'Error', \
         'Expunging')) AND {free:'vm/' || (SELECT w.id FROM vms w WHERE w.uuid = SUBSTR(l.holder, 4, 36))} AND NOT EXISTS (SELECT 1 \
         FROM vms v WHERE v.limits_key = l.holder AND ((v.removed IS NULL AND v.state NOT IN ('Destroyed', 'Error', 'Expunging')) OR \
         EXISTS (SELECT 1 FROM claims c WHERE c.resource = 'vm/' || v.id AND c.exclusive <> 0)))",
    ),
    check(
        "limit-leaked-volume",
        Leak,
        Work,
        texts("limit_reservations", "holder"),
        LEAK,
        BACK,
        "SELECT l.holder || '/' || l.type, 'is counted and doesn''t exist', '' || l.created FROM limit_reservations l \
         LEFT JOIN volumes o ON o.uuid = SUBSTR(l.holder, 8) WHERE {page:l.holder} AND l.type >= 0 \
         AND (l.reserved_by = '' OR o.id IS NOT NULL) AND l.holder LIKE 'volume:%' AND (o.id IS NULL OR o.removed IS NOT NULL) AND {free:'volume/' || o.id} AND {free:'vm/' || o.vm_id}",
    ),
    check(
        "limit-leaked-address",
        Leak,
        Work,
        texts("limit_reservations", "holder"),
        LEAK,
        BACK,
        "SELECT l.holder || '/' || l.type, 'is counted and isn''t allocated', '' || l.created FROM limit_reservations l \
         LEFT JOIN ip_addresses i ON i.uuid = SUBSTR(l.holder, 4, 36) WHERE {page:l.holder} AND l.type >= 0 \
         AND (l.reserved_by = '' OR l.created < {now-60s}) AND l.holder LIKE 'ip:%' AND (i.id IS NULL OR i.holder IS NULL OR i.holder <> SUBSTR(l.holder, 41)) AND {free:'ip/' || i.id}",
    ),
    check(
        "limit-leaked-network",
        Leak,
        Work,
        texts("limit_reservations", "holder"),
        LEAK,
        BACK,
        "SELECT l.holder || '/' || l.type, 'is counted and doesn''t exist', '' || l.created FROM limit_reservations l \
         LEFT JOIN networks n ON n.uuid = SUBSTR(l.holder, 9) WHERE {page:l.holder} AND l.type >= 0 \
         AND (l.reserved_by = '' OR n.id IS NOT NULL) AND l.holder LIKE 'network:%' AND (n.id IS NULL OR n.removed IS NOT NULL) AND {free:'network/' || n.id}",
    ),
    check(
        "limit-unseen",
        Leak,
        Work,
        texts("limit_reservations", "holder"),
        "Something was counted a minute ago for a request that made nothing.",
        BACK,
        "SELECT l.holder || '/' || l.type, 'was reserved by ' || l.reserved_by || ' and never made', '' || l.created FROM limit_reservations l \
         WHERE {page:l.holder} AND l.type >= 0 AND l.reserved_by <> '' AND l.created < {now-60s} AND NOT EXISTS (SELECT 1 FROM vms x WHERE \
         x.uuid = SUBSTR(l.holder, 4, 36)) AND NOT EXISTS (SELECT 1 FROM volumes x WHERE x.uuid = SUBSTR(l.holder, 8)) \
         AND NOT EXISTS (SELECT 1 FROM networks x WHERE x.uuid = SUBSTR(l.holder, 9)) AND NOT EXISTS (SELECT 1 FROM ip_addresses x \
         WHERE x.uuid = SUBSTR(l.holder, 4, 36) AND x.holder = SUBSTR(l.holder, 41)) \
         AND NOT EXISTS (SELECT 1 FROM vms x WHERE x.limits_key = l.holder) \
         AND NOT EXISTS (SELECT 1 FROM templates x WHERE x.uuid = SUBSTR(l.holder, 10)) \
         AND NOT EXISTS (SELECT 1 FROM snapshots x WHERE x.uuid = SUBSTR(l.holder, 10)) \
         AND NOT EXISTS (SELECT 1 FROM jobs j WHERE {live:j} AND INSTR(j.input, SUBSTR(l.holder, 8)) > 0)",
    ),
    check(
        "limit-missing-vm",
        Grave,
        Work,
        ids("vms"),
        MISSING,
        COUNT,
        "SELECT 'vm/' || s.uuid, 'has ' || s.n || ' of its 3 counts (machine, CPUs, memory)', '' || s.changed FROM (SELECT v.uuid, v.changed, \
         (SELECT COUNT(*) FROM limit_reservations l WHERE l.holder = v.limits_key AND l.account_id + 0 = v.account_id AND ((l.type = 0 AND \
         l.amount = 1) OR (l.type = 8 AND l.amount = v.cpu) OR (l.type = 9 AND l.amount = v.memory_mb))) AS n FROM vms v \
         WHERE {page:v.id} AND v.removed IS NULL AND v.state NOT IN ('Destroyed', 'Error', 'Expunging') AND {free:'vm/' || v.id}) s \
         WHERE s.n <> 3",
    ),
    check(
        "limit-missing-volume",
        Grave,
        Work,
        ids("volumes"),
        MISSING,
        COUNT,
        "SELECT 'volume/' || s.uuid, 'has ' || s.n || ' of its 2 counts (volume, bytes)', '' || s.changed FROM (SELECT o.uuid, o.changed, \
         (SELECT COUNT(*) FROM limit_reservations l WHERE l.holder = 'volume:' || o.uuid AND l.account_id + 0 = o.account_id AND ((l.type = 2 \
         AND l.amount = 1) OR (l.type = 10 AND l.amount = o.size))) AS n FROM volumes o WHERE {page:o.id} AND o.removed IS NULL \
         AND {free:'volume/' || o.id} AND {free:'vm/' || o.vm_id}) s WHERE s.n <> 2",
    ),
    check(
        "limit-missing-address",
        Grave,
        Work,
        ids("ip_addresses"),
        MISSING,
        COUNT,
        "SELECT 'address/' || i.ip, 'isn''t counted for account ' || i.account_id, i.holder FROM ip_addresses i WHERE {page:i.id} AND \
         i.removed IS NULL AND i.state = 'Allocated' AND i.holder IS NOT NULL AND {free:'ip/' || i.id} AND NOT EXISTS (SELECT 1 FROM \
         limit_reservations l WHERE l.holder = 'ip:' || i.uuid || ':' || i.holder AND l.type = 1 AND l.amount = 1 \
         AND l.account_id + 0 = i.account_id)",
    ),
    check(
        "limit-missing-network",
        Grave,
        Work,
        ids("networks"),
        MISSING,
        COUNT,
        "SELECT 'network/' || n.uuid, 'isn''t counted for account ' || n.account_id, NULL FROM networks n WHERE {page:n.id} AND \
         n.removed IS NULL AND n.is_system = 0 AND n.guest_type <> 'Shared' AND {free:'network/' || n.id} AND NOT EXISTS (SELECT 1 FROM \
         limit_reservations l WHERE l.holder = 'network:' || n.uuid AND l.type = 6 AND l.amount = 1 AND l.account_id + 0 = n.account_id)",
    ),
];
