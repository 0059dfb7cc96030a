//! Which agents and hubs understand each other, and what an order needs.
//!
//! A protocol's number rises when an order gets a new meaning: a new command, or a field that must not be passed over. A
//! build speaks its own number and the one before it, so that hubs and agents can be replaced one after the other.

use crate::command::Body;
use crate::{Command, PrepareMigration, StartVm};

/// The newest protocol that this build speaks.
///
/// 1: agents from before protocols were numbered. 2: `FenceVm`, `Inventory`, `ListDisks`, and `Execute.needs`.
/// 3: `FetchImage`, `DeleteImage`, `StoreDisk`, disks from a template of an `ImageStore`, `OpenConsole`, and
/// `InspectHost`. 4: live migration (`BeginMigration` to `ConfirmMigration`),
/// `PlugNic` and `UnplugNic`, and `ReadImage`. 5: `RenewCertificate` and `ScaleVm`. 6: CD drives (`EnsureIso`, `ChangeCd`,
/// `VmSpec.cd`).
pub const PROTOCOL: u32 = 6;
/// The oldest that it still speaks.
pub const OLDEST_PROTOCOL: u32 = PROTOCOL - 1;

/// The protocols that a build speaks: `oldest` to `newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The newest.
    pub newest: u32,
    /// The oldest.
    pub oldest: u32,
}

impl Spoken {
    /// What this build speaks.
    pub const OURS: Spoken = Spoken { newest: PROTOCOL, oldest: OLDEST_PROTOCOL };

    /// What a peer said of itself; zeros are what older peers leave out.
    pub fn told(newest: u32, oldest: u32) -> Spoken {
        let newest = newest.max(1);
        Spoken { newest, oldest: if oldest == 0 { newest } else { oldest.min(newest) } }
    }

    /// The newest protocol that both speak; none when there is none.
    pub fn common(self, other: Spoken) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl std::fmt::Display for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.newest == self.oldest {
            true => write!(f, "{}", self.newest),
            false => write!(f, "{} to {}", self.oldest, self.newest),
        }
    }
}

/// The lowest protocol in which a command means what it says. Every command is named, so that none is added without
/// somebody deciding this; one whose fields decide it is matched with them.
pub fn needs(command: &Command) -> u32 {
    match &command.body {
        Some(Body::EnsureIso(_) | Body::ChangeCd(_)) => 6,
        // Passed over, the drive would be empty.
        Some(
            Body::StartVm(StartVm { vm: Some(vm), .. }) | Body::PrepareMigration(PrepareMigration { vm: Some(vm), .. }),
        ) if vm.cd.is_some() => 6,
        Some(Body::ScaleVm(_) | Body::RenewCertificate(_)) => 5,
        Some(
            Body::BeginMigration(_)
            | Body::PrepareMigration(_)
            | Body::PerformMigration(_)
            | Body::FinishMigration(_)
            | Body::ConfirmMigration(_)
            | Body::PlugNic(_)
            | Body::UnplugNic(_)
            | Body::ReadImage(_),
        ) => 4,
        Some(
            Body::FetchImage(_)
            | Body::DeleteImage(_)
            | Body::StoreDisk(_)
            | Body::OpenConsole(_)
            | Body::InspectHost(_),
        ) => 3,
        // Without the store there is nothing to copy the template from.
        Some(Body::EnsureDisk(disk)) if disk.template.as_ref().is_some_and(|from| from.store.is_some()) => 3,
        Some(Body::FenceVm(_) | Body::Inventory(_) | Body::ListDisks(_)) => 2,
        Some(
            Body::StartVm(_)
            | Body::StopVm(_)
            | Body::RebootVm(_)
            | Body::InspectLease(_)
            | Body::EnsurePool(_)
            | Body::EnsureDisk(_)
            | Body::DeleteDisk(_)
            | Body::ResizeDisk(_)
            | Body::AttachDisk(_)
            | Body::DetachDisk(_)
            | Body::ApplyRouter(_)
            | Body::RemoveRouter(_)
            | Body::SpawnHost(_)
            | Body::RemoveHost(_)
            | Body::SetMocks(_)
            | Body::QueryMocks(_),
        )
        | None => 1,
    }
}

/// What a command is called when somebody is told that it isn't understood.
pub fn name(command: &Command) -> &'static str {
    match &command.body {
        Some(Body::StartVm(_)) => "StartVm",
        Some(Body::StopVm(_)) => "StopVm",
        Some(Body::RebootVm(_)) => "RebootVm",
        Some(Body::InspectLease(_)) => "InspectLease",
        Some(Body::FenceVm(_)) => "FenceVm",
        Some(Body::InspectHost(_)) => "InspectHost",
        Some(Body::EnsurePool(_)) => "EnsurePool",
        Some(Body::EnsureDisk(_)) => "EnsureDisk",
        Some(Body::DeleteDisk(_)) => "DeleteDisk",
        Some(Body::ResizeDisk(_)) => "ResizeDisk",
        Some(Body::AttachDisk(_)) => "AttachDisk",
        Some(Body::DetachDisk(_)) => "DetachDisk",
        Some(Body::FetchImage(_)) => "FetchImage",
        Some(Body::DeleteImage(_)) => "DeleteImage",
        Some(Body::StoreDisk(_)) => "StoreDisk",
        Some(Body::ApplyRouter(_)) => "ApplyRouter",
        Some(Body::RemoveRouter(_)) => "RemoveRouter",
        Some(Body::SpawnHost(_)) => "SpawnHost",
        Some(Body::RemoveHost(_)) => "RemoveHost",
        Some(Body::SetMocks(_)) => "SetMocks",
        Some(Body::QueryMocks(_)) => "QueryMocks",
        Some(Body::Inventory(_)) => "Inventory",
        Some(Body::ListDisks(_)) => "ListDisks",
        Some(Body::OpenConsole(_)) => "OpenConsole",
        Some(Body::BeginMigration(_)) => "BeginMigration",
        Some(Body::PrepareMigration(_)) => "PrepareMigration",
        Some(Body::PerformMigration(_)) => "PerformMigration",
        Some(Body::FinishMigration(_)) => "FinishMigration",
        Some(Body::ConfirmMigration(_)) => "ConfirmMigration",
        Some(Body::PlugNic(_)) => "PlugNic",
        Some(Body::UnplugNic(_)) => "UnplugNic",
        Some(Body::ReadImage(_)) => "ReadImage",
        Some(Body::ScaleVm(_)) => "ScaleVm",
        Some(Body::EnsureIso(_)) => "EnsureIso",
        Some(Body::ChangeCd(_)) => "ChangeCd",
        Some(Body::RenewCertificate(_)) => "RenewCertificate",
        None => "an order that it doesn't know",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_must_not_be_passed_over_decides() {
        let start = |cd| {
            let vm = crate::VmSpec { cd, ..crate::VmSpec::default() };
            needs(&Command { body: Some(Body::StartVm(StartVm { vm: Some(vm), take_over: false })) })
        };
        assert_eq!((start(None), start(Some(crate::VmCd::default()))), (1, 6));
    }

    #[test]
    fn neighbours_understand_each_other() {
        let of = |newest: u32| Spoken::told(newest, newest.saturating_sub(1));
        for (a, b, common) in [(4, 4, Some(4)), (4, 3, Some(3)), (3, 4, Some(3)), (4, 2, None), (2, 4, None)] {
            assert_eq!(of(a).common(of(b)), common, "{a} and {b}");
        }
        assert_eq!(Spoken::told(0, 0), Spoken { newest: 1, oldest: 1 });
        assert_eq!(Spoken::OURS.common(Spoken::told(0, 0)), (OLDEST_PROTOCOL == 1).then_some(1));
        assert_eq!(Spoken::told(3, 9), Spoken { newest: 3, oldest: 3 }, "nonsense is no trap");
        assert_eq!(format!("{} and {}", of(4), Spoken::told(4, 0)), "3 to 4 and 4");
    }
}
