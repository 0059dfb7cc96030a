//! Starting a VM again after a failure: a place first, in the cluster where it ran if there is one; then as any start, with
//! a higher generation, taking the lease over from whoever still holds it.

use super::figures;
use crate::placement::Wanted;
use crate::store::restarts::{self, Cause, Wish};
use crate::store::vms::VmRow;
use crate::store::{recoveries, vm_order, vms};
use crate::vm::boot::{self, Constraints};
use crate::vm::deploy::row;
use crate::vm::start::{self, Near, Undo};
use crate::vm::{VmWorld, usage, view};
use config::keys;
use contract::ApiError;
use contract::api::Success;
use events::{Alert, EventRecord, EventState, Record};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Tx, now_micros};

/// Tries after which a VM stays Stopped: starts that fail, and starts after which it ends by itself again.
pub const ATTEMPTS: i64 = 5;
/// The longest pause between tries, in `restart.retry.interval`.
const LONGEST: i64 = 4;

/// Starts a VM again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restart {
    /// The VM.
    pub vm: i64,
}

impl Job for Restart {
    const KIND: &'static str = "vm.ha";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        // The wish is this job's own: nobody else forgets it.
        let wish = restarts::find(&world.node.db, vm.id).await?.ok_or_else(|| nothing_to_do(&vm))?;
        let wanted = wanted(&world, &vm, &wish).await?;
        let placed = start::launch(&world, &ctx, &vm, wanted, &nearest(&wish), nothing_to_do).await?;
        let (_, host) = vm_order::host(&world.node.db, placed.host).await?;
        jobs::finish!(ctx, |tx| {
            if !vms::transit(tx, vm.id, &[VmState::Starting], VmState::Running).await? {
                return Err(ApiError::concurrent("the virtual machine is no longer Starting"));
            }
            restarts::done(tx, vm.id).await?;
            if wish.cause == Cause::Guest {
                recoveries::started(tx, vm.id, placed.generation).await?;
            }
            tx.after_commit(|| figures::restart("done"));
            let text = format!("HA started VM {} again on host {host}", view::label(&vm));
            let event = EventRecord::new(ctx.caller(), "VM.START", EventState::Completed, text);
            let event = event.about("VirtualMachine", &vm.uuid).owned_by(&vm.owner);
            events::record(tx, &[Record::Event(event), usage::record(&vm, "VM.START")]).await?;
            Ok::<_, ApiError>(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        start::take_back(&world, self.vm, undo, cx).await
    }

    async fn abort(self, world: Arc<VmWorld>, error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        let Some(vm) = vms::find_in(tx, self.vm).await? else { return Ok(restarts::done(tx, self.vm).await?) };
        let Some(wish) = restarts::of(tx, self.vm).await? else { return Ok(()) };
        if vm.removed || vm.state != VmState::Stopped {
            return Ok(restarts::done(tx, self.vm).await?);
        }
        let failed =
            format!("VM {} could not be started again after a failure: {}", view::label(&vm), error.full_text());
        let tries = wish.attempts + 1;
        tx.after_commit(|| figures::restart("failed"));
        if tries >= ATTEMPTS {
            tx.after_commit(|| figures::restart("given up"));
            restarts::done(tx, self.vm).await?;
            let text = format!("{failed}. This was the last of {ATTEMPTS} tries: it stays Stopped");
            return Ok(events::record(tx, &[Alert::user_vm(&vm.uuid).raise(text)]).await?);
        }
        let pause = pause(world.node.settings.get(keys::RESTART_RETRY_INTERVAL), wish.attempts);
        restarts::failed(tx, self.vm, &failed, now_micros() + pause * 1_000_000).await?;
        if tries == 1 {
            let text = format!("{failed}. It is tried again in {pause} s");
            events::record(tx, &[Alert::user_vm(&vm.uuid).raise(text)]).await?;
        }
        Ok(())
    }
}

/// Seconds before the next try: doubled each time, up to a bound.
pub fn pause(interval: i64, failed_before: i64) -> i64 {
    let factor = 1i64 << failed_before.clamp(0, 30);
    interval.clamp(0, 86_400) * factor.min(LONGEST)
}

/// Where it may go at all. With `ha.tag`, hosts that carry it, whatever tags the offering asks for; a VM whose disks are a
/// host's own, there.
async fn wanted(world: &VmWorld, vm: &VmRow, wish: &Wish) -> Result<Wanted, ApiError> {
    let db = &world.node.db;
    let only = wish.only_host;
    // News of the very host that failed, or came back, may still be on the way.
    world.index.refresh(db, &[wish.host]).await?;
    let offering = vm_order::offering_of_vm(db, vm.service_offering_id).await?;
    let mut wanted = boot::wanted(world, vm, &Constraints { tags: offering.host_tags, ..Constraints::default() });
    wanted.host = only;
    wanted.in_need = true;
    if only.is_none()
        && let Some(tag) = wanted.without_tag.take()
    {
        wanted.tags = vec![tag];
    }
    if wish.cause == Cause::Host && only.is_none() {
        // Its old host failed it once; should it be back, it is as good as any.
        wanted.prefer = None;
    }
    Ok(wanted)
}

/// The nearest places to where it ran: its cluster, its pod.
fn nearest(wish: &Wish) -> Vec<Near> {
    let cluster = wish.cluster.map(|cluster| Near { cluster: Some(cluster), pod: None });
    let pod = wish.pod.map(|pod| Near { cluster: None, pod: Some(pod) });
    cluster.into_iter().chain(pod).collect()
}

fn nothing_to_do(vm: &VmRow) -> ApiError {
    ApiError::param(format!("VM {} isn't to be started again any more", view::label(vm)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!([0, 1, 2, 3, 9].map(|n| pause(600, n)), [600, 1200, 2400, 2400, 2400]);
        assert_eq!(pause(-5, 3), 0);
    }
}
