//! Orders about leases: who gets a VM, who has it, and that nobody has it any more.

use super::driver::Simulator;
use super::keeper;
use super::state::{Lease, State};
use crate::hypervisor::{Done, Failure, News, Work};
use crate::lease::{self, Area, Claims, Reach, Tenure, Wanted, unreachable};
use contract::ApiError;
use contract_agent::{FenceVm, InspectHost, InspectLease, outcome};
use std::io;
use std::sync::Arc;

/// How an order's host reaches its pools: not at all when it is cut off from them.
struct Line<'l> {
    simulator: &'l Simulator,
    work: &'l Work,
}

impl Reach for Line<'_> {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.simulator.blocking(self.work, question).await
    }
}

impl Simulator {
    /// Gets a VM for the order's host: at once, or after two lease times.
    pub(super) async fn take(&self, work: &Work, wanted: Wanted<'_>) -> Result<Taken<'_>, Failure> {
        let area = self.area(work, wanted.pool).await?;
        let taking = Taking::begin(self, work.host(), wanted);
        let given_up = async {
            match work.undo {
                true => std::future::pending().await,
                false => work.taken_back().await,
            }
        };
        let tenure = lease::take(&Line { simulator: self, work }, &area, work.host(), wanted, given_up).await?;
        Ok(Taken { tenure, _taking: taking })
    }

    /// Forgets claims that lost against one that has won. Not waited for: nothing depends on it.
    pub(super) fn clear_below(&self, host: &str, vm: &str, pool: &str, epoch: i64) {
        let (areas, vm, pool, host) = (self.areas.clone(), vm.to_owned(), pool.to_owned(), host.to_owned());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = areas.of(&pool, None).and_then(|area| area.clear_below(&vm, epoch, &host)) {
                tracing::debug!(vm, %error, "old claims can't be cleared away");
            }
        });
    }

    /// Gives back what the host has claimed of a VM that it doesn't run. What fails is tried again by the keeper.
    pub(super) fn give_back(&self, host: &str, vm: &str) {
        if let Err(error) = self.give_back_now(host, vm) {
            tracing::debug!(host, vm, %error, "a lease can't be given back yet");
        }
    }

    /// Gives back all that a host had claimed which is forgotten. Not waited for: it runs nothing any more.
    pub(super) fn abandon(&self, host: &str, claims: Claims) {
        let (areas, host) = (self.areas.clone(), host.to_owned());
        tokio::task::spawn_blocking(move || {
            for (vm, claim) in claims {
                let freed = areas.of(&claim.pool, None).and_then(|area| area.free(&vm, claim.epoch, &host));
                if let Err(error) = freed {
                    tracing::warn!(host, vm, %error, "a lease of a removed host can't be given back");
                }
            }
        });
    }

    /// A VM is no more: what was claimed of it on a pool goes.
    pub(super) async fn forget_vm(&self, work: &Work, vm: &str, pool: &str) -> Result<(), Failure> {
        self.give_back(work.host(), vm);
        let (area, vm, host) = (self.area(work, pool).await?, vm.to_owned(), work.host().to_owned());
        self.blocking(work, move || area.forget(&vm, &host)).await
    }

    pub(super) async fn do_inspect_lease(&self, work: &Work, order: InspectLease) -> Result<Done, Failure> {
        let mute = self.before(work, &["InspectLease"]).await?;
        let area = self.area(work, &order.pool_uuid).await?;
        let state = lease::inspect(&Line { simulator: self, work }, &area, &order).await?;
        Ok(work.commit(|_| Ok((outcome::Body::Lease(state), ())))?.mute(mute))
    }

    pub(super) async fn do_inspect_host(&self, work: &Work, order: InspectHost) -> Result<Done, Failure> {
        let mute = self.before(work, &["InspectHost"]).await?;
        let area = self.area(work, &order.pool_uuid).await?;
        let state = lease::inspect_host(&Line { simulator: self, work }, &area, &order).await?;
        Ok(work.commit(|_| Ok((outcome::Body::Heartbeat(state), ())))?.mute(mute))
    }

    pub(super) async fn do_fence_vm(&self, work: &Work, order: FenceVm) -> Result<Done, Failure> {
        let mute = self.before(work, &["FenceVm"]).await?;
        let wanted = Wanted { vm: &order.vm_uuid, pool: &order.pool_uuid, epoch: order.generation, take_over: true };
        let taken = self.take(work, wanted).await?;
        let area = self.area(work, wanted.pool).await?;
        let mut stopped = None;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let host = state.host(work.host())?;
            if host.vms.get(wanted.vm).is_some_and(|vm| vm.spec.generation < wanted.epoch) {
                stopped = keeper::lose(work.host(), host, wanted.vm, wanted.epoch, entries);
            }
            let lease = Lease { generation: wanted.epoch, host: work.host().to_owned() };
            entries.push(lease.saved(wanted.vm));
            state.leases.insert(wanted.vm.to_owned(), lease);
            let body = lease::fenced(&area, work.host(), wanted);
            Ok((outcome::Body::Lease(body), state))
        })?;
        if let Some(event) = stopped {
            self.tell(News::Vm(event));
        }
        drop(taken);
        self.give_back(work.host(), wanted.vm);
        self.clear_below(work.host(), wanted.vm, wanted.pool, wanted.epoch);
        Ok(done.mute(mute))
    }

    pub(super) async fn area(&self, work: &Work, pool: &str) -> Result<Arc<Area>, Failure> {
        let (areas, pool) = (self.areas.clone(), pool.to_owned());
        self.blocking(work, move || areas.of(&pool, None)).await
    }

    /// What a host does with its storage: not at all when it is cut off from it.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: &Work,
        ask: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.alive(work)?.host(work.host())?.lease_cut {
            return Err(unreachable("it is cut off, as the simulator was told").into());
        }
        match tokio::task::spawn_blocking(ask).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(unreachable(error).into()),
            Err(_) => Err(ApiError::unavailable("the agent is ending").into()),
        }
    }
}

/// A VM that a host may start. To be kept until it runs, or the keeper would give the claim back.
pub(super) struct Taken<'s> {
    pub tenure: Tenure,
    _taking: Taking<'s>,
}

/// A host is about to have a claim: as long as this lives, the keeper doesn't give it back.
struct Taking<'s> {
    simulator: &'s Simulator,
    host: String,
    vm: String,
}

impl<'s> Taking<'s> {
    fn begin(simulator: &'s Simulator, host: &str, wanted: Wanted<'_>) -> Taking<'s> {
        let taking = Taking { simulator, host: host.to_owned(), vm: wanted.vm.to_owned() };
        taking.change(|claims| claims.begin(wanted.vm, wanted.pool, wanted.epoch));
        taking
    }

    fn change(&self, change: impl FnOnce(&mut Claims)) {
        let mut state: std::sync::MutexGuard<'_, State> = self.simulator.state();
        if let Some(host) = state.hosts.get_mut(&self.host) {
            change(&mut host.claims);
        }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.change(|claims| claims.end(&self.vm));
    }
}
