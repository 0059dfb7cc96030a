//! What the two hosts of a migration are told: the control plane carries from one to the other what they have to say.

use super::{Undo, Way};
use crate::store::placement as hosts;
use crate::store::vms::VmRow;
use crate::vm::VmWorld;
use config::keys;
use contract::ApiError;
use contract_agent::{
    BeginMigration, Command, ConfirmMigration, FinishMigration, MigrationStep, Outcome, PerformMigration,
    PrepareMigration, StartVm, VmSpec, command, outcome,
};
use jobs::{Ctx, NO_UNDO, StepKey};
use model::HostId;
use std::sync::Arc;
use std::time::Duration;

/// How often a host that sends tells where it stands, in ms.
const REPORT_MILLIS: u32 = 3_000;
/// Reports after which the job looks whether it is still wanted.
const REPORTS: u32 = 10;
/// How much longer than the host itself the job waits for the end of a sending.
const GRACE: Duration = Duration::from_secs(20);
/// How often the job looks whether a host that it waits for is known to be down.
const LOOK: Duration = Duration::from_secs(1);
/// How long the old host may take to end its copy. Nobody waits longer: the new copy can take the lease over.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(10);

/// A migration under way.
pub struct Road<'m> {
    world: &'m Arc<VmWorld>,
    ctx: &'m Ctx,
    vm: &'m VmRow,
    way: &'m Way,
}

impl<'m> Road<'m> {
    pub fn new(world: &'m Arc<VmWorld>, ctx: &'m Ctx, vm: &'m VmRow, way: &'m Way) -> Road<'m> {
        Road { world, ctx, vm, way }
    }

    /// The old host says what the VM is.
    pub async fn begin(&self) -> Result<MigrationStep, ApiError> {
        let Way { source, from, .. } = *self.way;
        let body = command::Body::BeginMigration(BeginMigration { vm_uuid: self.vm.uuid.clone(), generation: from });
        let outcome = self.ctx.call("begin", Some(Undo::Source { source, generation: from }), |_| {
            let (world, body) = (self.world.clone(), body.clone());
            async move { order(&world, source, None, body).await }
        });
        step(outcome.await?)
    }

    /// The new host makes a copy that waits.
    pub async fn prepare(&self, spec: VmSpec, offer: MigrationStep) -> Result<MigrationStep, ApiError> {
        let Way { host, generation, .. } = *self.way;
        let MigrationStep { cookie, domain, .. } = offer;
        let prepare = PrepareMigration { vm: Some(spec), cookie, domain, take_cpu_as_is: false };
        let body = command::Body::PrepareMigration(prepare);
        let outcome = self.ctx.call("prepare", Some(Undo::Copy { host, generation }), |call| {
            let (world, body) = (self.world.clone(), body.clone());
            async move { order(&world, host, Some(call.key()), body).await }
        });
        step(outcome.await?)
    }

    /// The old host sends the VM, for as long as `migratewait` allows. Its guest is paused when this returns.
    pub async fn perform(&self, place: MigrationStep) -> Result<MigrationStep, ApiError> {
        let Way { source, from, host, .. } = *self.way;
        let patience = self.world.node.settings.get(keys::MIGRATE_WAIT).clamp(1, 7 * 86_400);
        let patience = Duration::from_secs(patience.unsigned_abs());
        let perform = PerformMigration {
            vm_uuid: self.vm.uuid.clone(),
            generation: from,
            cookie: place.cookie,
            uri: place.uri,
            report_after_millis: REPORT_MILLIS,
            max_downtime_millis: 0,
            give_up_after_millis: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        };
        let body = command::Body::PerformMigration(perform);
        // The host says why; one that doesn't isn't waited for.
        let ctx = self.ctx.deadline(patience + GRACE);
        let outcome = ctx.call("perform", NO_UNDO, |_| {
            let (world, body) = (self.world.clone(), body.clone());
            async move { send(&world, source, host, body).await }
        });
        step(outcome.await?)
    }

    /// The new host says that its copy is whole.
    pub async fn finish(&self, sent: MigrationStep) -> Result<MigrationStep, ApiError> {
        let Way { host, generation, .. } = *self.way;
        let finish =
            FinishMigration { vm_uuid: self.vm.uuid.clone(), generation, cookie: sent.cookie, cancelled: false };
        let body = command::Body::FinishMigration(finish);
        let outcome = self.ctx.call("finish", NO_UNDO, |_| {
            let (world, body) = (self.world.clone(), body.clone());
            async move { order(&world, host, None, body).await }
        });
        let whole = step(outcome.await?)?;
        match whole.sent {
            true => Ok(whole),
            false => {
                Err(ApiError::failed("The virtual machine didn't arrive whole on the host that it was to move to"))
            }
        }
    }

    /// The old host ends its copy and gives the lease back. Whether it said so: when it doesn't, the new copy takes the
    /// lease over.
    pub async fn confirm(&self, whole: MigrationStep) -> Result<bool, ApiError> {
        let Way { source, from, .. } = *self.way;
        let confirm = ConfirmMigration {
            vm_uuid: self.vm.uuid.clone(),
            generation: from,
            cookie: whole.cookie,
            cancelled: false,
        };
        let body = command::Body::ConfirmMigration(confirm);
        let outcome = self.ctx.call("confirm", NO_UNDO, |_| {
            let (world, command) = (self.world.clone(), Command { body: Some(body.clone()) });
            async move {
                let told = world.hub.execute(HostId(source), None, false, command, CONFIRM_DEADLINE).await;
                Ok::<_, ApiError>(told.unwrap_or_else(|error| {
                    tracing::warn!(source, %error, "the host that a VM left doesn't say that its copy is gone: its lease is taken over");
                    Outcome::default()
                }))
            }
        });
        Ok(outcome.await?.body.is_some())
    }

    /// The new host takes the lease and lets its copy run; should that be gone, the VM boots from its disks.
    pub async fn start(&self, spec: VmSpec) -> Result<(), ApiError> {
        let Way { host, generation, .. } = *self.way;
        let body = command::Body::StartVm(StartVm { vm: Some(spec), take_over: true });
        let outcome = self.ctx.call("boot", Some(Undo::Domain { host, generation }), |call| {
            let (world, body) = (self.world.clone(), body.clone());
            async move { order(&world, host, Some(call.key()), body).await }
        });
        outcome.await.map(drop)
    }
}

/// Listens to a host that sends a VM until all is sent.
async fn send(world: &VmWorld, source: i64, host: i64, body: command::Body) -> Result<Outcome, ApiError> {
    for _ in 0..REPORTS {
        let outcome = tokio::select! {
            told = order(world, source, None, body.clone()) => told?,
            () = until_down(world, host) => return Err(went_down()),
        };
        let step = step(outcome.clone())?;
        if step.sent {
            return Ok(outcome);
        }
        tracing::debug!(source, host, sent = step.sent_bytes, of = step.total_bytes, "a VM is on its way");
    }
    Err(ApiError::unavailable("the virtual machine's memory is still being sent"))
}

/// Lets a host do its part. One that is known to be down isn't waited for: the VM has better things to do.
async fn order(world: &VmWorld, host: i64, key: Option<&StepKey>, body: command::Body) -> Result<Outcome, ApiError> {
    tokio::select! {
        told = world.on_host(host, key, false, body) => told,
        () = until_down(world, host) => Err(went_down()),
    }
}

/// Waits until a host is known to be down.
async fn until_down(world: &VmWorld, host: i64) {
    loop {
        match hosts::is_down(&world.node.db, host).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(host, %error, "whether a host is down can't be read"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn went_down() -> ApiError {
    ApiError::failed("A host went down while the virtual machine was moving")
}

fn step(outcome: Outcome) -> Result<MigrationStep, ApiError> {
    match outcome.body {
        Some(outcome::Body::Migration(step)) => Ok(step),
        _ => Err(ApiError::internal("a host answered a migration's order with something else")),
    }
}
