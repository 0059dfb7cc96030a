//! What the index proposes: orders, tiers, thresholds, reasons.

use super::index::{Index, Wanted};
use super::planner::{Mode, Planner};
use super::reserve::Amount;
use super::rules::Rules;
use super::shortage::Rejection;
use super::strategy::{Algorithm, Limits, Private, Resource, Strategy};
use crate::store::placement::HostRow;
use std::collections::{BTreeMap, HashMap, HashSet};

fn host(id: i64, cluster: i64, free: i64) -> HostRow {
    HostRow {
        id,
        name: format!("h{id}"),
        zone: 1,
        pod: 1,
        cluster,
        hypervisor: "Simulator".into(),
        tags: vec![],
        up: true,
        accepting: true,
        total_cpu: 100,
        total_memory: 100,
        free_cpu: free,
        free_memory: free,
        guests: 0,
        most_guests: None,
        dedicated_to: None,
        zone_dedicated_to: None,
        kept_for: None,
        last_stop: None,
    }
}

fn index(hosts: Vec<HostRow>) -> Index {
    Index::of(hosts)
}

fn by(algorithm: Algorithm, start: usize) -> Strategy {
    Strategy { algorithm, start, weight: 1.0, ..Strategy::default() }
}

fn wanted(n: i64) -> Wanted {
    Wanted {
        zone: 1,
        hypervisor: "Simulator".into(),
        amount: Amount { cpu_mhz: n, memory: n },
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
    }
}

// covers: VM-032
#[test]
fn first_fit_fills_a_host_before_the_next() {
    let index = index(vec![host(1, 1, 30), host(2, 1, 30), host(3, 1, 30)]);
    for _ in 0..3 {
        let found = index.propose(&wanted(10), &by(Algorithm::FirstFit, 7), &HashMap::new()).unwrap();
        assert_eq!(found.host, 1);
        index.took(1, Amount { cpu_mhz: 10, memory: 10 });
    }
    assert_eq!(index.propose(&wanted(10), &by(Algorithm::FirstFit, 0), &HashMap::new()).unwrap().host, 2);
}

#[test]
fn every_rejected_host_has_a_reason() {
    let mut down = host(2, 1, 30);
    down.up = false;
    let mut tagged = host(3, 2, 30);
    tagged.tags = vec!["ssd".into()];
    let index = index(vec![host(1, 1, 30), down, tagged, host(4, 3, 5)]);
    let mut want = wanted(10);
    want.tags = vec!["ssd".into()];
    want.without_clusters = [2].into();
    let shortage = index.propose(&want, &by(Algorithm::Random, 3), &HashMap::new()).unwrap_err();
    let reasons: Vec<Rejection> = shortage.rejected.iter().map(|(_, r)| *r).collect();
    assert_eq!(reasons, [Rejection::Tags, Rejection::NotUp, Rejection::Storage, Rejection::Tags]);
}

#[test]
fn random_reaches_every_host_and_respects_what_was_rejected() {
    let index = index((1..=5).map(|i| host(i, 1, 30)).collect());
    let mut seen = HashSet::new();
    for start in 0..5 {
        seen.insert(index.propose(&wanted(10), &by(Algorithm::Random, start), &HashMap::new()).unwrap().host);
    }
    assert_eq!(seen.len(), 5);
    let rejected: HashMap<i64, Rejection> = (1..=4).map(|i| (i, Rejection::Taken)).collect();
    assert_eq!(index.propose(&wanted(10), &by(Algorithm::Random, 2), &rejected).unwrap().host, 5);
}

#[test]
fn the_last_host_is_preferred_while_it_has_room() {
    let index = index(vec![host(1, 1, 30), host(2, 1, 30)]);
    let mut want = wanted(20);
    want.prefer = Some(2);
    assert_eq!(index.propose(&want, &by(Algorithm::FirstFit, 0), &HashMap::new()).unwrap().host, 2);
    index.took(2, Amount { cpu_mhz: 20, memory: 20 });
    assert_eq!(index.propose(&want, &by(Algorithm::FirstFit, 0), &HashMap::new()).unwrap().host, 1);
}

/// A host of a certain pod.
fn in_pod(id: i64, pod: i64, cluster: i64, free: i64) -> HostRow {
    HostRow { pod, ..host(id, cluster, free) }
}

fn planned(planner: Planner) -> Strategy {
    Strategy { planner, ..by(Algorithm::FirstFit, 0) }
}

/// The hosts of as many VMs as `n`, of one account, each placed after the one before.
fn placed(hosts: &[HostRow], strategy: &Strategy, n: usize, size: i64) -> Vec<i64> {
    let index = Index::of(hosts.to_vec());
    let of: HashMap<i64, (i64, i64)> = hosts.iter().map(|h| (h.id, (h.cluster, h.pod))).collect();
    let mut strategy = strategy.clone();
    let mut out = Vec::new();
    for _ in 0..n {
        let found = index.propose(&wanted(size), &strategy, &HashMap::new()).unwrap().host;
        index.took(found, Amount { cpu_mhz: size, memory: size });
        let (cluster, pod) = of[&found];
        *strategy.mine.hosts.entry(found).or_default() += 1;
        *strategy.mine.clusters.entry(cluster).or_default() += 1;
        *strategy.mine.pods.entry(pod).or_default() += 1;
        out.push(found);
    }
    out
}

fn reasons(index: &Index, strategy: &Strategy, wanted: &Wanted) -> Vec<Rejection> {
    let shortage = index.propose(wanted, strategy, &HashMap::new()).unwrap_err();
    shortage.rejected.iter().map(|(_, why)| *why).collect()
}

fn counts(hosts: &[i64]) -> Vec<usize> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for host in hosts {
        *counts.entry(*host).or_default() += 1;
    }
    counts.into_values().collect()
}

#[test]
fn first_fit_looks_at_the_emptiest_cluster_first() {
    // By memory it is another than by CPU.
    let mut lean = host(2, 2, 60);
    lean.free_memory = 20;
    let index = index(vec![host(1, 1, 50), lean]);
    let cpu = planned(Planner::FirstFit);
    assert_eq!(index.propose(&wanted(10), &cpu, &HashMap::new()).unwrap().host, 2);
    let memory = Strategy { resource: Resource::Memory, ..cpu };
    assert_eq!(index.propose(&wanted(10), &memory, &HashMap::new()).unwrap().host, 1);
    // A cluster without room is passed over, however empty it is on the whole.
    let index = Index::of(vec![host(1, 1, 50), host(2, 2, 60), host(3, 2, 60)]);
    assert_eq!(index.propose(&wanted(60), &memory, &HashMap::new()).unwrap().cluster, 2);
    let shortage = index.propose(&wanted(61), &memory, &HashMap::new()).unwrap_err();
    assert!(shortage.rejected.iter().all(|(_, why)| *why == Rejection::Cpu));
}

#[test]
fn random_starts_with_any_of_clusters_that_are_equally_full() {
    let index = index((1..=6).map(|i| host(i, i, 30)).collect());
    let find = |start| index.propose(&wanted(10), &by(Algorithm::Random, start), &HashMap::new()).unwrap().cluster;
    let seen: HashSet<i64> = (0..6).map(find).collect();
    assert_eq!(seen.len(), 6);
}

// covers: VM-033
#[test]
fn user_dispersing_spreads_an_account_over_clusters() {
    let hosts = [host(1, 1, 100), host(2, 1, 100), host(3, 2, 90), host(4, 2, 90)];
    let found = placed(&hosts, &planned(Planner::UserDispersing), 6, 10);
    assert_eq!(found.iter().filter(|h| **h <= 2).count(), 3, "{found:?}");
    // With no weight on numbers it is the emptiest cluster; in between, both count.
    let mut strategy = planned(Planner::UserDispersing);
    strategy.weight = 0.0;
    strategy.mine.clusters = [(1, 5)].into();
    let index = Index::of(hosts.to_vec());
    assert_eq!(index.propose(&wanted(10), &strategy, &HashMap::new()).unwrap().cluster, 1);
    strategy.weight = 0.5;
    assert_eq!(index.propose(&wanted(10), &strategy, &HashMap::new()).unwrap().cluster, 2);
}

// covers: VM-034
#[test]
fn user_concentrated_keeps_an_account_in_one_pod() {
    let hosts = [in_pod(1, 1, 1, 30), in_pod(2, 1, 2, 30), in_pod(3, 2, 3, 60)];
    let found = placed(&hosts, &planned(Planner::UserConcentratedPod), 9, 10);
    let pods: Vec<i64> = found.iter().map(|h| if *h == 3 { 2 } else { 1 }).collect();
    assert_eq!(pods, [2, 2, 2, 2, 2, 2, 1, 1, 1], "the other pod is used when the first is full");
}

// covers: VM-191
#[test]
fn hosts_of_a_cluster_are_filled_one_after_the_other_or_in_turn() {
    let hosts = [host(1, 1, 100), host(2, 1, 100), host(3, 1, 100)];
    for (word, spread) in [
        ("firstfit", vec![6]),
        ("userconcentratedpod_firstfit", vec![6]),
        ("userdispersing", vec![2, 2, 2]),
        ("firstfitleastconsumed", vec![2, 2, 2]),
    ] {
        let strategy = by(Algorithm::parse(word), 4);
        assert_eq!(counts(&placed(&hosts, &strategy, 6, 10)), spread, "{word}");
    }
    for word in ["random", "userconcentratedpod_random"] {
        let find = |start| placed(&hosts, &by(Algorithm::parse(word), start), 1, 10)[0];
        assert_eq!((0..3).map(find).collect::<HashSet<_>>().len(), 3, "{word}");
    }
}

#[test]
fn clusters_are_left_out_beyond_their_thresholds() {
    // Of 200 in the first cluster 160 are given away, of 100 in the second 80.
    let index = index(vec![host(1, 1, 20), host(2, 1, 20), host(3, 2, 20)]);
    let limited = |limits| Strategy { limits, ..planned(Planner::FirstFit) };
    let strict = limited(Limits::All(0.85, 1.0));
    assert_eq!(index.propose(&wanted(5), &strict, &HashMap::new()).unwrap().cluster, 1);
    assert_eq!(index.propose(&wanted(10), &strict, &HashMap::new()).unwrap().cluster, 1, "85 % exactly");
    assert_eq!(reasons(&index, &strict, &wanted(11)), [Rejection::Threshold; 3]);
    assert_eq!(reasons(&index, &limited(Limits::All(1.0, 0.85)), &wanted(11)), [Rejection::Threshold; 3]);
    // Whoever asks for a host gets it; so does a VM that ran there last.
    for only in [Wanted { host: Some(3), ..wanted(20) }, Wanted { prefer: Some(3), ..wanted(20) }] {
        assert_eq!(index.propose(&only, &strict, &HashMap::new()).unwrap().host, 3);
    }
    // Hosts that take no VMs don't count: what is left of the first cluster is as full as the second.
    let mut closed = host(1, 1, 100);
    closed.accepting = false;
    let index = Index::of(vec![closed, host(2, 1, 20), host(3, 2, 30)]);
    assert_eq!(index.propose(&wanted(10), &strict, &HashMap::new()).unwrap().cluster, 2);
    assert_eq!(
        reasons(&index, &strict, &wanted(16)),
        [Rejection::Disabled, Rejection::Threshold, Rejection::Threshold]
    );
}

// covers: VM-305
#[test]
fn hosts_with_an_implicit_tag_come_last() {
    let mut gpu = host(1, 1, 30);
    gpu.tags = vec!["GPU".into()];
    let index = index(vec![gpu, host(2, 2, 20)]);
    let strategy = Strategy { aside: vec!["GPU".into()], ..planned(Planner::FirstFit) };
    assert_eq!(index.propose(&wanted(20), &strategy, &HashMap::new()).unwrap().host, 2);
    index.took(2, Amount { cpu_mhz: 20, memory: 20 });
    assert_eq!(index.propose(&wanted(20), &strategy, &HashMap::new()).unwrap().host, 1, "when the other is full");
    let asks = Wanted { tags: vec!["GPU".into()], ..wanted(5) };
    assert_eq!(index.propose(&asks, &strategy, &HashMap::new()).unwrap().host, 1);
}

/// A host with VMs.
fn used(id: i64, guests: i64) -> HostRow {
    HostRow { guests, ..host(id, 1, 50) }
}

// covers: IAM-073
#[test]
fn implicit_dedication_tries_own_hosts_then_empty_ones_then_others() {
    let kept = |id, account, guests| HostRow { kept_for: Some(account), ..used(id, guests) };
    // 1 and 2: the account's (1), strictly and not; 3 empty; 4 others'; 5 another account's strictly; 6: one was stopped there.
    let hosts = vec![kept(1, 1, 2), used(2, 1), used(3, 0), used(4, 3), kept(5, 9, 1), used(6, 0)];
    let private = Private { own: [1, 2].into(), taken: [6].into() };
    let strategy = |mode| Strategy { mode, private: private.clone(), ..planned(Planner::ImplicitDedication) };
    let order = |strategy: &Strategy| {
        let index = Index::of(hosts.clone());
        let mut rejected = HashMap::new();
        let mut order = Vec::new();
        while let Ok(found) = index.propose(&wanted(10), strategy, &rejected) {
            rejected.insert(found.host, Rejection::Taken);
            order.push(found.host);
        }
        order
    };
    assert_eq!(order(&strategy(Mode::Strict)), [1, 2, 3]);
    assert_eq!(order(&strategy(Mode::Preferred)), [1, 2, 3, 4, 6]);
    // Nobody else is put on a host that an account has to itself, not even its own other VMs.
    assert_eq!(order(&planned(Planner::FirstFit)), [2, 3, 4, 6]);
    let index = Index::of(hosts.clone());
    let strict = strategy(Mode::Strict);
    let refused = reasons(&index, &Strategy { private: Private::default(), ..strict }, &wanted(60));
    assert_eq!(
        refused,
        [Rejection::Cpu, Rejection::Cpu, Rejection::Cpu, Rejection::Cpu, Rejection::Kept, Rejection::Cpu]
    );
}

#[test]
fn a_host_is_kept_for_a_while_after_its_last_machine() {
    let left = HostRow { kept_for: Some(9), last_stop: Some(1_000), ..used(1, 0) };
    let index = index(vec![left]);
    let at = |since| Wanted { since, ..wanted(10) };
    assert_eq!(reasons(&index, &planned(Planner::FirstFit), &at(999)), [Rejection::Kept]);
    assert_eq!(index.propose(&at(1_000), &planned(Planner::FirstFit), &HashMap::new()).unwrap().host, 1);
}
