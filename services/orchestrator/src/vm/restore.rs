//! A ROOT disk made anew ([`Restore`]; VM-270 to 274): of the VM's template, or of another one.
//!
//! ```text
//! Running ─▶ Stopping ─▶ Stopped ─ the new disk in the place of the old one ─▶ Starting ─▶ Running ─ the old disk goes
//! ```
//! The two disks change places in one commit of the storage service ("renew"). Until the VM runs with the new one, or, when it
//! was stopped, until its row says all that is new, the old one is kept aside: what fails before puts it back, and leaves the VM
//! Stopped if it had been stopped for this.

use super::deploy::{release_limits, row};
use super::submit::{Wish, submit};
use super::{VmWorld, access, account_claim, boot, order, start, stop, usage, view};
use crate::store::isos;
use crate::store::vm_order::{self as facts, TemplateFacts};
use crate::store::vm_roots::{self as roots, Origin};
use crate::store::vms::{self, VmRow};
use contract::api::JobRef;
use contract::{ApiError, CommandInfo};
use contract_identity::{ReserveRequest, ResourceAmount};
use contract_network::TellRequest;
use contract_storage::{DiscardRequest, RenewRootRequest};
use jobs::{AbortCx, Claim, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::state::VmState;
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Makes a VM's ROOT disk anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restore {
    /// The VM.
    pub vm: i64,
    /// What the disk is made from.
    pub template: i64,
    /// Its guest OS type.
    pub os_type: Option<i64>,
    /// It is an ISO: the disk is empty, and the ISO lies in the CD drive.
    #[serde(default)]
    pub iso: bool,
    /// Whether it can set passwords: then there is a new one.
    pub password_enabled: bool,
    /// Whether its guests can be scaled while they run.
    pub dynamic_scaling: bool,
    /// UUID of the new disk.
    pub volume: String,
    /// Bytes of the new disk.
    pub size: i64,
    /// It is a reboot: only of a running VM.
    pub reboot: bool,
}

/// What it takes back when it fails. The names of those that stopping and starting register are theirs ([`stop::Undo`],
/// [`start::Undo`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The state `Stopping`: the host is asked what the VM really is.
    Stopping,
    /// Nothing, beyond the point where the VM is off or its host owes that: it is Stopped all the same.
    Off,
    /// What the new disk counts against limits.
    Limits,
    /// The new disk.
    Renewed,
    /// The routers are told the password that counts then: the last of the undos about it.
    Tell,
    /// What of the row comes from the template.
    Origin {
        /// As it was.
        before: Origin,
        /// The old disk: once that is gone, the VM comes from the new template for good.
        former: i64,
    },
    /// The state `Starting` and the host's capacity.
    Place,
    /// The NICs' readiness on the host.
    Nics {
        /// Host.
        host: i64,
    },
    /// The VM on its host.
    Domain {
        /// Host.
        host: i64,
        /// Its generation there.
        generation: i64,
    },
}

/// Who asks for a restored VM.
pub struct Ask {
    /// The command.
    pub command: Option<&'static CommandInfo>,
    /// Id that the job gets.
    pub custom_id: Option<String>,
    /// Another template than the VM's.
    pub template: Option<i64>,
    /// It is a reboot of a volatile VM.
    pub reboot: bool,
}

/// Accepts a restoration that is allowed as things are now.
///
/// # Errors
/// 431 for a template that can't be it or isn't there, 530 for a VM that can't be restored now.
pub async fn accept(world: &VmWorld, cx: &Cx, vm: &VmRow, ask: Ask) -> Result<JobRef, ApiError> {
    let db = &world.node.db;
    if !matches!(vm.state, VmState::Running | VmState::Stopped) {
        return Err(wrong_state(vm));
    }
    match facts::account(db, vm.owner.account_id).await? {
        Some((_, state, _)) if state.eq_ignore_ascii_case("enabled") => {}
        _ => return Err(ApiError::permission("Owner of the virtual machine is disabled")),
    }
    let root = roots::root(db, vm.id).await?;
    let root = root.ok_or_else(|| ApiError::param(format!("Can not find root volume for VM {}", vm.uuid)))?;
    if root.snapshots > 0 {
        return Err(ApiError::failed(
            "There is/are unbacked up snapshot(s) on ROOT volume, Re-install VM is not permitted, please try again later.",
        ));
    }
    let iso = isos::is_iso(db, vm.template_id).await?;
    let own = if iso { vm.iso_id } else { Some(vm.template_id) };
    let id = ask.template.or(own);
    let id = id.ok_or_else(|| ApiError::failed("Cannot restore the VM since there is no ISO attached to VM"))?;
    let template = facts::template(db, id, vm.zone_id).await?;
    let template = template.ok_or_else(|| ApiError::param("Cannot restore the vm as its template has been deleted"))?;
    check(vm, &template, iso)?;
    let size = if iso { root.size } else { root.size.max(template.size) };
    let same = id == vm.template_id;
    let job = Restore {
        vm: vm.id,
        template: id,
        iso,
        os_type: if same { vm.os_type_id } else { Some(template.os_type_id) },
        password_enabled: template.password_enabled,
        dynamic_scaling: template.dynamic_scaling,
        volume: model::new_uuid(),
        size,
        reboot: ask.reboot,
    };
    let mut claims = vec![account_claim(vm.owner.account_id), Claim::Exclusive(format!("volume/{}", root.volume))];
    claims.extend(iso.then(|| super::iso::claim(id)));
    let what = if ask.reboot { "rebooting" } else { "Restore" };
    let wish = Wish {
        command: ask.command,
        custom_id: ask.custom_id,
        description: format!("{what} VM: {}", view::label(vm)),
        about_vm: ask.reboot,
        claims,
    };
    submit(world, cx, vm, job, wish).await
}

/// Whether the VM can be made from this template, or from this ISO when it was made from one (VM-270).
fn check(vm: &VmRow, template: &TemplateFacts, iso: bool) -> Result<(), ApiError> {
    match (iso, template.is_iso()) {
        (false, true) => return Err(ApiError::param("Invalid template id provided to restore the VM ")),
        (true, false) => return Err(ApiError::param("Invalid ISO id provided to restore the VM ")),
        (true, true) if !template.bootable => return Err(order::not_bootable(&template.name)),
        _ => {}
    }
    if !template.ready {
        return Err(ApiError::param(format!(
            "Cannot restore the vm as the template {} isn't available in the zone",
            template.name
        )));
    }
    let any = template.hypervisor.is_empty() || template.hypervisor.eq_ignore_ascii_case("none");
    if !any && !template.hypervisor.eq_ignore_ascii_case(&vm.hypervisor) {
        return Err(ApiError::param(format!(
            "Cannot restore the vm: the template {} is for {}, and the vm runs on {}",
            template.name, template.hypervisor, vm.hypervisor
        )));
    }
    Ok(())
}

fn wrong_state(vm: &VmRow) -> ApiError {
    ApiError::failed(format!(
        "Vm {} currently in {} state, restore vm can only execute when VM in Running or Stopped",
        vm.uuid, vm.state
    ))
}

impl Restore {
    /// Moves the VM to `Stopping`. Gives whether it was running; a stopped VM stays as it is.
    async fn begin(&self, tx: &mut Tx) -> Result<bool, ApiError> {
        if vms::transit(tx, self.vm, &[VmState::Running], VmState::Stopping).await? {
            return Ok(true);
        }
        match vms::find_in(tx, self.vm).await?.filter(|vm| !vm.removed) {
            Some(vm) if self.reboot => {
                Err(ApiError::param(format!("The virtual machine {} isn't running", view::label(&vm))))
            }
            Some(vm) if vm.state == VmState::Stopped => Ok(false),
            Some(vm) => Err(wrong_state(&vm)),
            None => Err(ApiError::param("Unable to find a virtual machine with specified vmId")),
        }
    }

    fn limits_key(&self) -> String {
        format!("volume:{}", self.volume)
    }

    fn reservation(&self, world: &VmWorld, vm: &VmRow) -> ReserveRequest {
        let items = [(order::resource::VOLUME, 1), (order::resource::PRIMARY_STORAGE, self.size)];
        ReserveRequest {
            reserver: world.node.replica.clone(),
            key: self.limits_key(),
            account_id: vm.owner.account_id,
            items: items.iter().map(|(t, n)| ResourceAmount { r#type: *t, amount: *n }).collect(),
        }
    }

    fn renewal(&self) -> RenewRootRequest {
        RenewRootRequest { vm_id: self.vm, template_id: self.template, uuid: self.volume.clone(), size: self.size }
    }

    /// The new disk takes the place of the old one, and the row says where the VM comes from. Gives the number of the old disk,
    /// and the new password.
    async fn renew(&self, world: &Arc<VmWorld>, ctx: &Ctx, vm: &VmRow) -> Result<(i64, Option<String>), ApiError> {
        ctx.call("limits", Some(Undo::Limits), |call| {
            let (mut client, request) = (world.limits(), call.request(self.reservation(world, vm)));
            async move { client.reserve(request).await }
        })
        .await?;
        let renewed = ctx
            .call("renew", Some(Undo::Renewed), |call| {
                let (mut client, request) = (world.disks(), call.request(self.renewal()));
                async move { client.renew(request).await }
            })
            .await?;
        let former = renewed.disks.first().map(|d| d.id);
        let former = former.ok_or_else(|| ApiError::internal("a virtual machine had no ROOT disk to be renewed"))?;
        if self.password_enabled {
            // Nothing is new yet: the step is there for its undo, which comes after that of the next one.
            tell(world, ctx, "routers", access::anew(vm.id), Some(Undo::Tell)).await?;
        }
        let before = jobs::step!(ctx, "former", |tx| {
            roots::origin(tx, vm.id).await?.ok_or_else(|| ApiError::concurrent("the virtual machine is gone"))
        })
        .await?;
        let sealed = jobs::step!(ctx, "origin", undo: Undo::Origin { before: before.clone(), former }, |tx| {
            let password = self.password_enabled.then(|| order::sealed_password(world, &vm.uuid));
            let origin = Origin {
                template: self.template,
                iso: if self.iso { Some(self.template) } else { before.iso },
                os_type: self.os_type,
                password_enabled: self.password_enabled,
                dynamic_scaling: if self.template == before.template { before.dynamic_scaling } else { self.dynamic_scaling },
                password_sealed: password.clone(),
            };
            roots::set_origin(tx, vm.id, &origin).await?;
            Ok::<_, ApiError>(password)
        })
        .await?;
        if self.password_enabled {
            tell(world, ctx, "tell", access::anew(vm.id), None).await?;
        }
        Ok((former, sealed))
    }
}

impl Job for Restore {
    const KIND: &'static str = "vm.restore";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        let host = vm.host_id;
        let ran = jobs::step!(ctx, "stopping", undo: Undo::Stopping, |tx| self.begin(tx).await).await?;
        if ran {
            stop::take_off_host(&world, &ctx, &vm, false, Undo::Off).await?;
            jobs::step!(ctx, "stopped", |tx| stop::off(&world, tx, &vm, VmState::Stopped).await).await?;
        }
        let (former, sealed) = self.renew(&world, &ctx, &vm).await?;
        if ran {
            let now = row(&world, self.vm).await?;
            let tags = facts::offering_of_vm(&world.node.db, now.service_offering_id).await?.host_tags;
            let wanted = boot::wanted(&world, &now, &boot::Constraints { tags, ..boot::Constraints::default() });
            start::launch(&world, &ctx, &now, wanted, &[], wrong_state).await?;
        }
        let discard = DiscardRequest { volume_id: former, host_id: host.or(vm.last_host_id) };
        ctx.call("discard", NO_UNDO, |call| {
            let (mut client, request) = (world.disks(), call.request(discard));
            async move { client.discard(request).await }
        })
        .await?;
        let vm = row(&world, self.vm).await?;
        let mut shown = view::one(&world, vm.id, ctx.caller()).await?;
        // As it lies in the VM's row: whoever asks for the job's result opens it.
        shown.password = sealed;
        if ran {
            shown.state = Some(VmState::Running.to_string());
        }
        jobs::finish!(ctx, |tx| {
            if ran {
                if !vms::transit(tx, vm.id, &[VmState::Starting], VmState::Running).await? {
                    return Err(ApiError::concurrent("the virtual machine is no longer Starting"));
                }
                events::record(tx, &[usage::record(&vm, "VM.START")]).await?;
            }
            Ok(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Undo::Stopping => stop::take_back(&world, self.vm, &cx).await,
            Undo::Off => stop::stay_off(&world, self.vm, &cx).await,
            // Should the VM keep the new disk, this is given back with that.
            Undo::Limits if roots::lives(&world.node.db, &self.volume).await? => Ok(()),
            Undo::Limits => release_limits(&world, &self.limits_key()).await,
            Undo::Renewed => {
                let (mut client, request) = (world.disks(), self.renewal());
                cx.call(|call| async move { client.unrenew(call.request(request)).await }).await.map(drop)
            }
            Undo::Tell => {
                let (mut client, request) = (world.attachments(), access::anew(self.vm));
                cx.call(|call| async move { client.tell(call.request(request)).await }).await.map(drop)
            }
            Undo::Origin { before, former } => {
                let took_place = cx.value::<Option<String>>().is_some();
                let kept = roots::is_gone(&world.node.db, former).await?;
                jobs::undo_step!(cx, |tx| {
                    if took_place && !kept {
                        roots::set_origin(tx, self.vm, &before).await?;
                    }
                    Ok::<_, ApiError>(())
                })
                .await
            }
            Undo::Place => start::take_back(&world, self.vm, start::Undo::Place, cx).await,
            Undo::Nics { host } => start::take_back(&world, self.vm, start::Undo::Nics { host }, cx).await,
            Undo::Domain { host, generation } => {
                start::take_back(&world, self.vm, start::Undo::Domain { host, generation }, cx).await
            }
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}

/// Tells the routers of a VM's networks what its guest is to know now.
async fn tell(
    world: &Arc<VmWorld>,
    ctx: &Ctx,
    step: &str,
    request: TellRequest,
    undo: Option<Undo>,
) -> Result<(), ApiError> {
    ctx.call(step, undo, |call| {
        let (mut client, request) = (world.attachments(), call.request(request.clone()));
        async move { client.tell(request).await }
    })
    .await
    .map(drop)
}
