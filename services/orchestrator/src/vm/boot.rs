//! The steps that deploying and starting have in common: finding a place, and starting the VM there.

use super::start::Undo;
use super::{VmWorld, approach};
use crate::affinity::{self, binding};
use crate::placement::{self, Limits, Planner, Rejection, Rules, Wanted};
use crate::store::vms::{self, VmRow};
use crate::store::{affinity as groups, dedications};
use contract::ApiError;
use contract_agent::{StartVm, VmCd, VmDisk, VmNic, VmSpec, command};
use contract_network::{NicSpec, VmNicsRequest};
use contract_storage::{DiskSpec, DisksResponse, FitRequest, VmDisksRequest};
use jobs::{Ctx, NO_UNDO};
use model::state::VmState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::Tx;

/// Most hosts that are tried in one transaction when others are faster.
const TRIES: usize = 16;

/// A VM's place.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Placed {
    /// Host.
    pub host: i64,
    /// Its cluster.
    pub cluster: i64,
    /// Its pod.
    pub pod: i64,
    /// The VM's generation there.
    pub generation: i64,
}

/// What narrows the choice of a host.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Constraints {
    /// Only this host.
    pub host: Option<i64>,
    /// Only this pod.
    pub pod: Option<i64>,
    /// Only this cluster.
    pub cluster: Option<i64>,
    /// Host tags of the offering.
    pub tags: Vec<String>,
    /// The planner that was asked for; none: that of the offering, or the setting's.
    #[serde(default)]
    pub planner: Option<Planner>,
}

/// What placement is asked for `vm`. Hosts that are kept for VMs whose host failed take nothing else.
pub fn wanted(world: &VmWorld, vm: &VmRow, constraints: &Constraints) -> Wanted {
    Wanted {
        zone: vm.zone_id,
        hypervisor: vm.hypervisor.clone(),
        amount: vm.amount(),
        tags: constraints.tags.clone(),
        without_tag: crate::host::ha_tag(&world.node.settings),
        pod: constraints.pod,
        cluster: constraints.cluster,
        host: constraints.host,
        prefer: vm.last_host_id,
        without_clusters: HashSet::new(),
        // Read where the place is decided.
        rules: Rules::default(),
        account: vm.owner.account_id,
        planner: constraints.planner,
        in_need: false,
        since: approach::since(&world.node.settings),
    }
}

/// Leaves out clusters that have no room for the VM's disks, or can't reach those it has.
///
/// # Errors
/// When the storage service doesn't answer.
pub async fn exclude_clusters(world: &VmWorld, wanted: &mut Wanted, fit: FitRequest) -> Result<(), ApiError> {
    let clusters = world.index.clusters(wanted.zone, &wanted.hypervisor);
    if clusters.len() < 2 {
        return Ok(());
    }
    let asked: HashSet<i64> = clusters.iter().copied().collect();
    let request = rpc::cx::repeatable(&rpc::cx::system_caller(), FitRequest { cluster_ids: clusters, ..fit });
    let answer = world.disks().fit(request).await?;
    let fitting: HashSet<i64> = answer.into_inner().cluster_ids.into_iter().collect();
    wanted.without_clusters = asked.difference(&fitting).copied().collect();
    Ok(())
}

/// Reads hosts anew that are dedicated to groups of the VM: news of a dedication may still be on the way, and there are no
/// others for it.
///
/// # Errors
/// When the database doesn't answer.
pub async fn know_dedicated(world: &VmWorld, vm: i64) -> Result<(), ApiError> {
    let db = &world.node.db;
    let groups = groups::of_vm(db, vm).await?;
    let dedicated: Vec<i64> = groups.iter().filter(|g| g.kind == affinity::Kind::Dedicated).map(|g| g.id).collect();
    let hosts = dedications::hosts_of(db, &dedicated).await?;
    if hosts.is_empty() { Ok(()) } else { world.index.refresh(db, &hosts).await }
}

/// Finds a host, takes its capacity and notes it with the VM, which must be in `state`. Part of a step's transaction, in
/// which the VM's affinity groups are held: their other VMs are placed before or after it, never beside it.
///
/// # Errors
/// 533 with the reasons when there is none; 530 when the VM has left `state`, or its zone is kept for others.
pub async fn place(
    world: &VmWorld,
    tx: &mut Tx,
    vm: &VmRow,
    state: VmState,
    wanted: &Wanted,
) -> Result<Placed, ApiError> {
    let wanted = &Wanted { rules: binding::hold(tx, vm).await?, ..wanted.clone() };
    let mut strategy = approach::in_turn(world, tx, vm, wanted).await?;
    let vm = vm.id;
    let mut rejected: HashMap<i64, Rejection> = HashMap::new();
    for _ in 0..TRIES {
        let mut found = world.index.propose(wanted, &strategy, &rejected);
        if found.is_err() && wanted.in_need {
            strategy.limits = Limits::None;
            found = world.index.propose(wanted, &strategy, &rejected);
        }
        let found = found.map_err(|shortage| shortage.to_error())?;
        if !placement::reserve(tx, vm, found.host, wanted.amount, found.terms(wanted, &strategy)).await? {
            rejected.insert(found.host, Rejection::Taken);
            continue;
        }
        if !vms::place(tx, vm, state, found.host, found.cluster, found.pod).await? {
            return Err(ApiError::concurrent(format!("the virtual machine is no longer {state}")));
        }
        let (index, host, amount) = (world.index.clone(), found.host, wanted.amount);
        let keeps = strategy.is_strict().then_some(wanted.account);
        let coord = world.node.coord.clone();
        tx.after_commit(move || {
            index.took(host, amount);
            if let Some(account) = keeps {
                index.kept(host, account);
                coord.publish("placement", &format!("host/{host}"));
            }
        });
        let generation = vms::generation(tx, vm).await?;
        return Ok(Placed { host: found.host, cluster: found.cluster, pod: found.pod, generation });
    }
    world.node.coord.publish("placement", "all"); // the index is behind
    Err(ApiError::capacity(format!("{TRIES} hosts were taken by others while a place for {wanted} was sought")))
}

/// Takes the VM off the host that it holds capacity of. Part of a step's transaction; a repeat does nothing.
pub async fn vacate(world: &VmWorld, tx: &mut Tx, vm: i64, ran: bool) -> Result<(), ApiError> {
    if let Some((host, amount)) = placement::free(tx, vm).await? {
        let (index, coord) = (world.index.clone(), world.node.coord.clone());
        tx.after_commit(move || {
            index.took(host, amount.negated());
            // How long it stays so is in the database.
            if index.is_kept(host) {
                coord.publish("placement", &format!("host/{host}"));
            }
        });
    }
    vms::leave_host(tx, vm, ran).await?;
    Ok(())
}

/// Makes NICs and disks ready on the host that was found, and starts the VM there. Should another host still hold the VM's
/// lease, it loses it first: that takes two lease times, and nothing when the VM was stopped in order.
///
/// # Errors
/// What a service or the host answers, or that it doesn't.
pub async fn bring_up(
    world: &Arc<VmWorld>,
    ctx: &Ctx,
    vm: &VmRow,
    guest: (bool, String),
    placed: &Placed,
) -> Result<(), ApiError> {
    let host = placed.host;
    let nics = VmNicsRequest { vm_id: vm.id, host_id: Some(host) };
    let disks = VmDisksRequest {
        vm_id: vm.id,
        host_id: Some(host),
        cluster_id: Some(placed.cluster),
        pod_id: Some(placed.pod),
        iso_id: vm.iso_id,
    };
    let (nics, disks) = tokio::try_join!(
        ctx.call("nics", Some(Undo::Nics { host }), |call| {
            let (mut client, request) = (world.attachments(), call.request(nics));
            async move { client.prepare(request).await }
        }),
        // Bytes that were made stay: the disks belong to the VM whether it runs or not.
        ctx.call("disks", NO_UNDO, |call| {
            let (mut client, request) = (world.disks(), call.request(disks));
            async move { client.prepare(request).await }
        }),
    )?;
    let spec = spec(vm, guest, placed.generation, &nics.nics, &disks);
    ctx.call("boot", Some(Undo::Domain { host, generation: placed.generation }), |call| {
        let start = StartVm { vm: Some(spec.clone()), take_over: true };
        let (world, body) = (world.clone(), command::Body::StartVm(start));
        async move { world.on_host(host, Some(call.key()), false, body).await }
    })
    .await?;
    Ok(())
}

/// What the host is told to start; `guest` is what the catalogue says of it (`vm_order::guest`).
pub fn spec(vm: &VmRow, guest: (bool, String), generation: i64, nics: &[NicSpec], disks: &DisksResponse) -> VmSpec {
    let (limit_cpu, os_type) = guest;
    let unsigned = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    VmSpec {
        uuid: vm.uuid.clone(),
        instance_name: vm.instance_name.clone(),
        display_name: vm.display_name.clone(),
        cpus: unsigned(vm.cpu),
        cpu_mhz: unsigned(vm.cpu_mhz),
        memory_bytes: u64::try_from(vm.memory_mb).unwrap_or_default() * 1024 * 1024,
        limit_cpu,
        os_type,
        nics: nics.iter().map(nic).collect(),
        disks: disks.disks.iter().map(disk).collect(),
        cd: cd(disks),
        generation,
        details: vm.details.clone().into_iter().collect(),
        user_data: vm.user_data.clone(),
        ssh_public_key: vm.public_key.clone(),
    }
}

/// A NIC as hosts are told of it.
pub(super) fn nic(n: &NicSpec) -> VmNic {
    VmNic {
        uuid: n.uuid.clone(),
        device_id: u32::try_from(n.device_id).unwrap_or_default(),
        mac: n.mac.clone(),
        ip4: n.ip4.clone(),
        netmask: n.netmask.clone(),
        gateway: n.gateway.clone(),
        broadcast_uri: n.broadcast_uri.clone(),
        default_nic: n.default_nic,
        rate_mbps: n.rate_mbps.unwrap_or_default(),
    }
}

/// What lies in its CD drive, as hosts are told of it.
pub(super) fn cd(disks: &DisksResponse) -> Option<VmCd> {
    disks.iso.as_ref().map(|iso| VmCd { iso_uuid: iso.uuid.clone(), pool_uuid: iso.pool_uuid.clone() })
}

fn disk(d: &DiskSpec) -> VmDisk {
    VmDisk {
        volume_uuid: d.uuid.clone(),
        device_id: u32::try_from(d.device_id).unwrap_or_default(),
        pool_uuid: d.pool_uuid.clone(),
        path: d.path.clone(),
        format: d.format.clone(),
        size: u64::try_from(d.size).unwrap_or_default(),
        root: d.kind == "ROOT",
    }
}
