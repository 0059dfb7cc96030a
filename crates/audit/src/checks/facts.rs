//! The outbox, its consumers, events and usage; sessions, settings, tags, certificates.

use super::{check, ids, numbers, texts};
use crate::check::Check;
use crate::check::Settle::{Moment, Round, Work};
use crate::check::Severity::{Grave, Late, Leak};

/// Tags of a kind whose resource has no row.
macro_rules! tags {
    ($($kind:literal => $table:literal),* $(,)?) => {
        concat!("SELECT 'tag/' || t.uuid, 'key ' || t.tag_key || ' is on ' || t.resource_type || ' ' || t.resource_uuid || ', which doesn''t exist', \
                 NULL FROM tags t WHERE {page:t.uuid} AND (1 = 0",
            $(" OR (t.resource_type = '", $kind, "' AND NOT EXISTS (SELECT 1 FROM ", $table, " x WHERE x.id = t.resource_id))",)* ")")
    };
}

/// Settings of a scope whose thing has no row.
macro_rules! scopes {
    ($($scope:literal => $table:literal),* $(,)?) => {
        concat!("SELECT 'setting/' || s.name || '/' || s.scope || '/' || s.scope_id, 'applies to a ' || s.scope || ' that doesn''t exist', \
                 NULL FROM settings s WHERE 1 = 0",
            $(" OR (s.scope = '", $scope, "' AND NOT EXISTS (SELECT 1 FROM ", $table, " x WHERE x.id = s.scope_id))",)*)
    };
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "outbox-twice",
        Grave,
        Moment,
        numbers("outbox", "seq"),
        "Two facts have the same number: consumers may have seen only one of them.",
        "Give the later one the next number of `outbox_head`.",
        "SELECT 'outbox/' || o.seq, 'is the number of ' || COUNT(*) || ' facts', NULL FROM outbox o WHERE {page:o.seq} \
         GROUP BY o.seq HAVING COUNT(*) > 1",
    ),
    check(
        "outbox-range",
        Grave,
        Moment,
        numbers("outbox", "seq"),
        "A fact has a number that wasn't given yet, or was pruned: consumers miss it, or meet it twice.",
        "Set `seq` to NULL: it is numbered anew. See that `outbox_head` isn't behind.",
        "SELECT 'outbox/' || o.id, o.kind || ' has the number ' || o.seq || '; ' || h.pruned || ' is pruned and ' || h.seq || ' was given last', \
         NULL FROM outbox o JOIN outbox_head h ON h.id = 1 WHERE {page:o.seq} AND (o.seq > h.seq OR o.seq <= h.pruned)",
    ),
    check(
        "outbox-late",
        Late,
        Work,
        None,
        "A fact has waited for its number for a minute: events, usage and caches stand still.",
        "See who has the duty `outbox-sequencer`, and its log.",
        "SELECT 'outbox/' || o.id, o.kind || ' has no number yet', NULL FROM outbox o WHERE o.seq IS NULL AND o.created < {now-60s} LIMIT 100",
    ),
    check(
        "cursor-range",
        Grave,
        Moment,
        None,
        "A consumer of facts stands where there are none yet, or none any more: it loses some.",
        "Set its `seq` in `outbox_cursors` between `pruned` and `seq` of `outbox_head`; look for what it missed.",
        "SELECT 'consumer/' || c.consumer, 'stands at ' || c.seq || '; ' || h.pruned || ' is pruned and ' || h.seq || ' was given last', NULL \
         FROM outbox_cursors c JOIN outbox_head h ON h.id = 1 WHERE c.seq > h.seq OR c.seq < h.pruned",
    ),
    check(
        "consumer-late",
        Late,
        Round,
        None,
        "A consumer hasn't taken a fact for five minutes that it could have.",
        "See the log of the service that runs it; one that no longer exists is removed from `outbox_cursors`.",
        "SELECT 'consumer/' || c.consumer, 'stands at ' || c.seq || ' before a fact that is five minutes old', '' || c.seq FROM outbox_cursors c \
         WHERE (SELECT MIN(o.created) FROM outbox o WHERE o.seq = (SELECT MIN(n.seq) FROM outbox n WHERE n.seq > c.seq)) < {now-300s}",
    ),
    check(
        "event-lost",
        Grave,
        Moment,
        numbers("outbox", "seq"),
        "An event that the archive says it has taken isn't there.",
        "Set the cursor `event-archive` back before it.",
        "SELECT 'event/' || o.seq, o.kind || ' was taken and isn''t there', NULL FROM outbox o \
         JOIN outbox_cursors c ON c.consumer = 'event-archive' WHERE {page:o.seq} AND o.topic = 'event' AND o.seq <= c.seq \
         AND NOT EXISTS (SELECT 1 FROM events e WHERE e.id = o.seq)",
    ),
    check(
        "usage-lost",
        Grave,
        Moment,
        numbers("outbox", "seq"),
        "A fact for accounting that was taken isn't there: a bill is wrong.",
        "Set the cursor `usage-events` back before it.",
        "SELECT 'usage/' || o.seq, o.kind || ' was taken and isn''t there', NULL FROM outbox o \
         JOIN outbox_cursors c ON c.consumer = 'usage-events' WHERE {page:o.seq} AND o.topic = 'usage' AND o.seq <= c.seq \
         AND NOT EXISTS (SELECT 1 FROM usage_events e WHERE e.id = o.seq)",
    ),
    check(
        "event-range",
        Grave,
        Moment,
        None,
        "Events have numbers that were not given yet: those that will get them can't be written.",
        "Raise `seq` of `outbox_head` beyond them.",
        "SELECT 'event/' || q.top, 'is beyond the last number given, ' || q.head, NULL FROM (SELECT (SELECT MAX(e.id) FROM events e) AS top, \
         h.seq AS head FROM outbox_head h WHERE h.id = 1 UNION ALL SELECT (SELECT MAX(e.id) FROM usage_events e) AS top, h.seq AS head \
         FROM outbox_head h WHERE h.id = 1) q WHERE q.top > q.head",
    ),
    check(
        "usage-vm",
        Grave,
        Round,
        ids("vms"),
        "Accounting holds that a machine runs which doesn't, or the other way round: a bill is wrong.",
        "Write the missing VM.START or VM.STOP into `usage_events`, with the time of the change.",
        "SELECT 'vm/' || s.uuid, 'is ' || s.state || ', and accounting holds the opposite', '' || s.changed FROM (SELECT v.uuid, v.state, v.changed, \
         COALESCE((SELECT MAX(u.created) FROM usage_events u WHERE u.resource_id = v.id AND u.type = 'VM.START'), 0) AS began, \
         COALESCE((SELECT MAX(u.created) FROM usage_events u WHERE u.resource_id = v.id AND u.type = 'VM.STOP'), 0) AS ended \
         FROM vms v WHERE {page:v.id} AND v.removed IS NULL AND v.changed < {now-60s} AND v.state IN ('Running', 'Stopped', 'Destroyed') \
         AND {free:'vm/' || v.id} AND NOT EXISTS (SELECT 1 FROM outbox_cursors c WHERE c.consumer = 'usage-events' AND EXISTS \
         (SELECT 1 FROM outbox o WHERE o.seq > c.seq AND o.topic = 'usage'))) s \
         WHERE (s.state = 'Running' AND s.began <= s.ended) OR (s.state <> 'Running' AND s.began > s.ended)",
    ),
    check(
        "usage-owner",
        Grave,
        Moment,
        ids("usage_events"),
        "A fact for accounting names nobody who could be billed.",
        "Correct the account in `usage_events`.",
        "SELECT 'usage/' || u.id, u.type || ' of ' || u.resource_uuid || ' is billed to account ' || u.account_id || ', which doesn''t exist', NULL \
         FROM usage_events u WHERE {page:u.id} AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = u.account_id)",
    ),
    check(
        "session-of-nobody",
        Leak,
        Work,
        texts("sessions", "id_hash"),
        "A login session of a user who doesn't exist.",
        "Delete it from `sessions`.",
        "SELECT 'session/' || s.id_hash, 'is of user ' || s.user_id || ', who doesn''t exist', NULL FROM sessions s \
         WHERE {page:s.id_hash} AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = s.user_id)",
    ),
    check(
        "setting-of-nothing",
        Leak,
        Work,
        None,
        "A setting for a zone, cluster, pool, account, domain or image store that doesn't exist.",
        "Delete it from `settings`, and raise `settings_version`.",
        scopes!("zone" => "zones", "cluster" => "clusters", "storagepool" => "storage_pools", "account" => "accounts",
            "domain" => "domains", "imagestore" => "image_stores"),
    ),
    check(
        "tag-of-nothing",
        Leak,
        Work,
        texts("tags", "uuid"),
        "A tag on a resource that doesn't exist.",
        "Delete it from `tags`.",
        tags!("UserVm" => "vms", "Volume" => "volumes", "Network" => "networks", "PublicIpAddress" => "ip_addresses",
            "Template" => "templates", "ISO" => "templates", "Account" => "accounts", "User" => "users"),
    ),
    check(
        "detail-of-nothing",
        Leak,
        Work,
        None,
        "A detail of a zone, service offering, template or account that doesn't exist.",
        "Delete it from its table.",
        "SELECT 'detail/' || d.resource_type || '/' || d.resource_id || '/' || d.name, 'is of something that doesn''t exist', NULL \
         FROM infra_details d WHERE (d.resource_type = 'Zone' AND NOT EXISTS (SELECT 1 FROM zones x WHERE x.id = d.resource_id)) \
         OR (d.resource_type = 'ServiceOffering' AND NOT EXISTS (SELECT 1 FROM service_offerings x WHERE x.id = d.resource_id)) \
         UNION ALL SELECT 'detail/Template/' || d.template_id || '/' || d.name, 'is of something that doesn''t exist', NULL \
         FROM template_details d WHERE NOT EXISTS (SELECT 1 FROM templates x WHERE x.id = d.template_id) \
         UNION ALL SELECT 'detail/Account/' || d.account_id || '/' || d.name, 'is of something that doesn''t exist', NULL \
         FROM account_details d WHERE NOT EXISTS (SELECT 1 FROM accounts x WHERE x.id = d.account_id)",
    ),
    check(
        "certificate-valid",
        Grave,
        Moment,
        None,
        "A certificate of an agent that was revoked is still good: whoever has it may connect.",
        "Set `revoked` of it in `issued_certificates`.",
        "SELECT 'certificate/' || c.serial, 'of ' || c.subject || ' is good, and its agent is revoked', NULL FROM agents a \
         JOIN issued_certificates c ON c.subject = 'arcus://host/' || a.uuid WHERE a.revoked IS NOT NULL AND c.revoked IS NULL \
         AND c.not_after > {now-0s}",
    ),
    check(
        "duty-state",
        Grave,
        Moment,
        None,
        "A duty's fence contradicts itself: a deposed holder might write.",
        "Set `epoch` and `seq` of its row in `duties` to 1 or more, higher than ever before; its holder begins anew.",
        "SELECT 'duty/' || d.name, 'has epoch ' || d.epoch || ' and number ' || d.seq, NULL FROM duties d WHERE d.epoch < 1 OR d.seq < 0",
    ),
];
