//! The search itself: tiers of hosts, in them clusters in the planner's order, in those hosts in the algorithm's order.

use super::fit_tree::{FitTree, Free};
use super::index::{Group, Inner, Wanted};
use super::strategy::{Algorithm, Resource, Strategy, Tier};
use crate::store::placement::HostRow;
use std::cell::Cell;

/// One search.
pub(super) struct Search<'s> {
    pub(super) inner: &'s Inner,
    pub(super) wanted: &'s Wanted,
    pub(super) strategy: &'s Strategy,
}

impl<'s> Search<'s> {
    /// The first host for which `fits` holds.
    pub(super) fn run(&self, fits: &dyn Fn(&HostRow) -> bool) -> Option<&'s HostRow> {
        let strategy = self.strategy;
        // Who asks for such a tag gets such a host.
        let asked = self.wanted.tags.iter().any(|tag| strategy.aside.contains(tag));
        let put_aside = |host: &HostRow| !asked && host.tags.iter().any(|tag| strategy.aside.contains(tag));
        for tier in strategy.tiers() {
            let seen = Cell::new(false);
            let ordinary = |host: &HostRow| {
                if !fits(host) {
                    return false;
                }
                let aside = put_aside(host);
                seen.set(seen.get() || aside);
                !aside
            };
            let found = self.in_tier(*tier, &ordinary);
            let found = found.or_else(|| if seen.get() { self.in_tier(*tier, fits) } else { None });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether its cluster has been given away as far as it may be.
    pub(super) fn is_over(&self, cluster: i64) -> bool {
        self.inner.clusters.is_over(cluster, self.wanted.amount, &self.strategy.limits)
    }

    fn in_tier(&self, tier: Tier, fits: &dyn Fn(&HostRow) -> bool) -> Option<&'s HostRow> {
        match tier {
            Tier::Own => self.own(fits),
            Tier::Empty => self.in_order(|group| &group.empties, &|host| self.strategy.is_empty(host) && fits(host)),
            Tier::Any => self.in_order(|group| &group.tree, fits),
        }
    }

    /// The fullest first: they fill one after the other.
    fn own(&self, fits: &dyn Fn(&HostRow) -> bool) -> Option<&'s HostRow> {
        let wanted = self.wanted;
        let hosts = self.strategy.private.own.iter().filter_map(|id| self.inner.host(*id));
        let there = hosts.filter(|h| h.zone == wanted.zone && h.hypervisor == wanted.hypervisor);
        there.filter(|h| fits(h) && !self.is_over(h.cluster)).min_by_key(|h| (h.free_cpu, h.free_memory, h.id))
    }

    fn in_order(
        &self,
        tree: impl Fn(&'s Group) -> &'s FitTree,
        fits: &dyn Fn(&HostRow) -> bool,
    ) -> Option<&'s HostRow> {
        let (inner, wanted) = (self.inner, self.wanted);
        let need = Free { cpu: wanted.amount.cpu_mhz, memory: wanted.amount.memory };
        for part in wanted.rules.parts() {
            let Some(group) = inner.groups.get(&(wanted.zone, wanted.hypervisor.clone(), part)) else { continue };
            let tree = tree(group);
            // Nobody has room: no cluster need be asked.
            if tree.first(0, need).is_none() {
                continue;
            }
            for cluster in self.strategy.clusters(&inner.clusters, wanted) {
                let asked = wanted.cluster.is_none_or(|c| c == cluster)
                    && wanted.pod.is_none_or(|pod| inner.clusters.pod(cluster) == Some(pod))
                    && !wanted.without_clusters.contains(&cluster);
                let Some(range) = group.ranges.get(&cluster).filter(|_| asked && !self.is_over(cluster)) else {
                    continue;
                };
                if let Some(host) = self.in_cluster(group, tree, *range, need, fits) {
                    return Some(host);
                }
            }
        }
        None
    }

    fn in_cluster(
        &self,
        group: &'s Group,
        tree: &'s FitTree,
        (low, high): (usize, usize),
        need: Free,
        fits: &dyn Fn(&HostRow) -> bool,
    ) -> Option<&'s HostRow> {
        let width = high.saturating_sub(low).max(1);
        let middle = match self.strategy.algorithm {
            Algorithm::FirstFit => low,
            _ => low + self.strategy.start % width,
        };
        let walk = |from: usize, to: usize| {
            let first = tree.first(from, need).filter(|i| *i < to);
            std::iter::successors(first, move |i| tree.first(i + 1, need).filter(|i| *i < to))
        };
        let mut hosts = walk(middle, high).chain(walk(low, middle)).filter_map(|i| group.hosts.get(i));
        match self.strategy.algorithm {
            Algorithm::Random | Algorithm::FirstFit => hosts.find(|h| fits(h)),
            // The first of those that are equal: `min_by_key` keeps it.
            Algorithm::UserDispersing => {
                let count = |h: &HostRow| self.strategy.mine.hosts.get(&h.id).copied().unwrap_or(0);
                hosts.filter(|h| fits(h)).min_by_key(|h| count(h))
            }
            Algorithm::LeastConsumed => hosts.filter(|h| fits(h)).min_by_key(|h| self.consumed(h)),
        }
    }

    /// How much of a host is allocated, in millionths.
    fn consumed(&self, host: &HostRow) -> i128 {
        let (free, total) = match self.strategy.resource {
            Resource::Cpu => (host.free_cpu, host.total_cpu),
            Resource::Memory => (host.free_memory, host.total_memory),
        };
        i128::from(total - free) * 1_000_000 / i128::from(total.max(1))
    }
}
