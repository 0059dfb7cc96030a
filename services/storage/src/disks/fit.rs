//! Which clusters can hold a VM's disks: for placement, before a host is chosen. Reads only.

use super::allocate::cost;
use super::place::Thresholds;
use crate::Storage;
use crate::choice::{self, Ask, Candidate, Reach};
use crate::store::volumes::{self, VolumeRow};
use crate::store::{pools, templates};
use contract::ApiError;
use contract_storage::FitRequest;

/// The clusters among those asked for that can.
///
/// # Errors
/// Those of the database.
pub async fn fit(s: &Storage, req: &FitRequest) -> Result<Vec<i64>, ApiError> {
    let db = &s.node.db;
    let thresholds = Thresholds::of(&s.node.settings, req.zone_id);
    let volumes = match req.vm_id {
        Some(vm) => volumes::of_vm(db, vm).await?,
        None => Vec::new(),
    };
    let template = volumes.iter().find(|v| v.is_root()).and_then(|v| v.template_id).unwrap_or(req.template_id);
    let source = if template == 0 { None } else { templates::source(db, template, req.zone_id).await? };
    let source = source.map(|src| src.template).filter(|t| !t.is_iso());
    let candidates = pools::candidates(db, req.zone_id, source.as_ref().map_or(0, |t| t.id), None).await?;
    let template_bytes = source.as_ref().map_or(0, cost);
    let ask = Ask {
        bytes: req.bytes,
        template_bytes,
        tags: &req.tags,
        local: req.local_storage,
        cluster: 0,
        host: None,
        hypervisor: "",
        threshold: thresholds.allocated,
        used_threshold: thresholds.used,
    };
    let takes = |cluster: i64, ask: &Ask<'_>| {
        let ask = Ask { cluster, ..ask.clone() };
        candidates.iter().any(|p| choice::judge(p, &ask).is_ok())
    };
    let fits = |cluster: &i64| {
        if req.vm_id.is_none() {
            return takes(*cluster, &ask);
        }
        volumes.iter().all(|v| match v.pool_id {
            Some(pool) => candidates.iter().find(|p| p.id == pool).is_none_or(|p| reaches(p, *cluster)),
            None => takes(*cluster, &of_volume(v, &ask)),
        })
    };
    Ok(req.cluster_ids.iter().copied().filter(fits).collect())
}

/// Local pools are left to the choice of the host.
fn reaches(pool: &Candidate, cluster: i64) -> bool {
    match pool.reach {
        Reach::Cluster(own) => own == cluster,
        Reach::Zone | Reach::Host(_) => true,
    }
}

fn of_volume<'a>(v: &'a VolumeRow, ask: &Ask<'a>) -> Ask<'a> {
    let template_bytes = if v.is_root() { ask.template_bytes } else { 0 };
    Ask { bytes: v.size, template_bytes, tags: &v.tags, local: v.local_storage, ..ask.clone() }
}
