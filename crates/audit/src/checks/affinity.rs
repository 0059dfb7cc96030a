//! Affinity groups and dedications.

use super::{check, ids, numbers};
use crate::check::Check;
use crate::check::Settle::{Moment, Round};
use crate::check::Severity::{Grave, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "affinity-apart",
        Grave,
        Moment,
        ids("affinity_groups"),
        "Two machines of a host anti-affinity group are on one host: one failure ends both.",
        "Move one of them (migrateVirtualMachine), or stop and start it.",
        "SELECT 'affinity/' || g.uuid, COUNT(*) || ' of its machines are on host ' || h.name, NULL FROM affinity_groups g \
         JOIN affinity_group_vms m ON m.group_id = g.id JOIN vm_capacity c ON c.vm_id = m.vm_id JOIN hosts h ON h.id = c.host_id \
         WHERE {page:g.id} AND g.removed IS NULL AND g.type = 'host anti-affinity' GROUP BY g.uuid, h.id, h.name HAVING COUNT(*) > 1",
    ),
    check(
        "affinity-together",
        Grave,
        Moment,
        ids("affinity_groups"),
        "Machines of a host affinity group are on several hosts.",
        "Stop those that are elsewhere, and start them.",
        "SELECT 'affinity/' || g.uuid, 'its machines are on ' || COUNT(DISTINCT c.host_id) || ' hosts', NULL FROM affinity_groups g \
         JOIN affinity_group_vms m ON m.group_id = g.id JOIN vm_capacity c ON c.vm_id = m.vm_id WHERE {page:g.id} \
         AND g.removed IS NULL AND g.type = 'host affinity' GROUP BY g.uuid HAVING COUNT(DISTINCT c.host_id) > 1",
    ),
    check(
        "affinity-member",
        Leak,
        Moment,
        numbers("affinity_group_vms", "group_id"),
        "An affinity group that is gone has members, or a machine that is gone is in one, or one of another account or domain.",
        "Delete it from `affinity_group_vms`.",
        "SELECT 'affinity/' || COALESCE(g.uuid, '' || m.group_id), 'has machine ' || COALESCE(v.uuid, '' || m.vm_id), NULL \
         FROM affinity_group_vms m LEFT JOIN affinity_groups g ON g.id = m.group_id LEFT JOIN vms v ON v.id = m.vm_id \
         WHERE {page:m.group_id} AND (g.id IS NULL OR g.removed IS NOT NULL OR v.id IS NULL OR v.removed IS NOT NULL \
         OR (g.is_public = 0 AND g.account_id <> v.account_id) \
         OR (g.is_public = 1 AND SUBSTR(v.domain_path, 1, LENGTH(g.domain_path)) <> g.domain_path))",
    ),
    check(
        "affinity-owner",
        Leak,
        Round,
        ids("affinity_groups"),
        "An affinity group belongs to an account or domain that is gone.",
        "The duty `gone-owners` ends it; see its log.",
        "SELECT 'affinity/' || g.uuid, g.name || ' is of account ' || g.account_id || ' in domain ' || g.domain_id, NULL \
         FROM affinity_groups g LEFT JOIN accounts a ON a.id = g.account_id LEFT JOIN domains d ON d.id = g.domain_id \
         WHERE {page:g.id} AND g.removed IS NULL AND (a.id IS NULL OR a.removed IS NOT NULL OR d.id IS NULL OR d.removed IS NOT NULL)",
    ),
    check(
        "dedication-host",
        Grave,
        Moment,
        numbers("host_capacity", "host_id"),
        "A host isn't kept for whom dedications say: others are placed there, or those who may aren't.",
        "releaseDedicatedHost (or -Cluster, -Pod, -Zone) and dedicate it again.",
        "SELECT 'host/' || COALESCE(h.uuid, '' || s.host_id), 'is kept for group ' || COALESCE('' || s.has, 'none') || ', in a zone for ' || \
         COALESCE('' || s.zone_has, 'none') || '; dedications say ' || COALESCE('' || s.should, 'none') || ' and ' || \
         COALESCE('' || s.zone_should, 'none'), NULL FROM (SELECT k.host_id, k.dedicated_to AS has, k.zone_dedicated_to AS zone_has, \
         COALESCE((SELECT d.group_id FROM dedications d WHERE d.kind = 'Host' AND d.resource_id = k.host_id), \
         (SELECT d.group_id FROM dedications d WHERE d.kind = 'Cluster' AND d.resource_id = k.cluster_id), \
         (SELECT d.group_id FROM dedications d WHERE d.kind = 'Pod' AND d.resource_id = k.pod_id)) AS should, \
         (SELECT d.group_id FROM dedications d WHERE d.kind = 'Zone' AND d.resource_id = k.zone_id) AS zone_should \
         FROM host_capacity k WHERE {page:k.host_id}) s LEFT JOIN hosts h ON h.id = s.host_id \
         WHERE COALESCE(s.has, 0) <> COALESCE(s.should, 0) OR COALESCE(s.zone_has, 0) <> COALESCE(s.zone_should, 0)",
    ),
    check(
        "dedication-group",
        Grave,
        Moment,
        None,
        "Something is dedicated without a group by which machines get there, or a group of dedicated resources has none.",
        "Release the resource and dedicate it again; delete a group without resources (deleteAffinityGroup).",
        "SELECT 'dedication/' || d.uuid, d.kind || ' ' || d.resource_id || ' is kept for group ' || d.group_id || ', which is gone', NULL \
         FROM dedications d LEFT JOIN affinity_groups g ON g.id = d.group_id WHERE g.id IS NULL OR g.removed IS NOT NULL \
         OR g.type <> 'ExplicitDedication' UNION ALL \
         SELECT 'affinity/' || g.uuid, g.name || ' has no dedicated resources', NULL FROM affinity_groups g WHERE g.removed IS NULL \
         AND g.type = 'ExplicitDedication' AND NOT EXISTS (SELECT 1 FROM dedications d WHERE d.group_id = g.id)",
    ),
    check(
        "dedication-resource",
        Leak,
        Moment,
        None,
        "A zone, pod, cluster or host is dedicated and gone.",
        "Delete its row from `dedications`.",
        "SELECT 'dedication/' || d.uuid, d.kind || ' ' || d.resource_id || ' is gone', NULL FROM dedications d WHERE NOT EXISTS \
         (SELECT 1 FROM zones r WHERE d.kind = 'Zone' AND r.id = d.resource_id AND r.removed IS NULL) AND NOT EXISTS \
         (SELECT 1 FROM pods r WHERE d.kind = 'Pod' AND r.id = d.resource_id AND r.removed IS NULL) AND NOT EXISTS \
         (SELECT 1 FROM clusters r WHERE d.kind = 'Cluster' AND r.id = d.resource_id AND r.removed IS NULL) AND NOT EXISTS \
         (SELECT 1 FROM hosts r WHERE d.kind = 'Host' AND r.id = d.resource_id AND r.removed IS NULL)",
    ),
];
