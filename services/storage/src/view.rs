//! Resources as answers show them. A page costs a constant number of queries: one a kind of thing that it refers to.

use crate::offering::split_tags;
use crate::size::GIB;
use crate::store::copies;
use crate::store::images::ImageStoreRow;
use crate::store::offerings::{self, OfferingRow};
use crate::store::pools::{self, PoolRow};
use crate::store::snapshots;
use crate::store::templates::{self, TemplateRow};
use crate::store::vms;
use crate::store::volumes::VolumeRow;
use contract::ApiError;
use contract::api::{Caller, ResourceTag, RoleType};
use contract_storage::{DiskOffering, ImageStore, StoragePool, Template, Volume};
use model::names::{self, DomainName, Named, Table};
use model::tags::{self, Tag};
use std::collections::HashMap;
use store::Db;

/// Disk offerings.
pub async fn disk_offerings(db: &Db, rows: Vec<OfferingRow>) -> Result<Vec<DiskOffering>, ApiError> {
    let domains = names::domains(db, rows.iter().filter_map(|o| o.domain_id)).await?;
    Ok(rows.into_iter().map(|o| disk_offering(o, &domains)).collect())
}

/// One disk offering.
pub fn disk_offering(o: OfferingRow, domains: &HashMap<i64, DomainName>) -> DiskOffering {
    let domain = o.domain_id.and_then(|id| domains.get(&id));
    DiskOffering {
        id: Some(o.uuid),
        domain_id: domain.map(|d| d.uuid.clone()),
        domain: domain.map(|d| d.name.clone()),
        name: Some(o.name),
        display_text: Some(o.display_text),
        disk_size: Some(o.disk_size / GIB),
        created: Some(o.created),
        is_customized: Some(o.customized),
        is_customized_iops: o.customized_iops,
        min_iops: o.min_iops,
        max_iops: o.max_iops,
        hypervisor_snapshot_reserve: o.snapshot_reserve.and_then(|n| i32::try_from(n).ok()),
        tags: o.tags,
        storage_type: Some(o.storage_type),
        provisioning_type: Some(o.provisioning_type),
        disk_bytes_read_rate: o.bytes_read_rate,
        disk_bytes_write_rate: o.bytes_write_rate,
        disk_iops_read_rate: o.iops_read_rate,
        disk_iops_write_rate: o.iops_write_rate,
        cache_mode: o.cache_mode,
        display_offering: Some(o.display),
        ..DiskOffering::default()
    }
}

/// Storage pools.
pub async fn storage_pools(db: &Db, rows: Vec<PoolRow>) -> Result<Vec<StoragePool>, ApiError> {
    let zones = names::named(db, Table::Zones, rows.iter().map(|p| p.zone_id)).await?;
    let pods = names::named(db, Table::Pods, rows.iter().filter_map(|p| p.pod_id)).await?;
    let clusters = names::named(db, Table::Clusters, rows.iter().filter_map(|p| p.cluster_id)).await?;
    Ok(rows.into_iter().map(|p| storage_pool(p, &zones, &pods, &clusters)).collect())
}

fn storage_pool(
    p: PoolRow,
    zones: &HashMap<i64, Named>,
    pods: &HashMap<i64, Named>,
    clusters: &HashMap<i64, Named>,
) -> StoragePool {
    let zone = zones.get(&p.zone_id);
    let pod = p.pod_id.and_then(|id| pods.get(&id));
    let cluster = p.cluster_id.and_then(|id| clusters.get(&id));
    StoragePool {
        id: Some(p.uuid),
        zone_id: zone.map(|z| z.uuid.clone()),
        zone_name: zone.map(|z| z.name.clone()),
        pod_id: pod.map(|x| x.uuid.clone()),
        pod_name: pod.map(|x| x.name.clone()),
        name: Some(p.name),
        ip_address: Some(p.host_address),
        path: Some(p.path),
        created: Some(p.created),
        r#type: Some(p.pool_type),
        cluster_id: cluster.map(|x| x.uuid.clone()),
        cluster_name: cluster.map(|x| x.name.clone()),
        disk_size_total: Some(p.capacity),
        disk_size_allocated: Some(p.allocated),
        disk_size_used: Some(p.used),
        capacity_iops: p.capacity_iops,
        tags: (!p.tags.is_empty()).then_some(p.tags),
        state: Some(p.state.to_string()),
        scope: Some(p.scope),
        // Java's form of a double: "2.0".
        overprovision_factor: Some(format!("{:?}", p.overcommit)),
        hypervisor: p.hypervisor,
        provider: Some(p.provider),
        storage_capabilities: HashMap::from([("VOLUME_SNAPSHOT_QUIESCEVM".to_owned(), "false".to_owned())]),
        ..StoragePool::default()
    }
}

/// Image stores.
pub async fn image_stores(db: &Db, rows: Vec<ImageStoreRow>) -> Result<Vec<ImageStore>, ApiError> {
    let zones = names::named(db, Table::Zones, rows.iter().filter_map(|s| s.zone_id)).await?;
    Ok(rows.into_iter().map(|s| image_store(s, &zones)).collect())
}

/// One image store.
pub fn image_store(s: ImageStoreRow, zones: &HashMap<i64, Named>) -> ImageStore {
    let zone = s.zone_id.and_then(|id| zones.get(&id));
    ImageStore {
        id: Some(s.uuid),
        zone_id: zone.map(|z| z.uuid.clone()),
        zone_name: zone.map(|z| z.name.clone()),
        name: Some(s.name),
        url: Some(s.url),
        protocol: Some(s.protocol),
        provider_name: Some(s.provider),
        scope: Some(s.scope),
        ..ImageStore::default()
    }
}

/// Templates or ISOs, each in a zone.
pub async fn templates(db: &Db, caller: &Caller, rows: Vec<(TemplateRow, i64)>) -> Result<Vec<Template>, ApiError> {
    let ids = || rows.iter().map(|(t, _)| t.id);
    let copies = copies::of_templates(db, ids()).await?;
    let details = templates::details(db, ids()).await?;
    let zones = names::named(db, Table::Zones, rows.iter().map(|(_, zone)| *zone)).await?;
    let accounts = names::named(db, Table::Accounts, rows.iter().map(|(t, _)| t.account_id)).await?;
    let os_types = names::named(db, Table::OsTypes, rows.iter().map(|(t, _)| t.os_type_id)).await?;
    let tagged = tags::of(db, "Template", ids()).await?;
    let domain_ids: Vec<i64> =
        rows.iter().map(|(t, _)| t.domain_id).chain(tagged.values().flatten().map(|t| t.domain_id)).collect();
    let domains = names::domains(db, domain_ids).await?;
    let sources = names::named(db, Table::Templates, rows.iter().filter_map(|(t, _)| t.source_template_id)).await?;
    let shown = rows.into_iter().map(|(t, zone_id)| {
        let here = copies.get(&t.id).map_or(&[] as &[copies::Copy], Vec::as_slice);
        let (status, is_ready) = crate::templates::status(here, zone_id, t.is_iso());
        let content = here.iter().find(|c| c.is_ready()).and_then(|c| c.content_sum.clone());
        let zone = zones.get(&zone_id);
        let account = accounts.get(&t.account_id);
        let domain = domains.get(&t.domain_id);
        let os_type = os_types.get(&t.os_type_id);
        let iso = t.is_iso();
        let may_see_status = caller.is_admin() || caller.account_id == t.account_id;
        Template {
            tags: resource_tags(tagged.get(&t.id), account, &domains),
            details: details.get(&t.id).cloned().unwrap_or_default(),
            id: Some(t.uuid),
            name: Some(t.name),
            display_text: Some(t.display_text),
            is_public: Some(t.is_public),
            created: Some(t.created),
            removed: t.removed,
            is_ready: Some(is_ready),
            password_enabled: Some(t.password_enabled),
            format: Some(t.format),
            bootable: iso.then_some(t.bootable),
            is_featured: Some(t.featured),
            cross_zones: Some(t.cross_zones),
            os_type_id: os_type.map(|o| o.uuid.clone()),
            os_type_name: os_type.map(|o| o.name.clone()),
            account: account.map(|a| a.name.clone()),
            zone_id: zone.map(|z| z.uuid.clone()),
            zone_name: zone.map(|z| z.name.clone()),
            status: may_see_status.then_some(status),
            // What isn't known before the image is there isn't shown.
            size: Some(t.size).filter(|size| *size > 0),
            physical_size: Some(t.physical_size).filter(|size| *size > 0),
            template_type: (!iso).then_some(t.template_type),
            hypervisor: (!iso).then_some(t.hypervisor),
            domain: domain.map(|d| d.name.clone()),
            domain_id: domain.map(|d| d.uuid.clone()),
            is_extractable: Some(t.extractable),
            checksum: t.checksum.or(content),
            source_template_id: t.source_template_id.and_then(|id| sources.get(&id)).map(|s| s.uuid.clone()),
            template_tag: t.template_tag.filter(|_| caller.is_root_admin()),
            bits: i32::try_from(t.bits).ok(),
            ssh_key_enabled: Some(t.ssh_key_enabled),
            is_dynamically_scalable: Some(t.dynamically_scalable),
            direct_download: Some(t.direct_download),
            ..Template::default()
        }
    });
    Ok(shown.collect())
}

/// Volumes.
pub async fn volumes(db: &Db, caller: &Caller, rows: Vec<VolumeRow>) -> Result<Vec<Volume>, ApiError> {
    let known = Known::read(db, &rows).await?;
    Ok(rows.into_iter().map(|v| volume(caller, v, &known)).collect())
}

/// One volume.
pub async fn one_volume(db: &Db, caller: &Caller, row: VolumeRow) -> Result<Volume, ApiError> {
    let mut shown = volumes(db, caller, vec![row]).await?;
    shown.pop().ok_or_else(|| ApiError::internal("a volume has vanished while it was shown"))
}

/// What the volumes of a page refer to.
struct Known {
    zones: HashMap<i64, Named>,
    accounts: HashMap<i64, Named>,
    domains: HashMap<i64, DomainName>,
    vms: HashMap<i64, vms::Vm>,
    compute: HashMap<i64, (String, String, String)>,
    offerings: HashMap<i64, OfferingRow>,
    templates: HashMap<i64, templates::Label>,
    pools: HashMap<i64, PoolRow>,
    pods: HashMap<i64, Named>,
    clusters: HashMap<i64, Named>,
    snapshots: HashMap<i64, String>,
    tags: HashMap<i64, Vec<Tag>>,
    jobs: HashMap<String, (String, i32)>,
}

impl Known {
    async fn read(db: &Db, rows: &[VolumeRow]) -> Result<Known, ApiError> {
        let vms = vms::by_ids(db, rows.iter().filter_map(|v| v.vm_id)).await?;
        let offering_ids: Vec<i64> = rows.iter().filter_map(|v| v.disk_offering_id).collect();
        let pool_rows = pools::by_ids(db, rows.iter().filter_map(|v| v.pool_id)).await?;
        let tags = tags::of(db, "Volume", rows.iter().map(|v| v.id)).await?;
        let domain_ids: Vec<i64> =
            rows.iter().map(|v| v.owner.domain_id).chain(tags.values().flatten().map(|t| t.domain_id)).collect();
        let uuids: Vec<String> = rows.iter().map(|v| v.uuid.clone()).collect();
        Ok(Known {
            zones: names::named(db, Table::Zones, rows.iter().map(|v| v.zone_id)).await?,
            accounts: names::named(db, Table::Accounts, rows.iter().map(|v| v.owner.account_id)).await?,
            domains: names::domains(db, domain_ids).await?,
            compute: vms::offering_labels(db, vms.values().map(|vm| vm.service_offering_id)).await?,
            vms,
            offerings: offerings::by_ids(db, &offering_ids).await?.into_iter().map(|o| (o.id, o)).collect(),
            templates: templates::labels(db, rows.iter().filter_map(|v| v.template_id)).await?,
            pods: names::named(db, Table::Pods, pool_rows.iter().filter_map(|p| p.pod_id)).await?,
            clusters: names::named(db, Table::Clusters, pool_rows.iter().filter_map(|p| p.cluster_id)).await?,
            snapshots: snapshots::uuids(db, rows.iter().filter_map(|v| v.snapshot_id)).await?,
            pools: pool_rows.into_iter().map(|p| (p.id, p)).collect(),
            tags,
            jobs: jobs::view::pending(db, &uuids).await?,
        })
    }
}

fn volume(caller: &Caller, v: VolumeRow, known: &Known) -> Volume {
    let zone = known.zones.get(&v.zone_id);
    let account = known.accounts.get(&v.owner.account_id);
    let domain = known.domains.get(&v.owner.domain_id);
    let vm = v.vm_id.and_then(|id| known.vms.get(&id));
    let offering = v.disk_offering_id.and_then(|id| known.offerings.get(&id));
    let compute = vm.filter(|_| v.is_root()).and_then(|vm| known.compute.get(&vm.service_offering_id));
    let label = v.template_id.and_then(|id| known.templates.get(&id));
    let (template, iso) = if label.is_some_and(|l| l.iso) { (None, label) } else { (label, None) };
    let pool = v.pool_id.and_then(|id| known.pools.get(&id));
    let pod = pool.and_then(|p| p.pod_id).and_then(|id| known.pods.get(&id));
    let cluster = pool.and_then(|p| p.cluster_id).and_then(|id| known.clusters.get(&id));
    let job = known.jobs.get(&v.uuid);
    // 4.11 shows where a volume lies to those who run the storage.
    let full = matches!(caller.role(), RoleType::Admin | RoleType::ResourceAdmin);
    let shown_pool = pool.filter(|_| full);
    Volume {
        tags: resource_tags(known.tags.get(&v.id), account, &known.domains),
        name: Some(v.name.clone()),
        zone_id: zone.map(|z| z.uuid.clone()),
        zone_name: zone.map(|z| z.name.clone()),
        r#type: Some(v.kind.clone()),
        device_id: v.device_id,
        virtual_machine_id: vm.map(|m| m.uuid.clone()),
        iso_id: iso.map(|l| l.uuid.clone()),
        iso_name: iso.map(|l| l.name.clone()),
        iso_display_text: iso.map(|l| l.display_text.clone()),
        template_id: template.map(|l| l.uuid.clone()),
        template_name: template.map(|l| l.name.clone()),
        template_display_text: template.map(|l| l.display_text.clone()),
        vm_name: vm.map(|m| m.name.clone()),
        vm_display_name: vm.map(|m| m.display_name.clone()),
        vm_state: vm.map(|m| m.state.to_string()),
        provisioning_type: Some(v.provisioning_type.clone()),
        size: Some(v.size),
        min_iops: v.min_iops,
        max_iops: v.max_iops,
        created: Some(v.created),
        state: Some(v.state.clone()),
        account: account.map(|a| a.name.clone()),
        domain_id: domain.map(|d| d.uuid.clone()),
        domain: domain.map(|d| d.name.clone()),
        storage_type: Some(if v.local_storage { "local" } else { "shared" }.to_owned()),
        disk_bytes_read_rate: offering.and_then(|o| o.bytes_read_rate),
        disk_bytes_write_rate: offering.and_then(|o| o.bytes_write_rate),
        disk_iops_read_rate: offering.and_then(|o| o.iops_read_rate),
        disk_iops_write_rate: offering.and_then(|o| o.iops_write_rate),
        hypervisor: v.hypervisor.clone().filter(|_| full),
        disk_offering_id: offering.map(|o| o.uuid.clone()),
        disk_offering_name: offering.map(|o| o.name.clone()),
        disk_offering_display_text: offering.map(|o| o.display_text.clone()),
        storage: shown_pool.map(|p| p.name.clone()),
        storage_id: shown_pool.map(|p| p.uuid.clone()),
        snapshot_id: v.snapshot_id.and_then(|id| known.snapshots.get(&id)).cloned(),
        attached: v.attached.filter(|_| !v.is_root()),
        destroyed: Some(v.state == "Destroy"),
        service_offering_id: compute.map(|c| c.0.clone()),
        service_offering_name: compute.map(|c| c.1.clone()),
        service_offering_display_text: compute.map(|c| c.2.clone()),
        is_extractable: Some(!v.is_root() || label.is_none_or(|l| l.extractable)),
        display_volume: Some(v.display),
        path: v.path.clone().filter(|_| caller.is_root_admin()),
        chain_info: v.chain.clone().filter(|_| caller.is_root_admin()),
        quiesce_vm: Some(false),
        cluster_id: cluster.filter(|_| full).map(|c| c.uuid.clone()),
        cluster_name: cluster.filter(|_| full).map(|c| c.name.clone()),
        pod_id: pod.filter(|_| full).map(|p| p.uuid.clone()),
        pod_name: pod.filter(|_| full).map(|p| p.name.clone()),
        job_id: job.map(|(uuid, _)| uuid.clone()),
        job_status: job.map(|(_, status)| *status),
        id: Some(v.uuid),
        ..Volume::default()
    }
}

pub(crate) fn resource_tags(
    found: Option<&Vec<Tag>>,
    account: Option<&Named>,
    domains: &HashMap<i64, DomainName>,
) -> Vec<ResourceTag> {
    let Some(found) = found else { return Vec::new() };
    found
        .iter()
        .map(|t| {
            let domain = domains.get(&t.domain_id);
            ResourceTag {
                key: Some(t.key.clone()),
                value: Some(t.value.clone()),
                resource_type: Some(t.resource_type.clone()),
                resource_id: Some(t.resource_uuid.clone()),
                account: account.map(|a| a.name.clone()),
                domain_id: domain.map(|d| d.uuid.clone()),
                domain: domain.map(|d| d.name.clone()),
                ..ResourceTag::default()
            }
        })
        .collect()
}

/// Tags of a request as (key, value) pairs.
pub fn tag_filter(tags: &[contract::api::TagParam]) -> Vec<(String, String)> {
    tags.iter().filter_map(|t| Some((t.key.clone()?, t.value.clone()?))).collect()
}

/// Tags of a pool as they are kept.
pub fn pool_tags<'a>(tags: impl IntoIterator<Item = &'a str>) -> String {
    tags.into_iter().flat_map(split_tags).collect::<Vec<_>>().join(",")
}
