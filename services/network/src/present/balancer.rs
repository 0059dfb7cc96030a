//! Load balancing rules and their stickiness policies.

use super::{Names, Wanted, tags};
use crate::rule::RuleState;
use crate::store::balancers::Balancer;
use crate::store::stickiness::{self, Policy};
use contract::ApiError;
use contract_network as api;
use store::Db;

/// Load balancing rules, with the jobs that work on them.
pub async fn balancers(db: &Db, rows: &[Balancer]) -> Result<Vec<api::LoadBalancerRule>, ApiError> {
    let wanted = Wanted {
        zones: rows.iter().map(|b| b.zone_id).collect(),
        accounts: rows.iter().map(|b| b.rule.owner.account_id).collect(),
        domains: rows.iter().map(|b| b.rule.owner.domain_id).collect(),
        networks: rows.iter().map(|b| b.rule.network_id).collect(),
        ..Wanted::default()
    };
    let names = Names::of(db, wanted).await?;
    let uuids: Vec<String> = rows.iter().map(|b| b.says.uuid.clone()).collect();
    let pending = jobs::view::pending(db, &uuids).await?;
    let mut all_tags = tags(db, "LoadBalancer", rows.iter().map(|b| b.rule.id)).await?;
    Ok(rows
        .iter()
        .map(|b| {
            let (zone_id, zone_name) = names.zone(b.zone_id);
            let (domain_id, domain) = names.domain(b.rule.owner.domain_id);
            let job = pending.get(&b.says.uuid);
            api::LoadBalancerRule {
                id: Some(b.says.uuid.clone()),
                name: Some(b.says.name.clone()),
                description: b.says.description.clone(),
                public_ip_id: Some(b.public_ip.0.clone()),
                public_ip: Some(b.public_ip.1.clone()),
                public_port: b.rule.start_port.map(|port| port.to_string()),
                private_port: Some(b.private_port.to_string()),
                algorithm: Some(b.says.algorithm.clone()),
                network_id: names.network(Some(b.rule.network_id)).0,
                cidr_list: (!b.rule.cidrs.is_empty()).then(|| b.rule.cidrs.join(",")),
                account: names.account(b.rule.owner.account_id),
                domain_id,
                domain,
                // 4.11 knows no state before Add here.
                state: Some(match b.rule.state {
                    RuleState::Staged => RuleState::Add.to_string(),
                    state => state.to_string(),
                }),
                zone_id,
                zone_name,
                protocol: b.says.protocol.clone(),
                tags: all_tags.remove(&b.rule.id).unwrap_or_default(),
                for_display: Some(b.says.display),
                job_id: job.map(|(uuid, _)| uuid.clone()),
                job_status: job.map(|(_, status)| *status),
                ..api::LoadBalancerRule::default()
            }
        })
        .collect())
}

/// A rule with its stickiness policies.
pub async fn stickiness(db: &Db, rule: &Balancer, policies: &[Policy]) -> Result<api::LbStickiness, ApiError> {
    let wanted = Wanted {
        accounts: vec![rule.rule.owner.account_id],
        domains: vec![rule.rule.owner.domain_id],
        ..Wanted::default()
    };
    let names = Names::of(db, wanted).await?;
    let (domain_id, domain) = names.domain(rule.rule.owner.domain_id);
    Ok(api::LbStickiness {
        lb_rule_id: Some(rule.says.uuid.clone()),
        account: names.account(rule.rule.owner.account_id),
        domain_id,
        domain,
        stickiness_policy: policies
            .iter()
            .map(|p| api::StickinessPolicy {
                id: Some(p.uuid.clone()),
                name: Some(p.name.clone()),
                method_name: Some(p.method.clone()),
                description: p.description.clone(),
                // As 4.11: said of those only that are on their way out.
                state: (p.state == stickiness::REVOKE).then(|| "Revoked".to_owned()),
                params: p.params.clone().into_iter().collect(),
                for_display: Some(p.display),
                ..api::StickinessPolicy::default()
            })
            .collect(),
        ..api::LbStickiness::default()
    })
}
