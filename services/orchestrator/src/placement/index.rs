//! The hosts in memory. Fed by topic "placement" and by this replica's own decisions; it only proposes, so being stale
//! costs a retry and never correctness.

use super::fit_tree::{FitTree, Free};
use super::reserve::Amount;
use super::shortage::{Rejection, Shortage};
use crate::store::placement::{self as rows, HostRow};
use contract::ApiError;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};
use store::Db;

/// In which order hosts are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// From a random point on.
    Random,
    /// In order of cluster and host number.
    FirstFit,
}

impl Algorithm {
    /// Reads the setting `vm.allocation.algorithm`; the algorithms that aren't built yet act as their nearest kin.
    pub fn parse(word: &str) -> Algorithm {
        if word.to_ascii_lowercase().contains("firstfit") { Algorithm::FirstFit } else { Algorithm::Random }
    }
}

/// What a VM needs of its host.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Zone.
    pub zone: i64,
    /// Hypervisor.
    pub hypervisor: String,
    /// MHz and bytes.
    pub amount: Amount,
    /// Host tags that must all be there.
    pub tags: Vec<String>,
    /// A host tag that must not be there: that of hosts kept for VMs whose host failed (`ha.tag`).
    pub without_tag: Option<String>,
    /// Only this pod.
    pub pod: Option<i64>,
    /// Only this cluster.
    pub cluster: Option<i64>,
    /// Only this host.
    pub host: Option<i64>,
    /// Tried first: the host where it ran last.
    pub prefer: Option<i64>,
    /// Clusters that can't hold its disks.
    pub without_clusters: HashSet<i64>,
}

/// A host that may take the VM.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Candidate {
    /// Host.
    pub host: i64,
    /// Cluster.
    pub cluster: i64,
    /// Pod.
    pub pod: i64,
}

/// The index. Cheap to clone.
#[derive(Clone, Default)]
pub struct Index(Arc<RwLock<Inner>>);

#[derive(Default)]
struct Inner {
    groups: HashMap<(i64, String), Group>,
    /// Host → its group and leaf.
    places: HashMap<i64, ((i64, String), usize)>,
}

#[derive(Default)]
struct Group {
    hosts: Vec<HostRow>,
    tree: FitTree,
}

impl Group {
    fn of(mut hosts: Vec<HostRow>) -> Group {
        hosts.sort_by_key(|h| (h.pod, h.cluster, h.id));
        let tree = FitTree::new(&hosts.iter().map(leaf).collect::<Vec<_>>());
        Group { hosts, tree }
    }
}

/// A host that takes nothing shows an empty leaf.
fn leaf(host: &HostRow) -> Free {
    if host.refusal().is_some() {
        return Free { cpu: -1, memory: -1 };
    }
    Free { cpu: host.free_cpu, memory: host.free_memory }
}

impl Index {
    /// Reads all hosts anew.
    pub async fn load(&self, db: &Db) -> Result<(), ApiError> {
        let mut groups: HashMap<(i64, String), Vec<HostRow>> = HashMap::new();
        for host in rows::hosts(db, None).await? {
            groups.entry((host.zone, host.hypervisor.clone())).or_default().push(host);
        }
        let groups: HashMap<_, _> = groups.into_iter().map(|(k, hosts)| (k, Group::of(hosts))).collect();
        let mut places = HashMap::new();
        for (key, group) in &groups {
            for (i, host) in group.hosts.iter().enumerate() {
                places.insert(host.id, (key.clone(), i));
            }
        }
        *self.write() = Inner { groups, places };
        Ok(())
    }

    /// Reads some hosts anew; a host that is new or gone makes its group anew.
    pub async fn refresh(&self, db: &Db, hosts: &[i64]) -> Result<(), ApiError> {
        let found: HashMap<i64, HostRow> = rows::hosts(db, Some(hosts)).await?.into_iter().map(|h| (h.id, h)).collect();
        let known = {
            let mut inner = self.write();
            let Inner { groups, places } = &mut *inner;
            hosts.iter().all(|id| match (places.get(id), found.get(id)) {
                (Some((key, i)), Some(row)) if key.0 == row.zone && key.1 == row.hypervisor => {
                    if let Some(group) = groups.get_mut(key) {
                        group.tree.set(*i, leaf(row));
                        if let Some(slot) = group.hosts.get_mut(*i) {
                            *slot = row.clone();
                        }
                    }
                    true
                }
                (None, None) => true,
                _ => false,
            })
        };
        if known { Ok(()) } else { self.load(db).await }
    }

    /// Notes what this replica took (or, negative, gave back) in a committed transaction.
    pub fn took(&self, host: i64, amount: Amount) {
        let mut inner = self.write();
        let Inner { groups, places } = &mut *inner;
        let Some((key, i)) = places.get(&host) else { return };
        let Some(group) = groups.get_mut(key) else { return };
        let Some(row) = group.hosts.get_mut(*i) else { return };
        row.free_cpu -= amount.cpu_mhz;
        row.free_memory -= amount.memory;
        row.guests += if amount.cpu_mhz >= 0 && amount.memory >= 0 { 1 } else { -1 };
        group.tree.set(*i, leaf(row));
    }

    /// The next host to try, `rejected` ones left out.
    ///
    /// # Errors
    /// The reasons of all hosts of the zone when none is left.
    pub fn propose(
        &self,
        wanted: &Wanted,
        algorithm: Algorithm,
        start: usize,
        rejected: &HashMap<i64, Rejection>,
    ) -> Result<Candidate, Shortage> {
        let inner = self.read();
        let group = inner.groups.get(&(wanted.zone, wanted.hypervisor.clone()));
        let Some(group) = group else {
            return Err(Shortage { wanted: wanted.to_string(), rejected: Vec::new() });
        };
        let fits = |host: &HostRow| !rejected.contains_key(&host.id) && refusal(host, wanted).is_none();
        if let Some(host) = wanted.prefer.and_then(|id| group.hosts.iter().find(|h| h.id == id)).filter(|h| fits(h)) {
            return Ok(host.candidate());
        }
        let need = Free { cpu: wanted.amount.cpu_mhz, memory: wanted.amount.memory };
        let start = match algorithm {
            Algorithm::Random if group.tree.len() > 0 => start % group.tree.len(),
            _ => 0,
        };
        for (mut from, to) in [(start, usize::MAX), (0, start)] {
            while let Some(i) = group.tree.first(from, need).filter(|i| *i < to) {
                match group.hosts.get(i) {
                    Some(host) if fits(host) => return Ok(host.candidate()),
                    _ => from = i + 1,
                }
            }
        }
        let reason = |host: &HostRow| {
            let why = rejected.get(&host.id).copied().or_else(|| refusal(host, wanted));
            (host.name.clone(), why.unwrap_or(Rejection::Taken))
        };
        Err(Shortage { wanted: wanted.to_string(), rejected: group.hosts.iter().map(reason).collect() })
    }

    /// The clusters that have hosts of a hypervisor in a zone.
    pub fn clusters(&self, zone: i64, hypervisor: &str) -> Vec<i64> {
        let inner = self.read();
        let group = inner.groups.get(&(zone, hypervisor.to_owned()));
        let mut clusters: Vec<i64> = group.map(|g| g.hosts.iter().map(|h| h.cluster).collect()).unwrap_or_default();
        clusters.sort_unstable();
        clusters.dedup();
        clusters
    }

    /// Number of hosts.
    pub fn len(&self) -> usize {
        self.read().places.len()
    }

    /// Whether there is no host.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why a host can't take what is wanted; none: it can.
pub fn refusal(host: &HostRow, wanted: &Wanted) -> Option<Rejection> {
    let asked = |id: i64, only: Option<i64>| only.is_none_or(|o| o == id);
    if !asked(host.id, wanted.host) || !asked(host.cluster, wanted.cluster) || !asked(host.pod, wanted.pod) {
        return Some(Rejection::NotAskedFor);
    }
    if let Some(why) = host.refusal() {
        return Some(why);
    }
    if !wanted.tags.iter().all(|t| host.tags.contains(t)) {
        return Some(Rejection::Tags);
    }
    if wanted.without_tag.as_ref().is_some_and(|t| host.tags.contains(t)) {
        return Some(Rejection::ForHa);
    }
    if wanted.without_clusters.contains(&host.cluster) {
        return Some(Rejection::Storage);
    }
    if host.free_cpu < wanted.amount.cpu_mhz {
        return Some(Rejection::Cpu);
    }
    (host.free_memory < wanted.amount.memory).then_some(Rejection::Memory)
}

impl HostRow {
    fn candidate(&self) -> Candidate {
        Candidate { host: self.id, cluster: self.cluster, pod: self.pod }
    }

    /// Why the host takes nothing at all.
    pub fn refusal(&self) -> Option<Rejection> {
        if !self.up {
            Some(Rejection::NotUp)
        } else if !self.accepting {
            Some(Rejection::Disabled)
        } else if self.most_guests.is_some_and(|most| self.guests >= most) {
            Some(Rejection::Guests)
        } else {
            None
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} MHz and {} MiB on {} in this zone",
            self.amount.cpu_mhz,
            self.amount.memory / (1024 * 1024),
            self.hypervisor
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            free_cpu: free,
            free_memory: free,
            guests: 0,
            most_guests: None,
        }
    }

    fn index(hosts: Vec<HostRow>) -> Index {
        let key = (1, "Simulator".to_owned());
        let group = Group::of(hosts);
        let places = group.hosts.iter().enumerate().map(|(i, h)| (h.id, (key.clone(), i))).collect();
        Index(Arc::new(RwLock::new(Inner { groups: [(key, group)].into(), places })))
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
        }
    }

    // covers: VM-032
    #[test]
    fn first_fit_fills_a_host_before_the_next() {
        let index = index(vec![host(1, 1, 30), host(2, 1, 30), host(3, 2, 30)]);
        for _ in 0..3 {
            let found = index.propose(&wanted(10), Algorithm::FirstFit, 7, &HashMap::new()).unwrap();
            assert_eq!(found.host, 1);
            index.took(1, Amount { cpu_mhz: 10, memory: 10 });
        }
        assert_eq!(index.propose(&wanted(10), Algorithm::FirstFit, 0, &HashMap::new()).unwrap().host, 2);
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
        let shortage = index.propose(&want, Algorithm::Random, 3, &HashMap::new()).unwrap_err();
        let reasons: Vec<Rejection> = shortage.rejected.iter().map(|(_, r)| *r).collect();
        assert_eq!(reasons, [Rejection::Tags, Rejection::NotUp, Rejection::Storage, Rejection::Tags]);
    }

    #[test]
    fn random_reaches_every_host_and_respects_what_was_rejected() {
        let index = index((1..=5).map(|i| host(i, 1, 30)).collect());
        let mut seen = HashSet::new();
        for start in 0..5 {
            seen.insert(index.propose(&wanted(10), Algorithm::Random, start, &HashMap::new()).unwrap().host);
        }
        assert_eq!(seen.len(), 5);
        let rejected: HashMap<i64, Rejection> = (1..=4).map(|i| (i, Rejection::Taken)).collect();
        assert_eq!(index.propose(&wanted(10), Algorithm::Random, 2, &rejected).unwrap().host, 5);
    }

    #[test]
    fn the_last_host_is_preferred_while_it_has_room() {
        let index = index(vec![host(1, 1, 30), host(2, 1, 30)]);
        let mut want = wanted(20);
        want.prefer = Some(2);
        assert_eq!(index.propose(&want, Algorithm::FirstFit, 0, &HashMap::new()).unwrap().host, 2);
        index.took(2, Amount { cpu_mhz: 20, memory: 20 });
        assert_eq!(index.propose(&want, Algorithm::FirstFit, 0, &HashMap::new()).unwrap().host, 1);
    }
}
