//! What lies on pools: hosts make and delete it.

use crate::Storage;
use crate::hosts::unsigned;
use crate::store::deletions::{self, Deletion};
use crate::store::templates::TemplateRow;
use crate::store::{infra, pools, template_copies};
use crate::target::Target;
use contract::ApiError;
use contract::api::Caller;
use contract_agent::{DeleteDisk, EnsureDisk, EnsureIso, EnsurePool, ImageStore, TemplateSource, command};
use contract_storage::DiskSpec;
use futures::future::try_join_all;
use jobs::StepKey;

/// How many hosts are tried before a deletion is put off.
const TRIES: i64 = 3;

/// The template of a disk, as a host fetches it.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// UUID.
    pub uuid: String,
    /// Format.
    pub format: String,
    /// Virtual size.
    pub size: i64,
    /// The store, as an order names it.
    pub store: ImageStore,
    /// The path in it.
    pub path: String,
    /// Nothing lies in the store: it comes with simulated hosts.
    pub built_in: bool,
    /// The disk is a copy of its own: nothing is kept on the pool for other disks (a snapshot, not a template).
    pub whole: bool,
}

/// The order to make a disk: empty, or from a template.
pub fn ensure(disk: &DiskSpec, image: Option<&Image>) -> command::Body {
    command::Body::EnsureDisk(EnsureDisk {
        volume_uuid: disk.uuid.clone(),
        pool_uuid: disk.pool_uuid.clone(),
        path: disk.path.clone(),
        size: unsigned(disk.size),
        format: disk.format.clone(),
        template: image.map(template_source),
    })
}

fn template_source(i: &Image) -> TemplateSource {
    TemplateSource {
        template_uuid: i.uuid.clone(),
        store_url: i.store.url.clone(),
        store_path: i.path.clone(),
        format: i.format.clone(),
        virtual_size: unsigned(i.size),
        // Agents from before image stores make disks of what is built in, and of nothing else.
        store: (!i.built_in).then(|| i.store.clone()),
        whole: i.whole,
    }
}

/// The order to have an ISO on a pool. Without an image it has to lie there already.
pub fn ensure_iso(pool_uuid: &str, iso: &TemplateRow, image: Option<&Image>) -> command::Body {
    let there =
        || TemplateSource { template_uuid: iso.uuid.clone(), format: iso.format.clone(), ..TemplateSource::default() };
    command::Body::EnsureIso(EnsureIso {
        pool_uuid: pool_uuid.to_owned(),
        iso: Some(image.map_or_else(there, template_source)),
    })
}

/// The order to delete a disk.
pub fn delete(volume_uuid: &str, pool_uuid: &str, path: &str) -> command::Body {
    command::Body::DeleteDisk(DeleteDisk {
        volume_uuid: volume_uuid.to_owned(),
        pool_uuid: pool_uuid.to_owned(),
        path: path.to_owned(),
        ended_vm: None,
    })
}

/// The key of a disk's bytes within a call.
pub fn key_of(key: &StepKey, volume_uuid: &str) -> StepKey {
    key.child(&format!("disk/{volume_uuid}"))
}

/// Makes disks on a host, each empty or from its template, all at the same time. Pools that the host hasn't reached yet, as
/// far as the caller knows (`mounted`), are made reachable first.
///
/// # Errors
/// The first error of the host. What was made stays, for the same key to go on or to undo.
pub async fn make(
    s: &Storage,
    caller: &Caller,
    key: &StepKey,
    host: i64,
    mounted: &[i64],
    disks: &[(DiskSpec, Option<Image>)],
) -> Result<(), ApiError> {
    try_join_all(disks.iter().map(|(disk, image)| async move {
        if !mounted.contains(&disk.pool_id) {
            mount(s, caller, disk.pool_id, host).await?;
        }
        let key = key_of(key, &disk.uuid);
        s.hosts.tell(caller, Some(&key), host, ensure(disk, image.as_ref())).await.map(drop)
    }))
    .await
    .map(drop)
}

/// Makes a pool reachable from a host, once.
///
/// # Errors
/// Those of the host.
pub async fn mount(s: &Storage, caller: &Caller, pool: i64, host: i64) -> Result<(), ApiError> {
    let db = &s.node.db;
    if pools::is_mounted(db, pool, host).await? {
        return Ok(());
    }
    let row = pools::find(db, pool).await?.ok_or_else(|| ApiError::internal(format!("storage pool {pool} is gone")))?;
    let target =
        row.target().ok_or_else(|| ApiError::internal(format!("storage pool {pool} is of an unknown kind")))?;
    s.hosts.tell(caller, None, host, reach(&row.uuid, &target)).await?;
    store::tx!(db, "pool-mounted", |tx| {
        pools::note_mounted(tx, pool, host).await?;
        Ok::<_, ApiError>(())
    })
    .await
}

/// The order to make a pool reachable.
pub fn reach(pool_uuid: &str, target: &Target) -> command::Body {
    command::Body::EnsurePool(EnsurePool {
        pool_uuid: pool_uuid.to_owned(),
        kind: target.kind.as_str().to_owned(),
        url: target.url(),
        path: target.path.clone(),
        ..EnsurePool::default()
    })
}

/// Deletes bytes on `first` or, when it can't, on another host that reaches the pool. With a key only on `first`, which
/// then refuses a late order to make them.
///
/// # Errors
/// 534 when no host could.
pub async fn wipe(
    s: &Storage,
    caller: &Caller,
    key: Option<&StepKey>,
    first: Option<i64>,
    d: &Deletion,
) -> Result<(), ApiError> {
    let pool = pools::by_ids(&s.node.db, [d.pool_id]).await?.pop();
    let Some(pool) = pool.filter(|p| p.state != model::state::PoolState::Removed) else {
        return Ok(()); // the pool is gone, and the bytes with it
    };
    // A copy of a template has the same name on all pools, but debts have one each.
    let path = match template_copies::is_copy(&d.path) {
        true => format!("template-{}", d.volume_uuid),
        false => d.path.clone(),
    };
    let body = command::Body::DeleteDisk(DeleteDisk {
        volume_uuid: d.volume_uuid.clone(),
        pool_uuid: pool.uuid.clone(),
        path,
        ended_vm: d.ended_vm.clone(),
    });
    let mut last = ApiError::unavailable(format!("no host that reaches storage pool {} is connected", pool.name));
    if let Some(host) = first {
        match s.hosts.tell(caller, key, host, body.clone()).await {
            Ok(_) => return Ok(()),
            Err(e) => last = e,
        }
    }
    for host in infra::hosts_of_pool(&s.node.db, pool.id, TRIES).await?.into_iter().filter(|h| Some(*h) != first) {
        match s.hosts.tell(caller, None, host, body.clone()).await {
            Ok(_) => return Ok(()),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Deletes bytes that are noted as to be deleted; what doesn't succeed is left to the cleaner.
pub async fn settle(s: &Storage, caller: &Caller, key: Option<&StepKey>, first: Option<i64>, owed: Vec<Deletion>) {
    for d in owed {
        let key = key.map(|k| key_of(k, &d.volume_uuid));
        if let Err(error) = wipe(s, caller, key.as_ref(), first, &d).await {
            tracing::info!(volume = d.volume_uuid, %error, "the cleaner will delete the bytes");
            continue;
        }
        let forgotten = store::tx!(s.node.db, "bytes-deleted", |tx| {
            deletions::done::<Deletion>(tx, &d.path).await?;
            Ok::<_, ApiError>(())
        })
        .await;
        if let Err(error) = forgotten {
            tracing::debug!(volume = d.volume_uuid, %error, "the bytes are gone; the cleaner will see that");
        }
    }
}
