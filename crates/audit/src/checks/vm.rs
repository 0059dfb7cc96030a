//! Virtual machines: state, place, capacity, names, and what they refer to.

use super::{check, ids, numbers};
use crate::check::Check;
use crate::check::Settle::{Moment, Round, Work};
use crate::check::Severity::{Grave, Late, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "vm-transitional",
        Late,
        Moment,
        ids("vms"),
        "A machine is on its way between states and no job takes it there: it is stuck.",
        "Ask its host whether it runs (the check of hosts does), and set `state` to that; then stop or start it.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' is ' || v.state || ' and no job works on it', '' || v.changed FROM vms v \
         WHERE {page:v.id} AND v.removed IS NULL AND v.state IN ('Starting', 'Stopping', 'Migrating', 'Expunging') \
         AND {free:'vm/' || v.id} AND NOT EXISTS (SELECT 1 FROM jobs j WHERE {live:j} AND j.instance_uuid = v.uuid)",
    ),
    check(
        "vm-host",
        Grave,
        Moment,
        ids("vms"),
        "A running machine is on no host or on one that is gone, or one that is off has a host.",
        "Set `host_id` to where it runs, or `state` to Stopped.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' is ' || v.state || ' on host ' || COALESCE(h.name, '' || v.host_id, 'none'), \
         '' || v.changed FROM vms v LEFT JOIN hosts h ON h.id = v.host_id WHERE {page:v.id} AND v.removed IS NULL AND \
         {free:'vm/' || v.id} AND ((v.state = 'Running' AND (h.id IS NULL OR h.removed IS NOT NULL)) OR \
         (v.state IN ('Stopped', 'Destroyed', 'Error') AND v.host_id IS NOT NULL))",
    ),
    check(
        "vm-place",
        Grave,
        Moment,
        ids("vms"),
        "A machine is on a host of another zone, pod or cluster than its row says.",
        "Correct `zone_id`, `pod_id` and `cluster_id` of it.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' is on host ' || h.name || ', which is elsewhere', '' || v.changed FROM vms v \
         JOIN hosts h ON h.id = v.host_id WHERE {page:v.id} AND v.removed IS NULL AND {free:'vm/' || v.id} AND (h.zone_id <> v.zone_id \
         OR h.pod_id <> COALESCE(v.pod_id, 0) OR h.cluster_id <> COALESCE(v.cluster_id, 0))",
    ),
    check(
        "vm-capacity",
        Leak,
        Moment,
        numbers("vm_capacity", "vm_id"),
        "A machine holds capacity of a host where it isn't.",
        "Delete it from `vm_capacity`, and subtract it from the host's `host_capacity`.",
        "SELECT 'vm/' || COALESCE(v.uuid, '' || k.vm_id), 'is ' || COALESCE(v.state, 'gone') || ' and holds capacity of host ' || k.host_id, \
         '' || k.taken FROM vm_capacity k LEFT JOIN vms v ON v.id = k.vm_id WHERE {page:k.vm_id} AND (v.id IS NULL OR v.removed IS NOT NULL \
         OR v.state NOT IN ('Starting', 'Running', 'Stopping', 'Migrating') OR v.host_id IS NULL OR v.host_id <> k.host_id) \
         AND {free:'vm/' || k.vm_id}",
    ),
    check(
        "vm-move",
        Leak,
        Moment,
        numbers("vm_moves", "vm_id"),
        "A machine that doesn't move holds capacity of a second host.",
        "Delete it from `vm_moves`, and subtract it from the host's `host_capacity`.",
        "SELECT 'vm/' || COALESCE(v.uuid, '' || k.vm_id), 'is ' || COALESCE(v.state, 'gone') || ' and holds capacity of host ' || k.host_id || \
         ' as if it moved', '' || k.taken FROM vm_moves k LEFT JOIN vms v ON v.id = k.vm_id WHERE {page:k.vm_id} AND (v.id IS NULL \
         OR v.removed IS NOT NULL OR v.state <> 'Migrating') AND {free:'vm/' || k.vm_id}",
    ),
    check(
        "vm-without-capacity",
        Grave,
        Moment,
        ids("vms"),
        "A machine runs and holds no capacity: its host can be over-filled.",
        "Write its row of `vm_capacity`, and add it to the host's `host_capacity`.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' runs and holds no capacity', '' || v.changed FROM vms v WHERE {page:v.id} \
         AND v.state = 'Running' AND v.removed IS NULL AND NOT EXISTS (SELECT 1 FROM vm_capacity k WHERE k.vm_id = v.id)",
    ),
    check(
        "vm-capacity-amount",
        Grave,
        Moment,
        numbers("vm_capacity", "vm_id"),
        "A running machine holds more or less of its host than it has.",
        "Correct `vm_capacity` of it, and `host_capacity` by the difference.",
        "SELECT 'vm/' || v.uuid, 'has ' || v.cpu * v.cpu_mhz || ' MHz and ' || v.memory_mb || ' MiB; it holds ' || k.cpu_mhz || ' MHz and ' || \
         k.memory || ' bytes', '' || k.taken FROM vm_capacity k JOIN vms v ON v.id = k.vm_id WHERE {page:k.vm_id} AND v.state = 'Running' \
         AND {free:'vm/' || v.id} AND (k.cpu_mhz <> v.cpu * v.cpu_mhz OR k.memory <> v.memory_mb * 1048576)",
    ),
    check(
        "vm-name-leaked",
        Leak,
        Moment,
        numbers("vm_names", "vm_id"),
        "A host name is taken in a network by a machine that is gone, or that has another one.",
        "Delete it from `vm_names`, or correct it.",
        "SELECT 'name/' || n.network_id || '/' || n.name_lower, 'belongs to machine ' || n.vm_id || ', which is ' || \
         CASE WHEN v.id IS NULL OR v.removed IS NOT NULL THEN 'gone' ELSE 'called ' || v.name_lower END, NULL FROM vm_names n \
         LEFT JOIN vms v ON v.id = n.vm_id WHERE {page:n.vm_id} AND (v.id IS NULL OR v.removed IS NOT NULL OR v.name_lower <> n.name_lower)",
    ),
    check(
        "vm-group",
        Grave,
        Moment,
        ids("vms"),
        "A machine is in a group that is gone, or in one of another account.",
        "Set `group_id` of it to NULL.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' is in group ' || v.group_id || ', which is gone or another account''s', '' || v.changed \
         FROM vms v LEFT JOIN instance_groups g ON g.id = v.group_id WHERE {page:v.id} AND v.group_id IS NOT NULL AND v.removed IS NULL \
         AND (g.id IS NULL OR g.account_id <> v.account_id)",
    ),
    check(
        "vm-iso",
        Grave,
        Moment,
        ids("vms"),
        "A machine has in its CD drive what is no ISO, or one that is gone.",
        "Detach it, or set `iso_id` of the machine to NULL.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' has ' || v.iso_id || ' in its drive, which is gone or no ISO', '' || v.changed \
         FROM vms v LEFT JOIN templates t ON t.id = v.iso_id WHERE {page:v.id} AND v.iso_id IS NOT NULL AND v.removed IS NULL \
         AND v.state NOT IN ('Error', 'Expunging') AND (t.id IS NULL OR t.removed IS NOT NULL OR t.format <> 'ISO')",
    ),
    check(
        "vm-parts",
        Grave,
        Work,
        ids("vms"),
        "A machine has a volume or a network interface of another account.",
        "Whoever has the machine has them: write its owner into `volumes` and `nics`, and into `limit_reservations`.",
        "SELECT 'vm/' || s.uuid, 'has ' || s.disks || ' volumes and ' || s.nics || ' NICs of other accounts', '' || s.changed FROM \
         (SELECT v.uuid, v.changed, (SELECT COUNT(*) FROM volumes o WHERE o.vm_id = v.id AND o.removed IS NULL AND \
         o.account_id <> v.account_id) AS disks, (SELECT COUNT(*) FROM nics n WHERE n.vm_id = v.id AND n.removed IS NULL \
         AND n.account_id <> v.account_id) AS nics FROM vms v WHERE {page:v.id} AND v.removed IS NULL AND {free:'vm/' || v.id}) s \
         WHERE s.disks > 0 OR s.nics > 0",
    ),
    check(
        "vm-without-nic",
        Grave,
        Moment,
        ids("vms"),
        "A machine runs without a network interface.",
        "Stop and destroy it, or give it an interface.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' runs without a NIC', '' || v.changed FROM vms v WHERE {page:v.id} \
         AND v.state = 'Running' AND v.removed IS NULL AND {free:'vm/' || v.id} AND NOT EXISTS (SELECT 1 FROM nics n \
         WHERE n.vm_id = v.id AND n.removed IS NULL)",
    ),
    check(
        "vm-without-root",
        Grave,
        Moment,
        ids("vms"),
        "A machine exists without exactly one root disk.",
        "See `volumes` of the machine, removed ones too, and the disks on its pool.",
        "SELECT 'vm/' || s.uuid, s.instance_name || ' has ' || s.n || ' ROOT volumes', '' || s.changed FROM (SELECT v.uuid, v.instance_name, \
         v.changed, (SELECT COUNT(*) FROM volumes o WHERE o.vm_id = v.id AND o.kind = 'ROOT' AND o.removed IS NULL) AS n FROM vms v \
         WHERE {page:v.id} AND v.state IN ('Running', 'Stopped', 'Destroyed') AND v.removed IS NULL AND {free:'vm/' || v.id}) s WHERE s.n <> 1",
    ),
    check(
        "vm-destroyed",
        Leak,
        Moment,
        ids("vms"),
        "A machine was destroyed, or failed, and the time isn't noted: it is never expunged.",
        "Set `destroyed` of it to now.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' is ' || v.state || ' since nobody knows when', '' || v.changed FROM vms v \
         WHERE {page:v.id} AND v.removed IS NULL AND v.state IN ('Destroyed', 'Error') AND v.destroyed IS NULL AND {free:'vm/' || v.id}",
    ),
    check(
        "vm-reference",
        Grave,
        Moment,
        ids("vms"),
        "A machine refers to a zone, template, offering or OS type that has no row: lists leave it out, starts fail.",
        "Correct the reference.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' refers to a zone, template, offering or OS type that doesn''t exist', '' || v.changed \
         FROM vms v WHERE {page:v.id} AND v.removed IS NULL AND (NOT EXISTS (SELECT 1 FROM zones x WHERE x.id = v.zone_id) OR \
         NOT EXISTS (SELECT 1 FROM templates x WHERE x.id = v.template_id) OR \
         NOT EXISTS (SELECT 1 FROM service_offerings x WHERE x.id = v.service_offering_id) OR \
         (v.disk_offering_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM disk_offerings x WHERE x.id = v.disk_offering_id)) OR \
         (v.os_type_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM os_types x WHERE x.id = v.os_type_id)))",
    ),
    check(
        "vm-generation",
        Grave,
        Work,
        ids("vms"),
        "A running machine was never given an epoch: its disks aren't protected from a second writer.",
        "Stop and start it.",
        "SELECT 'vm/' || v.uuid, v.instance_name || ' runs with generation ' || v.generation, '' || v.changed FROM vms v WHERE {page:v.id} \
         AND v.removed IS NULL AND v.state = 'Running' AND v.generation < 1 AND {free:'vm/' || v.id}",
    ),
    check(
        "restart-leaked",
        Leak,
        Round,
        None,
        "A machine that doesn't exist is to be started again, or its restart waits for a job that has ended.",
        "Delete the row from `vm_restarts`, or set `job` of it to NULL.",
        "SELECT 'restart/' || r.vm_id, 'of machine ' || COALESCE(v.instance_name, 'unknown') || ' waits for job ' || COALESCE(r.job, 'none'), \
         '' || r.attempts FROM vm_restarts r LEFT JOIN vms v ON v.id = r.vm_id WHERE v.id IS NULL OR v.removed IS NOT NULL OR EXISTS \
         (SELECT 1 FROM jobs j WHERE j.uuid = r.job AND j.state IN ('Done', 'Failed'))",
    ),
];
