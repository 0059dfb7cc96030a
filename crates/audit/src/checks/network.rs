//! Networks, VLANs, routers, and the physical networks under them.

use super::{check, ids, numbers};
use crate::check::Check;
use crate::check::Settle::{Moment, Round};
use crate::check::Severity::{Grave, Late, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "vlan-leaked",
        Leak,
        Moment,
        numbers("vnets", "network_id"),
        "A VLAN is held by a network that is gone, or that uses another one.",
        "Delete it from `vnets`.",
        "SELECT 'vlan/' || x.physical_network_id || '/' || x.vnet, 'is held by network ' || x.network_id || ', which is ' || \
         CASE WHEN w.id IS NULL OR w.removed IS NOT NULL THEN 'gone' ELSE 'on VLAN ' || COALESCE('' || w.vnet, 'none') END, '' || x.taken \
         FROM vnets x LEFT JOIN networks w ON w.id = x.network_id WHERE {page:x.network_id} AND (w.id IS NULL OR w.removed IS NOT NULL \
         OR w.vnet IS NULL OR w.vnet <> x.vnet)",
    ),
    check(
        "vlan-unheld",
        Grave,
        Moment,
        ids("networks"),
        "A network uses a VLAN that it doesn't hold: another network may get the same.",
        "Write the VLAN into `vnets` for it; when another has it, restart this network with cleanup.",
        "SELECT 'network/' || w.uuid, 'uses VLAN ' || w.vnet || ' and doesn''t hold it', NULL FROM networks w WHERE {page:w.id} \
         AND w.removed IS NULL AND w.vnet IS NOT NULL AND w.is_system = 0 AND w.specified_vlan = 0 AND NOT EXISTS (SELECT 1 FROM vnets x \
         WHERE x.network_id = w.id AND x.vnet = w.vnet AND x.physical_network_id = w.physical_network_id)",
    ),
    check(
        "vlan-twice",
        Grave,
        Moment,
        None,
        "Two networks use the same VLAN of a physical network: tenants see each other.",
        "Restart one of them with cleanup (restartNetwork): it gets another one.",
        "SELECT 'vlan/' || w.physical_network_id || '/' || w.vnet, 'is used by ' || COUNT(*) || ' networks', NULL FROM networks w \
         WHERE w.removed IS NULL AND w.vnet IS NOT NULL AND w.specified_vlan = 0 AND w.is_system = 0 \
         GROUP BY w.physical_network_id, w.vnet HAVING COUNT(*) > 1",
    ),
    check(
        "network-transitional",
        Late,
        Round,
        ids("networks"),
        "A network has been on its way up or down for a minute, and no job takes it there.",
        "restartNetwork with cleanup.",
        "SELECT 'network/' || w.uuid, 'is ' || w.state || ' and nobody works on it', '' || w.touched FROM networks w WHERE {page:w.id} \
         AND w.removed IS NULL AND w.is_system = 0 AND (w.state IN ('Shutdown', 'Destroy') OR (w.state = 'Implementing' AND NOT EXISTS \
         (SELECT 1 FROM routers r WHERE r.live_network = w.id AND r.state = 'Running'))) AND {free:'network/' || w.id}",
    ),
    check(
        "network-router",
        Grave,
        Moment,
        ids("networks"),
        "A network in use has no router although its offering needs one, or a network that isn't in use has one.",
        "restartNetwork with cleanup.",
        "SELECT 'network/' || w.uuid, 'is ' || w.state || CASE WHEN r.id IS NULL THEN ' without a router' ELSE ' with router ' || r.name END, NULL \
         FROM networks w JOIN network_offerings o ON o.id = w.offering_id LEFT JOIN routers r ON r.live_network = w.id WHERE {page:w.id} \
         AND w.removed IS NULL AND w.is_system = 0 AND {free:'network/' || w.id} AND ((w.state = 'Implemented' AND r.id IS NULL \
         AND INSTR(o.services, '\"VirtualRouter\"') > 0) OR (w.state IN ('Allocated', 'Setup') AND r.id IS NOT NULL))",
    ),
    check(
        "network-reference",
        Grave,
        Moment,
        ids("networks"),
        "A network refers to a zone, physical network or offering that has no row or is gone.",
        "Correct the reference.",
        "SELECT 'network/' || w.uuid, 'refers to a zone, physical network or offering that doesn''t exist', NULL FROM networks w \
         WHERE {page:w.id} AND w.removed IS NULL AND (NOT EXISTS (SELECT 1 FROM zones x WHERE x.id = w.zone_id AND x.removed IS NULL) OR \
         (w.physical_network_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM physical_networks x WHERE x.id = w.physical_network_id \
         AND x.removed IS NULL)) OR (w.is_system = 0 AND NOT EXISTS (SELECT 1 FROM network_offerings x WHERE x.id = w.offering_id)))",
    ),
    check(
        "router-leaked",
        Leak,
        Moment,
        ids("routers"),
        "A router serves a network that is gone, or has given its place to another.",
        "Set `removed` of it, `live_network` to NULL, and write it into `router_leftovers` for its host.",
        "SELECT 'router/' || r.uuid, r.name || ' serves network ' || r.network_id || ', which is gone', NULL FROM routers r \
         LEFT JOIN networks w ON w.id = r.network_id WHERE {page:r.id} AND ((r.removed IS NULL AND (w.id IS NULL OR w.removed IS NOT NULL \
         OR r.live_network IS NULL OR r.live_network <> r.network_id)) OR (r.removed IS NOT NULL AND r.live_network IS NOT NULL))",
    ),
    check(
        "router-generation",
        Grave,
        Moment,
        ids("routers"),
        "A router is said to have applied more than was ever wanted: changes will be taken for applied that aren't.",
        "Raise `generation` beyond `applied`.",
        "SELECT 'router/' || r.uuid, r.name || ' has applied ' || r.applied || ' of ' || r.generation || ' (' || r.spec_generation || ')', NULL \
         FROM routers r WHERE {page:r.id} AND r.removed IS NULL AND (r.applied > r.generation OR r.spec_generation > r.generation)",
    ),
    check(
        "router-behind",
        Late,
        Round,
        ids("routers"),
        "A router on a connected host hasn't applied a change for a minute: guests lack an address or a rule.",
        "See `faults` of the router and its host's log; rebootRouter applies all of it anew.",
        "SELECT 'router/' || r.uuid, r.name || ' has applied ' || r.applied || ' of ' || r.generation, r.applied || '/' || r.epoch \
         FROM routers r JOIN hosts h ON h.id = r.host_id AND h.removed IS NULL AND h.status = 'Up' WHERE {page:r.id} AND r.removed IS NULL \
         AND r.applied < r.generation AND r.touched < {now-60s}",
    ),
    check(
        "router-host",
        Grave,
        Round,
        ids("routers"),
        "A router is on a host that is gone.",
        "restartNetwork of its network.",
        "SELECT 'router/' || r.uuid, r.name || ' is on host ' || COALESCE('' || r.host_id, 'none') || ', which is gone', '' || r.epoch \
         FROM routers r LEFT JOIN hosts h ON h.id = r.host_id WHERE {page:r.id} AND r.removed IS NULL AND r.state <> 'Stopped' \
         AND (h.id IS NULL OR h.removed IS NOT NULL)",
    ),
    check(
        "leftover-wanted",
        Grave,
        Moment,
        None,
        "A router is to be removed from the very host where it is wanted.",
        "Delete it from `router_leftovers`.",
        "SELECT 'router/' || l.router_uuid, r.name || ' is to be removed from its host ' || l.host_id, NULL FROM router_leftovers l \
         JOIN routers r ON r.uuid = l.router_uuid AND r.host_id = l.host_id AND r.removed IS NULL",
    ),
    check(
        "leftover-late",
        Late,
        Round,
        None,
        "A connected host hasn't dropped a router for five minutes: two routers may answer in a network.",
        "See the host's log; it is tried again by itself.",
        "SELECT 'router/' || l.router_uuid, 'should be gone from host ' || l.host_id || ' for five minutes', NULL FROM router_leftovers l \
         JOIN hosts h ON h.id = l.host_id AND h.removed IS NULL AND h.status = 'Up' WHERE l.created < {now-300s}",
    ),
    check(
        "physical-parent",
        Grave,
        Moment,
        None,
        "A traffic type, provider, router element or address range of a physical network or network that is gone.",
        "Set `removed` of it (and `live_key` to NULL), or delete it.",
        "SELECT 'physicalnetwork/' || x.uuid, x.name || ' is in zone ' || x.zone_id || ', which is gone', NULL FROM physical_networks x \
         WHERE x.removed IS NULL AND NOT EXISTS (SELECT 1 FROM zones z WHERE z.id = x.zone_id AND z.removed IS NULL) UNION ALL \
         SELECT 'traffictype/' || x.uuid, x.traffic_type || ' is of a physical network that is gone', NULL FROM traffic_types x \
         WHERE x.removed IS NULL AND NOT EXISTS (SELECT 1 FROM physical_networks p WHERE p.id = x.physical_network_id AND p.removed IS NULL) \
         UNION ALL SELECT 'provider/' || x.uuid, x.name || ' is of a physical network that is gone', NULL FROM network_providers x \
         WHERE x.removed IS NULL AND NOT EXISTS (SELECT 1 FROM physical_networks p WHERE p.id = x.physical_network_id AND p.removed IS NULL) \
         UNION ALL SELECT 'routerelement/' || x.uuid, 'is of a provider that doesn''t exist', NULL FROM router_elements x \
         WHERE x.removed IS NULL AND NOT EXISTS (SELECT 1 FROM network_providers p WHERE p.id = x.provider_id) \
         UNION ALL SELECT 'range/' || x.uuid, x.start_ip || ' to ' || x.end_ip || ' is of a network that is gone', NULL FROM vlan_ranges x \
         WHERE x.removed IS NULL AND NOT EXISTS (SELECT 1 FROM networks n WHERE n.id = x.network_id AND n.removed IS NULL)",
    ),
];
