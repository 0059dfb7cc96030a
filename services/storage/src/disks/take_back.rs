//! Undoing, and expunging.

use super::usage;
use crate::bytes;
use crate::store::deletions::{self, Deletion};
use crate::store::volumes::{self, VolumeRow};
use crate::store::{infra, vms};
use crate::{Storage, limits};
use contract::ApiError;
use contract::api::Caller;
use contract_storage::{DisksResponse, VmDisksRequest};
use jobs::StepKey;
use store::Tx;

/// How long the cleaner leaves bytes alone that are being deleted by whoever noted them, in µs.
pub const HEAD_START: i64 = 15_000_000;

/// Takes back what Allocate or Prepare did under the same key: rows and promised bytes in one commit, then the bytes
/// themselves. A call that never came is refused from now on.
///
/// # Errors
/// Those of the database. Hosts that are away don't matter: the bytes are noted.
pub async fn release(
    s: &Storage,
    caller: &Caller,
    key: &StepKey,
    req: &VmDisksRequest,
) -> Result<DisksResponse, ApiError> {
    let mut owed: Vec<Deletion> = Vec::new();
    let mut gone: Vec<String> = Vec::new();
    let mut host = req.host_id;
    jobs::undo_effect!(s.node.db, *key, |tx, done: Option<DisksResponse>| {
        (owed, gone) = (Vec::new(), Vec::new());
        let done = done.unwrap_or_default();
        host = done.host_id.or(req.host_id);
        for id in &done.placed {
            if let Some(v) = volumes::find_in(tx, *id).await?
                && let Some(pool) = v.pool_id
                && !v.removed
            {
                volumes::unplace(tx, &v, pool).await?;
                owed.extend(owe(tx, &v, HEAD_START).await?);
            }
        }
        let mut facts = Vec::new();
        for id in &done.created {
            if let Some(v) = volumes::find_in(tx, *id).await?
                && volumes::remove(tx, &v).await?
            {
                facts.push(usage(&v, "VOLUME.DELETE"));
                gone.push(v.uuid);
            }
        }
        Ok(events::record(tx, &facts).await?)
    })
    .await?;
    bytes::settle(s, caller, Some(key), host, owed).await;
    limits::give_back(s, caller, &gone).await;
    Ok(DisksResponse::default())
}

/// The VM was expunged: the bytes of its ROOT go, then its row, in one commit with the promise; data disks stay, detached.
///
/// # Errors
/// 530 when a volume changed meanwhile: the job comes again.
pub async fn expunge(
    s: &Storage,
    caller: &Caller,
    key: &StepKey,
    req: &VmDisksRequest,
) -> Result<DisksResponse, ApiError> {
    let db = &s.node.db;
    let roots: Vec<VolumeRow> = volumes::of_vm(db, req.vm_id).await?.into_iter().filter(VolumeRow::is_root).collect();
    let vm = vms::find(db, req.vm_id).await?;
    let host = match (req.host_id, &vm) {
        (None, Some(vm)) => last_host(s, vm).await?,
        (host, _) => host,
    };
    let ended = |d: Deletion| Deletion { ended_vm: vm.as_ref().map(|vm| vm.uuid.clone()), ..d };
    // No way back from here: the bytes may go before the row, which saves a commit.
    let mut left: Vec<String> = Vec::new();
    for v in &roots {
        if let Some(d) = deletion(v).map(ended)
            && let Err(error) = bytes::wipe(s, caller, Some(&bytes::key_of(key, &v.uuid)), host, &d).await
        {
            tracing::info!(volume = v.uuid, %error, "the cleaner will delete the bytes");
            left.push(v.uuid.clone());
        }
    }
    // Before the commit: a call that is cut off right after it would not come here again. A repeat gives back nothing.
    let gone: Vec<String> = roots.iter().map(|v| v.uuid.clone()).collect();
    limits::give_back(s, caller, &gone).await;
    let answer = jobs::effect!(*db, *key, |tx| {
        let mut facts = Vec::new();
        for v in &roots {
            if !volumes::remove(tx, v).await? {
                return Err(ApiError::concurrent(format!("volume {} has changed", v.name)));
            }
            if left.contains(&v.uuid)
                && let Some(d) = deletion(v)
            {
                deletions::owe(tx, &ended(d), 0).await?;
            }
            facts.push(usage(v, "VOLUME.DELETE"));
        }
        volumes::detach_data(tx, req.vm_id).await?;
        events::record(tx, &facts).await?;
        Ok(DisksResponse::default())
    })
    .await?;
    Ok(answer)
}

/// The host where a VM ran last, when it is connected.
async fn last_host(s: &Storage, vm: &vms::Vm) -> Result<Option<i64>, ApiError> {
    let Some(host) = vm.host_id.or(vm.last_host_id) else { return Ok(None) };
    Ok(infra::host(&s.node.db, host).await?.filter(|h| h.up).map(|h| h.id))
}

/// Notes that the bytes of a volume are to be deleted; none when it has none.
pub async fn owe(tx: &mut Tx, v: &VolumeRow, wait: i64) -> Result<Option<Deletion>, ApiError> {
    let Some(d) = deletion(v) else { return Ok(None) };
    deletions::owe(tx, &d, wait).await?;
    Ok(Some(d))
}

fn deletion(v: &VolumeRow) -> Option<Deletion> {
    let (pool_id, path) = (v.pool_id?, v.path.clone()?);
    Some(Deletion { volume_uuid: v.uuid.clone(), pool_id, path, ended_vm: None, tries: 0 })
}
