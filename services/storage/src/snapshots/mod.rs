//! Snapshots of volumes: what may be taken of which volume, and what may be made of a snapshot.
//!
//! ```text
//! Allocated ─▶ Creating ─▶ BackingUp ─▶ BackedUp ─▶ Destroyed
//!     └───────────┴────────────┴─▶ Error ────────────┘
//! ```
//! A host copies the disk, as it is at one moment, straight into a secondary store: nothing of a snapshot ever lies on primary
//! storage, so `CreatedOnPrimary` is a state that no snapshot is in.

pub mod clock;
pub mod policies;
pub mod schedule;
pub mod view;

use crate::Storage;
use crate::disks::format_of;
use crate::images::rooms;
use crate::store::snapshots::{self, ALLOCATED, BACKED_UP, ERROR, SnapshotRow};
use crate::store::volumes::VolumeRow;
use crate::store::{images, infra, vms};
use crate::tasks::{self, CreateSnapshot, DeleteSnapshot, running_on};
use contract::api::Caller;
use contract::{ApiError, Request as _};
use contract_storage::{CreateSnapshotRequest, DeleteSnapshotRequest};
use events::{Record, UsageRecord};
use jobs::{Accept, Claim};
use model::scope::{may_act_for, owner_for_create};
use rpc::Cx;
use store::now_micros;

/// The kind of the entity, as jobs and events name it.
pub const KIND: &str = "Snapshot";
/// Taken because somebody asked for it.
const MANUAL: &str = "MANUAL";
/// Hypervisors whose volumes have no snapshots (STO-141).
const WITHOUT: [&str; 4] = ["Hyperv", "Ovm", "Ovm3", "LXC"];

/// The error for a snapshot that isn't there.
pub fn gone() -> ApiError {
    ApiError::param("Unable to find the snapshot: it doesn't exist or has been deleted")
}

/// What createSnapshot asks for, checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// The row to insert.
    pub row: SnapshotRow,
    /// The volume.
    pub volume: VolumeRow,
}

/// Checks createSnapshot.
///
/// # Errors
/// 431 for what the volume doesn't allow, 531 for one out of reach, 530 when the zone has no secondary storage.
pub async fn check(s: &Storage, cx: &Cx, req: &CreateSnapshotRequest) -> Result<Order, ApiError> {
    let db = &s.node.db;
    let v = tasks::volume(s, cx.refs.need("volumeid")?).await?;
    let refuse = |text: String| ApiError::param(text).with_entity(&v.uuid, "volumeid");
    if !may_act_for(&cx.caller, &v.owner) {
        return Err(ApiError::permission("you may not act on that volume"));
    }
    check_owner(s, cx, req, &v).await?;
    if req.location_type.as_deref().is_some_and(|place| !place.trim().is_empty()) {
        return Err(refuse(format!("VolumeId: {} LocationType is supported only for managed storage", v.uuid)));
    }
    if !cx.caller.is_root_admin() && !infra::zone_enabled(db, v.zone_id).await? {
        return Err(ApiError::permission("Cannot perform this operation, Zone is currently disabled"));
    }
    order(s, v, req.name.as_deref(), None).await
}

/// What takes a snapshot of a volume, by hand or for a policy (its kind and number).
///
/// # Errors
/// 431 for what the volume doesn't allow now, 530 when the zone has no secondary storage.
pub async fn order(
    s: &Storage,
    v: VolumeRow,
    name: Option<&str>,
    policy: Option<(&str, i64)>,
) -> Result<Order, ApiError> {
    let db = &s.node.db;
    let refuse = |text: String| ApiError::param(text).with_entity(&v.uuid, "volumeid");
    let hypervisor = v.hypervisor.clone().filter(|_| v.state == "Ready" && v.pool_id.is_some()).ok_or_else(|| {
        refuse(format!("VolumeId: {} is not in Ready state but {}. Cannot take snapshot.", v.uuid, v.state))
    })?;
    check_hypervisor(&hypervisor, &v)?;
    let vm = match v.vm_id {
        Some(id) => vms::find(db, id).await?,
        None => None,
    };
    if let Some(vm) = &vm {
        running_on(vm)?;
    }
    let found = images::rooms(db, &[v.zone_id]).await?;
    let store = rooms::choose(&found, v.zone_id, false).first().map(|room| room.id);
    let zone = infra::zone_name(db, v.zone_id).await?;
    let store_id = store.ok_or_else(|| {
        ApiError::failed(format!("Zone {zone} has no secondary storage for the snapshot: add it with addImageStore"))
    })?;
    let now = now_micros();
    let name = name.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
    let whose = vm.map_or_else(|| "detached".to_owned(), |vm| vm.display_name);
    let name = name.unwrap_or_else(|| {
        let stamp = stamp(now);
        let room = 255usize.saturating_sub(stamp.len() + 1);
        let front: String = format!("{whose}_{}", v.name).chars().take(room).collect();
        format!("{front}_{stamp}")
    });
    let uuid = model::new_uuid();
    let format = format_of(&hypervisor);
    let row = SnapshotRow {
        id: db.next_id("snapshot").await?,
        name,
        owner: v.owner.clone(),
        zone_id: v.zone_id,
        volume_id: v.id,
        kind: policy.map_or(MANUAL, |(kind, _)| kind).to_owned(),
        state: ALLOCATED.to_owned(),
        size: v.size,
        physical_size: 0,
        // Counted as large as it can be, until its length is known.
        held_bytes: v.size,
        hypervisor,
        format: format.to_owned(),
        store_id,
        path: format!("snapshots/{}/{}/{uuid}.{}", v.owner.account_id, v.id, format.to_lowercase()),
        host_id: None,
        created: now,
        removed: false,
        policy_id: policy.map(|(_, id)| id),
        uuid,
    };
    Ok(Order { row, volume: v })
}

/// Hypervisors whose volumes have no snapshots.
fn check_hypervisor(hypervisor: &str, v: &VolumeRow) -> Result<(), ApiError> {
    if !WITHOUT.contains(&hypervisor) {
        return Ok(());
    }
    let text = format!("Snapshots of volumes on {hypervisor} are not supported");
    Err(ApiError::unsupported(text).with_entity(&v.uuid, "volumeid"))
}

impl Order {
    /// The job that takes it, to be accepted with its row.
    pub fn accept(&self, caller: &Caller, custom_id: Option<String>) -> Accept<CreateSnapshot> {
        let (row, v) = (&self.row, &self.volume);
        let mut claims = vec![Claim::Exclusive(claim(row.id)), Claim::Exclusive(format!("volume/{}", v.id))];
        claims.extend(v.vm_id.map(|vm| Claim::Shared(format!("vm/{vm}"))));
        Accept {
            job: CreateSnapshot { snapshot: row.id, volume: v.id, vm: v.vm_id },
            caller: caller.clone(),
            command: CreateSnapshotRequest::COMMAND,
            owner: row.owner.clone(),
            instance: Some((KIND.to_owned(), row.uuid.clone())),
            claims,
            custom_id,
            description: format!("creating snapshot for volume: {}", v.uuid),
            entity_id: Some(row.uuid.clone()),
        }
    }
}

/// The job that deletes a snapshot, to be accepted when its claims are free.
///
/// # Errors
/// 431 when it is being made, or gone.
pub fn deletion(
    row: &SnapshotRow,
    caller: &Caller,
    custom_id: Option<String>,
) -> Result<Accept<DeleteSnapshot>, ApiError> {
    if row.removed {
        return Err(gone());
    }
    if row.state != BACKED_UP && row.state != ERROR {
        let text = format!("Can't delete snapshot {} due to it is in {} Status", row.uuid, row.state);
        return Err(ApiError::param(text).with_entity(&row.uuid, "id"));
    }
    Ok(Accept {
        job: DeleteSnapshot { snapshot: row.id },
        caller: caller.clone(),
        command: DeleteSnapshotRequest::COMMAND,
        owner: row.owner.clone(),
        instance: Some((KIND.to_owned(), row.uuid.clone())),
        claims: vec![Claim::Exclusive(claim(row.id))],
        custom_id,
        description: format!("deleting snapshot: {}", row.uuid),
        entity_id: None,
    })
}

/// A snapshot is its volume's owner's: who names another one is told so.
async fn check_owner(s: &Storage, cx: &Cx, req: &CreateSnapshotRequest, v: &VolumeRow) -> Result<(), ApiError> {
    let named = cx.refs.living("domainid")?;
    let account = req.account.as_deref().map(str::trim).filter(|a| !a.is_empty());
    if named.is_none() && account.is_none() {
        return Ok(());
    }
    let domain = named.map(|e| (e.id, e.owner.as_ref().map_or("", |o| o.domain_path.as_str())));
    if account.is_none() {
        let same = domain.is_some_and(|(id, _)| id == v.owner.domain_id);
        return if same { Ok(()) } else { Err(ApiError::param("the volume isn't of the domain that domainid names")) };
    }
    let owner = owner_for_create(&s.node.db, &cx.caller, account, domain).await?;
    if owner.account_id == v.owner.account_id {
        return Ok(());
    }
    Err(ApiError::param("a snapshot belongs to the account of its volume, which is another one than named"))
}

/// The snapshot that a request wants to make something of.
///
/// # Errors
/// 431 when it isn't on secondary storage, 531 when the caller may not act on it.
pub async fn usable(s: &Storage, cx: &Cx, id: i64, what: &str) -> Result<SnapshotRow, ApiError> {
    let row = snapshots::find(&s.node.db, id).await?.filter(|row| !row.removed).ok_or_else(gone)?;
    if !may_act_for(&cx.caller, &row.owner) {
        return Err(ApiError::permission("you may not act on that snapshot"));
    }
    if !row.is_there() {
        let text =
            format!("Snapshot id={} is not in BackedUp state yet and can't be used for {what} creation", row.uuid);
        return Err(ApiError::param(text).with_entity(&row.uuid, "snapshotid"));
    }
    Ok(row)
}

/// A moment in a name: "20240229235959", UTC.
fn stamp(micros: i64) -> String {
    let moment = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%Y%m%d%H%M%S").to_string()
}

/// The claim on a snapshot.
pub fn claim(id: i64) -> String {
    format!("snapshot/{id}")
}

/// A fact for accounting about a snapshot. `what`: CREATE, DELETE.
pub fn usage(row: &SnapshotRow, what: &str) -> Record {
    Record::Usage(UsageRecord {
        kind: format!("SNAPSHOT.{what}"),
        owner: row.owner.clone(),
        zone_id: row.zone_id,
        resource_id: row.id,
        resource_uuid: row.uuid.clone(),
        resource_name: row.name.clone(),
        offering_id: None,
        template_id: None,
        size: Some(row.physical_size),
        resource_type: Some(row.hypervisor.clone()),
        created: now_micros(),
    })
}
