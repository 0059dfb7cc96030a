//! Orders about leases: who gets a VM, who has it, and that nobody has it any more.

use super::driver::Simulator;
use super::keeper;
use super::state::{Claim, Lease, State};
use crate::hypervisor::{Done, Failure, News, Work};
use crate::lease::{Area, Claimed, Sight, Step, Taker, Tenure, now};
use contract::ApiError;
use contract_agent::{FenceVm, InspectLease, LeaseState, outcome};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Readings of a heartbeat in a lease time, while it is watched.
const GLANCES: u32 = 20;
/// The shortest pause between two.
const SHORTEST: Duration = Duration::from_millis(10);

/// A VM's lease, as an order names it.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'w> {
    pub vm: &'w str,
    pub pool: &'w str,
    pub epoch: i64,
    pub take_over: bool,
}

impl Simulator {
    /// Gets a VM for the order's host: at once, or after two lease times.
    pub(super) async fn take(&self, work: &Work, wanted: Wanted<'_>) -> Result<Taken<'_>, Failure> {
        let area = self.area(work, wanted.pool).await?;
        let taking = Taking::begin(self, work.host(), wanted);
        let mut taker = Taker::new(area.rules(), work.host(), wanted.epoch, wanted.take_over);
        loop {
            match taker.next(now()) {
                Step::Read => {
                    let began = now();
                    let sight = self.sight(work, &area, wanted.vm).await?;
                    taker.read(began, &sight);
                }
                Step::Claim => {
                    let (vm, host, epoch) = (wanted.vm.to_owned(), work.host().to_owned(), wanted.epoch);
                    if !self.on_pool(work, &area, move |area| area.claim(&vm, epoch, &host)).await? {
                        return Err(ApiError::concurrent(format!(
                            "another host has VM {} with the same generation {epoch}",
                            wanted.vm
                        ))
                        .into());
                    }
                    taker.claimed(now());
                }
                Step::Wait(until) => {
                    let left = until.saturating_sub(now());
                    tokio::select! {
                        () = tokio::time::sleep(left) => {}
                        () = work.taken_back(), if !work.undo => {
                            return Err(ApiError::concurrent("the step was taken back before it was done").into());
                        }
                    }
                }
                Step::Won(tenure) => return Ok(Taken { tenure, _taking: taking }),
                Step::Lost(winner) => return Err(lost(wanted, &winner).into()),
                Step::Held(holder) => return Err(held(wanted, &holder).into()),
            }
        }
    }

    /// Forgets claims that lost against one that has won. Not waited for: nothing depends on it.
    pub(super) fn clear_below(&self, vm: &str, pool: &str, epoch: i64) {
        let (areas, vm, pool) = (self.areas.clone(), vm.to_owned(), pool.to_owned());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = areas.of(&pool, None).and_then(|area| area.clear_below(&vm, epoch)) {
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
    pub(super) fn abandon(&self, host: &str, claims: HashMap<String, Claim>) {
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

    pub(super) async fn do_inspect_lease(&self, work: &Work, order: InspectLease) -> Result<Done, Failure> {
        let mute = self.before(work, &["InspectLease"]).await?;
        let area = self.area(work, &order.pool_uuid).await?;
        let sight = self.sight(work, &area, &order.vm_uuid).await?;
        let (begun, patience) = (now(), Duration::from_millis(order.observe_millis.into()));
        let mut moved = false;
        let mut observed = Duration::ZERO;
        if let Some(holder) = sight.highest() {
            let first = self.heartbeat(work, &area, &holder.host).await?;
            while !moved && observed < patience {
                let pause = (area.rules().lease() / GLANCES).max(SHORTEST).min(patience - observed);
                tokio::time::sleep(pause).await;
                moved = self.heartbeat(work, &area, &holder.host).await? != first;
                observed = now().saturating_sub(begun);
            }
        }
        let mut state = lease_state(&order.vm_uuid, &order.pool_uuid, &area, &sight);
        state.moved = moved;
        state.observed_millis = millis(observed);
        Ok(work.commit(|_| Ok((outcome::Body::Lease(state), ())))?.mute(mute))
    }

    async fn heartbeat(
        &self,
        work: &Work,
        area: &Arc<Area>,
        host: &str,
    ) -> Result<Option<contract_agent::Heartbeat>, Failure> {
        let host = host.to_owned();
        self.on_pool(work, area, move |area| area.heartbeat(&host)).await
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
            let body = LeaseState {
                vm_uuid: wanted.vm.to_owned(),
                pool_uuid: wanted.pool.to_owned(),
                epoch: wanted.epoch,
                host_uuid: work.host().to_owned(),
                free: true,
                lease_millis: millis(area.rules().lease()),
                ..LeaseState::default()
            };
            Ok((outcome::Body::Lease(body), state))
        })?;
        if let Some(event) = stopped {
            self.tell(News::Vm(event));
        }
        drop(taken);
        self.give_back(work.host(), wanted.vm);
        self.clear_below(wanted.vm, wanted.pool, wanted.epoch);
        Ok(done.mute(mute))
    }

    pub(super) async fn area(&self, work: &Work, pool: &str) -> Result<Arc<Area>, Failure> {
        let (areas, pool) = (self.areas.clone(), pool.to_owned());
        self.blocking(work, move || areas.of(&pool, None)).await
    }

    async fn sight(&self, work: &Work, area: &Arc<Area>, vm: &str) -> Result<Sight, Failure> {
        let vm = vm.to_owned();
        self.on_pool(work, area, move |area| area.read(&vm)).await
    }

    async fn on_pool<T: Send + 'static>(
        &self,
        work: &Work,
        area: &Arc<Area>,
        ask: impl FnOnce(&Area) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let area = area.clone();
        self.blocking(work, move || ask(&area)).await
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

fn unreachable(why: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("the host can't reach the leases on its pool: {why}"))
}

fn lost(wanted: Wanted<'_>, winner: &Claimed) -> ApiError {
    ApiError::concurrent(format!(
        "VM {} was started with generation {} since, by host {}: {} is over",
        wanted.vm, winner.epoch, winner.host, wanted.epoch
    ))
}

fn held(wanted: Wanted<'_>, holder: &Claimed) -> ApiError {
    ApiError::failed(format!(
        "Host {} holds VM {} with generation {}: stop it there first, or take it over",
        holder.host, wanted.vm, holder.epoch
    ))
}

fn lease_state(vm: &str, pool: &str, area: &Area, sight: &Sight) -> LeaseState {
    let highest = sight.highest();
    LeaseState {
        vm_uuid: vm.to_owned(),
        pool_uuid: pool.to_owned(),
        epoch: sight.epoch(),
        host_uuid: highest.map(|claim| claim.host.clone()).unwrap_or_default(),
        free: highest.is_none_or(|claim| claim.free),
        lease_millis: millis(area.rules().lease()),
        ..LeaseState::default()
    }
}

pub(super) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
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
        taking.change(|claim| {
            claim.taking += 1;
            if wanted.epoch >= claim.epoch {
                (claim.pool, claim.epoch) = (wanted.pool.to_owned(), wanted.epoch);
            }
        });
        taking
    }

    fn change(&self, change: impl FnOnce(&mut Claim)) {
        let mut state: std::sync::MutexGuard<'_, State> = self.simulator.state();
        if let Some(host) = state.hosts.get_mut(&self.host) {
            change(host.claims.entry(self.vm.clone()).or_default());
        }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.change(|claim| claim.taking = claim.taking.saturating_sub(1));
    }
}
