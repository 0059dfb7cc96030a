//! Moving a running VM to another host ([`Migrate`]; VM-241 and others): where it may go is [`target`], what the two hosts
//! are told is [`road`].
//!
//! While the job works, the VM is Migrating. Up to the step "move" it belongs to its old host, in the books and by its lease;
//! a failure leaves it Running there. From that step on it belongs to the new one, and there is no way back: its memory is
//! whole there, and the old copy is ended before the new one is let run. Should the new host fail it then, it is Stopped and,
//! when it is HA-enabled, started again from its disks.
//!
//! Whatever is killed in between, and whoever can't be reached: the new copy runs only with the lease of the new generation,
//! which the old one loses first.

mod kept;
mod road;
mod target;
mod undo;

use super::deploy::row;
use super::{VmWorld, approach, boot, view};
use crate::affinity::binding;
use crate::placement;
use crate::store::placement as rows;
use crate::store::vms::{self, VmRow};
use crate::store::{moves, occupancy, vm_order};
use contract::ApiError;
use contract_agent::{Command, StopVm, command};
use contract_network::MoveNicsRequest;
use contract_storage::VmDisksRequest;
use jobs::{AbortCx, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::state::VmState;
use prost::Message as _;
use road::Road;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;
use target::Target;

pub use target::{Suitability, suitability};

/// Moves a running VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Migrate {
    /// The VM.
    pub vm: i64,
    /// Where it goes.
    pub host: i64,
}

/// What a migration takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The state `Migrating`, and the capacity of the new host.
    Place,
    /// The NICs' move.
    Nics {
        /// The old host.
        source: i64,
        /// The new one.
        host: i64,
    },
    /// What began at the old host: the VM goes on there.
    Source {
        /// The old host.
        source: i64,
        /// The VM's generation there.
        generation: i64,
    },
    /// The copy that waits at the new host.
    Copy {
        /// The new host.
        host: i64,
        /// The VM's generation there.
        generation: i64,
    },
    /// Nothing, beyond the point where the VM belongs to the new host: it is Stopped there.
    Moved {
        /// The old host.
        source: i64,
        /// The VM's generation there.
        generation: i64,
    },
    /// The VM on the new host.
    Domain {
        /// The new host.
        host: i64,
        /// The VM's generation there.
        generation: i64,
    },
}

/// From where to where a VM moves.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Way {
    /// The old host.
    source: i64,
    /// The VM's generation there.
    from: i64,
    /// The new host.
    host: i64,
    /// Its cluster.
    cluster: i64,
    /// Its pod.
    pod: i64,
    /// The VM's generation there.
    generation: i64,
}

impl Job for Migrate {
    const KIND: &'static str = "vm.migrate";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let guest = vm_order::guest(&world.node.db, vm.service_offering_id, vm.os_type_id).await?;
        // Counts only when the step below is new; a run that comes later finds the VM in another state.
        let target = target::find(&world, &vm, self.host).await;
        let way = jobs::step!(ctx, "place", undo: Undo::Place, |tx| place(&world, tx, &vm, &target).await).await?;
        let Way { source, host, generation, .. } = way;

        let nics = MoveNicsRequest { vm_id: vm.id, host_id: host, stays_on: None };
        let disks = VmDisksRequest {
            vm_id: vm.id,
            host_id: Some(host),
            cluster_id: Some(way.cluster),
            pod_id: Some(way.pod),
            iso_id: vm.iso_id,
        };
        let (nics, disks) = tokio::try_join!(
            ctx.call("nics", Some(Undo::Nics { source, host }), |call| {
                let (mut client, request) = (world.attachments(), call.request(nics));
                async move { client.change_host(request).await }
            }),
            ctx.call("disks", NO_UNDO, |call| {
                let (mut client, request) = (world.disks(), call.request(disks));
                async move { client.prepare(request).await }
            }),
        )?;
        let spec = boot::spec(&vm, guest, generation, &nics.nics, &disks);
        let road = Road::new(&world, &ctx, &vm, &way);
        let offer = road.begin().await?;
        let place = road.prepare(spec.clone(), offer).await?;
        // What was agreed is known to whoever takes this job over: the hosts are in the middle of it from here on.
        jobs::step!(ctx, "agreed", |_tx| Ok::<_, ApiError>(())).await?;
        let sent = road.perform(place).await?;
        let whole = road.finish(sent).await?;
        jobs::step!(ctx, "move", undo: Undo::Moved { source, generation: way.from }, |tx| {
            change_host(tx, vm.id, &way).await
        })
        .await?;
        let ended = road.confirm(whole).await?;
        road.start(spec).await?;

        let mut shown = view::one(&world, vm.id, ctx.caller()).await?;
        shown.state = Some(VmState::Running.to_string());
        let debt = world.node.db.next_id("host_debt").await?;
        jobs::finish!(ctx, |tx| {
            if !vms::transit(tx, vm.id, &[VmState::Migrating], VmState::Running).await? {
                return Err(ApiError::concurrent("the virtual machine is no longer Migrating"));
            }
            give_back(&world, tx, vm.id).await?;
            if let Some(alert) = kept::alert(tx, &vm, source, host).await? {
                events::record(tx, &[alert]).await?;
            }
            if !ended {
                vms::owe(tx, debt, source, &vm.uuid, stop_order(&vm.uuid, way.from)).await?;
            }
            // What a host reported meanwhile was about a VM that moves; asked again, it counts.
            let hub = world.hub.clone();
            tx.after_commit(move || {
                hub.ask_report(model::HostId(host));
            });
            Ok(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        undo::run(&world, self.vm, undo, &cx).await
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}

/// The VM is Migrating, has a generation for its new host, and holds room there, beside what it holds of the old one.
async fn place(world: &VmWorld, tx: &mut Tx, vm: &VmRow, target: &Result<Target, ApiError>) -> Result<Way, ApiError> {
    if !vms::transit(tx, vm.id, &[VmState::Running], VmState::Migrating).await? {
        return Err(target::not_running(vm));
    }
    let target = target.clone()?;
    let now = vms::find_in(tx, vm.id).await?.ok_or_else(|| target::not_running(vm))?;
    let held = rows::held(tx, vm.id).await?.filter(|(host, _)| now.host_id == Some(*host));
    let (source, amount) = held.ok_or_else(|| ApiError::internal("a running virtual machine has no place"))?;
    if source == target.host {
        return Err(target::already_there());
    }
    // Its groups are held: no peer is placed meanwhile. Dedication is no bar for an administrator (IAM-074).
    let rules = binding::hold(tx, &now).await?;
    if let Some(why) = rules.parting(target.host) {
        return Err(target.parted(why, &rules));
    }
    if !rows::take(tx, target.host, amount, None).await? {
        return Err(target.too_full());
    }
    // A VM that has its host for its account only has the new one so, too, unless the administrator mixes them (IAM-074).
    let (account, since) = (now.owner.account_id, approach::since(&world.node.settings));
    let keeps = approach::is_strict(world, tx, &now).await?
        && occupancy::is_alone(tx, vm.id, target.host, account, since).await?;
    if keeps {
        rows::keep(tx, target.host, account).await?;
    }
    moves::hold(tx, vm.id, target.host, amount).await?;
    let (index, host) = (world.index.clone(), target.host);
    tx.after_commit(move || {
        index.took(host, amount);
        if keeps {
            index.kept(host, account);
        }
    });
    let generation = vms::promise(tx, vm.id).await?;
    let Target { host, cluster, pod, .. } = target;
    Ok(Way { source, from: now.generation, host, cluster, pod, generation })
}

/// The VM belongs to the new host, and what it still holds of the old one is in the way of others until that copy is gone.
async fn change_host(tx: &mut Tx, vm: i64, way: &Way) -> Result<(), ApiError> {
    let Way { source, host, cluster, pod, generation, .. } = *way;
    let moved = vms::change_host(tx, vm, source, (host, cluster, pod), generation).await?;
    if !moved || !moves::swap(tx, vm, source, host).await? {
        return Err(ApiError::concurrent("the virtual machine is no longer Migrating from that host"));
    }
    Ok(())
}

/// Gives back what the VM holds of the host where it isn't. A repeat does nothing.
async fn give_back(world: &VmWorld, tx: &mut Tx, vm: i64) -> Result<(), ApiError> {
    if let Some((host, amount)) = moves::drop_hold(tx, vm).await? {
        rows::give(tx, host, amount).await?;
        let index = world.index.clone();
        tx.after_commit(move || index.took(host, placement::Amount::negated(amount)));
    }
    Ok(())
}

/// What a host owes on which a copy may be left.
fn stop_order(uuid: &str, generation: i64) -> Vec<u8> {
    let stop = StopVm { uuid: uuid.to_owned(), forced: true, generation };
    Command { body: Some(command::Body::StopVm(stop)) }.encode_to_vec()
}
