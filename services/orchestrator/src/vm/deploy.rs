//! Deploying: place, NICs and disks at the same time, start. Four commits in sequence after the acceptance's one.

use super::boot::{self, Constraints};
use super::{VmWorld, usage, view};
use crate::store::vm_order;
use crate::store::vms::{self, VmRow};
use contract::ApiError;
use contract_agent::{StartVm, StopVm, command};
use contract_identity::ReleaseRequest;
use contract_network::{AllocateNicsRequest, NicRequest, NicsResponse, VmNicsRequest};
use contract_storage::{AllocateDisksRequest, DisksResponse, FitRequest, NewDisk, VmDisksRequest};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::state::VmState;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Tx, now_micros};

/// A NIC that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NicAsk {
    /// Network.
    pub network: i64,
    /// Address.
    pub ip: Option<String>,
    /// MAC.
    pub mac: Option<String>,
}

/// A disk that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskAsk {
    /// UUID of the volume.
    pub uuid: String,
    /// Name of the volume.
    pub name: String,
    /// Disk offering; 0: none, from the compute offering.
    pub offering: i64,
    /// Bytes; 0: the template's or the offering's.
    pub size: i64,
}

/// Deploys a VM whose row exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deploy {
    /// The VM.
    pub vm: i64,
    /// NICs, the default one first.
    pub nics: Vec<NicAsk>,
    /// ROOT disk.
    pub root: DiskAsk,
    /// Data disks.
    pub data: Vec<DiskAsk>,
    /// Storage tags of the ROOT disk.
    pub storage_tags: Vec<String>,
    /// Whether disks lie on the host itself.
    pub local_storage: bool,
    /// Where it may go.
    pub constraints: Constraints,
    /// Whether it is started.
    pub start: bool,
    /// Bytes of all its disks: for choosing a cluster.
    pub bytes: i64,
}

/// What a deployment takes back when it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The limits that were reserved before the job was accepted.
    Limits,
    /// The host's capacity.
    Place,
    /// The NICs.
    Nics,
    /// The disks.
    Disks,
    /// The VM on its host.
    Domain {
        /// Host.
        host: i64,
        /// Its generation there.
        generation: i64,
    },
}

impl Deploy {
    fn nics(&self, vm: &VmRow, host: Option<i64>) -> AllocateNicsRequest {
        AllocateNicsRequest {
            vm_id: vm.id,
            vm_uuid: vm.uuid.clone(),
            instance_name: vm.instance_name.clone(),
            host_name: vm.name.clone(),
            account_id: vm.owner.account_id,
            domain_id: vm.owner.domain_id,
            domain_path: vm.owner.domain_path.clone(),
            zone_id: vm.zone_id,
            nics: nic_requests(&self.nics),
            host_id: host,
            hypervisor: vm.hypervisor.clone(),
            ..AllocateNicsRequest::default()
        }
    }

    fn disks(&self, vm: &VmRow, placed: Option<&boot::Placed>) -> AllocateDisksRequest {
        AllocateDisksRequest {
            vm_id: vm.id,
            vm_uuid: vm.uuid.clone(),
            instance_name: vm.instance_name.clone(),
            account_id: vm.owner.account_id,
            domain_id: vm.owner.domain_id,
            domain_path: vm.owner.domain_path.clone(),
            zone_id: vm.zone_id,
            template_id: vm.template_id,
            root: Some(new_disk(&self.root)),
            data: self.data.iter().map(new_disk).collect(),
            tags: self.storage_tags.clone(),
            host_id: placed.map(|p| p.host),
            cluster_id: placed.map(|p| p.cluster),
            pod_id: placed.map(|p| p.pod),
            hypervisor: vm.hypervisor.clone(),
            local_storage: self.local_storage,
            iso_id: vm.iso_id,
        }
    }

    /// What placement asks of storage.
    pub fn fit(&self, vm: &VmRow) -> FitRequest {
        FitRequest {
            vm_id: None,
            zone_id: vm.zone_id,
            template_id: vm.template_id,
            bytes: self.bytes,
            tags: self.storage_tags.clone(),
            cluster_ids: Vec::new(),
            local_storage: self.local_storage,
        }
    }

    async fn allocate(
        &self,
        world: &VmWorld,
        ctx: &Ctx,
        vm: &VmRow,
        placed: Option<&boot::Placed>,
    ) -> Result<(NicsResponse, DisksResponse), ApiError> {
        let nics = self.nics(vm, placed.map(|p| p.host));
        let disks = self.disks(vm, placed);
        tokio::try_join!(
            ctx.call("nics", Some(Undo::Nics), |call| {
                let (mut client, request) = (world.attachments(), call.request(nics.clone()));
                async move { client.allocate(request).await }
            }),
            ctx.call("disks", Some(Undo::Disks), |call| {
                let (mut client, request) = (world.disks(), call.request(disks.clone()));
                async move { client.allocate(request).await }
            }),
        )
    }
}

impl Job for Deploy {
    const KIND: &'static str = "vm.deploy";
    type World = VmWorld;
    type Undo = Undo;

    fn accepted(&self) -> Option<Undo> {
        Some(Undo::Limits)
    }

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let vm = row(&world, self.vm).await?;
        if !self.start {
            self.allocate(&world, &ctx, &vm, None).await?;
            return finish(&world, &ctx, &vm, VmState::Stopped, &["VM.CREATE"]).await;
        }
        let guest = vm_order::guest(&world.node.db, vm.service_offering_id, vm.os_type_id).await?;
        let mut wanted = boot::wanted(&world, &vm, &self.constraints);
        boot::know_dedicated(&world, vm.id).await?;
        // Without an answer nothing is excluded: allocating the disks will tell, and has its undo.
        if let Err(e) = boot::exclude_clusters(&world, &mut wanted, self.fit(&vm)).await {
            tracing::debug!(error = %e, "placed without knowing where disks fit");
        }
        let placed = jobs::step!(ctx, "place", undo: Undo::Place, |tx| {
            boot::place(&world, tx, &vm, VmState::Starting, &wanted).await
        })
        .await?;
        let (nics, disks) = self.allocate(&world, &ctx, &vm, Some(&placed)).await?;
        if vm.iso_id.is_some() && disks.iso.is_none() {
            return Err(ApiError::failed("the ISO is no longer there for the zone: there is nothing to boot from"));
        }
        let spec = boot::spec(&vm, guest, placed.generation, &nics.nics, &disks);
        let undo = Undo::Domain { host: placed.host, generation: placed.generation };
        ctx.call("boot", Some(undo), |call| {
            let (world, body) =
                (world.clone(), command::Body::StartVm(StartVm { vm: Some(spec.clone()), ..StartVm::default() }));
            async move { world.on_host(placed.host, Some(call.key()), false, body).await }
        })
        .await?;
        finish(&world, &ctx, &vm, VmState::Running, &["VM.CREATE", "VM.START"]).await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let request = VmNicsRequest { vm_id: self.vm, host_id: None };
        match undo {
            Undo::Limits => {
                let vm = row(&world, self.vm).await?;
                release_limits(&world, &vm.limits_key).await?;
                // Disks that were never allocated are counted all the same; for the others this repeats their release.
                for disk in std::iter::once(&self.root).chain(&self.data) {
                    release_limits(&world, &format!("volume:{}", disk.uuid)).await?;
                }
                Ok(())
            }
            Undo::Place => jobs::undo_step!(cx, |tx| boot::vacate(&world, tx, self.vm, false).await).await,
            Undo::Nics => {
                let mut client = world.attachments();
                cx.call(|call| {
                    let request = call.request(request);
                    async move { client.release(request).await }
                })
                .await
                .map(drop)
            }
            Undo::Disks => {
                let mut client = world.disks();
                let request = VmDisksRequest { vm_id: self.vm, ..VmDisksRequest::default() };
                cx.call(|call| {
                    let request = call.request(request);
                    async move { client.release(request).await }
                })
                .await
                .map(drop)
            }
            Undo::Domain { host, generation } => stop_or_owe(&world, self.vm, host, generation, &cx).await,
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        vms::transit(tx, self.vm, &[VmState::Starting, VmState::Stopped], VmState::Error).await?;
        vms::mark_destroyed(tx, self.vm, Some(now_micros())).await?;
        Ok(())
    }
}

/// NICs as the network service takes them.
pub fn nic_requests(nics: &[NicAsk]) -> Vec<NicRequest> {
    nics.iter().map(|n| NicRequest { network_id: n.network, ip: n.ip.clone(), mac: n.mac.clone() }).collect()
}

fn new_disk(ask: &DiskAsk) -> NewDisk {
    NewDisk { disk_offering_id: ask.offering, size: ask.size, name: ask.name.clone(), uuid: ask.uuid.clone() }
}

/// The VM's row: it exists as long as a job works on it.
pub async fn row(world: &VmWorld, vm: i64) -> Result<VmRow, ApiError> {
    vms::find(&world.node.db, vm).await?.ok_or_else(|| ApiError::internal(format!("virtual machine {vm} has no row")))
}

/// Gives a reservation back. A repeat does nothing.
pub async fn release_limits(world: &VmWorld, key: &str) -> Result<(), ApiError> {
    let request = ReleaseRequest { key: key.to_owned(), items: Vec::new() };
    world.limits().release(rpc::cx::repeatable(&rpc::cx::system_caller(), request)).await?;
    Ok(())
}

/// Takes a VM off a host; a host that is away owes it.
pub async fn stop_or_owe(world: &VmWorld, vm: i64, host: i64, generation: i64, cx: &UndoCx) -> Result<(), ApiError> {
    let vm = row(world, vm).await?;
    let body = command::Body::StopVm(StopVm { uuid: vm.uuid.clone(), forced: true, generation });
    let reachable = crate::store::placement::is_up(&world.node.db, host).await?;
    if reachable {
        return cx
            .call(|call| {
                let (world, body) = (world.clone(), body.clone());
                async move { world.on_host(host, Some(call.key()), true, body).await }
            })
            .await
            .map(drop);
    }
    let debt = world.node.db.next_id("host_debt").await?;
    let encoded = prost::Message::encode_to_vec(&contract_agent::Command { body: Some(body) });
    jobs::undo_step!(cx, |tx| Ok::<_, ApiError>(vms::owe(tx, debt, host, &vm.uuid, encoded.clone()).await?)).await
}

/// Ends a deployment or a start: the VM is `state`.
pub async fn finish(
    world: &VmWorld,
    ctx: &Ctx,
    vm: &VmRow,
    state: VmState,
    facts: &[&str],
) -> Result<Finished, ApiError> {
    let mut shown = view::one(world, vm.id, ctx.caller()).await?;
    shown.state = Some(state.to_string());
    if facts.contains(&"VM.CREATE") {
        // As it lies in the VM's row: whoever asks for the job's result opens it.
        shown.password = vms::password_sealed(&world.node.db, vm.id).await?;
    }
    let records: Vec<events::Record> = facts.iter().map(|kind| usage::record(vm, kind)).collect();
    jobs::finish!(ctx, |tx| {
        if state == VmState::Running && !vms::transit(tx, vm.id, &[VmState::Starting], state).await? {
            return Err(ApiError::concurrent("the virtual machine is no longer Starting"));
        }
        events::record(tx, &records).await?;
        Ok(shown.clone())
    })
    .await
}
