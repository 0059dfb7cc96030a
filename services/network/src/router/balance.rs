//! The load balancing section of a spec. Pure.

use crate::store::snapshot::WantedBalancer;
use contract_agent as agent;

/// The section: rules with somebody behind them, in their order. Nobody listens on the port of one with nobody.
pub fn section(wanted: &[WantedBalancer], max_connections: Option<u32>) -> agent::LoadBalancers {
    let list = wanted.iter().filter(|b| !b.members.is_empty()).map(balancer).collect();
    agent::LoadBalancers { list, max_connections, ..agent::LoadBalancers::default() }
}

fn balancer(b: &WantedBalancer) -> agent::LoadBalancer {
    agent::LoadBalancer {
        id: b.uuid.clone(),
        public_ip: b.public_ip.clone(),
        public_port: u32::try_from(b.public_port).unwrap_or_default(),
        private_port: u32::try_from(b.private_port).unwrap_or_default(),
        algorithm: b.algorithm.clone(),
        protocol: b.protocol.clone().unwrap_or_else(|| "tcp".to_owned()),
        members: b.members.clone(),
        cidrs: b.cidrs.clone(),
        stickiness: b.stickiness.as_ref().map(|(method, params)| agent::Stickiness {
            method: method.clone(),
            params: params.clone().into_iter().collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn wanted(id: i64, members: &[&str]) -> WantedBalancer {
        WantedBalancer {
            id,
            uuid: format!("rule-{id}"),
            public_ip: "192.168.0.9".into(),
            public_port: 80 + id,
            private_port: 8080,
            algorithm: "leastconn".into(),
            protocol: None,
            cidrs: vec!["10.0.0.0/8".into()],
            stickiness: Some(("SourceBased".into(), BTreeMap::from([("expire".into(), "5m".into())]))),
            members: members.iter().map(|m| (*m).to_owned()).collect(),
        }
    }

    #[test]
    fn rules_with_members_are_told() {
        let section = section(&[wanted(1, &["10.1.1.5", "10.1.1.6"]), wanted(2, &[])], Some(99));
        assert_eq!((section.list.len(), section.max_connections), (1, Some(99)));
        let rule = &section.list[0];
        assert_eq!((rule.id.as_str(), rule.public_port, rule.private_port), ("rule-1", 81, 8080));
        assert_eq!((rule.protocol.as_str(), rule.algorithm.as_str()), ("tcp", "leastconn"));
        assert_eq!((rule.members.len(), rule.cidrs.len()), (2, 1));
        let stickiness = rule.stickiness.as_ref().unwrap();
        assert_eq!((stickiness.method.as_str(), stickiness.params["expire"].as_str()), ("SourceBased", "5m"));
    }
}
