//! A ROOT disk in the place of another one, for VMs that are restored.
//!
//! The two change places in one commit, so that a VM never has none and never two. The former one is set aside, whole and
//! nobody's, until the VM is well with the new one; then it is discarded.

use super::{HEAD_START, allocate, owe, root_format, spec, usage};
use crate::bytes;
use crate::store::deletions::Deletion;
use crate::store::templates;
use crate::store::volumes::{self, VolumeRow};
use crate::{Storage, limits};
use contract::ApiError;
use contract::api::Caller;
use contract_storage::{DiscardRequest, DisksResponse, RenewRootRequest};
use jobs::StepKey;
use store::now_micros;

/// Gives a VM a new ROOT volume, without a place yet.
///
/// # Errors
/// 431 when the VM has none to begin with, or the template isn't there; 530 while the volume is in use otherwise.
pub async fn renew(s: &Storage, key: &StepKey, req: &RenewRootRequest) -> Result<DisksResponse, ApiError> {
    let db = &s.node.db;
    let root = volumes::of_vm(db, req.vm_id).await?.into_iter().find(VolumeRow::is_root);
    // A repeat answers what was stored, whatever is there now.
    let former = root.ok_or_else(|| ApiError::param(format!("Can not find root volume for VM {}", req.vm_id)))?;
    let source = templates::source(db, req.template_id, former.zone_id).await?;
    let source =
        source.ok_or_else(|| ApiError::param(format!("template {} doesn't exist any more", req.template_id)))?;
    allocate::image(s, &source)?;
    let iso = source.template.is_iso();
    let hypervisor = former.hypervisor.clone().unwrap_or_default();
    let id = db.next_id("volume").await?;
    let fresh = VolumeRow {
        id,
        uuid: req.uuid.clone(),
        state: "Allocated".to_owned(),
        pool_id: None,
        last_pool_id: former.pool_id,
        template_id: Some(req.template_id),
        size: req.size,
        format: match iso {
            true => former.format.clone(),
            false => Some(root_format(&hypervisor, &source.template.format).to_owned()),
        },
        path: None,
        chain: None,
        attached: Some(now_micros()),
        created: now_micros(),
        snapshot_id: None,
        ..former.clone()
    };
    jobs::effect!(*db, *key, |tx| {
        if !volumes::set_aside(tx, former.id, req.vm_id).await? {
            let text = "the ROOT volume is being changed, or a snapshot of it is taken: try again";
            return Err(ApiError::concurrent(text).with_entity(&former.uuid, "volumeid"));
        }
        volumes::insert(tx, std::slice::from_ref(&fresh)).await?;
        events::record(tx, &[usage(&fresh, "VOLUME.CREATE")]).await?;
        Ok(DisksResponse { created: vec![fresh.id], disks: vec![spec(&former, "")], ..DisksResponse::default() })
    })
    .await
}

/// Takes that back: the new one goes, with its bytes, and the former one is in its place again. Once that is discarded the
/// VM keeps the new one.
///
/// # Errors
/// 530 when the new one can't go now.
pub async fn unrenew(
    s: &Storage,
    caller: &Caller,
    key: &StepKey,
    req: &RenewRootRequest,
) -> Result<DisksResponse, ApiError> {
    let mut owed: Vec<Deletion> = Vec::new();
    let mut gone: Vec<String> = Vec::new();
    jobs::undo_effect!(s.node.db, *key, |tx, done: Option<DisksResponse>| {
        (owed, gone) = (Vec::new(), Vec::new());
        let Some(done) = done else { return Ok(()) };
        let (Some(id), Some(former)) = (done.created.first(), done.disks.first()) else { return Ok(()) };
        let former = volumes::find_in(tx, former.id).await?.filter(|v| !v.removed && v.vm_id.is_none());
        let (Some(former), Some(fresh)) = (former, volumes::find_in(tx, *id).await?.filter(|v| !v.removed)) else {
            return Ok(());
        };
        owed.extend(owe(tx, &fresh, HEAD_START).await?);
        if !volumes::remove(tx, &fresh).await? {
            return Err(ApiError::concurrent(format!("volume {} has changed", fresh.name)));
        }
        if !volumes::put_back(tx, &former, req.vm_id).await? {
            return Err(ApiError::concurrent(format!("volume {} has changed", former.name)));
        }
        gone.push(fresh.uuid.clone());
        Ok(events::record(tx, &[usage(&fresh, "VOLUME.DELETE")]).await?)
    })
    .await?;
    bytes::settle(s, caller, Some(key), None, owed).await;
    limits::give_back(s, caller, &gone).await;
    Ok(DisksResponse::default())
}

/// What was set aside goes, with its bytes.
///
/// # Errors
/// Those of the database. Hosts that are away don't matter: the bytes are noted.
pub async fn discard(
    s: &Storage,
    caller: &Caller,
    key: &StepKey,
    req: &DiscardRequest,
) -> Result<DisksResponse, ApiError> {
    let db = &s.node.db;
    let found = volumes::find(db, req.volume_id).await?;
    let former = found.ok_or_else(|| ApiError::internal(format!("volume {} has no row", req.volume_id)))?;
    // Before the commit: a call that is cut off right after it would not come here again. A repeat gives back nothing.
    limits::give_back(s, caller, std::slice::from_ref(&former.uuid)).await;
    let mut owed: Vec<Deletion> = Vec::new();
    let answer = jobs::effect!(*db, *key, |tx| {
        owed = Vec::new();
        let now = volumes::find_in(tx, req.volume_id).await?.filter(|v| !v.removed && v.vm_id.is_none());
        if let Some(v) = now {
            owed.extend(owe(tx, &v, HEAD_START).await?);
            if !volumes::remove(tx, &v).await? {
                return Err(ApiError::concurrent(format!("volume {} has changed", v.name)));
            }
            events::record(tx, &[usage(&v, "VOLUME.DELETE")]).await?;
        }
        Ok(DisksResponse::default())
    })
    .await?;
    bytes::settle(s, caller, Some(key), req.host_id, owed).await;
    Ok(answer)
}
