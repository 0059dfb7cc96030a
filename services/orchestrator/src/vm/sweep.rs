//! The duty that ends what was destroyed: every `expunge.interval` seconds, VMs that were destroyed (or failed) more than
//! `expunge.delay` seconds ago are expunged.

use super::expunge::Expunge;
use super::{VmWorld, claim, view};
use crate::store::vms::{self, VmRow};
use config::keys;
use contract::{ApiError, Request as _};
use contract_compute::ExpungeVirtualMachineRequest;
use coord::Term;
use jobs::Accept;
use std::time::Duration;
use store::now_micros;
use tokio::time::Instant;

/// Most VMs that one round takes up.
const BATCH: i64 = 500;

/// Runs while this replica has the duty.
pub async fn run(world: VmWorld, term: Term) {
    let mut settings = world.node.settings.changes();
    let mut last = Instant::now();
    loop {
        let every = world.node.settings.get(keys::EXPUNGE_INTERVAL).clamp(1, 86_400);
        tokio::select! {
            () = term.lost() => return,
            () = world.node.stop.cancelled() => return,
            // A day that has become a minute isn't waited for.
            Ok(()) = settings.changed() => continue,
            () = tokio::time::sleep_until(last + Duration::from_secs(every.unsigned_abs())) => {}
        }
        last = Instant::now();
        if let Err(e) = round(&world, &term).await {
            tracing::warn!(error = %e, "expunging destroyed virtual machines failed; the next round tries again");
        }
    }
}

async fn round(world: &VmWorld, term: &Term) -> Result<(), ApiError> {
    let delay = world.node.settings.get(keys::EXPUNGE_DELAY).max(0);
    for vm in vms::to_expunge(&world.node.db, now_micros() - delay * 1_000_000, BATCH).await? {
        if let Err(e) = expunge(world, &vm, Some(term)).await {
            if term.is_lost() {
                return Err(e);
            }
            tracing::debug!(vm = vm.uuid, error = %e, "not expunged in this round");
        }
    }
    Ok(())
}

/// Accepts the job that ends a destroyed VM.
///
/// # Errors
/// When another job owns it, or `term` is over.
pub async fn expunge(world: &VmWorld, vm: &VmRow, term: Option<&Term>) -> Result<(), ApiError> {
    let ticket = world.jobs.ticket().await?;
    let caller = rpc::cx::system_caller();
    store::tx!(world.node.db, "sweep", |tx| {
        if let Some(term) = term {
            term.fence(tx).await?;
        }
        // Whoever works on the VM now may recover it: the next round looks again.
        jobs::claims::free(tx, &[claim(vm.id)]).await?;
        let accept = Accept {
            job: Expunge { vm: vm.id },
            caller: caller.clone(),
            command: ExpungeVirtualMachineRequest::COMMAND,
            owner: vm.owner.clone(),
            instance: Some(("VirtualMachine".to_owned(), vm.uuid.clone())),
            claims: vec![claim(vm.id)],
            custom_id: None,
            description: format!("Expunging VM: {}", view::label(vm)),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await.map(drop)
    })
    .await
}
