//! The hosts in memory. Fed by topic "placement" and by this replica's own decisions; it only proposes, so being stale
//! costs a retry and never correctness.

use super::fit_tree::{FitTree, Free};
use super::reserve::{Amount, Terms};
use super::rules::Rules;
use super::shortage::{Rejection, Shortage};
use crate::store::placement::{self as rows, HostRow};
use contract::ApiError;
use std::collections::{BTreeSet, HashMap, HashSet};
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
    /// What its affinity groups ask for; [`super::Rules`] are read where the place is decided.
    pub rules: Rules,
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
    /// The group that it is dedicated to, as far as is known: taking its capacity proves it.
    #[serde(default)]
    pub dedicated_to: Option<i64>,
}

impl Candidate {
    /// What must hold of the host when it is taken for a VM with these rules.
    pub fn terms(&self, rules: &Rules) -> Terms {
        Terms { host: self.dedicated_to, zone: rules.zone }
    }
}

/// The index. Cheap to clone.
#[derive(Clone, Default)]
pub struct Index(Arc<RwLock<Inner>>);

/// Zone, hypervisor, and the affinity group that hosts are dedicated to.
type Key = (i64, String, Option<i64>);

fn key_of(host: &HostRow) -> Key {
    (host.zone, host.hypervisor.clone(), host.dedicated_to)
}

#[derive(Default)]
struct Inner {
    groups: HashMap<Key, Group>,
    /// Host → its group and leaf.
    places: HashMap<i64, (Key, usize)>,
    /// Zone and hypervisor → clusters, sorted.
    clusters: HashMap<(i64, String), Vec<i64>>,
}

impl Inner {
    fn of(hosts: Vec<HostRow>) -> Inner {
        let mut groups: HashMap<Key, Vec<HostRow>> = HashMap::new();
        let mut clusters: HashMap<(i64, String), BTreeSet<i64>> = HashMap::new();
        for host in hosts {
            clusters.entry((host.zone, host.hypervisor.clone())).or_default().insert(host.cluster);
            groups.entry(key_of(&host)).or_default().push(host);
        }
        let groups: HashMap<_, _> = groups.into_iter().map(|(k, hosts)| (k, Group::of(hosts))).collect();
        let mut places = HashMap::new();
        for (key, group) in &groups {
            for (i, host) in group.hosts.iter().enumerate() {
                places.insert(host.id, (key.clone(), i));
            }
        }
        let clusters = clusters.into_iter().map(|(key, ids)| (key, ids.into_iter().collect())).collect();
        Inner { groups, places, clusters }
    }

    fn host(&self, id: i64) -> Option<&HostRow> {
        let (key, i) = self.places.get(&id)?;
        self.groups.get(key)?.hosts.get(*i)
    }

    /// All hosts of a hypervisor in a zone, by pod, cluster and number.
    fn of_zone(&self, zone: i64, hypervisor: &str) -> Vec<&HostRow> {
        let there = self.groups.iter().filter(|((z, h, _), _)| *z == zone && h == hypervisor);
        let mut hosts: Vec<&HostRow> = there.flat_map(|(_, group)| &group.hosts).collect();
        hosts.sort_by_key(|h| (h.pod, h.cluster, h.id));
        hosts
    }
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
    /// An index of these hosts.
    #[cfg(test)]
    pub(super) fn of(hosts: Vec<HostRow>) -> Index {
        Index(Arc::new(RwLock::new(Inner::of(hosts))))
    }

    /// Reads all hosts anew.
    pub async fn load(&self, db: &Db) -> Result<(), ApiError> {
        let inner = Inner::of(rows::hosts(db, None).await?);
        *self.write() = inner;
        Ok(())
    }

    /// Reads some hosts anew; a host that is new or gone makes its group anew.
    pub async fn refresh(&self, db: &Db, hosts: &[i64]) -> Result<(), ApiError> {
        let found: HashMap<i64, HostRow> = rows::hosts(db, Some(hosts)).await?.into_iter().map(|h| (h.id, h)).collect();
        let known = {
            let mut inner = self.write();
            let Inner { groups, places, .. } = &mut *inner;
            hosts.iter().all(|id| match (places.get(id), found.get(id)) {
                (Some((key, i)), Some(row)) if *key == key_of(row) => {
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
        let Inner { groups, places, .. } = &mut *inner;
        let Some((key, i)) = places.get(&host) else { return };
        let Some(group) = groups.get_mut(key) else { return };
        let Some(row) = group.hosts.get_mut(*i) else { return };
        row.free_cpu -= amount.cpu_mhz;
        row.free_memory -= amount.memory;
        row.guests += if amount.cpu_mhz >= 0 && amount.memory >= 0 { 1 } else { -1 };
        group.tree.set(*i, leaf(row));
    }

    /// Notes what a guest that is on a host already takes more (or, negative, less) of it.
    pub fn grew(&self, host: i64, amount: Amount) {
        let mut inner = self.write();
        let Inner { groups, places, .. } = &mut *inner;
        let Some((key, i)) = places.get(&host) else { return };
        let Some(group) = groups.get_mut(key) else { return };
        let Some(row) = group.hosts.get_mut(*i) else { return };
        row.free_cpu -= amount.cpu_mhz;
        row.free_memory -= amount.memory;
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
        let fits = |host: &&HostRow| !rejected.contains_key(&host.id) && refusal(host, wanted).is_none();
        let there = |host: &&HostRow| host.zone == wanted.zone && host.hypervisor == wanted.hypervisor;
        let one = |id: Option<i64>| id.and_then(|id| inner.host(id)).filter(there).filter(fits);
        // Where it must be if anywhere, and where it would be best, need no search.
        let only = wanted.host.or(wanted.rules.together.first().copied());
        if let Some(host) = one(only).or_else(|| one(wanted.prefer)) {
            return Ok(host.candidate());
        }
        let need = Free { cpu: wanted.amount.cpu_mhz, memory: wanted.amount.memory };
        let parts = if only.is_some() { Vec::new() } else { wanted.rules.parts() };
        for part in parts {
            let Some(group) = inner.groups.get(&(wanted.zone, wanted.hypervisor.clone(), part)) else { continue };
            let start = match algorithm {
                Algorithm::Random if group.tree.len() > 0 => start % group.tree.len(),
                _ => 0,
            };
            for (mut from, to) in [(start, usize::MAX), (0, start)] {
                while let Some(i) = group.tree.first(from, need).filter(|i| *i < to) {
                    match group.hosts.get(i).filter(fits) {
                        Some(host) => return Ok(host.candidate()),
                        None => from = i + 1,
                    }
                }
            }
        }
        let reason = |host: &&HostRow| {
            let why = rejected.get(&host.id).copied().or_else(|| refusal(host, wanted));
            (host.name.clone(), why.unwrap_or(Rejection::Taken))
        };
        let all = inner.of_zone(wanted.zone, &wanted.hypervisor);
        Err(Shortage { wanted: wanted.to_string(), rejected: all.iter().map(reason).collect() })
    }

    /// The clusters that have hosts of a hypervisor in a zone.
    pub fn clusters(&self, zone: i64, hypervisor: &str) -> Vec<i64> {
        self.read().clusters.get(&(zone, hypervisor.to_owned())).cloned().unwrap_or_default()
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
    if let Some(why) = wanted.rules.refusal(host) {
        return Some(why);
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
        Candidate { host: self.id, cluster: self.cluster, pod: self.pod, dedicated_to: self.dedicated_to }
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
            "{} MHz and {} MiB on {} in this zone{}",
            self.amount.cpu_mhz,
            self.amount.memory / (1024 * 1024),
            self.hypervisor,
            self.rules.words()
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
            dedicated_to: None,
            zone_dedicated_to: None,
        }
    }

    fn index(hosts: Vec<HostRow>) -> Index {
        Index::of(hosts)
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
