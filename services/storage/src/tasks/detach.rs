//! detachVolume.

use super::{host_disk, host_matters, running_on, vm, volume};
use crate::store::pools;
use crate::store::volumes::{self, VolumeRow};
use crate::{Storage, view};
use contract::ApiError;
use contract_storage::{DetachVolumeRequest, Volume};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Detaches a volume from its VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Detach {
    /// The volume.
    pub volume: i64,
    /// The VM.
    pub vm: i64,
}

/// What a failed detachment takes back: the disk goes into the VM again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Undo {
    /// The VM's host.
    pub host: i64,
    /// The device.
    pub device: i64,
}

/// Checks a request; gives the volume and its VM.
///
/// # Errors
/// 431 when no attached data disk is named.
pub async fn check(s: &Storage, cx: &Cx, req: &DetachVolumeRequest) -> Result<(VolumeRow, i64), ApiError> {
    let id: Option<i64> = cx.refs.id("id")?;
    let vm_id: Option<i64> = cx.refs.id("virtualmachineid")?;
    let row = match (id, req.device_id, vm_id) {
        (Some(id), None, None) => volume(s, id).await?,
        (None, Some(device), Some(vm)) => {
            let found = volumes::at_device(&s.node.db, vm, device).await?;
            found.ok_or_else(|| ApiError::param(format!("the virtual machine has no volume at device {device}")))?
        }
        _ => {
            return Err(ApiError::param(
                "Please provide either a volume id, or a tuple(device id, instance id) that identifies the volume to detach",
            ));
        }
    };
    if !model::scope::may_act_for(&cx.caller, &row.owner) {
        return Err(ApiError::permission("you may not act on that volume"));
    }
    if row.is_root() {
        return Err(ApiError::param("Please specify a valid data volume: a ROOT disk can't be detached.")
            .with_entity(&row.uuid, "id"));
    }
    let Some(owner) = row.vm_id else {
        return Err(ApiError::param("The specified volume is not attached to a VM.").with_entity(&row.uuid, "id"));
    };
    running_on(&vm(s, owner).await?)?;
    Ok((row, owner))
}

impl Job for Detach {
    const KIND: &'static str = "volume.detach";
    type World = Storage;
    type Undo = Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        let s = &*world;
        let vm = vm(s, self.vm).await?;
        let row = volume(s, self.volume).await?;
        // Recorded, so that a later run tells the same host.
        let host = jobs::step!(ctx, "begin", |_tx| {
            if row.vm_id != Some(vm.id) {
                return Err(
                    ApiError::param("The specified volume is not attached to a VM.").with_entity(&row.uuid, "id")
                );
            }
            running_on(&vm)
        })
        .await?;
        if let Some(host) = host
            && row.pool_id.is_some()
        {
            let body = host_disk::detach(&vm.uuid, &row.uuid);
            let undo = Undo { host, device: row.device_id.unwrap_or_default() };
            ctx.call("disk", Some(undo), |call| {
                let (world, body) = (world.clone(), body.clone());
                async move { world.hosts.step(&call, host, body).await }
            })
            .await?;
        }
        let shown = off(view::one_volume(&s.node.db, ctx.caller(), row).await?);
        jobs::finish!(ctx, |tx| {
            if !volumes::detach(tx, self.volume, self.vm).await? {
                return Err(ApiError::concurrent("the volume is no longer attached to this virtual machine"));
            }
            Ok(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<Storage>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let s = &*world;
        if !host_matters(s, self.vm, undo.host).await? {
            return Ok(());
        }
        let (row, vm) = (volume(s, self.volume).await?, vm(s, self.vm).await?);
        let pool = match row.pool_id {
            Some(pool) => pools::find(&s.node.db, pool).await?,
            None => None,
        };
        let Some(pool) = pool else { return Ok(()) };
        let body = host_disk::attach(&vm.uuid, &row, &pool, undo.device);
        cx.call(|call| async move { s.hosts.step(&call, undo.host, body).await }).await.map(drop)
    }

    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the row is changed by the last commit only
    }
}

/// The volume without its VM.
fn off(v: Volume) -> Volume {
    Volume {
        device_id: None,
        virtual_machine_id: None,
        vm_name: None,
        vm_display_name: None,
        vm_state: None,
        attached: None,
        ..v
    }
}
