//! Rules.

use super::tags;
use crate::rule::RuleState;
use crate::store::rules::{Rule, Target};
use crate::store::{ips, vms};
use contract_network as api;
use model::names::{Named, Table, named};
use std::collections::HashMap;
use store::{Db, Result};

/// What rules of a page have in common.
struct Around {
    ips: HashMap<i64, (String, String)>,
    networks: HashMap<i64, Named>,
    tags: HashMap<i64, Vec<contract::api::ResourceTag>>,
}

impl Around {
    async fn of(db: &Db, rows: &[Rule], tag_kind: &str) -> Result<Around> {
        Ok(Around {
            ips: ips::names(db, rows.iter().filter_map(|r| r.ip_id)).await?,
            networks: named(db, Table::Networks, rows.iter().map(|r| r.network_id)).await?,
            tags: tags(db, tag_kind, rows.iter().map(|r| r.id)).await?,
        })
    }

    fn ip(&self, rule: &Rule) -> (Option<String>, Option<String>) {
        rule.ip_id.and_then(|ip| self.ips.get(&ip).cloned()).unzip()
    }

    fn network(&self, rule: &Rule) -> Option<String> {
        self.networks.get(&rule.network_id).map(|n| n.uuid.clone())
    }
}

fn state(rule: &Rule) -> Option<String> {
    Some(if rule.state == RuleState::Revoke { "Deleting" } else { rule.state.as_str() }.to_owned())
}

fn int(value: Option<i64>) -> Option<i32> {
    value.and_then(|v| i32::try_from(v).ok())
}

/// Firewall rules, of both directions.
pub async fn firewall_rules(db: &Db, rows: &[Rule]) -> Result<Vec<api::FirewallRule>> {
    let mut around = Around::of(db, rows, "FirewallRule").await?;
    Ok(rows
        .iter()
        .map(|r| {
            let (ip_address_id, ip_address) = around.ip(r);
            api::FirewallRule {
                id: Some(r.uuid.clone()),
                protocol: Some(r.protocol.clone()),
                start_port: int(r.start_port),
                end_port: int(r.end_port),
                ip_address_id,
                network_id: around.network(r),
                ip_address,
                state: state(r),
                cidr_list: Some(r.cidrs.join(",")),
                icmp_type: int(r.icmp_type),
                icmp_code: int(r.icmp_code),
                tags: around.tags.remove(&r.id).unwrap_or_default(),
                for_display: Some(r.display),
                dest_cidr_list: Some(r.dest_cidrs.join(",")),
                ..api::FirewallRule::default()
            }
        })
        .collect())
}

/// Port forwarding rules.
pub async fn port_forwarding_rules(db: &Db, rows: &[Rule]) -> Result<Vec<api::PortForwardingRule>> {
    let mut around = Around::of(db, rows, "PortForwardingRule").await?;
    let machines = vms::by_ids(db, rows.iter().filter_map(|r| r.target.as_ref()).map(|t| t.vm_id)).await?;
    let port = |port: Option<i64>| port.map(|p| p.to_string());
    let guest = |r: &Rule, of: fn(&Target) -> i64| r.target.as_ref().map(|t| of(t).to_string());
    Ok(rows
        .iter()
        .map(|r| {
            let (ip_address_id, ip_address) = around.ip(r);
            let vm = r.target.as_ref().and_then(|t| machines.get(&t.vm_id));
            api::PortForwardingRule {
                id: Some(r.uuid.clone()),
                private_port: guest(r, |t| t.start_port),
                private_end_port: guest(r, |t| t.end_port),
                protocol: Some(r.protocol.clone()),
                public_port: port(r.start_port),
                public_end_port: port(r.end_port),
                virtual_machine_id: vm.map(|v| v.uuid.clone()),
                virtual_machine_name: vm.map(|v| v.name.clone()),
                virtual_machine_display_name: vm.map(|v| v.display_name.clone()),
                ip_address_id,
                ip_address,
                state: state(r),
                cidr_list: Some(r.cidrs.join(",")),
                tags: around.tags.remove(&r.id).unwrap_or_default(),
                vm_guest_ip: r.target.as_ref().map(|t| t.ip.clone()),
                network_id: around.network(r),
                for_display: Some(r.display),
                ..api::PortForwardingRule::default()
            }
        })
        .collect())
}

/// Rules of addresses that stand for a VM.
pub async fn ip_forwarding_rules(db: &Db, rows: &[Rule]) -> Result<Vec<api::IpForwardingRule>> {
    let mut addresses = HashMap::new();
    for ip in rows.iter().filter_map(|r| r.ip_id) {
        if !addresses.contains_key(&ip)
            && let Some(row) = ips::one(db, ip).await?
        {
            addresses.insert(ip, row);
        }
    }
    let machines = vms::by_ids(db, addresses.values().filter_map(|ip| ip.vm_id)).await?;
    Ok(rows
        .iter()
        .map(|r| {
            let ip = r.ip_id.and_then(|id| addresses.get(&id));
            let vm = ip.and_then(|ip| ip.vm_id).and_then(|vm| machines.get(&vm));
            api::IpForwardingRule {
                id: Some(r.uuid.clone()),
                protocol: Some(r.protocol.clone()),
                virtual_machine_id: vm.map(|v| v.uuid.clone()),
                virtual_machine_name: vm.map(|v| v.name.clone()),
                virtual_machine_display_name: vm.map(|v| v.display_name.clone()),
                // 4.11 shows its number, and no UUID.
                ip_address_id: r.ip_id,
                ip_address: ip.map(|ip| ip.ip.clone()),
                start_port: int(r.start_port),
                end_port: int(r.end_port),
                state: state(r),
                ..api::IpForwardingRule::default()
            }
        })
        .collect())
}
