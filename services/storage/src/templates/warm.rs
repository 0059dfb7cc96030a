//! prepareTemplate: a template comes to primary storage before a virtual machine needs it.
//!
//! Hosts copy a template to a pool when they make the first volume of it there. So one makes a volume of the template that
//! is deleted at once; the copy stays. The deletion is noted before the volume is made: whoever is killed in between, the
//! cleaner finds it.

use super::gone;
use crate::bytes;
use crate::disks::cost;
use crate::store::deletions;
use crate::store::infra;
use crate::store::pools::{self, PoolRow};
use crate::store::template_writes as rows;
use crate::store::templates::{self, Source, TemplateRow};
use crate::{Storage, disks};
use contract::ApiError;
use contract::api::Caller;
use contract_storage::DiskSpec;
use model::state::PoolState;
use rpc::Cx;

/// How long the cleaner leaves the volume alone, in µs: as long as a host may take to make it.
const HEAD_START: i64 = 180_000_000;

/// Checks the request and begins the work in the background, as 4.11 does.
///
/// # Errors
/// 431 when the template isn't ready in the zone, or the pool isn't one of the zone that takes it.
pub async fn prepare(s: &Storage, cx: &Cx) -> Result<(TemplateRow, i64), ApiError> {
    let db = &s.node.db;
    let (id, zone): (i64, i64) = (cx.refs.need("templateid")?, cx.refs.need("zoneid")?);
    let only: Option<i64> = cx.refs.id("storageid")?;
    let source = templates::source(db, id, zone).await?.ok_or_else(|| gone(false))?;
    let row = source.template.clone();
    super::check_kind(&row, false)?;
    if source.copy.is_none() {
        return Err(ApiError::param(format!("template {} is not ready in this zone", row.name))
            .with_entity(&row.uuid, "templateid"));
    }
    let mut targets = pools::of_zone(db, zone).await?;
    targets.retain(|p| only.is_none_or(|id| id == p.id) && p.state == PoolState::Up && takes(p, &row.hypervisor));
    if let Some(id) = only
        && targets.is_empty()
    {
        let pool = pools::find(db, id).await?.map_or_else(|| id.to_string(), |p| p.name);
        return Err(ApiError::param(format!(
            "pool {pool} isn't Up, isn't in the zone, or isn't for {} hosts",
            row.hypervisor
        )));
    }
    for pool in targets {
        let (s, caller, source) = (s.clone(), cx.caller.clone(), source.clone());
        s.clone().node.spawn("prepare-template", async move {
            if let Err(error) = bring(&s, &caller, &source, &pool).await {
                tracing::warn!(template = source.template.uuid, pool = pool.name, %error, "a template isn't prepared");
            }
        });
    }
    Ok((row, zone))
}

fn takes(pool: &PoolRow, hypervisor: &str) -> bool {
    pool.hypervisor.as_deref().is_none_or(|h| h.eq_ignore_ascii_case(hypervisor) || h.eq_ignore_ascii_case("Any"))
}

/// Brings a template to a pool.
///
/// # Errors
/// 533 when the pool has no room, 534 when no host reaches it; those of the host.
pub async fn bring(s: &Storage, caller: &Caller, source: &Source, pool: &PoolRow) -> Result<(), ApiError> {
    let (db, t) = (&s.node.db, &source.template);
    let hosts = infra::hosts_of_pool(db, pool.id, 1).await?;
    let host = *hosts
        .first()
        .ok_or_else(|| ApiError::unavailable(format!("no host that reaches pool {} is connected", pool.name)))?;
    let zone = disks::Thresholds::of(&s.node.settings, pool.zone_id);
    let disk = DiskSpec {
        uuid: model::new_uuid(),
        size: t.size,
        pool_id: pool.id,
        pool_uuid: pool.uuid.clone(),
        path: model::new_uuid(),
        format: disks::root_format(&t.hypervisor, &t.format).to_owned(),
        ..DiskSpec::default()
    };
    let bytes = cost(t);
    let owed = deletions::Deletion {
        volume_uuid: disk.uuid.clone(),
        pool_id: pool.id,
        path: disk.path.clone(),
        ended_vm: None,
        tries: 0,
    };
    store::tx!(*db, "prepare-template", |tx| {
        if rows::find_in(tx, t.id).await?.is_none() {
            return Err(gone(false));
        }
        if pools::note_template(tx, t.id, pool.id, bytes).await?
            && !pools::take(tx, pool.id, bytes, zone.allocated).await?
        {
            return Err(ApiError::capacity(format!("pool {} has no room for template {}", pool.name, t.name)));
        }
        deletions::owe(tx, &owed, HEAD_START).await?;
        Ok::<_, ApiError>(())
    })
    .await?;
    let image = disks::image(s, source)?;
    bytes::mount(s, caller, pool.id, host).await?;
    let made = s.hosts.tell(caller, None, host, bytes::ensure(&disk, image.as_ref())).await;
    bytes::settle(s, caller, None, Some(host), vec![owed]).await;
    made.map(drop)
}
