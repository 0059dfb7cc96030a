//! What must hold between the database and what hosts say.

use crate::check::Settle::{self, Moment, Work};
use crate::check::Severity::{self, Grave, Late, Leak};

/// An invariant between the database and what hosts say.
#[derive(Clone, Copy, Debug)]
pub struct HostCheck {
    /// Name, for people and metrics.
    pub name: &'static str,
    /// How grave.
    pub severity: Severity,
    /// For how long.
    pub settle: Settle,
    /// What is broken.
    pub means: &'static str,
    /// What to do.
    pub repair: &'static str,
}

/// The place of a check in [`HOST_CHECKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    VmTwice,
    VmUnknown,
    VmElsewhere,
    VmOff,
    VmPaused,
    VmEpoch,
    RouterMissing,
    RouterUnknown,
    RouterStale,
    DiskMissing,
    DiskUnknown,
    DiskSize,
}

impl Kind {
    pub const COUNT: usize = HOST_CHECKS.len();
}

const fn check(
    name: &'static str,
    severity: Severity,
    settle: Settle,
    means: &'static str,
    repair: &'static str,
) -> HostCheck {
    HostCheck { name, severity, settle, means, repair }
}

/// All checks of hosts, in the order of [`Kind`].
pub const HOST_CHECKS: &[HostCheck] = &[
    check(
        "host-vm-twice",
        Grave,
        Moment,
        "A machine runs on two hosts: its disks may have two writers.",
        "Power it off on the host that the database doesn't name, at once.",
    ),
    check(
        "host-vm-unknown",
        Grave,
        Moment,
        "A host runs a machine that doesn't exist, or not any more.",
        "See whose it was; power it off on the host.",
    ),
    check(
        "host-vm-elsewhere",
        Grave,
        Moment,
        "A host runs a machine that is off, or on another host, by the database.",
        "Power it off on the host; or, when it runs nowhere else, set `host_id` and `state` of it to the truth.",
    ),
    check(
        "host-vm-off",
        Grave,
        Work,
        "A machine is Running by the database and its host doesn't run it.",
        "reconnectHost: the report settles it. Then start the machine.",
    ),
    check(
        "host-vm-paused",
        Late,
        Work,
        "A machine is Running by the database and paused on its host: the host can't read its lease.",
        "See whether the host reaches its primary storage.",
    ),
    check(
        "host-vm-generation",
        Grave,
        Work,
        "A host runs a machine with another epoch than the database gave it.",
        "Stop and start it.",
    ),
    check(
        "host-router-missing",
        Grave,
        Work,
        "A host doesn't have a router that it should: its network has no gateway and no addresses.",
        "rebootRouter.",
    ),
    check(
        "host-router-unknown",
        Leak,
        Work,
        "A host has a router that is gone or elsewhere: two routers may answer in a network.",
        "Write it into `router_leftovers` with that host: it is removed there.",
    ),
    check(
        "host-router-generation",
        Grave,
        Work,
        "A host's router lacks changes that the database says are applied: guests lack addresses or rules.",
        "rebootRouter applies all of it anew.",
    ),
    check(
        "pool-disk-missing",
        Grave,
        Work,
        "A volume is Ready and its bytes aren't on its pool: its data is lost or elsewhere.",
        "Look for the bytes on the pool's device and in its backups.",
    ),
    check(
        "pool-disk-unknown",
        Leak,
        Work,
        "Bytes on a pool belong to no volume: room is lost.",
        "Write them into `pending_deletions` once it is certain that nobody needs them.",
    ),
    check(
        "pool-disk-size",
        Grave,
        Work,
        "A volume's bytes have another size than the volume.",
        "resizeVolume to the true size.",
    ),
];
