//! The jobs of asynchronous commands.

pub mod attach;
pub mod copy_template;
pub mod create;
pub mod create_snapshot;
pub mod create_template;
pub mod delete_snapshot;
pub mod delete_template;
pub mod detach;
pub mod extract;
pub mod host_disk;
pub mod resize;
pub mod restore;
pub mod revert_snapshot;
pub mod update_policy;

pub use attach::Attach;
pub use copy_template::CopyTemplate;
pub use create::Create;
pub use create_snapshot::CreateSnapshot;
pub use create_template::CreateTemplate;
pub use delete_snapshot::DeleteSnapshot;
pub use delete_template::DeleteTemplate;
pub use detach::Detach;
pub use extract::{ExtractImage, ExtractVolume};
pub use resize::Resize;
pub use revert_snapshot::RevertSnapshot;
pub use update_policy::UpdatePolicy;

use crate::Storage;
use crate::store::infra;
use crate::store::vms::{self, Vm};
use crate::store::volumes::{self, VolumeRow};
use contract::ApiError;
use jobs::Builder;
use model::state::VmState;
use std::sync::Arc;

/// Declares all kinds of jobs.
pub fn register(builder: Builder, world: &Arc<Storage>) -> Builder {
    builder
        .register::<Create>(world.clone())
        .register::<Attach>(world.clone())
        .register::<Detach>(world.clone())
        .register::<Resize>(world.clone())
        .register::<DeleteTemplate>(world.clone())
        .register::<CopyTemplate>(world.clone())
        .register::<CreateSnapshot>(world.clone())
        .register::<DeleteSnapshot>(world.clone())
        .register::<CreateTemplate>(world.clone())
        .register::<RevertSnapshot>(world.clone())
        .register::<ExtractImage>(world.clone())
        .register::<ExtractVolume>(world.clone())
        .register::<UpdatePolicy>(world.clone())
}

/// The error for a volume that isn't there.
pub fn gone() -> ApiError {
    ApiError::param("Unable to find the volume: it doesn't exist or has been deleted")
}

/// The living volume with this number.
///
/// # Errors
/// 431 when there is none.
pub async fn volume(s: &Storage, id: i64) -> Result<VolumeRow, ApiError> {
    volumes::find(&s.node.db, id).await?.filter(|v| !v.removed).ok_or_else(gone)
}

/// The living VM with this number.
///
/// # Errors
/// 431 when there is none.
pub async fn vm(s: &Storage, id: i64) -> Result<Vm, ApiError> {
    vms::find(&s.node.db, id).await?.filter(|vm| !vm.removed).ok_or_else(no_vm)
}

fn no_vm() -> ApiError {
    ApiError::param("Unable to find the virtual machine: it doesn't exist or has been expunged")
}

/// The host on which a VM runs; none for a VM that is Stopped.
///
/// # Errors
/// 431 when it is neither.
pub fn running_on(vm: &Vm) -> Result<Option<i64>, ApiError> {
    match (vm.state, vm.host_id) {
        (VmState::Running, Some(host)) => Ok(Some(host)),
        (VmState::Stopped, _) => Ok(None),
        (state, _) => {
            let text = format!("Please specify a VM that is either running or stopped: {} is {state}", vm.name);
            Err(ApiError::param(text).with_entity(&vm.uuid, "virtualmachineid"))
        }
    }
}

/// Whether what a host was told about a VM still matters: not once the host is given up (then its VMs are started elsewhere,
/// from what the database says), nor once the VM has left it.
///
/// # Errors
/// 534 while the host is away and not given up: the caller tries again.
pub async fn host_matters(s: &Storage, vm: i64, host: i64) -> Result<bool, ApiError> {
    let db = &s.node.db;
    let there = vms::find(db, vm).await?.is_some_and(|vm| vm.host_id == Some(host) && vm.state == VmState::Running);
    if !there || infra::given_up(db, host).await? {
        return Ok(false);
    }
    match infra::host(db, host).await? {
        Some(h) if h.up => Ok(true),
        Some(_) => Err(ApiError::unavailable(format!("host {host} isn't connected"))),
        None => Ok(false),
    }
}
