//! Zones, pods, clusters, hosts: where they are, what hosts have given away.

use super::{check, ids, numbers};
use crate::check::Check;
use crate::check::Settle::{Moment, Round, Work};
use crate::check::Severity::{Grave, Late, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "place-parent",
        Grave,
        Moment,
        None,
        "A pod, cluster or host isn't in a living zone, pod or cluster, or elsewhere than its row says.",
        "Correct `zone_id`, `pod_id` and `cluster_id`, also in `host_capacity`.",
        "SELECT 'pod/' || p.uuid, p.name || ' is in zone ' || p.zone_id || ', which is gone', NULL FROM pods p LEFT JOIN zones z \
         ON z.id = p.zone_id WHERE p.removed IS NULL AND (z.id IS NULL OR z.removed IS NOT NULL) UNION ALL \
         SELECT 'cluster/' || c.uuid, c.name || ' is in pod ' || c.pod_id || ' of zone ' || c.zone_id || ', which is gone or elsewhere', NULL \
         FROM clusters c LEFT JOIN pods p ON p.id = c.pod_id WHERE c.removed IS NULL AND (p.id IS NULL OR p.removed IS NOT NULL \
         OR p.zone_id <> c.zone_id) UNION ALL \
         SELECT 'host/' || h.uuid, h.name || ' is in cluster ' || h.cluster_id || ' of pod ' || h.pod_id || ', which is gone or elsewhere', NULL \
         FROM hosts h LEFT JOIN clusters c ON c.id = h.cluster_id WHERE h.removed IS NULL AND (c.id IS NULL OR c.removed IS NOT NULL \
         OR c.pod_id <> h.pod_id OR c.zone_id <> h.zone_id)",
    ),
    check(
        "host-connection",
        Grave,
        Work,
        ids("hosts"),
        "A host is Up with no replica that holds its line, or gone with one: orders to it get lost.",
        "Restart its agent; it connects anew and the row is written anew.",
        "SELECT 'host/' || h.uuid, h.name || ' is ' || h.status || ' and held by ' || COALESCE(h.hub, 'nobody'), '' || h.conn_epoch \
         FROM hosts h WHERE {page:h.id} AND ((h.status = 'Up' AND h.hub IS NULL) OR (h.status IN ('Down', 'Removed', 'Disconnected') \
         AND h.hub IS NOT NULL) OR (h.removed IS NOT NULL AND h.status <> 'Removed') OR h.conn_epoch < 0)",
    ),
    check(
        "host-capacity",
        Grave,
        Moment,
        numbers("host_capacity", "host_id"),
        "What a host counts as given away isn't what its machines hold: it is over-filled, or room is lost.",
        "Set `cpu_used_mhz`, `mem_used` and `vms` of `host_capacity` to the sums over `vm_capacity` and `vm_moves`.",
        "SELECT 'host/' || COALESCE(h.uuid, '' || s.host_id), 'counts ' || s.cpu_used_mhz || ' MHz, ' || s.mem_used || ' bytes, ' || s.vms || \
         ' machines; they hold ' || s.cpu || ', ' || s.mem || ', ' || s.n, NULL FROM (SELECT k.host_id, k.cpu_used_mhz, k.mem_used, k.vms, \
         (SELECT CAST(COALESCE(SUM(c.cpu_mhz), 0) AS SIGNED) FROM vm_capacity c WHERE c.host_id = k.host_id) \
         + (SELECT CAST(COALESCE(SUM(m.cpu_mhz), 0) AS SIGNED) FROM vm_moves m WHERE m.host_id = k.host_id) AS cpu, \
         (SELECT CAST(COALESCE(SUM(c.memory), 0) AS SIGNED) FROM vm_capacity c WHERE c.host_id = k.host_id) \
         + (SELECT CAST(COALESCE(SUM(m.memory), 0) AS SIGNED) FROM vm_moves m WHERE m.host_id = k.host_id) AS mem, \
         (SELECT COUNT(*) FROM vm_capacity c WHERE c.host_id = k.host_id) \
         + (SELECT COUNT(*) FROM vm_moves m WHERE m.host_id = k.host_id) AS n FROM host_capacity k WHERE {page:k.host_id}) s \
         LEFT JOIN hosts h ON h.id = s.host_id WHERE s.cpu_used_mhz <> s.cpu OR s.mem_used <> s.mem OR s.vms <> s.n",
    ),
    check(
        "host-overfull",
        Late,
        Moment,
        numbers("host_capacity", "host_id"),
        "A host has given away more than it has: it shrank, or an overcommit ratio was lowered.",
        "Move or stop machines of it, or raise the ratio of its cluster.",
        "SELECT 'host/' || COALESCE(h.uuid, '' || k.host_id), 'has given away ' || k.cpu_used_mhz || ' of ' || k.cpu_total_mhz || ' MHz and ' || \
         k.mem_used || ' of ' || k.mem_total || ' bytes', NULL FROM host_capacity k LEFT JOIN hosts h ON h.id = k.host_id \
         WHERE {page:k.host_id} AND (k.cpu_used_mhz + k.cpu_reserved > k.cpu_total_mhz * k.cpu_overcommit \
         OR k.mem_used + k.mem_reserved > k.mem_total * k.mem_overcommit)",
    ),
    check(
        "host-capacity-row",
        Grave,
        Moment,
        ids("hosts"),
        "A host has no row of capacity, or one that says another place: nothing is placed there, or in the wrong place.",
        "Write its row of `host_capacity`, or correct the place in it.",
        "SELECT 'host/' || h.uuid, h.name || CASE WHEN k.host_id IS NULL THEN ' has no capacity' ELSE ' has its capacity elsewhere' END, NULL \
         FROM hosts h LEFT JOIN host_capacity k ON k.host_id = h.id WHERE {page:h.id} AND h.removed IS NULL AND (k.host_id IS NULL \
         OR k.cluster_id <> h.cluster_id OR k.pod_id <> h.pod_id OR k.zone_id <> h.zone_id)",
    ),
    check(
        "host-accepting",
        Grave,
        Moment,
        numbers("host_capacity", "host_id"),
        "A host takes new machines although it is disabled, in maintenance or gone.",
        "Set `accepting` of its `host_capacity` to 0.",
        "SELECT 'host/' || COALESCE(h.uuid, '' || k.host_id), 'takes machines and is ' || COALESCE(h.resource_state, 'gone'), NULL \
         FROM host_capacity k LEFT JOIN hosts h ON h.id = k.host_id WHERE {page:k.host_id} AND k.accepting <> 0 AND (h.id IS NULL \
         OR h.removed IS NOT NULL OR h.resource_state <> 'Enabled')",
    ),
    check(
        "host-maintained",
        Grave,
        Moment,
        None,
        "A host is in maintenance and a machine has a place on it: whoever switches it off ends the machine.",
        "cancelHostMaintenance, then prepareHostForMaintenance again.",
        "SELECT 'host/' || h.uuid, h.name || ' is in maintenance and has ' || k.vms || ' machines', NULL FROM hosts h \
         JOIN host_capacity k ON k.host_id = h.id WHERE h.removed IS NULL AND h.resource_state = 'Maintenance' AND k.vms <> 0",
    ),
    check(
        "host-emptied",
        Late,
        Work,
        None,
        "A host is said to be being emptied and nobody does it, or the other way round.",
        "cancelHostMaintenance. If the host isn't in maintenance, delete its row from `host_maintenances`.",
        "SELECT 'host/' || h.uuid, h.name || ' is ' || h.resource_state || ', and nobody empties it', NULL FROM hosts h \
         LEFT JOIN host_maintenances m ON m.host_id = h.id WHERE h.removed IS NULL AND m.host_id IS NULL \
         AND h.resource_state IN ('PrepareForMaintenance', 'ErrorInMaintenance') UNION ALL \
         SELECT 'host/' || COALESCE(h.uuid, '' || m.host_id), 'is emptied, and is ' || COALESCE(h.resource_state, 'gone'), NULL \
         FROM host_maintenances m LEFT JOIN hosts h ON h.id = m.host_id WHERE h.id IS NULL OR h.removed IS NOT NULL \
         OR h.resource_state NOT IN ('PrepareForMaintenance', 'ErrorInMaintenance')",
    ),
    check(
        "evacuation-lost",
        Leak,
        Work,
        None,
        "A machine is taken off a host that isn't emptied any more.",
        "Delete its row from `host_evacuations`.",
        "SELECT 'vm/' || COALESCE(v.uuid, '' || e.vm_id), 'is taken off host ' || e.host_id || ', which nobody empties', NULL \
         FROM host_evacuations e LEFT JOIN vms v ON v.id = e.vm_id WHERE NOT EXISTS (SELECT 1 FROM host_maintenances m \
         WHERE m.host_id = e.host_id)",
    ),
    check(
        "host-address",
        Leak,
        Work,
        None,
        "A management address is held by a host or router that is gone, or lies outside of its pod's zone.",
        "Delete it from `pod_ips`.",
        "SELECT 'address/' || i.ip, 'is held by ' || i.holder || ', which is gone', '' || i.taken FROM pod_ips i WHERE \
         (i.holder LIKE 'host/%' AND NOT EXISTS (SELECT 1 FROM hosts h WHERE h.uuid = SUBSTR(i.holder, 6) AND h.removed IS NULL)) \
         OR (i.holder LIKE 'router/%' AND NOT EXISTS (SELECT 1 FROM routers r WHERE r.uuid = SUBSTR(i.holder, 8) AND r.removed IS NULL)) \
         OR NOT EXISTS (SELECT 1 FROM pods p WHERE p.id = i.pod_id AND p.zone_id = i.zone_id AND p.removed IS NULL)",
    ),
    check(
        "debt-unpaid",
        Late,
        Round,
        ids("host_debts"),
        "A connected host has owed an order for five minutes, or a host that is gone owes one for ever: a machine may still run there.",
        "See the log of the host's agent; reconnectHost has it pay. Of a host that is gone, delete the debt from `host_debts`.",
        "SELECT 'debt/' || d.id, 'host ' || d.host_id || ' owes an order about ' || COALESCE(d.vm_uuid, 'something'), NULL FROM host_debts d \
         LEFT JOIN hosts h ON h.id = d.host_id WHERE {page:d.id} AND (h.id IS NULL OR h.removed IS NOT NULL OR (h.status = 'Up' \
         AND d.created < {now-300s}))",
    ),
    check(
        "os-type",
        Grave,
        Moment,
        ids("os_types"),
        "A guest OS type of a category that doesn't exist.",
        "Correct `category_id` of it.",
        "SELECT 'ostype/' || t.uuid, t.name || ' is of category ' || t.category_id || ', which doesn''t exist', NULL FROM os_types t \
         WHERE {page:t.id} AND t.removed IS NULL AND NOT EXISTS (SELECT 1 FROM os_categories c WHERE c.id = t.category_id)",
    ),
    check(
        "offering-domain",
        Grave,
        Moment,
        None,
        "An offering is for a domain that doesn't exist, or for another one than its path says: nobody sees it.",
        "Correct `domain_id` and `domain_path` of it.",
        "SELECT 'serviceoffering/' || o.uuid, o.name || ' is for domain ' || o.domain_id || ', which is gone or elsewhere', NULL \
         FROM service_offerings o LEFT JOIN domains d ON d.id = o.domain_id WHERE o.removed IS NULL AND o.domain_id IS NOT NULL \
         AND (d.id IS NULL OR d.removed IS NOT NULL OR d.path <> COALESCE(o.domain_path, '')) UNION ALL \
         SELECT 'diskoffering/' || o.uuid, o.name || ' is for domain ' || o.domain_id || ', which is gone or elsewhere', NULL \
         FROM disk_offerings o LEFT JOIN domains d ON d.id = o.domain_id WHERE o.removed IS NULL AND o.domain_id IS NOT NULL \
         AND (d.id IS NULL OR d.removed IS NOT NULL OR d.path <> COALESCE(o.domain_path, ''))",
    ),
    check(
        "absence-leaked",
        Leak,
        Round,
        None,
        "The absence of a host that is gone, or of a connection that is long over, is still noted.",
        "Delete the row from `host_absences`.",
        "SELECT 'absence/' || a.host_id, 'of connection ' || a.conn_epoch || ' is over', NULL FROM host_absences a LEFT JOIN hosts h \
         ON h.id = a.host_id WHERE h.id IS NULL OR h.removed IS NOT NULL OR h.conn_epoch > a.conn_epoch",
    ),
];
