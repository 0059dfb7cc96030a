//! How guests let people in: a new password, another SSH key. The guest gets them from its router at its next start.

use super::deploy::row;
use super::{VmWorld, order, view};
use crate::store::vm_nics::{self, Access};
use crate::store::vms::{self, VmRow};
use contract::ApiError;
use contract::api::Success;
use contract_network::TellRequest;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Resets how the guest of a stopped VM lets people in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reset {
    /// The VM.
    pub vm: i64,
    /// The SSH key that it gets; none: only a new password.
    pub key: Option<NewKey>,
}

/// An SSH key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewKey {
    /// Name of the pair.
    pub name: String,
    /// Its public half.
    pub public: String,
}

/// What a reset takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The routers are told how it is then: the last of the undos.
    Tell,
    /// How it was.
    Former(Access),
}

impl Job for Reset {
    const KIND: &'static str = "vm.reset_access";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        // Nothing is new yet: the step is there for its undo, which comes after that of the next one.
        tell(&world, &ctx, "routers", anew(vm.id), Some(Undo::Tell)).await?;
        // Noted by a step of its own: when the job is run again, the row says what is new.
        let (former, enabled) = jobs::step!(ctx, "former", |tx| {
            Ok::<_, ApiError>(vm_nics::access_in(tx, vm.id).await?.unwrap_or_default())
        })
        .await?;
        let sealed = jobs::step!(ctx, "reset", undo: Undo::Former(former.clone()), |tx| {
            let now = vms::find_in(tx, vm.id).await?.filter(|now| now.state == VmState::Stopped && !now.removed);
            if now.is_none() {
                return Err(not_stopped(&vm, self.key.is_some()));
            }
            let mut new = former.clone();
            if enabled {
                new.password_sealed = Some(order::sealed_password(&world, &vm.uuid));
            } else if self.key.is_none() {
                return Err(no_passwords());
            }
            if let Some(key) = &self.key {
                (new.key_pair, new.public_key) = (Some(key.name.clone()), Some(key.public.clone()));
            }
            vm_nics::set_access(tx, vm.id, &new).await?;
            Ok(new.password_sealed.filter(|_| enabled))
        })
        .await?;
        tell(&world, &ctx, "tell", anew(vm.id), None).await?;
        let mut shown = view::one(&world, vm.id, ctx.caller()).await?;
        // As it lies in the VM's row: whoever asks for the job's result opens it.
        shown.password = sealed;
        jobs::finish!(ctx, |_tx| Ok::<_, ApiError>(shown.clone())).await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Undo::Former(former) => {
                let took_place = cx.value::<Option<String>>().is_some();
                jobs::undo_step!(cx, |tx| {
                    if took_place {
                        vm_nics::set_access(tx, self.vm, &former).await?;
                    }
                    Ok::<_, ApiError>(())
                })
                .await
            }
            Undo::Tell => {
                let request = anew(self.vm);
                let mut client = world.attachments();
                cx.call(|call| async move { client.tell(call.request(request)).await }).await.map(drop)
            }
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Why it can't be reset in this state.
pub fn not_stopped(vm: &VmRow, key: bool) -> ApiError {
    let what = if key { "SSH Key" } else { "password" };
    ApiError::param(format!("Vm {} should be stopped to do {what} reset", view::label(vm)))
}

/// Why it has no password.
pub fn no_passwords() -> ApiError {
    ApiError::param("Fail to reset password for the virtual machine, the template is not password enabled")
}

/// All that a guest is told is told anew; nobody waits.
pub fn anew(vm: i64) -> TellRequest {
    TellRequest { vm_id: vm, ..TellRequest::default() }
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

/// Tells the routers of a VM's networks what was changed of it: user data, its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tell {
    /// The VM.
    pub vm: i64,
    /// Its new name.
    pub host_name: Option<String>,
    /// Its new UUID.
    #[serde(default)]
    pub uuid: Option<String>,
    /// Whether it runs: then the job ends when the routers have it.
    pub running: bool,
}

impl Job for Tell {
    const KIND: &'static str = "vm.tell";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let request = TellRequest {
            vm_id: self.vm,
            host_name: self.host_name.clone(),
            wait: self.running,
            vm_uuid: self.uuid.clone(),
        };
        tell(&world, &ctx, "tell", request, None).await?;
        jobs::finish!(ctx, |_tx| Ok::<_, ApiError>(Success { success: true, display_text: None })).await
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: Undo, _cx: UndoCx) -> Result<(), ApiError> {
        Ok(()) // to be told is never wrong
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
