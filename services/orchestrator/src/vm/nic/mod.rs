//! NICs that come, go and change while their VM lives, running or stopped.

mod add;
mod default;
mod remove;

pub use add::{AddNic, another_nic};
pub use default::DefaultNic;
pub use remove::{RemoveNic, refusal};

use super::{VmWorld, debts, view};
use crate::store::vms;
use contract::ApiError;
use contract_agent::{UnplugNic, command};
use jobs::UndoCx;
use model::state::VmState;
use serde::{Deserialize, Serialize};
use store::Tx;

/// Where a VM runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Host.
    pub host: i64,
    /// Its generation there.
    pub generation: i64,
}

/// Where the VM runs; none: it is stopped. Nothing else may be done to its NICs meanwhile: the job owns it.
///
/// # Errors
/// 431 in any other state.
async fn found(tx: &mut Tx, vm: i64) -> Result<Option<Running>, ApiError> {
    let row = vms::find_in(tx, vm).await?.filter(|row| !row.removed);
    let row = row.ok_or_else(|| ApiError::param("Unable to find a virtual machine with specified vmId"))?;
    match (row.state, row.host_id) {
        (VmState::Running, Some(host)) => Ok(Some(Running { host, generation: row.generation })),
        (VmState::Stopped, _) => Ok(None),
        (state, _) => Err(wrong_state(&row, state)),
    }
}

/// Why NICs can't be changed.
pub fn wrong_state(vm: &vms::VmRow, state: VmState) -> ApiError {
    ApiError::param(format!(
        "NICs of the virtual machine {} can't be changed while it is {state}: it must be Running or Stopped",
        view::label(vm)
    ))
}

/// Takes a plugged NIC back.
async fn unplug(world: &VmWorld, order: UnplugNic, host: i64, cx: &UndoCx) -> Result<(), ApiError> {
    let vm_uuid = order.vm_uuid.clone();
    debts::undo_or_owe(world, host, &vm_uuid, command::Body::UnplugNic(order), cx).await
}
