//! Rules of public addresses and of what guests send: firewall, port forwarding, static NAT. What load balancing rules are
//! beyond that is in `balance`.

use super::{check, ids};
use crate::check::Check;
use crate::check::Settle::{Moment, Work};
use crate::check::Severity::{Grave, Late, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "rule-address",
        Grave,
        Moment,
        ids("firewall_rules"),
        "A rule is of a public address that is free, serves another network or belongs to another account, or of none.",
        "Delete it from `firewall_rules`, and raise `spec_generation` and `generation` of the network's router (rebootRouter).",
        "SELECT 'rule/' || f.uuid, f.purpose || ' is of address ' || COALESCE(i.ip, 'none') || ', which is ' || COALESCE(i.state, 'gone') || \
         ', for network ' || COALESCE('' || i.network_id, 'none'), NULL FROM firewall_rules f LEFT JOIN ip_addresses i ON i.id = f.ip_id \
         AND i.removed IS NULL WHERE {page:f.id} AND f.traffic = 'Ingress' AND (i.id IS NULL OR i.state = 'Free' \
         OR COALESCE(i.network_id, 0) <> f.network_id OR i.account_id <> f.account_id)",
    ),
    check(
        "rule-network",
        Leak,
        Moment,
        ids("firewall_rules"),
        "A rule is of a network that is gone.",
        "Delete it from `firewall_rules`.",
        "SELECT 'rule/' || f.uuid, f.purpose || ' is of network ' || f.network_id || ', which is gone', NULL FROM firewall_rules f \
         LEFT JOIN networks w ON w.id = f.network_id AND w.removed IS NULL WHERE {page:f.id} AND w.id IS NULL",
    ),
    check(
        "rule-machine",
        Grave,
        Moment,
        ids("firewall_rules"),
        "Ports are forwarded to a machine that is gone, or has another address: another machine may get the traffic.",
        "deletePortForwardingRule.",
        "SELECT 'rule/' || f.uuid, 'forwards to ' || COALESCE(f.vm_ip, 'no address') || ', which machine ' || COALESCE('' || f.vm_id, 'none') || \
         ' hasn''t in network ' || f.network_id, NULL FROM firewall_rules f LEFT JOIN nics n ON n.vm_id = f.vm_id AND n.ip = f.vm_ip \
         AND n.network_id = f.network_id AND n.removed IS NULL WHERE {page:f.id} AND f.purpose = 'PortForwarding' AND n.id IS NULL",
    ),
    check(
        "rule-late",
        Late,
        Work,
        ids("firewall_rules"),
        "A rule is on its way into or out of the router, and no job takes it there.",
        "Delete it by its command; or set its state to Active.",
        "SELECT 'rule/' || f.uuid, f.purpose || ' is ' || f.state || ' and no job works on it', f.state FROM firewall_rules f \
         WHERE {page:f.id} AND f.purpose <> 'LoadBalancing' AND f.state <> 'Active' AND {free:'rule/' || f.id} \
         AND {free:'rule/' || COALESCE(f.related_id, 0)} AND {free:'ip/' || COALESCE(f.ip_id, 0)}",
    ),
    check(
        "rule-related",
        Leak,
        Moment,
        ids("firewall_rules"),
        "A firewall rule was made for another rule, which is gone: a port stays open.",
        "deleteFirewallRule; or set `related_id` to NULL when the port is to stay open.",
        "SELECT 'rule/' || f.uuid, 'was made for rule ' || f.related_id || ', which is gone', NULL FROM firewall_rules f \
         WHERE {page:f.id} AND f.related_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM firewall_rules o WHERE o.id = f.related_id)",
    ),
    check(
        "rule-overlap",
        Grave,
        Moment,
        ids("firewall_rules"),
        "Two rules want the same port of an address: the router can't apply either.",
        "Delete one of them by its command.",
        "SELECT 'rule/' || f.uuid, f.purpose || ' wants ' || f.protocol || ' ports that rule ' || o.uuid || ' has', NULL FROM firewall_rules f \
         JOIN firewall_rules o ON o.ip_id = f.ip_id AND o.id < f.id AND o.purpose <> 'Firewall' AND o.start_port <= f.end_port \
         AND o.end_port >= f.start_port AND (o.protocol = f.protocol OR o.purpose <> f.purpose) WHERE {page:f.id} AND f.purpose <> 'Firewall'",
    ),
    check(
        "static-nat-shared",
        Grave,
        Moment,
        ids("firewall_rules"),
        "An address that stands for a machine has forwarded or balanced ports, or one that doesn't has rules for static NAT.",
        "disableStaticNat of it, or delete the rules by their commands.",
        "SELECT 'rule/' || f.uuid, f.purpose || ' is of address ' || i.ip || ', which ' || CASE WHEN i.is_static_nat <> 0 THEN 'stands' \
         ELSE 'doesn''t stand' END || ' for a machine', NULL FROM firewall_rules f JOIN ip_addresses i ON i.id = f.ip_id WHERE {page:f.id} \
         AND f.state <> 'Revoke' AND ((i.is_static_nat <> 0 AND f.purpose IN ('PortForwarding', 'LoadBalancing')) \
         OR (i.is_static_nat = 0 AND f.purpose = 'StaticNat'))",
    ),
];
