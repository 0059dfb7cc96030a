//! How one placement searches: a planner's order of clusters, the order of hosts within a cluster, and what the account has
//! already. Read where the place is decided; the index does the searching.

use super::clusters::Clusters;
use super::index::Wanted;
use super::planner::{Mode, Planner};
use super::shortage::Rejection;
use crate::store::placement::HostRow;
use config::{Scope, Settings, keys};
use std::collections::{BTreeMap, BTreeSet};

/// In which order the hosts of a cluster are tried (`vm.allocation.algorithm`, VM-189).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// From a random point on.
    #[default]
    Random,
    /// In order of their numbers.
    FirstFit,
    /// The one first with the fewest VMs of the account.
    UserDispersing,
    /// The one first of which least is allocated.
    LeastConsumed,
}

impl Algorithm {
    /// Reads the setting. In 4.11 the names of planners were once algorithms: what they say of clusters is the planners' part now.
    pub fn parse(word: &str) -> Algorithm {
        match word.trim().to_ascii_lowercase().as_str() {
            "random" | "userconcentratedpod_random" => Algorithm::Random,
            "userdispersing" => Algorithm::UserDispersing,
            "firstfitleastconsumed" => Algorithm::LeastConsumed,
            _ => Algorithm::FirstFit,
        }
    }
}

/// What clusters are ordered by (`host.capacityType.to.order.clusters`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resource {
    /// CPU.
    #[default]
    Cpu,
    /// Memory.
    Memory,
}

impl Resource {
    /// Reads the setting: "CPU" or "RAM".
    pub fn parse(word: &str) -> Resource {
        if word.trim().eq_ignore_ascii_case("ram") { Resource::Memory } else { Resource::Cpu }
    }
}

/// Which share of a cluster may be allocated at most.
#[derive(Clone, Default)]
pub enum Limits {
    /// All of it.
    #[default]
    None,
    /// The shares of CPU and memory that are set for it (INST-202, INST-203).
    Set(Settings),
    /// The same for all.
    #[cfg(test)]
    All(f64, f64),
}

impl Limits {
    pub(super) fn of(&self, cluster: i64) -> Option<(f64, f64)> {
        match self {
            Limits::None => None,
            Limits::Set(settings) => {
                let scope = Scope::Cluster(cluster);
                let share = |key| settings.get_in(key, scope);
                Some((share(keys::CLUSTER_CPU_DISABLE_THRESHOLD), share(keys::CLUSTER_MEMORY_DISABLE_THRESHOLD)))
            }
            #[cfg(test)]
            Limits::All(cpu, memory) => Some((*cpu, *memory)),
        }
    }
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Limits::None) { "no limits" } else { "limits" })
    }
}

/// How many VMs the account has where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mine {
    /// By host.
    pub hosts: BTreeMap<i64, i64>,
    /// By cluster.
    pub clusters: BTreeMap<i64, i64>,
    /// By pod.
    pub pods: BTreeMap<i64, i64>,
}

/// What implicit dedication knows of hosts (IAM-073).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Private {
    /// Hosts all of whose VMs are the account's, of offerings with this planner.
    pub own: BTreeSet<i64>,
    /// Hosts that aren't empty though no VM runs there: one did until a short time ago, or a router is there.
    pub taken: BTreeSet<i64>,
}

/// A strategy.
#[derive(Clone, Debug, Default)]
pub struct Strategy {
    /// The planner.
    pub planner: Planner,
    /// For implicit dedication.
    pub mode: Mode,
    /// Order of hosts in a cluster.
    pub algorithm: Algorithm,
    /// What clusters are ordered by.
    pub resource: Resource,
    /// Clusters beyond them are left out.
    pub limits: Limits,
    /// 0 to 1: how much the number of VMs counts against what is allocated, for user dispersing (`vm.user.dispersion.weight`).
    pub weight: f64,
    /// Hosts with one of these tags come last (`implicit.host.tags`, VM-305).
    pub aside: Vec<String>,
    /// What the account has.
    pub mine: Mine,
    /// What implicit dedication knows.
    pub private: Private,
    /// Chance.
    pub start: usize,
}

/// Hosts that are tried before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// The account's own.
    Own,
    /// Those on which nothing is.
    Empty,
    /// All.
    Any,
}

impl Strategy {
    /// Which hosts are tried, in this order.
    pub(super) const fn tiers(&self) -> &'static [Tier] {
        match (self.planner, self.mode) {
            (Planner::ImplicitDedication, Mode::Strict) => &[Tier::Own, Tier::Empty],
            (Planner::ImplicitDedication, Mode::Preferred) => &[Tier::Own, Tier::Empty, Tier::Any],
            _ => &[Tier::Any],
        }
    }

    /// Whether a VM that is placed by it keeps the host for its account.
    pub fn is_strict(&self) -> bool {
        self.planner == Planner::ImplicitDedication && self.mode == Mode::Strict
    }

    /// Whether nothing is on a host, as far as is known.
    pub(super) fn is_empty(&self, host: &HostRow) -> bool {
        host.guests == 0 && !self.private.taken.contains(&host.id)
    }

    /// Why the planner doesn't want a host at all.
    pub(super) fn refusal(&self, host: &HostRow, wanted: &Wanted) -> Option<Rejection> {
        if self.planner != Planner::ImplicitDedication {
            // Even of the same account: a VM of another planner would share it.
            return host.kept(wanted.since).map(|_| Rejection::Kept);
        }
        let fit = self.mode == Mode::Preferred || self.private.own.contains(&host.id) || self.is_empty(host);
        (!fit).then_some(Rejection::Shared)
    }

    /// The clusters of what is wanted, in the planner's order.
    pub(super) fn clusters<'c>(&'c self, all: &'c Clusters, wanted: &'c Wanted) -> Box<dyn Iterator<Item = i64> + 'c> {
        let (zone, hypervisor, by) = (wanted.zone, wanted.hypervisor.as_str(), self.resource);
        // First fit is the same each time.
        let pivot = if self.algorithm == Algorithm::FirstFit { 0 } else { self.start };
        let ranked = || all.ranked(zone, hypervisor, by, pivot);
        match self.planner {
            Planner::UserDispersing if self.weight >= 1.0 => {
                let counts = &self.mine.clusters;
                let mut mine: Vec<(i64, i64)> = counts.iter().map(|(cluster, n)| (*n, *cluster)).collect();
                mine.retain(|(_, cluster)| all.is_of(*cluster, zone, hypervisor));
                mine.sort_by_key(|(n, cluster)| (*n, all.rank(*cluster, by)));
                let none = ranked().filter(|cluster| !counts.contains_key(cluster));
                Box::new(none.chain(mine.into_iter().map(|(_, cluster)| cluster)))
            }
            Planner::UserDispersing => {
                #[allow(clippy::cast_precision_loss)] // nobody has 2^53 VMs
                let count = |cluster: i64| self.mine.clusters.get(&cluster).map_or(0.0, |n| *n as f64);
                let weighed =
                    |cluster: i64| all.share(cluster, by).min(1e9) * (1.0 - self.weight) + count(cluster) * self.weight;
                let mut order: Vec<(f64, i64)> = ranked().map(|cluster| (weighed(cluster), cluster)).collect();
                order.sort_by(|a, b| a.0.total_cmp(&b.0));
                Box::new(order.into_iter().map(|(_, cluster)| cluster))
            }
            Planner::UserConcentratedPod => {
                let counts = &self.mine.pods;
                let mut pods: Vec<(i64, i64)> = counts.iter().map(|(pod, n)| (*n, *pod)).collect();
                pods.sort_by_key(|(n, pod)| (std::cmp::Reverse(*n), *pod));
                let mine = pods.into_iter().flat_map(move |(_, pod)| all.of_pod(zone, hypervisor, pod, by));
                let elsewhere = |cluster: &i64| all.pod(*cluster).is_none_or(|pod| !counts.contains_key(&pod));
                Box::new(mine.chain(ranked().filter(elsewhere)))
            }
            Planner::FirstFit | Planner::SkipHeuristics | Planner::ImplicitDedication => Box::new(ranked()),
        }
    }
}
