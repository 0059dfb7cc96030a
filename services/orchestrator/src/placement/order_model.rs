//! The order of clusters and hosts against a plain model: everything as lists, sorted as the planners' meaning says.

use super::index::{Index, Wanted};
use super::planner::Planner;
use super::reserve::Amount;
use super::rules::Rules;
use super::strategy::{Algorithm, Limits, Resource, Strategy};
use crate::store::placement::HostRow;
use proptest::prelude::{Just, ProptestConfig, any, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Strategy_;
use std::collections::{HashMap, HashSet};

/// A host of the model: its cluster, what it has, and what is left of CPU and memory.
#[derive(Clone, Debug)]
struct Host {
    cluster: i64,
    total: i64,
    cpu: i64,
    memory: i64,
    accepting: bool,
}

fn host() -> impl Strategy_<Value = Host> {
    (1i64..6, 1i64..20, any::<u16>(), any::<u16>(), proptest::bool::weighted(0.9)).prop_map(
        |(cluster, total, cpu, memory, accepting)| Host {
            cluster,
            total,
            cpu: i64::from(cpu) % (total + 1),
            memory: i64::from(memory) % (total + 1),
            accepting,
        },
    )
}

/// Two clusters a pod.
fn pod(cluster: i64) -> i64 {
    cluster / 2
}

fn row(n: usize, host: &Host) -> HostRow {
    HostRow {
        id: i64::try_from(n).unwrap() + 1,
        name: format!("h{n}"),
        zone: 1,
        pod: pod(host.cluster),
        cluster: host.cluster,
        hypervisor: "Simulator".into(),
        tags: vec![],
        up: true,
        accepting: host.accepting,
        total_cpu: host.total,
        total_memory: host.total,
        free_cpu: host.cpu,
        free_memory: host.memory,
        guests: 0,
        most_guests: None,
        dedicated_to: None,
        zone_dedicated_to: None,
        kept_for: None,
        last_stop: None,
    }
}

fn planner() -> impl Strategy_<Value = Planner> {
    prop_oneof![
        Just(Planner::FirstFit),
        Just(Planner::UserDispersing),
        Just(Planner::UserConcentratedPod),
        Just(Planner::SkipHeuristics),
    ]
}

/// What the model finds: the number of the host.
fn modelled(hosts: &[Host], strategy: &Strategy, needs: i64, limit: f64) -> Option<i64> {
    let counted = |c: i64| hosts.iter().filter(move |h| h.cluster == c && h.accepting);
    let total = |c: i64| counted(c).map(|h| h.total).sum::<i64>();
    let free =
        |c: i64, by: Resource| counted(c).map(|h| if by == Resource::Cpu { h.cpu } else { h.memory }).sum::<i64>();
    let fullness = |c: i64| match total(c) {
        0 => i64::MAX,
        total => (total - free(c, strategy.resource)) * 1000 / total,
    };
    let mut clusters: Vec<i64> = hosts.iter().map(|h| h.cluster).collect::<HashSet<_>>().into_iter().collect();
    clusters.sort_by_key(|c| {
        let mine = strategy.mine.clusters.get(c).copied().unwrap_or(0);
        let pods = strategy.mine.pods.get(&pod(*c)).copied().unwrap_or(0);
        match strategy.planner {
            Planner::UserDispersing => (mine, 0, fullness(*c), *c),
            Planner::UserConcentratedPod if pods > 0 => (-pods, pod(*c), fullness(*c), *c),
            _ => (0, 0, fullness(*c), *c),
        }
    });
    #[allow(clippy::cast_precision_loss)]
    let over = |c: i64, by: Resource| (total(c) - free(c, by) + needs) as f64 > total(c) as f64 * (limit + 1e-9);
    clusters.retain(|c| {
        strategy.planner == Planner::SkipHeuristics || !(over(*c, Resource::Cpu) || over(*c, Resource::Memory))
    });
    clusters.into_iter().find_map(|c| {
        let fits = |h: &Host| h.cluster == c && h.accepting && h.cpu >= needs && h.memory >= needs;
        hosts.iter().position(fits).map(|n| i64::try_from(n).unwrap() + 1)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_first_host_of_the_first_cluster_that_has_one(
        mut hosts in proptest::collection::vec(host(), 1..14),
        planner in planner(),
        by_memory in any::<bool>(),
        limit in 0.3f64..1.2,
        mine in proptest::collection::btree_map(1i64..6, 1i64..4, 0..4),
        steps in proptest::collection::vec((0i64..8, 0usize..14), 1..20),
    ) {
        let index = Index::of(hosts.iter().enumerate().map(|(n, h)| row(n, h)).collect());
        let mut strategy = Strategy {
            planner,
            algorithm: Algorithm::FirstFit,
            resource: if by_memory { Resource::Memory } else { Resource::Cpu },
            limits: if planner == Planner::SkipHeuristics { Limits::None } else { Limits::All(limit, limit) },
            weight: 1.0,
            start: 3,
            ..Strategy::default()
        };
        for (cluster, n) in &mine {
            *strategy.mine.pods.entry(pod(*cluster)).or_default() += n;
        }
        strategy.mine.clusters = mine;
        for (needs, turn) in steps {
            let wanted = Wanted {
                zone: 1,
                hypervisor: "Simulator".into(),
                amount: Amount { cpu_mhz: needs, memory: needs },
                tags: vec![],
                without_tag: None,
                pod: None,
                cluster: None,
                host: None,
                prefer: None,
                without_clusters: HashSet::new(),
                rules: Rules::default(),
                account: 1,
                planner: None,
                in_need: false,
                since: 0,
            };
            let found = index.propose(&wanted, &strategy, &HashMap::new()).ok().map(|c| c.host);
            prop_assert_eq!(found, modelled(&hosts, &strategy, needs, limit));
            if let Some(id) = found {
                let host = &mut hosts[usize::try_from(id).unwrap() - 1];
                (host.cpu, host.memory) = (host.cpu - needs, host.memory - needs);
                index.took(id, wanted.amount);
                *strategy.mine.clusters.entry(host.cluster).or_default() += 1;
                *strategy.mine.pods.entry(pod(host.cluster)).or_default() += 1;
            } else {
                // Something leaves a host.
                let n = turn % hosts.len();
                let host = &mut hosts[n];
                let back = (host.total - host.cpu.max(host.memory)).min(2);
                (host.cpu, host.memory) = (host.cpu + back, host.memory + back);
                index.took(i64::try_from(n).unwrap() + 1, Amount { cpu_mhz: -back, memory: -back });
            }
        }
    }
}
