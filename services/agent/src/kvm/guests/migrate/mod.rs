//! Guests that move to another host while they run: libvirt's protocol of five steps, relayed by the control plane, so that only
//! the two QEMUs talk to each other.
//!
//! | module | what |
//! |---|---|
//! | [`source`] | Begin, Perform, Confirm: the guest that is sent |
//! | [`destination`] | Prepare, Finish, and the start that lets the copy go on |
//! | [`description`] | the domain that the source offers, made fit for this host |
//!
//! The guest never runs twice: the source has its lease until its copy is certainly gone, and the copy at the destination stays
//! paused until a start has taken the lease. A copy that waits says so in its metadata, so that an agent that comes back doesn't
//! take it for a guest that its lease decides of. A guest that was sent is known by why libvirt says it is paused.
//!
//! What a kill of an agent leaves: libvirt itself ends a copy that isn't whole when the line that it was made by is gone. It goes
//! on sending, though: an agent that comes back calls that off. A guest that was sent stays paused until it is confirmed.

mod description;
mod destination;
mod source;

pub(super) use source::was_sent;

use super::{Guests, told};
use contract::ApiError;
use contract_agent::MigrationStep;
use libvirt::{ErrorCode, MigrateFlags};
use source::Sending;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of all steps. The disks are shared, which libvirt can't know of every file system; a busy guest is slowed down until its
/// memory can be sent; and it begins paused.
const FLAGS: MigrateFlags = MigrateFlags(
    MigrateFlags::LIVE.0
        | MigrateFlags::PAUSED.0
        | MigrateFlags::UNSAFE.0
        | MigrateFlags::ABORT_ON_ERROR.0
        | MigrateFlags::AUTO_CONVERGE.0,
);

/// What is known of moves under way, by VM.
#[derive(Default)]
pub(in crate::kvm) struct Moves {
    sent: Mutex<HashMap<String, Arc<Sending>>>,
    /// What was answered for copies that aren't whole yet.
    awaited: Mutex<HashMap<String, MigrationStep>>,
}

impl Moves {
    fn sent(&self) -> MutexGuard<'_, HashMap<String, Arc<Sending>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<String, MigrationStep>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a guest is being sent.
    pub fn sends(&self, vm: &str) -> bool {
        self.sent().get(vm).is_some_and(|sending| !sending.is_over())
    }

    /// The guest is no more.
    pub fn forget(&self, vm: &str) {
        self.sent().remove(vm);
        self.awaited().remove(vm);
    }
}

/// Nothing else may be done with a guest that moves.
pub(super) fn is_moving() -> ApiError {
    ApiError::concurrent("The VM is being moved to another host: try again when it is there")
}

/// Why a step failed, for people.
fn refusal(what: &str, error: &libvirt::Error) -> ApiError {
    match error {
        libvirt::Error::Remote(remote)
            if remote.code == ErrorCode::CPU_INCOMPATIBLE || speaks_of_cpu(&remote.message) =>
        {
            ApiError::failed(format!("{what}: the hosts' CPUs differ: {}", remote.message))
        }
        libvirt::Error::Remote(remote) if !error.is_busy() => ApiError::failed(format!("{what}: {}", remote.message)),
        _ => told(error),
    }
}

/// libvirt has no number of its own for a guest whose CPU a host can't bring about.
fn speaks_of_cpu(message: &str) -> bool {
    message.contains("guest CPU") || message.contains("guest and host CPU")
}

impl Guests {
    /// Whether somebody moves a guest, or moved it here and it isn't let run yet.
    pub(super) fn moves_now(&self, vm: &str) -> bool {
        self.table().guests.get(vm).is_some_and(|guest| guest.phase.moves())
    }
}
