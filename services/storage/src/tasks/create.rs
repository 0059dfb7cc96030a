//! createVolume: a row and no bytes; a pool takes it when it is first attached. One that is made of a snapshot gets its bytes at
//! once ([`restore`]).

use super::attach::{self, Attach};
use super::restore::restore;
use super::{gone, vm, volume};
use crate::disks::usage;
use crate::offering::check_iops;
use crate::size::{self, GIB, Limits};
use crate::snapshots::usable;
use crate::store::offerings::OfferingRow;
use crate::store::snapshots::SnapshotRow;
use crate::store::volumes::{self, DATA, VolumeRow};
use crate::store::{infra, offerings};
use crate::{Storage, limits, view};
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
    /// The snapshot that it is made of.
    #[serde(default)]
    pub snapshot: Option<i64>,
}

/// What createVolume asks for, checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// The row to insert.
    pub row: VolumeRow,
    /// The VM that gets it at once.
    pub attach_to: Option<i64>,
    /// The snapshot that it is made of.
    pub snapshot: Option<i64>,
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
    let snapshot = match cx.refs.id("snapshotid")? {
        Some(id) => Some(usable(s, cx, id, "volume").await?),
        None => None,
    };
    let offering = match cx.refs.id("diskofferingid")? {
        Some(id) => {
            let o = offerings::find(db, id).await?;
            let o = o.ok_or_else(|| ApiError::param("Please specify a valid disk offering."))?;
            if !o.usable_in(&cx.caller, &owner.domain_path) {
                return Err(ApiError::permission(format!("disk offering {} is not for the account's domain", o.name)));
            }
            Some(o)
        }
        None => None,
    };
    let attach_to: Option<i64> = cx.refs.id("virtualmachineid")?;
    let zone: Option<i64> = cx.refs.id("zoneid")?;
    let zone = match (zone, attach_to) {
        (zone, _) if snapshot.is_some() => in_its_zone(snapshot.as_ref(), zone)?,
        (Some(zone), _) => zone,
        (None, Some(id)) => vm(s, id).await?.zone_id,
        (None, None) => return Err(ApiError::param("Missing parameter, zone is not specified")),
    };
    check_zone(s, cx, zone, &owner.domain_path).await?;
    let shape = match &snapshot {
        Some(from) => of_snapshot(s, req, from, offering.as_ref()).await?,
        None => of_offering(s, req, offering.as_ref())?,
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
        disk_offering_id: shape.offering,
        template_id: None,
        size: shape.bytes,
        min_iops: shape.iops.0,
        max_iops: shape.iops.1,
        format: None,
        hypervisor: None,
        provisioning_type: shape.provisioning,
        tags: shape.tags,
        local_storage: shape.local,
        path: None,
        chain: None,
        display: req.display_volume.unwrap_or(true),
        attached: None,
        created: now,
        removed: false,
        snapshot_id: snapshot.as_ref().map(|from| from.id),
    };
    if let Some(id) = attach_to {
        let vm = vm(s, id).await?;
        attach::check_pair(s, &row, &vm).await?;
        if let Some(from) = snapshot.as_ref().filter(|from| from.hypervisor != vm.hypervisor) {
            let text = format!("Can't attach a volume of {} to a VM of {}", from.hypervisor, vm.hypervisor);
            return Err(ApiError::param(text).with_entity(&from.uuid, "snapshotid"));
        }
    }
    Ok(Order { row, attach_to, snapshot: snapshot.map(|from| from.id) })
}

/// What a volume is like.
struct Shape {
    offering: Option<i64>,
    bytes: i64,
    iops: (Option<i64>, Option<i64>),
    provisioning: String,
    tags: Vec<String>,
    local: bool,
}

/// An empty volume is what its offering says.
fn of_offering(s: &Storage, req: &CreateVolumeRequest, offering: Option<&OfferingRow>) -> Result<Shape, ApiError> {
    let o = offering.ok_or_else(|| ApiError::param("Missing parameter(s): give diskofferingid or snapshotid"))?;
    Ok(Shape {
        offering: Some(o.id),
        bytes: size::of_disk(o.customized, o.disk_size, req.size, Limits::of(&s.node.settings))?,
        iops: iops(req, o)?,
        provisioning: o.provisioning_type.clone(),
        tags: o.tag_list(),
        local: o.local(),
    })
}

/// A volume that is made of a snapshot is as large as that; everything else it has of its offering, or of the snapshot's volume.
async fn of_snapshot(
    s: &Storage,
    req: &CreateVolumeRequest,
    from: &SnapshotRow,
    offering: Option<&OfferingRow>,
) -> Result<Shape, ApiError> {
    if req.size.is_some_and(|gib| gib.saturating_mul(GIB) != from.size) {
        let text = format!("a volume made of a snapshot is as large as that, {} bytes: resize it then", from.size);
        return Err(ApiError::param(text).with_entity(&from.uuid, "snapshotid"));
    }
    if let Some(o) = offering {
        return Ok(Shape {
            offering: Some(o.id),
            bytes: from.size,
            iops: iops(req, o)?,
            provisioning: o.provisioning_type.clone(),
            tags: o.tag_list(),
            local: o.local(),
        });
    }
    if req.min_iops.is_some() || req.max_iops.is_some() {
        return Err(ApiError::param("miniops and maxiops need a disk offering that lets users choose them"));
    }
    let parent = volumes::find(&s.node.db, from.volume_id).await?.ok_or_else(gone)?;
    Ok(Shape {
        offering: parent.disk_offering_id,
        bytes: from.size,
        iops: (parent.min_iops, parent.max_iops),
        provisioning: parent.provisioning_type,
        tags: parent.tags,
        local: parent.local_storage,
    })
}

fn iops(req: &CreateVolumeRequest, o: &OfferingRow) -> Result<(Option<i64>, Option<i64>), ApiError> {
    if o.customized_iops == Some(true) {
        check_iops(Some(false), req.min_iops, req.max_iops)?;
        Ok((req.min_iops, req.max_iops))
    } else if req.min_iops.is_some() || req.max_iops.is_some() {
        Err(ApiError::param("the disk offering doesn't let users choose miniops and maxiops"))
    } else {
        Ok((o.min_iops, o.max_iops))
    }
}

/// The zone of a snapshot: its volumes are in no other.
fn in_its_zone(snapshot: Option<&SnapshotRow>, zone: Option<i64>) -> Result<i64, ApiError> {
    let from = snapshot.ok_or_else(|| ApiError::internal("a snapshot has vanished"))?;
    match zone {
        Some(zone) if zone != from.zone_id => {
            let text = "a volume can only be made in the zone of its snapshot";
            Err(ApiError::param(text).with_entity(&from.uuid, "snapshotid"))
        }
        _ => Ok(from.zone_id),
    }
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
        if let Some(snapshot) = self.snapshot {
            restore(&world, &ctx, self.volume, snapshot, self.attach_to).await?;
        }
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
        // The row goes when the job ends; what it counts goes now.
        if matches!(undo, attach::Undo::Place)
            && let Some(v) = volumes::find(&world.node.db, self.volume).await?
        {
            limits::give_back(&world, cx.caller(), &[v.uuid]).await;
        }
        attach::undo(&world, self.volume, undo, cx).await
    }

    /// The volume stays, as after a createVolume without a VM: its owner has its id. One that should have a snapshot's content
    /// and hasn't goes: identity gives back what it counted.
    async fn abort(self, _world: Arc<Storage>, _error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        let v = volumes::find_in(tx, self.volume).await?.ok_or_else(gone)?;
        if self.snapshot.is_some() && volumes::remove(tx, &v).await? {
            events::record(tx, &[usage(&v, "VOLUME.DELETE")]).await?;
        }
        Ok(())
    }
}
