//! Where a running VM may move.

use crate::affinity::binding;
use crate::placement::{Rejection, Rules, Wanted};
use crate::store::moves;
use crate::store::placement::{self as rows, HostRow};
use crate::store::vms::VmRow;
use crate::vm::boot::{self, Constraints};
use crate::vm::{VmWorld, view};
use contract::ApiError;
use contract_storage::FitRequest;
use std::collections::{HashMap, HashSet};

/// A host that a VM may move to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The host.
    pub host: i64,
    /// Its cluster.
    pub cluster: i64,
    /// Its pod.
    pub pod: i64,
    name: String,
}

impl Target {
    /// The VM's affinity groups forbid the host (REL-144).
    pub fn parted(&self, why: Rejection, rules: &Rules) -> ApiError {
        ApiError::param(format!(
            "Cannot migrate VM, host {} is {}: affinity groups {}",
            self.name,
            why.words(),
            rules.names.join(", ")
        ))
    }

    /// The host has too little left.
    pub fn too_full(&self) -> ApiError {
        ApiError::capacity(format!("Cannot migrate VM, host {} has too little CPU or memory left for it", self.name))
    }
}

/// The VM can't be moved as it isn't running.
pub fn not_running(vm: &VmRow) -> ApiError {
    ApiError::param(format!("VM is not Running, unable to migrate the vm {}", view::label(vm)))
}

/// It is where it is to go.
pub fn already_there() -> ApiError {
    ApiError::param(
        "Cannot migrate VM, VM is already present on this host, please specify valid destination host to migrate the VM",
    )
}

/// The disks lie where only this host reaches them.
pub fn local(vm: &VmRow) -> ApiError {
    ApiError::param(format!("VM {} is using Local Storage, cannot migrate this VM.", view::label(vm)))
}

/// Judges the host that was asked for (REL-144). An administrator may choose one that placement would pass over: one without
/// the offering's tags, or one that is kept for restarts (OPS-124).
///
/// # Errors
/// 431 for a host that can't be it, 533 when it has too little left, 530 when it has its fill of guests.
pub async fn find(world: &VmWorld, vm: &VmRow, host: i64) -> Result<Target, ApiError> {
    let db = &world.node.db;
    let hosts = rows::hosts(db, Some(&[host])).await?;
    let to = hosts.into_iter().next();
    let to = to.ok_or_else(|| ApiError::param("Unable to find the host to migrate the VM to"))?;
    if vm.host_id == Some(host) {
        return Err(already_there());
    }
    if to.zone != vm.zone_id {
        return Err(ApiError::param(format!("Cannot migrate VM, host {} is in another zone", to.name)));
    }
    if !to.hypervisor.eq_ignore_ascii_case(&vm.hypervisor) {
        return Err(ApiError::param(format!(
            "Cannot migrate VM, host {} runs {}, and the VM runs on {}",
            to.name, to.hypervisor, vm.hypervisor
        )));
    }
    if moves::is_local(db, vm.id).await? {
        return Err(local(vm));
    }
    match to.refusal() {
        Some(Rejection::Guests) => {
            return Err(ApiError::failed(format!(
                "Destination host {} already has max Running VMs (count includes system VMs), cannot migrate to this host",
                to.name
            )));
        }
        Some(why) => {
            return Err(ApiError::param(format!(
                "Cannot migrate VM, destination host {} is not in correct state: {}",
                to.name,
                why.words()
            )));
        }
        None => {}
    }
    if !reaching(world, vm, &[to.cluster]).await?.contains(&to.cluster) {
        return Err(ApiError::param(format!(
            "Source and destination host are not in same cluster and all volumes are not on zone wide primary store, \
             unable to migrate to host: {}",
            to.name
        )));
    }
    Ok(Target { host: to.id, cluster: to.cluster, pod: to.pod, name: to.name })
}

/// Those of these clusters whose hosts reach the VM's disks (TOPO-062).
async fn reaching(world: &VmWorld, vm: &VmRow, clusters: &[i64]) -> Result<HashSet<i64>, ApiError> {
    let request = FitRequest {
        vm_id: Some(vm.id),
        zone_id: vm.zone_id,
        template_id: vm.template_id,
        cluster_ids: clusters.to_vec(),
        ..FitRequest::default()
    };
    let answer = world.disks().fit(rpc::cx::repeatable(&rpc::cx::system_caller(), request)).await?;
    Ok(answer.into_inner().cluster_ids.into_iter().collect())
}

/// What speaks for a host as the target of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suitability {
    /// It has room.
    pub roomy: bool,
    /// Placement would choose it.
    pub suitable: bool,
}

/// The hosts that a running VM could move to, with what speaks for them: those that reach its disks.
///
/// # Errors
/// 431 when its disks are on a host's own storage; those of the database and of the storage service.
pub async fn suitability(
    world: &VmWorld,
    vm: &VmRow,
    tags: Vec<String>,
) -> Result<HashMap<i64, Suitability>, ApiError> {
    let db = &world.node.db;
    if moves::is_local(db, vm.id).await? {
        return Err(ApiError::param("Unsupported operation, VM uses Local storage, cannot migrate"));
    }
    let all = rows::hosts(db, None).await?;
    let there = |h: &HostRow| h.zone == vm.zone_id && h.hypervisor.eq_ignore_ascii_case(&vm.hypervisor);
    let there: Vec<HostRow> = all.into_iter().filter(|h| there(h) && vm.host_id != Some(h.id)).collect();
    let clusters: HashSet<i64> = there.iter().map(|h| h.cluster).collect();
    let clusters: Vec<i64> = clusters.into_iter().collect();
    let reaching = reaching(world, vm, &clusters).await?;
    let mut wanted = boot::wanted(world, vm, &Constraints { tags, ..Constraints::default() });
    wanted.rules = binding::look(db, vm).await?;
    Ok(there.iter().filter(|h| reaching.contains(&h.cluster)).map(|h| (h.id, judge(h, &wanted))).collect())
}

fn judge(host: &HostRow, wanted: &Wanted) -> Suitability {
    let need = wanted.amount;
    let roomy = host.free_cpu >= need.cpu_mhz && host.free_memory >= need.memory;
    Suitability { roomy, suitable: crate::placement::refusal(host, wanted).is_none() }
}
