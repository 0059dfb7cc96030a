//! The disks of virtual machines, as the orchestrator's jobs drive them.
//!
//! The database decides first: rows, and promised bytes of pools, in one commit under the step's key. Then a host makes the
//! bytes, under a key that is a part of the step's. So a repeat finds what was decided and goes on, and an undo knows what
//! to take back.

mod allocate;
mod assign;
mod fit;
mod iso;
mod place;
mod prepare;
mod renew;
mod take_back;

pub use allocate::{allocate, cost, image, root_format};
pub use assign::{assign, unassign};
pub use fit::fit;
pub use place::{Near, Thresholds, Wanted, take_place};
pub use prepare::prepare;
pub use renew::{discard, renew, unrenew};
pub use take_back::{HEAD_START, expunge, owe, release};

use crate::store::pools::PoolRow;
use crate::store::volumes::VolumeRow;
use contract_storage::DiskSpec;
use events::{Record, UsageRecord};
use store::now_micros;

/// The device that CD-ROMs have.
const CDROM: i64 = 3;

/// The first device of a data disk that is free.
pub fn free_device(used: &[i64]) -> i64 {
    (1..).find(|d| *d != CDROM && !used.contains(d)).unwrap_or(1)
}

/// Whether a data disk may be at this device.
pub fn is_data_device(device: i64) -> bool {
    (1..=255).contains(&device) && device != CDROM
}

/// The format of volumes on hosts of a hypervisor (STO-017).
pub fn format_of(hypervisor: &str) -> &'static str {
    match hypervisor {
        "Simulator" | "XenServer" => "VHD",
        "VMware" => "OVA",
        "Hyperv" => "VHDX",
        "Ovm" | "Ovm3" | "LXC" => "RAW",
        _ => "QCOW2",
    }
}

/// A disk as jobs pass it on. A volume without a pool has no path.
pub fn spec(v: &VolumeRow, pool_uuid: &str) -> DiskSpec {
    DiskSpec {
        id: v.id,
        uuid: v.uuid.clone(),
        name: v.name.clone(),
        kind: v.kind.clone(),
        device_id: v.device_id.and_then(|d| i32::try_from(d).ok()).unwrap_or_default(),
        size: v.size,
        pool_id: v.pool_id.unwrap_or_default(),
        pool_uuid: pool_uuid.to_owned(),
        path: v.path.clone().unwrap_or_default(),
        format: v.format.clone().unwrap_or_default(),
    }
}

/// The same, with the pool among `pools`.
pub fn spec_among(v: &VolumeRow, pools: &[PoolRow]) -> DiskSpec {
    let pool = v.pool_id.and_then(|id| pools.iter().find(|p| p.id == id));
    spec(v, pool.map_or("", |p| p.uuid.as_str()))
}

/// A fact for accounting about a volume.
pub fn usage(v: &VolumeRow, kind: &str) -> Record {
    Record::Usage(UsageRecord {
        kind: kind.to_owned(),
        owner: v.owner.clone(),
        zone_id: v.zone_id,
        resource_id: v.id,
        resource_uuid: v.uuid.clone(),
        resource_name: v.name.clone(),
        offering_id: v.disk_offering_id,
        template_id: v.template_id,
        size: Some(v.size),
        resource_type: v.hypervisor.clone(),
        created: now_micros(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_disks_leave_the_cdrom_alone() {
        assert_eq!(free_device(&[0]), 1);
        assert_eq!(free_device(&[0, 1, 2]), 4);
        assert!(!is_data_device(0) && !is_data_device(3) && is_data_device(4));
    }
}
