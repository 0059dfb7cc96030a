//! Another size ([`Scale`]): a stopped VM gets any that its offering allows, a running one a larger one, on the host where it
//! runs. What it may become is [`rules`].
//!
//! What it counts against limits is the larger of both sizes as long as that isn't settled. The VM's row and what it holds of
//! its host change in one commit; the host is told after it, and the books go back when it refuses.

mod rules;

pub use rules::Facts;

use super::deploy::row;
use super::nic::Running;
use super::order::resource;
use super::{VmWorld, usage, view};
use crate::store::placement as hosts;
use crate::store::vm_shapes::{self as shapes, Shape};
use crate::store::vms::{self, VmRow};
use contract::ApiError;
use contract_agent::{Command, ScaleVm, command};
use contract_identity::{ReserveRequest, ResourceAmount};
use events::{EventRecord, EventState, Record};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::state::VmState;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;

/// Gives a VM another offering.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scale {
    /// The VM.
    pub vm: i64,
    /// The offering.
    pub offering: i64,
    /// What a custom offering leaves open. Sorted: the job's input is the same in every run.
    pub details: BTreeMap<String, String>,
    /// Only while it is stopped (changeServiceForVirtualMachine).
    pub stopped_only: bool,
}

/// What it takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// What the VM counts against limits.
    Limits(Box<Shape>),
    /// Its row, and what it holds of its host.
    Row(Box<Shape>),
    /// Its size on its host.
    Guest {
        /// Where.
        at: Running,
        /// The size before.
        size: Box<Shape>,
    },
}

/// What the first step found and decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    before: Shape,
    after: Shape,
    at: Option<Running>,
}

impl Plan {
    /// What it counts while nothing is settled.
    fn larger(&self) -> (i64, i64) {
        (self.before.cpu.max(self.after.cpu), self.before.memory_mb.max(self.after.memory_mb))
    }
}

impl Scale {
    /// What the VM becomes, by what it is now.
    async fn plan(&self, tx: &mut Tx, facts: &Facts) -> Result<Plan, ApiError> {
        let gone = || ApiError::param("Unable to find a virtual machine with specified vmId");
        let vm = vms::find_in(tx, self.vm).await?.filter(|vm| !vm.removed).ok_or_else(gone)?;
        if self.stopped_only && vm.state != VmState::Stopped {
            return Err(not_stopped(&vm));
        }
        let before = shapes::of(tx, self.vm).await?.ok_or_else(gone)?;
        let details = self.details.clone().into_iter().collect();
        let after = facts.judge(&vm, &before, self.offering, &details)?;
        let at = match (vm.state, vm.host_id) {
            (VmState::Running, Some(host)) => Some(Running { host, generation: vm.generation }),
            _ => None,
        };
        Ok(Plan { before, after, at })
    }
}

impl Job for Scale {
    const KIND: &'static str = "vm.scale";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let facts = Facts::read(&world, &vm, self.offering).await;
        let plan = jobs::step!(ctx, "check", |tx| match &facts {
            Ok(facts) => self.plan(tx, facts).await,
            Err(error) => Err(error.clone()),
        })
        .await?;
        let Plan { before, after, at } = &plan;
        count(&world, &ctx, "limits", &vm, plan.larger(), Some(Undo::Limits(Box::new(before.clone())))).await?;
        jobs::step!(ctx, "scaled", undo: Undo::Row(Box::new(before.clone())), |tx| {
            reshape(&world, tx, &vm, after, at.as_ref()).await
        })
        .await?;
        if let Some(at) = at {
            let undo = Undo::Guest { at: at.clone(), size: Box::new(before.clone()) };
            ctx.call("guest", Some(undo), |call| {
                let (world, body, host) = (world.clone(), order(&vm, after, at), at.host);
                async move { world.on_host(host, Some(call.key()), false, body).await }
            })
            .await?;
        }
        let settled = (after.cpu, after.memory_mb);
        if settled != plan.larger() {
            count(&world, &ctx, "settle", &vm, settled, None).await?;
        }
        let shown = view::one(&world, vm.id, ctx.caller()).await?;
        let kind = if at.is_some() { "VM.DYNAMIC.SCALE" } else { "VM.UPGRADE" };
        let scaled = VmRow { service_offering_id: after.offering, ..vm };
        let mut facts = vec![usage::record(&scaled, kind)];
        if self.stopped_only {
            // The command's own: its job has none.
            let text = format!("Successfully completed upgrading Vm: {}", view::label(&scaled));
            let event = EventRecord::new(ctx.caller(), "VM.UPGRADE", EventState::Completed, text);
            facts.push(Record::Event(event.about("VirtualMachine", &scaled.uuid).owned_by(&scaled.owner)));
        }
        jobs::finish!(ctx, |tx| {
            events::record(tx, &facts).await?;
            Ok::<_, ApiError>(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let vm = row(&world, self.vm).await?;
        match undo {
            Undo::Limits(before) => {
                let request = reservation(&world, &vm, (before.cpu, before.memory_mb));
                let mut client = world.limits();
                cx.call(|call| async move { client.reserve(call.request(request)).await }).await.map(drop)
            }
            Undo::Row(before) => {
                let took_place = cx.value::<()>().is_some();
                jobs::undo_step!(cx, |tx| {
                    if took_place {
                        let holds = hosts::held(tx, vm.id).await?.is_some();
                        let at = Running { host: 0, generation: 0 };
                        reshape(&world, tx, &vm, &before, holds.then_some(&at)).await?;
                    }
                    Ok::<_, ApiError>(())
                })
                .await
            }
            Undo::Guest { at, size } => shrink(&world, &vm, &at, &size, &cx).await,
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Why changeServiceForVirtualMachine leaves a VM alone.
pub fn not_stopped(vm: &VmRow) -> ApiError {
    ApiError::param(format!(
        "Unable to upgrade virtual machine {}  in state {}; make sure the virtual machine is stopped",
        view::label(vm),
        vm.state
    ))
}

/// The VM's row says the new shape; where it runs (`at`), it holds as much of its host.
async fn reshape(world: &VmWorld, tx: &mut Tx, vm: &VmRow, to: &Shape, at: Option<&Running>) -> Result<(), ApiError> {
    if at.is_some() {
        let Some((host, more)) = shapes::hold_instead(tx, vm.id, to.amount()).await? else {
            return Err(ApiError::capacity(format!(
                "Unable to scale vm: {} due to insufficient resources: its host has too little CPU or memory left. Migrate it to \
                 a host that has, and scale it there",
                vm.uuid
            )));
        };
        let index = world.index.clone();
        tx.after_commit(move || index.grew(host, more));
    }
    Ok(shapes::set(tx, vm.id, to).await?)
}

/// What the host is told.
fn order(vm: &VmRow, size: &Shape, at: &Running) -> command::Body {
    let unsigned = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    command::Body::ScaleVm(ScaleVm {
        vm_uuid: vm.uuid.clone(),
        generation: at.generation,
        cpus: unsigned(size.cpu),
        cpu_mhz: unsigned(size.cpu_mhz),
        memory_bytes: u64::try_from(size.memory_mb).unwrap_or_default() * 1024 * 1024,
    })
}

/// Gives the guest its size back; a host that is away owes it.
async fn shrink(world: &VmWorld, vm: &VmRow, at: &Running, size: &Shape, cx: &UndoCx) -> Result<(), ApiError> {
    let (host, body) = (at.host, order(vm, size, at));
    if hosts::is_up(&world.node.db, host).await? {
        let told = cx
            .call(|call| {
                let (world, body) = (world.clone(), body.clone());
                async move { world.on_host(host, Some(call.key()), true, body).await }
            })
            .await;
        return match told {
            // It doesn't run there any more: there is no guest to be given back anything.
            Err(error) if !error.is_transient() => {
                tracing::info!(vm = vm.uuid, %error, "the guest keeps its size");
                Ok(())
            }
            told => told.map(drop),
        };
    }
    let debt = world.node.db.next_id("host_debt").await?;
    let encoded = Command { body: Some(body) }.encode_to_vec();
    jobs::undo_step!(cx, |tx| Ok::<_, ApiError>(vms::owe(tx, debt, host, &vm.uuid, encoded.clone()).await?)).await
}

fn reservation(world: &VmWorld, vm: &VmRow, (cpu, memory_mb): (i64, i64)) -> ReserveRequest {
    let items = [(resource::CPU, cpu), (resource::MEMORY, memory_mb)];
    ReserveRequest {
        reserver: world.node.replica.clone(),
        key: vm.limits_key.clone(),
        account_id: vm.owner.account_id,
        items: items.iter().map(|(t, n)| ResourceAmount { r#type: *t, amount: *n }).collect(),
    }
}

/// Lets the VM count with so many CPUs and MiB: a step of its own.
async fn count(
    world: &Arc<VmWorld>,
    ctx: &Ctx,
    step: &str,
    vm: &VmRow,
    size: (i64, i64),
    undo: Option<Undo>,
) -> Result<(), ApiError> {
    ctx.call(step, undo, |call| {
        let (mut client, request) = (world.limits(), call.request(reservation(world, vm, size)));
        async move { client.reserve(request).await }
    })
    .await
    .map(drop)
}
