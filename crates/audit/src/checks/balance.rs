//! Load balancing: what rules are beyond their rows, who is behind them, stickiness.

use super::{check, ids, numbers};
use crate::check::Check;
use crate::check::Settle::{Moment, Round};
use crate::check::Severity::{Grave, Late, Leak};

pub(super) const CHECKS: &[Check] = &[
    check(
        "balancer-lost",
        Grave,
        Moment,
        ids("firewall_rules"),
        "A load balancing rule lacks its ports and algorithm: no list shows it and no router has it, and its port can't be used.",
        "Delete it from `firewall_rules`, and make it anew.",
        "SELECT 'rule/' || f.uuid, 'has no row in load_balancers', NULL FROM firewall_rules f WHERE {page:f.id} \
         AND f.purpose = 'LoadBalancing' AND NOT EXISTS (SELECT 1 FROM load_balancers b WHERE b.rule_id = f.id)",
    ),
    check(
        "balancer-leaked",
        Leak,
        Moment,
        numbers("load_balancers", "rule_id"),
        "What a load balancing rule was is still there; the rule isn't.",
        "Delete it from `load_balancers`.",
        "SELECT 'balancer/' || b.rule_id, b.name || ' is of a rule that doesn''t exist', NULL FROM load_balancers b \
         WHERE {page:b.rule_id} AND NOT EXISTS (SELECT 1 FROM firewall_rules f WHERE f.id = b.rule_id AND f.purpose = 'LoadBalancing')",
    ),
    check(
        "balancer-state",
        Grave,
        Moment,
        ids("firewall_rules"),
        "A load balancing rule is Active with nobody behind it, or isn't although somebody is.",
        "Set its state: Active with members, else Add.",
        "SELECT 'rule/' || f.uuid, 'is ' || f.state || ' with ' || (SELECT COUNT(*) FROM lb_members m WHERE m.rule_id = f.id) || ' members', \
         NULL FROM firewall_rules f WHERE {page:f.id} AND f.purpose = 'LoadBalancing' AND {free:'rule/' || f.id} \
         AND ((f.state = 'Active' AND NOT EXISTS (SELECT 1 FROM lb_members m WHERE m.rule_id = f.id)) \
         OR (f.state = 'Add' AND EXISTS (SELECT 1 FROM lb_members m WHERE m.rule_id = f.id AND m.state = 'Active')))",
    ),
    check(
        "balancer-late",
        Late,
        Round,
        ids("firewall_rules"),
        "A load balancing rule is on its way in or out, and no job takes it there.",
        "Revoke: delete it by its command. Staged: delete it from `firewall_rules`.",
        "SELECT 'rule/' || f.uuid, 'is ' || f.state || ' and nobody works on it', f.state FROM firewall_rules f WHERE {page:f.id} \
         AND f.purpose = 'LoadBalancing' AND f.state NOT IN ('Add', 'Active') AND {free:'rule/' || f.id}",
    ),
    check(
        "member-lost",
        Leak,
        Moment,
        ids("lb_members"),
        "A member of a load balancing rule that is gone, or one whose interface is: another VM may get its address.",
        "Delete it from `lb_members`.",
        "SELECT 'member/' || m.id, m.ip || CASE WHEN f.id IS NULL THEN ' is of a rule that doesn''t exist' ELSE ' is of an interface that is gone, \
         in another network, or has another address' END, NULL FROM lb_members m LEFT JOIN firewall_rules f ON f.id = m.rule_id \
         LEFT JOIN nics n ON n.id = m.nic_id AND n.live_network = f.network_id AND n.vm_id = m.vm_id AND n.ip = m.ip \
         WHERE {page:m.id} AND (f.id IS NULL OR n.id IS NULL)",
    ),
    check(
        "member-late",
        Late,
        Round,
        ids("lb_members"),
        "A member has been on its way into or out of a load balancing rule for a minute, and no job takes it there.",
        "Add: set it Active. Revoke: delete it.",
        "SELECT 'member/' || m.id, m.ip || ' is ' || m.state || ' and nobody works on it', '' || m.created FROM lb_members m \
         WHERE {page:m.id} AND m.state <> 'Active' AND {free:'rule/' || m.rule_id}",
    ),
    check(
        "stickiness-lost",
        Leak,
        Moment,
        ids("lb_stickiness"),
        "A stickiness policy of a load balancing rule that is gone.",
        "Delete it from `lb_stickiness`.",
        "SELECT 'stickiness/' || s.uuid, s.name || ' is of a rule that doesn''t exist', NULL FROM lb_stickiness s WHERE {page:s.id} \
         AND NOT EXISTS (SELECT 1 FROM firewall_rules f WHERE f.id = s.rule_id AND f.purpose = 'LoadBalancing')",
    ),
    check(
        "stickiness-late",
        Late,
        Round,
        ids("lb_stickiness"),
        "A stickiness policy has been on its way for a minute, and no job takes it there.",
        "Revoke: delete it. Else set it Active.",
        "SELECT 'stickiness/' || s.uuid, s.name || ' is ' || s.state || ' and nobody works on it', '' || s.created FROM lb_stickiness s \
         WHERE {page:s.id} AND s.state <> 'Active' AND {free:'rule/' || s.rule_id}",
    ),
];
