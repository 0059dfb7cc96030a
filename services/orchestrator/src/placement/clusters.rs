//! What clusters have and how much of it is allocated, in the order in which planners look at them. A change of a host costs
//! time logarithmic in clusters.

use super::fit_tree::Free;
use super::reserve::Amount;
use super::strategy::{Limits, Resource};
use crate::store::placement::HostRow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// How full a cluster is, in thousandths; clusters that are equal by that are taken in turn.
type Rank = (u32, i64);

/// A cluster without a host that takes VMs comes last.
const NOTHING: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Sum {
    zone: i64,
    hypervisor: String,
    pod: i64,
    hosts: usize,
    /// Of the hosts that take VMs.
    total: Free,
    free: Free,
}

impl Sum {
    fn share(&self, resource: Resource) -> f64 {
        let (total, free) = self.of(resource);
        #[allow(clippy::cast_precision_loss)] // capacities are far below 2^53
        let share = |used: i64, total: i64| used as f64 / total as f64;
        if total <= 0 { f64::INFINITY } else { share(total - free, total) }
    }

    const fn of(&self, resource: Resource) -> (i64, i64) {
        match resource {
            Resource::Cpu => (self.total.cpu, self.free.cpu),
            Resource::Memory => (self.total.memory, self.free.memory),
        }
    }

    fn thousandths(&self, resource: Resource) -> u32 {
        let (total, free) = self.of(resource);
        if total <= 0 {
            return NOTHING;
        }
        let share = i128::from(total - free) * 1000 / i128::from(total);
        u32::try_from(share.clamp(0, i128::from(NOTHING - 1))).unwrap_or(NOTHING)
    }
}

#[derive(Debug, Default)]
struct Part {
    ids: BTreeSet<i64>,
    by_cpu: BTreeSet<Rank>,
    by_memory: BTreeSet<Rank>,
    pods: BTreeMap<i64, BTreeSet<i64>>,
}

/// The clusters that have hosts.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    sums: HashMap<i64, Sum>,
    /// By zone and hypervisor.
    parts: HashMap<(i64, String), Part>,
}

impl Clusters {
    /// A host is there.
    pub(super) fn add(&mut self, host: &HostRow) {
        self.change(host, 1);
    }

    /// A host isn't there, or not as it was.
    pub(super) fn remove(&mut self, host: &HostRow) {
        self.change(host, -1);
    }

    fn change(&mut self, host: &HostRow, sign: i64) {
        let id = host.cluster;
        let mut sum = self.sums.remove(&id).unwrap_or_else(|| Sum {
            zone: host.zone,
            hypervisor: host.hypervisor.clone(),
            pod: host.pod,
            hosts: 0,
            total: Free::default(),
            free: Free::default(),
        });
        let part = self.parts.entry((sum.zone, sum.hypervisor.clone())).or_default();
        part.by_cpu.remove(&(sum.thousandths(Resource::Cpu), id));
        part.by_memory.remove(&(sum.thousandths(Resource::Memory), id));
        part.ids.remove(&id);
        sum.hosts = if sign > 0 { sum.hosts + 1 } else { sum.hosts.saturating_sub(1) };
        if host.accepting {
            sum.total.cpu += sign * host.total_cpu;
            sum.total.memory += sign * host.total_memory;
            sum.free.cpu += sign * host.free_cpu;
            sum.free.memory += sign * host.free_memory;
        }
        if sum.hosts == 0 {
            if let Some(pod) = part.pods.get_mut(&sum.pod) {
                pod.remove(&id);
            }
            return;
        }
        part.by_cpu.insert((sum.thousandths(Resource::Cpu), id));
        part.by_memory.insert((sum.thousandths(Resource::Memory), id));
        part.pods.entry(sum.pod).or_default().insert(id);
        part.ids.insert(id);
        self.sums.insert(id, sum);
    }

    /// All clusters of a zone with a hypervisor, by number.
    pub(super) fn ids(&self, zone: i64, hypervisor: &str) -> Vec<i64> {
        let part = self.parts.get(&(zone, hypervisor.to_owned()));
        part.map(|p| p.ids.iter().copied().collect()).unwrap_or_default()
    }

    /// The same, the least allocated first; among equals those from `pivot` on.
    pub(super) fn ranked(
        &self,
        zone: i64,
        hypervisor: &str,
        resource: Resource,
        pivot: usize,
    ) -> impl Iterator<Item = i64> + '_ {
        let part = self.parts.get(&(zone, hypervisor.to_owned()));
        part.into_iter().flat_map(move |part| {
            let set = match resource {
                Resource::Cpu => &part.by_cpu,
                Resource::Memory => &part.by_memory,
            };
            let pivot = if pivot == 0 { i64::MIN } else { pivot_of(pivot, &part.ids) };
            let next = move |after: Bound<Rank>| set.range((after, Bound::Unbounded)).next().map(|rank| rank.0);
            std::iter::successors(next(Bound::Unbounded), move |level| next(Bound::Excluded((*level, i64::MAX))))
                .flat_map(move |level| {
                    let late = set.range((level, pivot)..=(level, i64::MAX));
                    late.chain(set.range((level, i64::MIN)..(level, pivot))).map(|rank| rank.1)
                })
        })
    }

    /// The clusters of a pod, the least allocated first.
    pub(super) fn of_pod(&self, zone: i64, hypervisor: &str, pod: i64, resource: Resource) -> Vec<i64> {
        let part = self.parts.get(&(zone, hypervisor.to_owned()));
        let ids = part.and_then(|p| p.pods.get(&pod));
        let mut ids: Vec<i64> = ids.map(|ids| ids.iter().copied().collect()).unwrap_or_default();
        ids.sort_by_key(|id| self.rank(*id, resource));
        ids
    }

    /// Its place in the order.
    pub(super) fn rank(&self, cluster: i64, resource: Resource) -> Rank {
        (self.sums.get(&cluster).map_or(NOTHING, |sum| sum.thousandths(resource)), cluster)
    }

    /// Which part of it is allocated; infinite when it has nothing.
    pub(super) fn share(&self, cluster: i64, resource: Resource) -> f64 {
        self.sums.get(&cluster).map_or(f64::INFINITY, |sum| sum.share(resource))
    }

    /// The pod that it is in.
    pub(super) fn pod(&self, cluster: i64) -> Option<i64> {
        self.sums.get(&cluster).map(|sum| sum.pod)
    }

    /// Whether it is one of a zone with a hypervisor.
    pub(super) fn is_of(&self, cluster: i64, zone: i64, hypervisor: &str) -> bool {
        self.sums.get(&cluster).is_some_and(|sum| sum.zone == zone && sum.hypervisor == hypervisor)
    }

    /// Whether `amount` more would take it beyond what may be allocated (INST-202, INST-203).
    pub(super) fn is_over(&self, cluster: i64, amount: Amount, limits: &Limits) -> bool {
        let (Some((cpu, memory)), Some(sum)) = (limits.of(cluster), self.sums.get(&cluster)) else { return false };
        #[allow(clippy::cast_precision_loss)] // capacities are far below 2^53
        let over = |total: i64, free: i64, more: i64, share: f64| {
            // A hair more, for what a product of fractions loses.
            (total - free + more) as f64 > total as f64 * (share + 1e-9)
        };
        over(sum.total.cpu, sum.free.cpu, amount.cpu_mhz, cpu)
            || over(sum.total.memory, sum.free.memory, amount.memory, memory)
    }
}

/// A number between that of the first cluster and that of the last one: they lie close together.
fn pivot_of(chance: usize, ids: &BTreeSet<i64>) -> i64 {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return i64::MIN };
    let width = u64::try_from(last - first + 1).unwrap_or(1).max(1);
    let offset = u64::try_from(chance).unwrap_or_default() % width;
    first + i64::try_from(offset).unwrap_or_default()
}
