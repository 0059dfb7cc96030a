//! The ISO in a VM's CD drive: it lies on the pool of the VM's ROOT volume, so that all hosts that can run the VM reach it.
//!
//! It is kept there as a template is: copied once a pool, counted against the pool, and removed by the duty of
//! [`crate::template_copies`] when no VM has needed it for long.

use super::allocate::{cost, source_image};
use crate::Storage;
use crate::bytes;
use crate::store::{pools, template_copies, templates};
use contract::ApiError;
use contract::api::Caller;
use contract_storage::{DisksResponse, IsoSpec};

/// Brings an ISO to the pool of the ROOT volume among `disks`, by a host that reaches it. Gives none when the ISO is gone, or
/// its zone has no copy of it and neither has the pool: a VM starts without it then. A repeat does the same again.
///
/// # Errors
/// 533 when the pool has no room; those of the host.
pub async fn bring(
    s: &Storage,
    caller: &Caller,
    host: i64,
    zone: i64,
    iso: i64,
    disks: &DisksResponse,
) -> Result<Option<IsoSpec>, ApiError> {
    let db = &s.node.db;
    let root = disks.disks.iter().find(|d| d.kind == crate::store::volumes::ROOT && d.pool_id != 0);
    let root = root.ok_or_else(|| ApiError::internal("a VM with a CD has no ROOT volume on a pool"))?;
    let source = templates::source(db, iso, zone).await?.filter(|source| source.template.is_iso());
    let Some(source) = source else {
        tracing::info!(iso, "an ISO is gone that a VM has in its CD drive");
        return Ok(None);
    };
    let (pool, bytes, copied) = (root.pool_id, cost(&source.template), source.copy.is_some());
    let kept = store::tx!(*db, "place-iso", |tx| {
        // Whoever removes a copy does this first, too: of the two, the later one sees the other.
        pools::hold(tx, pool).await?;
        if template_copies::keep(tx, iso, pool).await? {
            return Ok(true);
        }
        if !copied {
            return Ok(false);
        }
        // A VM that ran yesterday starts today: it may need the last of the pool.
        if !pools::take_more(tx, pool, bytes).await? {
            let text = format!("storage pool {} has no room for ISO {}", root.pool_uuid, source.template.name);
            return Err(ApiError::capacity(text));
        }
        if !pools::note_template(tx, iso, pool, bytes).await? {
            pools::give_back(tx, pool, bytes).await?;
        }
        Ok::<_, ApiError>(true)
    })
    .await?;
    if !kept {
        tracing::info!(iso, zone, "no image store of the zone has an ISO that a VM has in its CD drive");
        return Ok(None);
    }
    let image = source_image(s, &source)?;
    s.hosts.tell(caller, None, host, bytes::ensure_iso(&root.pool_uuid, &source.template, image.as_ref())).await?;
    Ok(Some(IsoSpec { uuid: source.template.uuid, pool_uuid: root.pool_uuid.clone() }))
}
