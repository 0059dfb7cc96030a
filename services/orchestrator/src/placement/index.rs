//! The hosts in memory. Fed by topic "placement" and by this replica's own decisions; it only proposes, so being stale
//! costs a retry and never correctness.

use super::clusters::Clusters;
use super::fit_tree::{FitTree, Free};
use super::planner::Planner;
use super::reserve::{Amount, Keep, Terms};
use super::rules::Rules;
use super::search::Search;
use super::shortage::{Rejection, Shortage};
use super::strategy::Strategy;
use crate::store::placement::{self as rows, HostRow};
use contract::ApiError;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};
use store::Db;

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
    /// Whose it is.
    pub account: i64,
    /// The planner that was asked for; none: that of its offering, or the setting's.
    pub planner: Option<Planner>,
    /// Whether clusters take it beyond their disable thresholds when nothing else is left: it is started again after a failure.
    pub in_need: bool,
    /// VMs that were stopped since then (UTC µs) still count where they ran (`capacity.skipcounting.hours`).
    pub since: i64,
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
    /// What must hold of the host when it is taken for what is wanted.
    pub fn terms(&self, wanted: &Wanted, strategy: &Strategy) -> Terms {
        let keep = match strategy.planner {
            Planner::ImplicitDedication if strategy.is_strict() => Keep::Alone(wanted.account),
            Planner::ImplicitDedication => Keep::With(wanted.account),
            _ => Keep::Anyone,
        };
        Terms { host: self.dedicated_to, zone: wanted.rules.zone, keep, since: wanted.since }
    }
}

/// A cluster as a strategy sees it.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Its number.
    pub cluster: i64,
    /// How many of its hosts could take what is wanted.
    pub suitable: usize,
    /// The others, with their reasons.
    pub shortage: Shortage,
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
pub(super) struct Inner {
    pub(super) groups: HashMap<Key, Group>,
    /// Host → its group and leaf.
    places: HashMap<i64, (Key, usize)>,
    pub(super) clusters: Clusters,
}

impl Inner {
    fn of(hosts: Vec<HostRow>) -> Inner {
        let mut groups: HashMap<Key, Vec<HostRow>> = HashMap::new();
        let mut clusters = Clusters::default();
        for host in hosts {
            clusters.add(&host);
            groups.entry(key_of(&host)).or_default().push(host);
        }
        let groups: HashMap<_, _> = groups.into_iter().map(|(k, hosts)| (k, Group::of(hosts))).collect();
        let mut places = HashMap::new();
        for (key, group) in &groups {
            for (i, host) in group.hosts.iter().enumerate() {
                places.insert(host.id, (key.clone(), i));
            }
        }
        Inner { groups, places, clusters }
    }

    /// Changes what is known of a host; one that isn't known is left alone.
    fn alter(&mut self, id: i64, change: impl FnOnce(&mut HostRow)) {
        let Inner { groups, places, clusters } = self;
        let Some((key, i)) = places.get(&id) else { return };
        let Some(group) = groups.get_mut(key) else { return };
        let Some(row) = group.hosts.get_mut(*i) else { return };
        clusters.remove(row);
        change(row);
        clusters.add(row);
        group.tree.set(*i, leaf(row));
        group.empties.set(*i, empty_leaf(row));
    }

    pub(super) fn host(&self, id: i64) -> Option<&HostRow> {
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
pub(super) struct Group {
    pub(super) hosts: Vec<HostRow>,
    pub(super) tree: FitTree,
    /// Of hosts without VMs only.
    pub(super) empties: FitTree,
    /// Cluster → its first leaf and the one after its last.
    pub(super) ranges: HashMap<i64, (usize, usize)>,
}

impl Group {
    fn of(mut hosts: Vec<HostRow>) -> Group {
        hosts.sort_by_key(|h| (h.pod, h.cluster, h.id));
        let tree = FitTree::new(&hosts.iter().map(leaf).collect::<Vec<_>>());
        let empties = FitTree::new(&hosts.iter().map(empty_leaf).collect::<Vec<_>>());
        let mut ranges: HashMap<i64, (usize, usize)> = HashMap::new();
        for (i, host) in hosts.iter().enumerate() {
            ranges.entry(host.cluster).or_insert((i, i)).1 = i + 1;
        }
        Group { hosts, tree, empties, ranges }
    }
}

const NOTHING: Free = Free { cpu: -1, memory: -1 };

/// A host that takes nothing shows an empty leaf. So does one that an account has to itself: who may go there knows it.
fn leaf(host: &HostRow) -> Free {
    if host.refusal().is_some() || (host.kept_for.is_some() && host.guests > 0) {
        return NOTHING;
    }
    Free { cpu: host.free_cpu, memory: host.free_memory }
}

fn empty_leaf(host: &HostRow) -> Free {
    if host.guests == 0 { leaf(host) } else { NOTHING }
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
            hosts.iter().all(|id| match (inner.places.get(id), found.get(id)) {
                (Some((key, _)), Some(row)) if *key == key_of(row) => {
                    inner.alter(*id, |known| *known = row.clone());
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
        self.write().alter(host, |row| {
            row.free_cpu -= amount.cpu_mhz;
            row.free_memory -= amount.memory;
            row.guests += if amount.cpu_mhz >= 0 && amount.memory >= 0 { 1 } else { -1 };
        });
    }

    /// Notes what a guest that is on a host already takes more (or, negative, less) of it.
    pub fn grew(&self, host: i64, amount: Amount) {
        self.write().alter(host, |row| {
            row.free_cpu -= amount.cpu_mhz;
            row.free_memory -= amount.memory;
        });
    }

    /// Notes that an account has a host to itself, by a committed transaction.
    pub fn kept(&self, host: i64, account: i64) {
        self.write().alter(host, |row| row.kept_for = Some(account));
    }

    /// Whether an account has a host to itself, or had.
    pub fn is_kept(&self, host: i64) -> bool {
        self.read().host(host).is_some_and(|row| row.kept_for.is_some())
    }

    /// The next host to try, `rejected` ones left out.
    ///
    /// # Errors
    /// The reasons of all hosts of the zone when none is left.
    pub fn propose(
        &self,
        wanted: &Wanted,
        strategy: &Strategy,
        rejected: &HashMap<i64, Rejection>,
    ) -> Result<Candidate, Shortage> {
        let inner = self.read();
        let why = |host: &HostRow| {
            let known = rejected.get(&host.id).copied();
            known.or_else(|| refusal(host, wanted)).or_else(|| strategy.refusal(host, wanted))
        };
        let fits = |host: &HostRow| why(host).is_none();
        let there = |host: &&HostRow| host.zone == wanted.zone && host.hypervisor == wanted.hypervisor;
        let one = |id: Option<i64>| id.and_then(|id| inner.host(id)).filter(there).filter(|host| fits(host));
        // Where it must be if anywhere, and where it would be best, need no search, and there the thresholds don't count.
        let only = wanted.host.or(wanted.rules.together.first().copied());
        let search = Search { inner: &inner, wanted, strategy };
        let found = one(only).or_else(|| one(wanted.prefer));
        let found = found.or_else(|| if only.is_none() { search.run(&fits) } else { None });
        if let Some(host) = found {
            return Ok(host.candidate());
        }
        let reason = |host: &&HostRow| {
            let over = || search.is_over(host.cluster).then_some(Rejection::Threshold);
            (host.name.clone(), why(host).or_else(over).unwrap_or(Rejection::Taken))
        };
        let all = inner.of_zone(wanted.zone, &wanted.hypervisor);
        Err(Shortage { wanted: wanted.to_string(), rejected: all.iter().map(reason).collect() })
    }

    /// What a strategy finds in each cluster, in the order in which it looks at them. Goes through all hosts of the zone: for people.
    pub fn survey(&self, wanted: &Wanted, strategy: &Strategy) -> Vec<Surveyed> {
        let inner = self.read();
        let search = Search { inner: &inner, wanted, strategy };
        let mut hosts: HashMap<i64, Vec<&HostRow>> = HashMap::new();
        for host in inner.of_zone(wanted.zone, &wanted.hypervisor) {
            hosts.entry(host.cluster).or_default().push(host);
        }
        let survey = |cluster: i64| {
            let hosts = hosts.get(&cluster).map(Vec::as_slice).unwrap_or_default();
            let over = search.is_over(cluster).then_some(Rejection::Threshold);
            let why = |host: &HostRow| refusal(host, wanted).or_else(|| strategy.refusal(host, wanted)).or(over);
            let rejected: Vec<_> = hosts.iter().filter_map(|h| Some((h.name.clone(), why(h)?))).collect();
            let suitable = hosts.len() - rejected.len();
            Surveyed { cluster, suitable, shortage: Shortage { wanted: String::new(), rejected } }
        };
        strategy.clusters(&inner.clusters, wanted).map(survey).collect()
    }

    /// The clusters that have hosts of a hypervisor in a zone.
    pub fn clusters(&self, zone: i64, hypervisor: &str) -> Vec<i64> {
        self.read().clusters.ids(zone, hypervisor)
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
    if host.kept(wanted.since).is_some_and(|account| account != wanted.account) {
        return Some(Rejection::Kept);
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

    /// The account that has the host to itself, if one does: that of the VMs there, or of those that ran there until after `since`.
    pub fn kept(&self, since: i64) -> Option<i64> {
        let counts = self.guests > 0 || self.last_stop.is_some_and(|stop| stop > since);
        self.kept_for.filter(|_| counts)
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
