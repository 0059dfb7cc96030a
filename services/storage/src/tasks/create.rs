//! createVolume: a row and no bytes; a pool takes it when it is first attached.

use super::attach::{self, Attach};
use super::{gone, vm, volume};
use crate::offering::check_iops;
use crate::size::{self, Limits};
use crate::store::volumes::{self, DATA, VolumeRow};
use crate::store::{infra, offerings};
use crate::{Storage, view};
use contract::ApiError;
use contract_storage::CreateVolumeRequest;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::scope::owner_for_create;
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Tx, now_micros};

/// Creates a volume whose row exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    /// The volume.
    pub volume: i64,
    /// The VM that gets it at once.
    pub attach_to: Option<i64>,
}

/// What createVolume asks for, checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// The row to insert.
    pub row: VolumeRow,
    /// The VM that gets it at once.
    pub attach_to: Option<i64>,
}

/// Checks a request.
///
/// # Errors
/// 431 for what it or its entities don't allow, 531 for entities out of reach.
pub async fn check(s: &Storage, cx: &Cx, req: &CreateVolumeRequest) -> Result<Order, ApiError> {
    let db = &s.node.db;
    let named_domain = cx.refs.living("domainid")?;
    let domain = named_domain.map(|e| (e.id, e.owner.as_ref().map_or("", |o| o.domain_path.as_str())));
    let account = req.account.as_deref().filter(|a| !a.is_empty());
    let owner = owner_for_create(db, &cx.caller, account, domain).await?;
    let offering_id: Option<i64> = cx.refs.id("diskofferingid")?;
    let offering_id = offering_id
        .ok_or_else(|| ApiError::param("Missing parameter(s): give diskofferingid (or snapshotid, later)"))?;
    let o = offerings::find(db, offering_id).await?;
    let o = o.ok_or_else(|| ApiError::param("Please specify a valid disk offering."))?;
    if !o.usable_in(&cx.caller, &owner.domain_path) {
        return Err(ApiError::permission(format!("disk offering {} is not for the account's domain", o.name)));
    }
    let attach_to: Option<i64> = cx.refs.id("virtualmachineid")?;
    let zone: Option<i64> = cx.refs.id("zoneid")?;
    let zone = match (zone, attach_to) {
        (Some(zone), _) => zone,
        (None, Some(id)) => vm(s, id).await?.zone_id,
        (None, None) => return Err(ApiError::param("Missing parameter, zone is not specified")),
    };
    check_zone(s, cx, zone, &owner.domain_path).await?;
    let bytes = size::of_disk(o.customized, o.disk_size, req.size, Limits::of(&s.node.settings))?;
    let (min_iops, max_iops) = if o.customized_iops == Some(true) {
        check_iops(Some(false), req.min_iops, req.max_iops)?;
        (req.min_iops, req.max_iops)
    } else if req.min_iops.is_some() || req.max_iops.is_some() {
        return Err(ApiError::param("the disk offering doesn't let users choose miniops and maxiops"));
    } else {
        (o.min_iops, o.max_iops)
    };
    let uuid = custom_id(cx, req.custom_id.as_deref())?;
    // Looked up before anything is counted under that id; the unique key decides.
    if volumes::uuid_taken(db, &uuid).await? {
        return Err(ApiError::param(format!("customid {uuid} is in use")));
    }
    let name = req
        .name
        .as_deref()
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .map_or_else(|| format!("DATA-{uuid}"), str::to_owned);
    let now = now_micros();
    let row = VolumeRow {
        id: db.next_id("volume").await?,
        uuid,
        name,
        kind: DATA.to_owned(),
        state: "Allocated".to_owned(),
        owner,
        zone_id: zone,
        vm_id: None,
        device_id: None,
        pool_id: None,
        last_pool_id: None,
        disk_offering_id: Some(o.id),
        template_id: None,
        size: bytes,
        min_iops,
        max_iops,
        format: None,
        hypervisor: None,
        provisioning_type: o.provisioning_type.clone(),
        tags: o.tag_list(),
        local_storage: o.local(),
        path: None,
        chain: None,
        display: req.display_volume.unwrap_or(true),
        attached: None,
        created: now,
        removed: false,
    };
    if let Some(id) = attach_to {
        attach::check_pair(s, &row, &vm(s, id).await?).await?;
    }
    Ok(Order { row, attach_to })
}

/// Only administrators choose ids, and only UUIDs.
fn custom_id(cx: &Cx, given: Option<&str>) -> Result<String, ApiError> {
    let Some(id) = given.filter(|id| !id.is_empty() && cx.caller.is_root_admin()) else {
        return Ok(model::new_uuid());
    };
    let plain = id.len() <= 40 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if plain { Ok(id.to_owned()) } else { Err(ApiError::param(format!("customid {id} is no UUID"))) }
}

/// A zone takes volumes while it is enabled, and of its domain when it is dedicated to one.
async fn check_zone(s: &Storage, cx: &Cx, zone: i64, domain_path: &str) -> Result<(), ApiError> {
    if cx.caller.is_root_admin() {
        return Ok(());
    }
    if !infra::zone_enabled(&s.node.db, zone).await? {
        return Err(ApiError::permission("Cannot perform this operation, Zone is currently disabled"));
    }
    let dedicated = infra::zone_domain(&s.node.db, zone).await?;
    if dedicated.is_some_and(|d| !domain_path.split('/').any(|part| part.parse() == Ok(d))) {
        return Err(ApiError::permission("the zone is dedicated to another domain"));
    }
    Ok(())
}

impl Job for Create {
    const KIND: &'static str = "volume.create";
    type World = Storage;
    type Undo = attach::Undo;

    async fn run(self, world: Arc<Storage>, ctx: Ctx) -> Result<Finished, ApiError> {
        match self.attach_to {
            Some(vm) => Attach { volume: self.volume, vm, device: None }.run(world, ctx).await,
            None => {
                let row = volume(&world, self.volume).await?;
                let shown = view::one_volume(&world.node.db, ctx.caller(), row).await?;
                jobs::finish!(ctx, |_tx| Ok(shown.clone())).await
            }
        }
    }

    async fn undo(self, world: Arc<Storage>, undo: attach::Undo, cx: UndoCx) -> Result<(), ApiError> {
        attach::undo(&world, self.volume, undo, cx).await
    }

    /// The volume stays, as after a createVolume without a VM: its owner has its id.
    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        match volumes::find_in(tx, self.volume).await? {
            Some(_) => Ok(()),
            None => Err(gone()),
        }
    }
}
