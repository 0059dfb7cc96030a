//! Interfaces and public addresses.

use super::{check, ids};
use crate::check::Check;
use crate::check::Settle::{Moment, Work};
use crate::check::Severity::{Grave, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "nic-leaked",
        Leak,
        Moment,
        ids("nics"),
        "An interface, with its address, belongs to a machine or router that is gone or failed, or to neither.",
        "Set `removed` of it, and `live_network` and `live_mac` to NULL.",
        "SELECT 'nic/' || n.uuid, COALESCE(n.ip, 'no address') || ' belongs to ' || COALESCE('machine ' || n.vm_id, 'router ' || n.router_id, \
         'nobody') || ', which is gone or failed', NULL FROM nics n LEFT JOIN vms v ON v.id = n.vm_id LEFT JOIN routers r ON r.id = n.router_id \
         WHERE {page:n.id} AND n.removed IS NULL AND ((n.vm_id IS NULL AND n.router_id IS NULL) OR (n.vm_id IS NOT NULL AND (v.id IS NULL \
         OR v.removed IS NOT NULL OR v.state = 'Error') AND {free:'vm/' || n.vm_id}) OR (n.router_id IS NOT NULL AND (r.id IS NULL \
         OR r.removed IS NOT NULL)))",
    ),
    check(
        "nic-network",
        Grave,
        Moment,
        ids("nics"),
        "An interface is in a network that is gone.",
        "Stop and destroy its machine, or correct `network_id`.",
        "SELECT 'nic/' || n.uuid, COALESCE(n.ip, 'no address') || ' is in network ' || n.network_id || ', which is gone', NULL FROM nics n \
         LEFT JOIN networks w ON w.id = n.network_id WHERE {page:n.id} AND n.removed IS NULL AND (w.id IS NULL OR w.removed IS NOT NULL)",
    ),
    check(
        "nic-key",
        Grave,
        Moment,
        ids("nics"),
        "An interface doesn't hold its address and MAC, or a removed one does: they can be given twice, or never again.",
        "Set `live_network` and `live_mac` to network and MAC of what lives, to NULL for what was removed.",
        "SELECT 'nic/' || n.uuid, COALESCE(n.ip, 'no address') || ' (' || n.mac || ') doesn''t hold what it has', NULL FROM nics n \
         WHERE {page:n.id} AND ((n.removed IS NULL AND (COALESCE(n.live_network, 0) <> n.network_id OR COALESCE(n.live_mac, '') <> n.mac)) \
         OR (n.removed IS NOT NULL AND (n.live_network IS NOT NULL OR n.live_mac IS NOT NULL)))",
    ),
    check(
        "nic-plugged",
        Leak,
        Work,
        ids("nics"),
        "An interface is plugged on a host where its machine doesn't run, or unplugged while it runs: networks shut down too late or too early.",
        "Set `state` and `host_id` of it to Reserved and the machine's host, or to Allocated and NULL.",
        "SELECT 'nic/' || n.uuid, 'is ' || n.state || ' on host ' || COALESCE('' || n.host_id, 'none') || '; its machine is ' || v.state || \
         ' on host ' || COALESCE('' || v.host_id, 'none'), '' || v.changed FROM nics n JOIN vms v ON v.id = n.vm_id WHERE {page:n.id} \
         AND n.removed IS NULL AND v.removed IS NULL AND {free:'vm/' || v.id} AND ((v.state = 'Running' AND (n.state <> 'Reserved' \
         OR COALESCE(n.host_id, 0) <> COALESCE(v.host_id, 0))) OR (v.state IN ('Stopped', 'Destroyed') AND n.state <> 'Allocated'))",
    ),
    check(
        "address-twice",
        Grave,
        Moment,
        ids("networks"),
        "Two interfaces of a network have the same address.",
        "Destroy one of the two machines, or give it another address.",
        "SELECT 'address/' || n.network_id || '/' || n.ip, 'is given ' || COUNT(*) || ' times', NULL FROM networks w JOIN nics n \
         ON n.network_id = w.id WHERE {page:w.id} AND n.removed IS NULL AND n.ip IS NOT NULL GROUP BY n.network_id, n.ip HAVING COUNT(*) > 1",
    ),
    check(
        "mac-twice",
        Grave,
        Moment,
        ids("nics"),
        "Two interfaces have the same MAC.",
        "Destroy one of the two machines, or give it another MAC.",
        "SELECT 'mac/' || n.mac, 'is given to nic ' || n.uuid || ' and to nic ' || m.uuid, NULL FROM nics n JOIN nics m ON m.live_mac = n.mac \
         WHERE {page:n.id} AND n.removed IS NULL AND m.id <> n.id",
    ),
    check(
        "nic-lease",
        Grave,
        Moment,
        ids("nics"),
        "An interface waits for a change of its router that was never wanted: its guest gets no address.",
        "Raise `generation` of the router beyond it (rebootRouter).",
        "SELECT 'nic/' || n.uuid, COALESCE(n.ip, 'no address') || ' waits for generation ' || n.lease_generation || ' of router ' || r.name || \
         ', which is at ' || r.generation, NULL FROM nics n JOIN routers r ON r.live_network = n.network_id WHERE {page:n.id} \
         AND n.removed IS NULL AND n.lease_generation > r.generation",
    ),
    check(
        "address-state",
        Grave,
        Moment,
        ids("ip_addresses"),
        "A public address is free and somebody's at once, or given out and nobody's.",
        "Disassociate it; or set it to Free, with account 0 and without network and holder.",
        "SELECT 'address/' || i.ip, 'is ' || i.state || ', of account ' || i.account_id || ', for network ' || COALESCE('' || i.network_id, 'none'), \
         i.holder FROM ip_addresses i WHERE {page:i.id} AND i.removed IS NULL AND {free:'ip/' || i.id} AND \
         ((i.state = 'Free' AND (i.network_id IS NOT NULL OR i.account_id <> 0 OR i.holder IS NOT NULL OR i.is_source_nat <> 0 \
         OR i.is_static_nat <> 0 OR i.vm_id IS NOT NULL)) OR (i.state <> 'Free' AND (i.network_id IS NULL OR i.account_id = 0)) \
         OR i.state NOT IN ('Free', 'Allocating', 'Allocated', 'Releasing'))",
    ),
    check(
        "address-stuck",
        Leak,
        Work,
        ids("ip_addresses"),
        "A public address is on its way to or from somebody, and no job takes it there.",
        "Disassociate it.",
        "SELECT 'address/' || i.ip, 'is ' || i.state || ' and no job works on it', i.holder FROM ip_addresses i WHERE {page:i.id} \
         AND i.removed IS NULL AND i.state IN ('Allocating', 'Releasing') AND {free:'ip/' || i.id} AND {free:'network/' || i.network_id}",
    ),
    check(
        "public-address-leaked",
        Leak,
        Moment,
        ids("ip_addresses"),
        "A public address serves a network that is gone.",
        "Disassociate it; or set it to Free, with account 0 and without network and holder.",
        "SELECT 'address/' || i.ip, 'is ' || i.state || ' for network ' || i.network_id || ', which is gone', i.holder FROM ip_addresses i \
         LEFT JOIN networks w ON w.id = i.network_id WHERE {page:i.id} AND i.removed IS NULL AND i.state <> 'Free' AND i.network_id IS NOT NULL \
         AND (w.id IS NULL OR w.removed IS NOT NULL) AND {free:'network/' || i.network_id}",
    ),
    check(
        "source-nat-twice",
        Grave,
        Moment,
        ids("networks"),
        "A network has two addresses by which its guests go out.",
        "Set `is_source_nat` of the one that its router doesn't have to 0.",
        "SELECT 'network/' || w.uuid, 'goes out by ' || COUNT(*) || ' addresses', NULL FROM networks w JOIN ip_addresses i ON i.network_id = w.id \
         WHERE {page:w.id} AND i.removed IS NULL AND i.is_source_nat <> 0 GROUP BY w.uuid HAVING COUNT(*) > 1",
    ),
    check(
        "router-address",
        Grave,
        Moment,
        ids("routers"),
        "A router has a public address that isn't its network's: two routers may answer for it.",
        "restartNetwork with cleanup.",
        "SELECT 'router/' || r.uuid, r.name || ' has ' || COALESCE(r.public_ip, 'no address') || ', which is not its network''s', NULL \
         FROM routers r LEFT JOIN ip_addresses i ON i.id = r.public_ip_id WHERE {page:r.id} AND r.removed IS NULL AND r.public_ip_id IS NOT NULL \
         AND (i.id IS NULL OR i.removed IS NOT NULL OR i.ip <> COALESCE(r.public_ip, '') OR COALESCE(i.network_id, 0) <> r.network_id) \
         AND {free:'network/' || r.network_id}",
    ),
    check(
        "address-range",
        Grave,
        Moment,
        ids("ip_addresses"),
        "A public address lies outside of its range, or its range is gone, or it isn't unique in its zone.",
        "Correct `vlan_range_id` and `live_zone` of it; release it first when somebody has it.",
        "SELECT 'address/' || i.ip, 'is not within its range ' || i.vlan_range_id, NULL FROM ip_addresses i LEFT JOIN vlan_ranges v \
         ON v.id = i.vlan_range_id WHERE {page:i.id} AND i.removed IS NULL AND (v.id IS NULL OR v.removed IS NOT NULL \
         OR i.ip_number < v.start_number OR i.ip_number > v.end_number OR COALESCE(i.live_zone, 0) <> i.zone_id OR v.zone_id <> i.zone_id)",
    ),
    check(
        "static-nat",
        Grave,
        Moment,
        ids("ip_addresses"),
        "A public address stands for a machine that is gone.",
        "disableStaticNat of it.",
        "SELECT 'address/' || i.ip, 'stands for machine ' || COALESCE('' || i.vm_id, 'none') || ', which is gone', i.holder FROM ip_addresses i \
         LEFT JOIN vms v ON v.id = i.vm_id WHERE {page:i.id} AND i.removed IS NULL AND (i.is_static_nat <> 0 OR i.vm_id IS NOT NULL) \
         AND (v.id IS NULL OR v.removed IS NOT NULL) AND {free:'ip/' || i.id}",
    ),
];
