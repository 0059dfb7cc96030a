//! Rules that go with what they were for: a VM, an address.

use super::Purpose;
use crate::store::ips;
use crate::store::routers::{self, Section};
use crate::store::rules::{self, Rule};
use contract::ApiError;
use events::{Record, UsageRecord};
use std::collections::BTreeSet;
use store::{Tx, now_micros};

/// The accounting fact of a rule; none for those that 4.11 doesn't count.
pub fn rule_usage(kind: &str, rule: &Rule, zone: i64) -> Option<Record> {
    let counted = matches!(rule.purpose, Purpose::PortForwarding | Purpose::StaticNat);
    counted.then(|| {
        Record::Usage(UsageRecord {
            kind: kind.to_owned(),
            owner: rule.owner.clone(),
            zone_id: zone,
            resource_id: rule.id,
            resource_uuid: rule.uuid.clone(),
            resource_name: rule.uuid.clone(),
            offering_id: None,
            template_id: None,
            size: None,
            resource_type: Some(rule.purpose.as_str().to_owned()),
            created: now_micros(),
        })
    })
}

/// A VM goes for good, its interfaces are marked removed by now: port forwarding to it goes, and static NAT of addresses
/// that stand for it, with the firewall rules of both. Nobody waits for the routers.
///
/// # Errors
/// Those of the database.
pub async fn leave_vm(tx: &mut Tx, vm: i64, zone: i64) -> Result<(), ApiError> {
    let mut gone: Vec<Rule> = Vec::new();
    for rule in rules::of_vm_in(tx, vm).await? {
        gone.extend(rules::with_related_in(tx, rule.id).await?);
    }
    let mut networks: BTreeSet<i64> = gone.iter().map(|r| r.network_id).collect();
    for ip in ips::of_vm_in(tx, vm).await? {
        let Some(network) = ip.network_id else { continue };
        gone.extend(rules::of_ip_in(tx, ip.id).await?.into_iter().filter(with_static_nat));
        ips::set_static(tx, ip.id, network, None).await?;
        networks.insert(network);
    }
    drop_all(tx, &gone, zone).await?;
    for network in networks {
        routers::raise_for(tx, network, &[Section::Nat, Section::Firewall]).await?;
    }
    Ok(())
}

/// Whether a rule of an address goes when its static NAT does (4.11: all of the firewall, and the address's ports).
pub fn with_static_nat(rule: &Rule) -> bool {
    matches!(rule.purpose, Purpose::Firewall | Purpose::StaticNat)
}

/// Addresses go back to the pool, or with their network: all their rules go.
///
/// # Errors
/// Those of the database.
pub async fn leave_ips(tx: &mut Tx, ips: &[i64], zone: i64) -> Result<(), ApiError> {
    for ip in ips {
        let gone = rules::of_ip_in(tx, *ip).await?;
        drop_all(tx, &gone, zone).await?;
    }
    Ok(())
}

/// Deletes rules, whatever their state, and tells accounting.
///
/// # Errors
/// Those of the database.
pub async fn drop_all(tx: &mut Tx, gone: &[Rule], zone: i64) -> Result<(), ApiError> {
    if gone.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = gone.iter().map(|r| r.id).collect();
    rules::delete_all(tx, &ids).await?;
    crate::balance::dropped(tx, gone, zone).await?;
    crate::balance::dropped(tx, gone, zone).await?;
    let records: Vec<Record> = gone
        .iter()
        // One that its job hasn't finished was never told of.
        .filter(|r| r.state == super::RuleState::Active || r.state == super::RuleState::Revoke)
        .filter_map(|r| rule_usage("NET.RULEDELETE", r, zone))
        .collect();
    events::record(tx, &records).await?;
    Ok(())
}
