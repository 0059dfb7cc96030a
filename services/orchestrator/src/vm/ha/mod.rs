//! Virtual machines whose host died, or that ended by themselves.
//!
//! A duty looks for running VMs on hosts that are known to be down ([`crate::host::absence`] decides that). Each is written
//! off by a job ([`lost`]): it is Stopped, its capacity is free, and the host owes the stop of what may be left there. One
//! that is HA-enabled gets a wish in `vm_restarts`; so does one that ended by itself ([`super::power`]). The same duty has
//! wishes come true ([`restart`]), `ha.workers` at a time: whatever the control plane believes, the VM's lease on its pool
//! keeps two copies from writing. One that ends by itself again and again soon after each restart is given up in the end.

mod figures;
pub mod lost;
pub mod restart;

use super::{VmWorld, claim, view};
use crate::store::recoveries;
use crate::store::restarts::{self, Cause};
use crate::store::vms::{self, VmRow};
use config::{Settings, keys};
use contract::ApiError;
use coord::Term;
use events::{Alert, Record};
use jobs::{Accept, Job};
use std::collections::HashMap;
use std::time::Duration;
use store::{Tx, now_micros};
use tokio::time::Instant;

/// Between looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Most VMs that one look takes up.
const BATCH: i64 = 256;
/// When a VM that was to be written off and still runs is taken up again.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs while this replica has the duty.
pub async fn run(world: VmWorld, term: Term) {
    let mut taken_up = TakenUp::new();
    let shown = figures::Waiting;
    loop {
        tokio::select! {
            () = term.lost() => return,
            () = world.node.stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        if let Err(error) = round(&world, &term, &mut taken_up).await {
            tracing::warn!(%error, "VMs of hosts that failed can't be looked for; the next round tries again");
        }
        if let Ok(counts) = restarts::counts(&world.node.db).await {
            shown.show(counts);
        }
    }
}

/// VMs by number and generation, and when their write-off was accepted.
type TakenUp = HashMap<(i64, i64), Instant>;

async fn round(world: &VmWorld, term: &Term, taken_up: &mut TakenUp) -> Result<(), ApiError> {
    let db = &world.node.db;
    taken_up.retain(|_, at| at.elapsed() < AGAIN);
    let mut after = 0;
    loop {
        let found = restarts::lost(db, after, BATCH).await?;
        for (vm, host, generation) in &found {
            after = *vm;
            if !taken_up.contains_key(&(*vm, *generation)) && write_off(world, term, *vm, *host, *generation).await? {
                taken_up.insert((*vm, *generation), Instant::now());
            }
        }
        if i64::try_from(found.len()).unwrap_or(0) < BATCH {
            break;
        }
    }
    let obsolete = restarts::obsolete(db, BATCH).await?;
    if !obsolete.is_empty() {
        store::tx!(db, "forget-restarts", |tx| {
            term.fence(tx).await?;
            for vm in &obsolete {
                restarts::done(tx, *vm).await?;
            }
            Ok::<_, ApiError>(())
        })
        .await?;
    }
    let well = now_micros() - well_after(world.node.settings.get(keys::RESTART_RETRY_INTERVAL));
    if recoveries::any_over(db, well).await? {
        store::tx!(db, "forget-recoveries", |tx| {
            term.fence(tx).await?;
            Ok::<_, ApiError>(recoveries::forget_over(tx, well).await?)
        })
        .await?;
    }
    let workers = world.node.settings.get(keys::HA_WORKERS).clamp(1, 1000);
    let places = workers - restarts::under_way(db).await?;
    if places > 0 {
        for vm in restarts::due(db, places).await? {
            restart(world, term, vm).await?;
        }
    }
    Ok(())
}

/// Accepts the job that writes a VM off. Gives whether it did: a job that owns the VM goes first.
async fn write_off(world: &VmWorld, term: &Term, vm: i64, host: i64, generation: i64) -> Result<bool, ApiError> {
    let Some(row) = vms::find(&world.node.db, vm).await? else { return Ok(false) };
    let ticket = world.jobs.ticket().await?;
    let accepted = store::tx!(world.node.db, "write-off", |tx| {
        term.fence(tx).await?;
        jobs::claims::free(tx, &[claim(vm)]).await?;
        let what = "writing off after the failure of its host";
        let accept = accept(&row, lost::Lost { vm, host, generation, written_off: false }, what);
        world.jobs.accept(tx, ticket.clone(), accept).await.map(drop)
    })
    .await;
    or_busy(term, accepted)
}

/// Accepts the job that starts a VM again.
async fn restart(world: &VmWorld, term: &Term, vm: i64) -> Result<bool, ApiError> {
    let Some(row) = vms::find(&world.node.db, vm).await? else { return Ok(false) };
    let ticket = world.jobs.ticket().await?;
    let accepted = store::tx!(world.node.db, "restart", |tx| {
        term.fence(tx).await?;
        jobs::claims::free(tx, &[claim(vm)]).await?;
        if restarts::assign(tx, vm, ticket.uuid()).await? {
            let accept = accept(&row, restart::Restart { vm }, "starting again after a failure");
            world.jobs.accept(tx, ticket.clone(), accept).await?;
        }
        Ok::<_, ApiError>(())
    })
    .await;
    or_busy(term, accepted)
}

/// A VM that another job owns is looked at again later; a duty that was lost ends.
fn or_busy(term: &Term, accepted: Result<(), ApiError>) -> Result<bool, ApiError> {
    match accepted {
        Ok(()) => Ok(true),
        Err(error) if error.is_transient() && !term.is_lost() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The acceptance of a job on a VM that nobody asked for. `what` it does begins its description.
pub fn accept<J: Job>(vm: &VmRow, job: J, what: &str) -> Accept<J> {
    Accept {
        job,
        caller: rpc::cx::system_caller(),
        command: None,
        owner: vm.owner.clone(),
        instance: Some(("VirtualMachine".to_owned(), vm.uuid.clone())),
        claims: vec![claim(vm.id)],
        custom_id: None,
        description: format!("{what} VM: {}", view::label(vm)),
        entity_id: None,
    }
}

/// Decides what becomes of a VM that is Stopped without order, as part of `tx`: a wish to start it again, when it is
/// HA-enabled and that isn't switched off, else an alert. One that ends by itself soon after each of its restarts waits
/// longer and longer, and at last stays Stopped. `what` begins the alert's text.
///
/// # Errors
/// Those of the database.
pub async fn decide(
    settings: &Settings,
    tx: &mut Tx,
    vm: &VmRow,
    host: i64,
    cause: Cause,
    what: &str,
) -> Result<Option<Record>, ApiError> {
    let facts = restarts::facts(tx, vm.id).await?;
    let restart = cause == Cause::Host || settings.get(keys::HA_VM_RESTART_HOSTUP);
    let alert = |text: String| Ok(Some(Alert::user_vm(&vm.uuid).raise(text)));
    if !(facts.ha && restart) {
        let why = if facts.ha { "that is switched off" } else { "it is not HA-enabled" };
        return alert(format!("{what}. It isn't started again: {why}"));
    }
    let interval = settings.get(keys::RESTART_RETRY_INTERVAL);
    let in_a_row = match cause {
        // Wall clocks of two replicas: a bound that is off by their difference does no harm.
        Cause::Guest => recoveries::in_a_row(tx, vm.id, vm.generation, now_micros() - well_after(interval)).await?,
        Cause::Host => 0,
    };
    if in_a_row >= restart::ATTEMPTS {
        recoveries::forget(tx, vm.id).await?;
        tx.after_commit(|| figures::restart("given up"));
        return alert(format!("{what}, soon after each of {in_a_row} restarts. It stays Stopped"));
    }
    let pause = if in_a_row > 0 { restart::pause(interval, in_a_row - 1) } else { 0 };
    restarts::wish(tx, vm, cause, host, facts, now_micros() + pause * 1_000_000).await?;
    if facts.local && cause == Cause::Host {
        return alert(format!("{what}. Its disks are there, so it is started again only when that host is back"));
    }
    if in_a_row == 1 {
        return alert(format!("{what}, soon after it had been started again. The next try is in {pause} s"));
    }
    Ok(None)
}

/// How long a VM runs after a restart until it counts as well, in µs: `restart.retry.interval`, and five minutes at least.
fn well_after(interval: i64) -> i64 {
    interval.clamp(300, 86_400) * 1_000_000
}
