//! Orders about a volume and a VM that runs.

use crate::hosts::unsigned;
use crate::store::pools::PoolRow;
use crate::store::volumes::VolumeRow;
use contract_agent::{AttachDisk, DetachDisk, ResizeDisk, VmDisk, command};

/// Puts a volume into a running VM.
pub fn attach(vm_uuid: &str, v: &VolumeRow, pool: &PoolRow, device: i64) -> command::Body {
    command::Body::AttachDisk(AttachDisk {
        vm_uuid: vm_uuid.to_owned(),
        disk: Some(VmDisk {
            volume_uuid: v.uuid.clone(),
            device_id: u32::try_from(device).unwrap_or_default(),
            pool_uuid: pool.uuid.clone(),
            path: v.path.clone().unwrap_or_default(),
            format: v.format.clone().unwrap_or_default(),
            size: unsigned(v.size),
            root: v.is_root(),
        }),
    })
}

/// Takes a volume out of a running VM.
pub fn detach(vm_uuid: &str, volume_uuid: &str) -> command::Body {
    command::Body::DetachDisk(DetachDisk { vm_uuid: vm_uuid.to_owned(), volume_uuid: volume_uuid.to_owned() })
}

/// Gives a volume another size, in a running VM where one has it.
pub fn resize(v: &VolumeRow, pool: &PoolRow, size: i64, vm_uuid: Option<&str>) -> command::Body {
    command::Body::ResizeDisk(ResizeDisk {
        volume_uuid: v.uuid.clone(),
        pool_uuid: pool.uuid.clone(),
        path: v.path.clone().unwrap_or_default(),
        size: unsigned(size),
        vm_uuid: vm_uuid.map(str::to_owned),
    })
}
