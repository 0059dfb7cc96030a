//! The index, with groups and dedications, against a plain model: hosts as a list, rules as their meaning says.

use super::reserve::Amount;
use super::{Algorithm, Index, Rules, Wanted};
use crate::store::placement::HostRow;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A VM of the model: what it takes, whom it stays off (0..3) and near to (0..3), and which dedicated hosts it asks for.
#[derive(Clone, Debug)]
struct Vm {
    needs: i64,
    apart: Option<usize>,
    together: Option<usize>,
    dedicated: Option<i64>,
}

/// A host of the model.
#[derive(Clone, Debug)]
struct Host {
    room: i64,
    dedicated: Option<i64>,
}

fn vm() -> impl Strategy<Value = Vm> {
    (
        1i64..4,
        proptest::option::of(0usize..3),
        proptest::option::weighted(0.3, 0usize..3),
        proptest::option::weighted(0.3, 1i64..3),
    )
        .prop_map(|(needs, apart, together, dedicated)| Vm { needs, apart, together, dedicated })
}

fn host() -> impl Strategy<Value = Host> {
    (0i64..9, proptest::option::weighted(0.3, 1i64..3)).prop_map(|(room, dedicated)| Host { room, dedicated })
}

fn row(n: usize, host: &Host, zone: Option<i64>) -> HostRow {
    HostRow {
        id: i64::try_from(n).unwrap() + 1,
        name: format!("h{n}"),
        zone: 1,
        pod: 1,
        cluster: 1,
        hypervisor: "Simulator".into(),
        tags: vec![],
        up: true,
        accepting: true,
        total_cpu: 9,
        total_memory: 9,
        free_cpu: host.room,
        free_memory: host.room,
        guests: 0,
        most_guests: None,
        dedicated_to: host.dedicated,
        zone_dedicated_to: zone,
        kept_for: None,
        last_stop: None,
    }
}

struct Model {
    hosts: Vec<Host>,
    zone: Option<i64>,
    placed: BTreeMap<usize, usize>,
}

impl Model {
    /// Whether the rules, read aloud, let `vm` be on host `n`.
    fn allows(&self, vms: &[Vm], vm: usize, n: usize) -> bool {
        let (me, host) = (&vms[vm], &self.hosts[n]);
        let others = || self.placed.iter().filter(move |(other, _)| **other != vm);
        let used: i64 = others().filter(|(_, at)| **at == n).map(|(other, _)| vms[*other].needs).sum();
        let apart = others().all(|(other, at)| *at != n || me.apart.is_none() || vms[*other].apart != me.apart);
        let together =
            others().all(|(other, at)| *at == n || me.together.is_none() || vms[*other].together != me.together);
        let kept = match (me.dedicated, host.dedicated) {
            (None, on) => on.is_none(),
            (Some(asked), Some(on)) => asked == on,
            (Some(asked), None) => self.zone == Some(asked),
        };
        host.room - used >= me.needs && apart && together && kept
    }

    /// The rules as placement reads them from rows.
    fn rules(&self, vms: &[Vm], vm: usize) -> Rules {
        let me = &vms[vm];
        let at = |same: &dyn Fn(&Vm) -> bool| -> HashSet<i64> {
            let peers = self.placed.iter().filter(|(other, _)| **other != vm && same(&vms[**other]));
            peers.map(|(_, n)| i64::try_from(*n).unwrap() + 1).collect()
        };
        Rules {
            apart: at(&|o| me.apart.is_some() && o.apart == me.apart),
            together: at(&|o| me.together.is_some() && o.together == me.together).into_iter().collect(),
            dedicated: me.dedicated.into_iter().collect(),
            zone: self.zone,
            names: vec![],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn places_where_the_rules_allow_and_only_there(
        hosts in proptest::collection::vec(host(), 1..8),
        zone in proptest::option::weighted(0.3, 1i64..3),
        vms in proptest::collection::vec(vm(), 1..10),
        turns in proptest::collection::vec((0usize..10, 0usize..64, any::<bool>()), 1..40),
    ) {
        let index = Index::of(hosts.iter().enumerate().map(|(n, h)| row(n, h, zone)).collect());
        let mut model = Model { hosts, zone, placed: BTreeMap::new() };
        for (vm, start, first_fit) in turns {
            let vm = vm % vms.len();
            let amount = Amount { cpu_mhz: vms[vm].needs, memory: vms[vm].needs };
            if let Some(n) = model.placed.remove(&vm) {
                index.took(i64::try_from(n).unwrap() + 1, amount.negated());
                continue;
            }
            let wanted = Wanted {
                zone: 1,
                hypervisor: "Simulator".into(),
                amount,
                tags: vec![],
                without_tag: None,
                pod: None,
                cluster: None,
                host: None,
                prefer: None,
                without_clusters: HashSet::new(),
                rules: model.rules(&vms, vm),
                account: 1,
                planner: None,
                in_need: false,
                since: 0,
            };
            let algorithm = if first_fit { Algorithm::FirstFit } else { Algorithm::Random };
            let allowed: Vec<usize> = (0..model.hosts.len()).filter(|n| model.allows(&vms, vm, *n)).collect();
            let strategy = super::Strategy { algorithm, start, ..super::Strategy::default() };
            match index.propose(&wanted, &strategy, &HashMap::new()) {
                Ok(found) => {
                    let n = usize::try_from(found.host).unwrap() - 1;
                    prop_assert!(allowed.contains(&n), "{n} isn't among {allowed:?}");
                    prop_assert_eq!(found.dedicated_to, model.hosts[n].dedicated);
                    index.took(found.host, amount);
                    model.placed.insert(vm, n);
                }
                Err(shortage) => {
                    prop_assert!(allowed.is_empty(), "{allowed:?} were allowed");
                    prop_assert_eq!(shortage.rejected.len(), model.hosts.len(), "each host has its reason");
                }
            }
        }
    }
}
