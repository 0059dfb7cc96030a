//! Orders about leases, whatever the driver: who gets a VM, and who has it.

use super::{Area, Claimed, Sight, Step, Taker, Tenure, now};
use crate::hypervisor::Failure;
use contract::ApiError;
use contract_agent::{Heartbeat, HeartbeatState, InspectHost, InspectLease, LeaseState, VmSpec};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Readings of a heartbeat in a lease time, while it is watched.
const GLANCES: u32 = 20;
/// The shortest pause between two.
const SHORTEST: Duration = Duration::from_millis(10);

/// A VM's lease, as an order names it.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'w> {
    pub vm: &'w str,
    pub pool: &'w str,
    pub epoch: i64,
    pub take_over: bool,
}

/// How a host reaches its pools, which may hang.
pub(crate) trait Reach: Sync {
    /// Asks where waiting does no harm.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T, Failure>> + Send;
}

async fn on_pool<T: Send + 'static>(
    reach: &impl Reach,
    area: &Arc<Area>,
    question: impl FnOnce(&Area) -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let area = area.clone();
    reach.ask(move || question(&area)).await
}

async fn sight(reach: &impl Reach, area: &Arc<Area>, vm: &str) -> Result<Sight, Failure> {
    let vm = vm.to_owned();
    on_pool(reach, area, move |area| area.read(&vm)).await
}

/// Gets a VM for a host: at once, or after two lease times. `given_up` ends the waiting.
pub(crate) async fn take(
    reach: &impl Reach,
    area: &Arc<Area>,
    host: &str,
    wanted: Wanted<'_>,
    given_up: impl Future<Output = ()>,
) -> Result<Tenure, Failure> {
    let mut taker = Taker::new(area.rules(), host, wanted.epoch, wanted.take_over);
    let mut given_up = std::pin::pin!(given_up);
    loop {
        match taker.next(now()) {
            Step::Read => {
                let began = now();
                let sight = sight(reach, area, wanted.vm).await?;
                taker.read(began, &sight);
            }
            Step::Claim => {
                let (vm, host, epoch) = (wanted.vm.to_owned(), host.to_owned(), wanted.epoch);
                if !on_pool(reach, area, move |area| area.claim(&vm, epoch, &host)).await? {
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
                    () = &mut given_up => {
                        return Err(ApiError::concurrent("the step was taken back before it was done").into());
                    }
                }
            }
            Step::Won(tenure) => return Ok(tenure),
            Step::Lost(winner) => return Err(lost(wanted, &winner).into()),
            Step::Held(holder) => return Err(held(wanted, &holder).into()),
        }
    }
}

/// Says whose a VM is, and whether its holder lives.
pub(crate) async fn inspect(reach: &impl Reach, area: &Arc<Area>, order: &InspectLease) -> Result<LeaseState, Failure> {
    let sight = sight(reach, area, &order.vm_uuid).await?;
    let patience = Duration::from_millis(order.observe_millis.into());
    let seen = match sight.highest() {
        Some(holder) => watch(reach, area, &holder.host, patience).await?,
        None => Watched::default(),
    };
    let highest = sight.highest();
    Ok(LeaseState {
        vm_uuid: order.vm_uuid.clone(),
        pool_uuid: order.pool_uuid.clone(),
        epoch: sight.epoch(),
        host_uuid: highest.map(|claim| claim.host.clone()).unwrap_or_default(),
        free: highest.is_none_or(|claim| claim.free),
        moved: seen.moved,
        observed_millis: millis(seen.time),
        lease_millis: millis(area.rules().lease()),
    })
}

/// Says whether a host shows on a pool that it lives.
pub(crate) async fn inspect_host(
    reach: &impl Reach,
    area: &Arc<Area>,
    order: &InspectHost,
) -> Result<HeartbeatState, Failure> {
    let patience = Duration::from_millis(order.observe_millis.into());
    let seen = watch(reach, area, &order.host_uuid, patience).await?;
    if !seen.moved && !patience.is_zero() {
        on_pool(reach, area, Area::check_writes).await?;
    }
    Ok(HeartbeatState {
        host_uuid: order.host_uuid.clone(),
        pool_uuid: order.pool_uuid.clone(),
        seen: seen.last.is_some(),
        moved: seen.moved && seen.last.is_some(),
        observed_millis: millis(seen.time),
        lease_millis: millis(area.rules().lease()),
        beat_millis: seen.last.map_or(0, |last| last.beat_millis),
    })
}

/// What was seen of a host's heartbeat.
#[derive(Default)]
struct Watched {
    last: Option<Heartbeat>,
    moved: bool,
    time: Duration,
}

/// Watches a host's heartbeat until it moves, at most for so long.
async fn watch(reach: &impl Reach, area: &Arc<Area>, host: &str, patience: Duration) -> Result<Watched, Failure> {
    let begun = now();
    let first = heartbeat(reach, area, host).await?;
    let mut seen = Watched { last: first.clone(), ..Watched::default() };
    while !seen.moved && seen.time < patience {
        let pause = (area.rules().lease() / GLANCES).max(SHORTEST).min(patience - seen.time);
        tokio::time::sleep(pause).await;
        seen.last = heartbeat(reach, area, host).await?;
        seen.moved = seen.last != first;
        seen.time = now().saturating_sub(begun);
    }
    Ok(seen)
}

async fn heartbeat(reach: &impl Reach, area: &Arc<Area>, host: &str) -> Result<Option<Heartbeat>, Failure> {
    let host = host.to_owned();
    on_pool(reach, area, move |area| area.heartbeat(&host)).await
}

/// What is left of a VM after a fence.
pub(crate) fn fenced(area: &Area, host: &str, wanted: Wanted<'_>) -> LeaseState {
    LeaseState {
        vm_uuid: wanted.vm.to_owned(),
        pool_uuid: wanted.pool.to_owned(),
        epoch: wanted.epoch,
        host_uuid: host.to_owned(),
        free: true,
        lease_millis: millis(area.rules().lease()),
        ..LeaseState::default()
    }
}

/// The pool can't be reached.
pub(crate) fn unreachable(why: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("the host can't reach the leases on its pool: {why}"))
}

/// What was started since by somebody else, or by a later order.
pub(crate) fn outdated(vm: &str, known: i64, wanted: i64) -> ApiError {
    ApiError::concurrent(format!("VM {vm} was started with generation {known} since: {wanted} is over"))
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

/// A duration for the line.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// The pool on which a VM's lease is: that of its root disk; empty when it has no disks.
pub(crate) fn lease_pool(spec: &VmSpec) -> &str {
    let root = spec.disks.iter().find(|disk| disk.root).or(spec.disks.first());
    root.map_or("", |disk| disk.pool_uuid.as_str())
}
