//! Volumes on pools.

use super::driver::Simulator;
use super::state::{bytes_of, disk_saved};
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Work};
use crate::lease::millis;
use contract::ApiError;
use contract_agent::state_entry::Body as Entry;
use contract_agent::{
    AttachDisk, DeleteDisk, DetachDisk, DiskState, EnsureDisk, EnsurePool, ForgottenDisk, PoolFacts, ResizeDisk,
    outcome,
};
use std::time::Duration;

impl Simulator {
    pub(super) async fn do_ensure_pool(&self, work: &Work, order: EnsurePool) -> Result<Done, Failure> {
        let names = ["EnsurePool", "ModifyStoragePoolCommand", "CreateStoragePoolCommand"];
        let mute = self.before(work, &names).await?;
        let (areas, uuid) = (self.areas.clone(), order.pool_uuid.clone());
        let wanted = (order.lease_millis > 0).then(|| Duration::from_millis(order.lease_millis.into()));
        let area = self.blocking(work, move || areas.of(&uuid, wanted)).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let pool = state.pools.entry(order.pool_uuid.clone()).or_default();
            if pool.order != order {
                pool.order = order.clone();
                entries.push(Entry::Pool(order.clone()));
            }
            let facts = PoolFacts {
                pool_uuid: pool.order.pool_uuid.clone(),
                capacity: pool.capacity(),
                used: pool.used(),
                lease_millis: millis(area.rules().lease()),
            };
            let host = state.host(work.host())?;
            if host.pools.insert(order.pool_uuid) {
                entries.push(host.saved());
            }
            Ok((outcome::Body::Pool(facts), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_ensure_disk(&self, work: &Work, order: EnsureDisk) -> Result<Done, Failure> {
        let names = ["EnsureDisk", "CreateCommand", "CreateObjectCommand", "CopyCommand"];
        let mute = self.before(work, &names).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let pool = state.pools.entry(order.pool_uuid.clone()).or_default();
            let size = order.size.max(order.template.as_ref().map_or(0, |template| template.virtual_size));
            let known = pool.disks.get(&(order.volume_uuid.clone(), order.path.clone())).cloned();
            let disk = known.unwrap_or_else(|| {
                let made = DiskState { volume_uuid: order.volume_uuid, path: order.path, size, physical_size: 0 };
                entries.push(disk_saved(&made, &order.pool_uuid));
                pool.disks.insert(bytes_of(&made), made.clone());
                made
            });
            Ok((outcome::Body::Disk(disk), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_delete_disk(&self, work: &Work, order: DeleteDisk) -> Result<Done, Failure> {
        let names = ["DeleteDisk", "DeleteCommand", "DestroyCommand"];
        let mute = self.before(work, &names).await?;
        if let Some(vm) = &order.ended_vm {
            self.forget_vm(work, vm, &order.pool_uuid).await?;
        }
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let pool = state.pools.get_mut(&order.pool_uuid);
            // Another path is another placement of the volume: a late deletion must not hit its new bytes.
            let key = (order.volume_uuid, order.path);
            if let Some(pool) = pool
                && pool.disks.remove(&key).is_some()
            {
                let (volume_uuid, path) = key;
                entries.push(Entry::DiskForgotten(ForgottenDisk { pool_uuid: order.pool_uuid, volume_uuid, path }));
            }
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_resize_disk(&self, work: &Work, order: ResizeDisk) -> Result<Done, Failure> {
        let mute = self.before(work, &["ResizeDisk", "ResizeVolumeCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let pool = state.pools.entry(order.pool_uuid.clone()).or_default();
            let key = (order.volume_uuid.clone(), order.path.clone());
            let disk = pool.disks.entry(key).or_insert_with(|| DiskState {
                volume_uuid: order.volume_uuid.clone(),
                path: order.path,
                ..DiskState::default()
            });
            disk.size = order.size;
            entries.push(disk_saved(disk, &order.pool_uuid));
            Ok((outcome::Body::Disk(disk.clone()), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_attach_disk(&self, work: &Work, order: AttachDisk) -> Result<Done, Failure> {
        let mute = self.before(work, &["AttachDisk", "AttachCommand", "AttachVolumeCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            let disk = order.disk.unwrap_or_default();
            let key = (disk.volume_uuid.clone(), disk.path.clone());
            let pool = state.pools.get(&disk.pool_uuid).and_then(|pool| pool.disks.get(&key)).cloned();
            let host = state.host(work.host())?;
            let vm = host.vms.get_mut(&order.vm_uuid).ok_or_else(|| {
                ApiError::failed("The VM doesn't run on this host: start it, then attach the volume again")
            })?;
            vm.spec.disks.retain(|known| known.volume_uuid != disk.volume_uuid);
            let on_pool = pool.unwrap_or_else(|| DiskState {
                volume_uuid: disk.volume_uuid.clone(),
                path: disk.path.clone(),
                size: disk.size,
                physical_size: disk.size,
            });
            vm.spec.disks.push(disk);
            entries.push(vm.saved(work.host()));
            Ok((outcome::Body::Disk(on_pool), state))
        });
        Ok(done?.mute(mute))
    }

    pub(super) async fn do_detach_disk(&self, work: &Work, order: DetachDisk) -> Result<Done, Failure> {
        let mute = self.before(work, &["DetachDisk", "DettachCommand", "AttachVolumeCommand"]).await?;
        let done = work.commit(|entries| {
            let mut state = self.alive(work)?;
            if let Some(vm) = state.host(work.host())?.vms.get_mut(&order.vm_uuid) {
                let before = vm.spec.disks.len();
                vm.spec.disks.retain(|known| known.volume_uuid != order.volume_uuid);
                if vm.spec.disks.len() != before {
                    entries.push(vm.saved(work.host()));
                }
            }
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }
}
