//! The disks of a new VM.

use super::place::{Near, Thresholds, Wanted, take_place};
use super::{format_of, free_device, spec, usage};
use crate::Storage;
use crate::bytes::{self, Image};
use crate::images::reach;
use crate::size::{self, GIB, Limits};
use crate::store::offerings::{self, OfferingRow};
use crate::store::pools;
use crate::store::templates::{self, Source, TemplateRow};
use crate::store::volumes::{self, DATA, ROOT, VolumeRow};
use contract::ApiError;
use contract::api::Caller;
use contract_storage::{AllocateDisksRequest, DiskSpec, DisksResponse, NewDisk};
use jobs::StepKey;
use model::Owner;
use store::now_micros;

/// Makes the volumes of a new VM: rows, and with a host also their places and bytes.
///
/// # Errors
/// 431 for sizes and offerings that don't fit, 533 when no pool has room, those of the host.
pub async fn allocate(
    s: &Storage,
    caller: &Caller,
    key: &StepKey,
    req: &AllocateDisksRequest,
) -> Result<DisksResponse, ApiError> {
    let db = &s.node.db;
    let source = templates::source(db, req.template_id, req.zone_id)
        .await?
        .ok_or_else(|| ApiError::param(format!("template {} doesn't exist any more", req.template_id)))?;
    let image = image(s, &source)?;
    let mut drafts = draft(s, req, &source.template).await?;
    let first = db.next_ids("volume", i64::try_from(drafts.len()).unwrap_or(1)).await?;
    for (id, draft) in (first..).zip(&mut drafts) {
        draft.id = id;
    }
    let near = match (req.host_id, req.cluster_id) {
        (Some(host), Some(cluster)) => Some(Near { host, cluster, hypervisor: req.hypervisor.clone() }),
        (Some(_), None) => return Err(ApiError::internal("a host was named without its cluster")),
        (None, _) => None,
    };
    let candidates = match &near {
        Some(near) => pools::candidates(db, req.zone_id, template_of(&source.template), Some(near.host)).await?,
        None => Vec::new(),
    };
    let thresholds = Thresholds::of(&s.node.settings, req.zone_id);
    let answer = jobs::effect!(*db, *key, |tx| {
        let mut rows = drafts.clone();
        let mut answer = DisksResponse { host_id: near.as_ref().map(|n| n.host), ..DisksResponse::default() };
        for row in &mut rows {
            let mut pool_uuid = "";
            if let Some(near) = &near {
                let wanted = wanted(row, &source.template);
                let pool = take_place(tx, &candidates, near, &wanted, thresholds).await?;
                (row.pool_id, row.path, row.state) = (Some(pool.id), Some(model::new_uuid()), READY.to_owned());
                pool_uuid = &pool.uuid;
                answer.placed.push(row.id);
            }
            answer.created.push(row.id);
            answer.disks.push(spec(row, pool_uuid));
        }
        volumes::insert(tx, &rows).await?;
        let facts: Vec<events::Record> = rows.iter().map(|v| usage(v, "VOLUME.CREATE")).collect();
        events::record(tx, &facts).await?;
        Ok(answer)
    })
    .await?;
    let mut answer = answer;
    if let Some(near) = &near {
        let disks: Vec<(DiskSpec, Option<Image>)> =
            answer.disks.iter().map(|d| (d.clone(), image.clone().filter(|_| d.kind == ROOT))).collect();
        let mounted: Vec<i64> = candidates.iter().filter(|p| p.mounted).map(|p| p.id).collect();
        bytes::make(s, caller, key, near.host, &mounted, &disks).await?;
        if let Some(iso) = req.iso_id {
            answer.iso = super::iso::bring(s, caller, near.host, req.zone_id, iso, &answer).await?;
        }
    }
    Ok(answer)
}

/// A disk of a deployment is Ready with its row: until its bytes are there too nothing else can touch it, because the job
/// holds the VM, and if they can't be made the row goes again.
const READY: &str = "Ready";

/// The template that ROOT disks are made from; ISOs are only put in.
fn template_of(t: &TemplateRow) -> i64 {
    if t.is_iso() { 0 } else { t.id }
}

/// What a disk needs of a pool.
fn wanted<'a>(v: &'a VolumeRow, t: &TemplateRow) -> Wanted<'a> {
    Wanted {
        name: &v.name,
        bytes: v.size,
        template: (v.is_root() && !t.is_iso()).then(|| (t.id, cost(t))),
        tags: &v.tags,
        local: v.local_storage,
    }
}

/// Bytes that a template takes on a pool.
pub fn cost(t: &TemplateRow) -> i64 {
    if t.physical_size > 0 { t.physical_size } else { t.size }
}

/// What hosts make the ROOT disk from; none for ISOs.
///
/// # Errors
/// 431 when the zone has no copy.
pub fn image(s: &Storage, source: &Source) -> Result<Option<Image>, ApiError> {
    let t = &source.template;
    if t.is_iso() {
        return Ok(None);
    }
    let image = source_image(s, source)?;
    image.map(Some).ok_or_else(|| {
        ApiError::param(format!("template {} is not ready in this zone", t.name)).with_entity(&t.uuid, "templateId")
    })
}

/// What a host copies a template or an ISO from; none when the zone has no copy.
///
/// # Errors
/// When what hosts are told of the store can't be opened.
pub fn source_image(s: &Storage, source: &Source) -> Result<Option<Image>, ApiError> {
    let t = &source.template;
    let Some((site, path)) = &source.copy else { return Ok(None) };
    Ok(Some(Image {
        uuid: t.uuid.clone(),
        format: t.format.clone(),
        size: t.size,
        store: reach::open(s, site)?,
        path: path.clone(),
        built_in: t.template_type == "BUILTIN" && t.hypervisor == "Simulator",
        whole: false,
    }))
}

/// The format of a ROOT disk: on KVM a layer over the template's copy, on LXC a file system of what an archive holds, elsewhere
/// what the template is.
pub fn root_format<'t>(hypervisor: &str, template: &'t str) -> &'t str {
    match hypervisor {
        "KVM" => "QCOW2",
        "LXC" => "RAW",
        _ => template,
    }
}

/// The rows, without places.
async fn draft(s: &Storage, req: &AllocateDisksRequest, t: &TemplateRow) -> Result<Vec<VolumeRow>, ApiError> {
    let root = req.root.clone().unwrap_or_default();
    let ids: Vec<i64> =
        std::iter::once(&root).chain(&req.data).map(|d| d.disk_offering_id).filter(|id| *id != 0).collect();
    let found = offerings::by_ids(&s.node.db, &ids).await?;
    let offering = |disk: &NewDisk| match disk.disk_offering_id {
        0 => Ok(None),
        id => found
            .iter()
            .find(|o| o.id == id)
            .map(Some)
            .ok_or_else(|| ApiError::param(format!("disk offering {id} doesn't exist"))),
    };
    let limits = Limits::of(&s.node.settings);
    let mut rows = vec![root_row(req, &root, offering(&root)?, t, limits)?];
    let mut used = vec![0];
    for disk in &req.data {
        let offering = offering(disk)?.ok_or_else(|| ApiError::param("a data disk needs a disk offering"))?;
        let size = data_size(disk, offering, limits)?;
        let device = free_device(&used);
        used.push(device);
        let mut row = blank(req, disk, DATA, device, size);
        row.name = named(&disk.name, || format!("DATA-{}", req.vm_id));
        bind(&mut row, offering);
        rows.push(row);
    }
    Ok(rows)
}

fn root_row(
    req: &AllocateDisksRequest,
    disk: &NewDisk,
    offering: Option<&OfferingRow>,
    t: &TemplateRow,
    limits: Limits,
) -> Result<VolumeRow, ApiError> {
    let size = match (offering, disk.size) {
        (Some(o), _) if t.is_iso() => data_size(disk, o, limits)?,
        (None, 0) if t.is_iso() => {
            return Err(ApiError::param(
                "a virtual machine that boots from an ISO needs a disk offering for its ROOT disk",
            ));
        }
        (_, 0) => t.size,
        (_, size) if size < t.size => {
            let text = format!("rootdisksize of {size} bytes is smaller than the template's size of {} bytes", t.size);
            return Err(ApiError::param(text));
        }
        (_, size) if size > limits.max.saturating_mul(GIB) => {
            return Err(ApiError::param(format!("The root disk exceeds the maximum size allowed: {} GB", limits.max)));
        }
        (_, size) => size,
    };
    let mut row = blank(req, disk, ROOT, 0, size);
    row.name = named(&disk.name, || format!("ROOT-{}", req.vm_id));
    row.tags = req.tags.clone();
    row.local_storage = req.local_storage;
    if let Some(o) = offering {
        bind(&mut row, o);
        row.tags.extend(req.tags.iter().filter(|t| !row.tags.contains(t)).cloned().collect::<Vec<_>>());
        row.local_storage |= req.local_storage;
    }
    row.template_id = Some(t.id);
    if !t.is_iso() {
        row.format = Some(root_format(&req.hypervisor, &t.format).to_owned());
    }
    Ok(row)
}

/// The size of a disk from an offering, where the caller gives bytes.
fn data_size(disk: &NewDisk, o: &OfferingRow, limits: Limits) -> Result<i64, ApiError> {
    match disk.size {
        0 => size::of_disk(o.customized, o.disk_size, None, limits),
        bytes if !o.customized && bytes == o.disk_size => Ok(bytes),
        bytes => size::of_disk(o.customized, o.disk_size, Some(bytes.div_euclid(GIB)), limits),
    }
}

fn bind(row: &mut VolumeRow, o: &OfferingRow) {
    row.disk_offering_id = Some(o.id);
    row.tags = o.tag_list();
    row.local_storage = o.local();
    row.provisioning_type = o.provisioning_type.clone();
    (row.min_iops, row.max_iops) = (o.min_iops, o.max_iops);
}

fn named(name: &str, default: impl FnOnce() -> String) -> String {
    if name.is_empty() { default() } else { name.to_owned() }
}

fn blank(req: &AllocateDisksRequest, disk: &NewDisk, kind: &str, device: i64, size: i64) -> VolumeRow {
    let now = now_micros();
    VolumeRow {
        id: 0,
        uuid: if disk.uuid.is_empty() { model::new_uuid() } else { disk.uuid.clone() },
        name: String::new(),
        kind: kind.to_owned(),
        state: "Allocated".to_owned(),
        owner: Owner { account_id: req.account_id, domain_id: req.domain_id, domain_path: req.domain_path.clone() },
        zone_id: req.zone_id,
        vm_id: Some(req.vm_id),
        device_id: Some(device),
        pool_id: None,
        last_pool_id: None,
        disk_offering_id: None,
        template_id: None,
        size,
        min_iops: None,
        max_iops: None,
        format: Some(format_of(&req.hypervisor).to_owned()),
        hypervisor: Some(req.hypervisor.clone()),
        provisioning_type: "thin".to_owned(),
        tags: Vec::new(),
        local_storage: false,
        path: None,
        chain: None,
        display: true,
        attached: Some(now),
        created: now,
        removed: false,
        snapshot_id: None,
    }
}
