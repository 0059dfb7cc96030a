//! Which rules stand in each other's way (4.11, "detectRulesConflict"). Pure.
//!
//! Of one address, and among the Egress rules of one network:
//! * Firewall rules of the same protocol conflict when they overlap and have a source in common.
//! * A Firewall rule never conflicts with a rule of another purpose: it lets pass what the other one translates.
//! * Static NAT gives the whole address to one VM: no port of it can be forwarded or balanced.
//! * All others conflict when their ports overlap; two forwarding rules only when their protocol is the same, too.

use super::{Purpose, Traffic};
use crate::store::rules::Rule;
use contract::ApiError;

/// Fails where `new` can't stand beside the others. Its own row may be among them, and what its network's other
/// addresses have may not.
///
/// # Errors
/// 537 that names the rule in the way, or 431 for two ICMP rules, as 4.11.
pub fn check(new: &Rule, others: &[Rule]) -> Result<(), ApiError> {
    others.iter().filter(|other| other.id != new.id).try_for_each(|other| between(new, other))
}

fn between(new: &Rule, old: &Rule) -> Result<(), ApiError> {
    if new.network_id != old.network_id {
        return Err(ApiError::conflict(format!(
            "New rule is for a different network than what's specified in rule {}",
            old.uuid
        ))
        .with_entity(&old.uuid, "rule"));
    }
    let both_firewall = new.purpose == Purpose::Firewall && old.purpose == Purpose::Firewall;
    if both_firewall {
        return firewalls(new, old);
    }
    if new.purpose == Purpose::Firewall || old.purpose == Purpose::Firewall {
        return Ok(());
    }
    if (new.purpose == Purpose::StaticNat) != (old.purpose == Purpose::StaticNat) {
        return Err(ApiError::conflict(format!(
            "The address has the {} rule {}, and can't have one for {} beside it",
            old.purpose, old.uuid, new.purpose
        ))
        .with_entity(&old.uuid, "rule"));
    }
    let by_protocol = new.purpose == old.purpose && new.purpose != Purpose::LoadBalancing;
    if by_protocol && !new.protocol.eq_ignore_ascii_case(&old.protocol) {
        return Ok(());
    }
    ports(new, old)
}

fn firewalls(new: &Rule, old: &Rule) -> Result<(), ApiError> {
    if new.traffic != old.traffic || !new.protocol.eq_ignore_ascii_case(&old.protocol) {
        return Ok(());
    }
    if !common(&new.cidrs, &old.cidrs) || (new.traffic == Traffic::Egress && !common(&new.dest_cidrs, &old.dest_cidrs))
    {
        return Ok(());
    }
    if new.protocol.eq_ignore_ascii_case("icmp") {
        if (new.icmp_type, new.icmp_code) == (old.icmp_type, old.icmp_code) {
            return Err(ApiError::param(format!("New rule conflicts with existing rule id={}", old.uuid))
                .with_entity(&old.uuid, "rule"));
        }
        return Ok(());
    }
    ports(new, old)
}

/// Whether two lists name the same network; two empty ones both name every network.
fn common(a: &[String], b: &[String]) -> bool {
    (a.is_empty() && b.is_empty()) || a.iter().any(|cidr| b.contains(cidr))
}

fn ports(new: &Rule, old: &Rule) -> Result<(), ApiError> {
    // A rule without ports is for all of them, and conflicts only with its like.
    let ((Some(a), Some(b)), (Some(c), Some(d))) = ((new.start_port, new.end_port), (old.start_port, old.end_port))
    else {
        return match (new.range(), old.range()) {
            (None, None) => {
                // Clients look for these words to know that what they want is there.
                Err(ApiError::conflict(format!(
                    "There is already a firewall rule specified with protocol = {} and no ports: {}",
                    old.protocol, old.uuid
                ))
                .with_entity(&old.uuid, "rule"))
            }
            _ => Ok(()),
        };
    };
    if a <= d && c <= b {
        return Err(ApiError::conflict(format!(
            "The range specified, {a}-{b}, conflicts with rule {} which has {c}-{d}",
            old.uuid
        ))
        .with_entity(&old.uuid, "rule"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleState;
    use model::Owner;

    fn rule(id: i64, purpose: Purpose, protocol: &str, ports: Option<(i64, i64)>, cidrs: &[&str]) -> Rule {
        Rule {
            id,
            uuid: format!("rule-{id}"),
            purpose,
            traffic: Traffic::Ingress,
            state: RuleState::Active,
            ip_id: Some(1),
            network_id: 1,
            protocol: protocol.into(),
            start_port: ports.map(|p| p.0),
            end_port: ports.map(|p| p.1),
            icmp_type: None,
            icmp_code: None,
            cidrs: cidrs.iter().map(|c| (*c).to_owned()).collect(),
            dest_cidrs: Vec::new(),
            related_id: None,
            target: None,
            display: true,
            system: false,
            owner: Owner { account_id: 2, domain_id: 1, domain_path: "/1/".into() },
        }
    }

    const ALL: &[&str] = &["0.0.0.0/0"];

    fn code(new: &Rule, old: &Rule) -> Option<u16> {
        check(new, std::slice::from_ref(old)).err().map(|e| e.code)
    }

    #[test]
    fn firewall_rules_conflict_by_protocol_ports_and_source() {
        let old = rule(1, Purpose::Firewall, "tcp", Some((33, 44)), ALL);
        assert_eq!(code(&rule(2, Purpose::Firewall, "tcp", Some((40, 50)), ALL), &old), Some(537));
        assert_eq!(code(&rule(2, Purpose::Firewall, "tcp", Some((45, 50)), ALL), &old), None);
        assert_eq!(code(&rule(2, Purpose::Firewall, "udp", Some((40, 50)), ALL), &old), None);
        assert_eq!(code(&rule(2, Purpose::Firewall, "tcp", Some((40, 50)), &["10.0.0.0/8"]), &old), None);
        assert_eq!(code(&rule(1, Purpose::Firewall, "tcp", Some((40, 50)), ALL), &old), None, "its own row");
        assert_eq!(code(&rule(2, Purpose::Firewall, "tcp", None, ALL), &old), None);
        let all = rule(3, Purpose::Firewall, "tcp", None, ALL);
        assert_eq!(code(&rule(2, Purpose::Firewall, "tcp", None, ALL), &all), Some(537));
    }

    #[test]
    fn icmp_rules_conflict_by_type_and_code() {
        let icmp = |id, kind, code| Rule {
            icmp_type: Some(kind),
            icmp_code: Some(code),
            ..rule(id, Purpose::Firewall, "icmp", None, ALL)
        };
        assert_eq!(code(&icmp(2, 8, 0), &icmp(1, 8, 0)), Some(431));
        assert_eq!(code(&icmp(2, 0, 0), &icmp(1, 8, 0)), None);
    }

    #[test]
    fn egress_rules_are_told_apart_by_destination_too() {
        let egress = |id, to: &[&str]| Rule {
            traffic: Traffic::Egress,
            ip_id: None,
            dest_cidrs: to.iter().map(|c| (*c).to_owned()).collect(),
            ..rule(id, Purpose::Firewall, "tcp", Some((22, 22)), ALL)
        };
        assert_eq!(code(&egress(2, &["1.0.0.0/8"]), &egress(1, &["2.0.0.0/8"])), None);
        assert_eq!(code(&egress(2, &["1.0.0.0/8"]), &egress(1, &["1.0.0.0/8"])), Some(537));
        assert_eq!(code(&egress(2, &[]), &egress(1, &[])), Some(537));
    }

    #[test]
    fn purposes_share_an_address_by_ports() {
        let forward = rule(1, Purpose::PortForwarding, "tcp", Some((22, 25)), &[]);
        let balance = |ports| rule(2, Purpose::LoadBalancing, "tcp", Some(ports), &[]);
        assert_eq!(code(&balance((80, 80)), &forward), None);
        assert_eq!(code(&balance((25, 25)), &forward), Some(537));
        assert_eq!(code(&rule(2, Purpose::PortForwarding, "udp", Some((22, 25)), &[]), &forward), None);
        assert_eq!(code(&rule(2, Purpose::PortForwarding, "tcp", Some((20, 22)), &[]), &forward), Some(537));
        // A firewall rule for the same ports is what lets them through.
        assert_eq!(code(&rule(2, Purpose::Firewall, "tcp", Some((22, 25)), ALL), &forward), None);
        assert_eq!(code(&rule(2, Purpose::StaticNat, "tcp", Some((99, 99)), &[]), &forward), Some(537));
        let elsewhere = Rule { network_id: 2, ..rule(2, Purpose::PortForwarding, "tcp", Some((99, 99)), &[]) };
        assert_eq!(code(&elsewhere, &forward), Some(537));
    }
}
