//! `arcus.compute.v1.VirtualMachineNics`.

use crate::store::vm_nics::{self, VmNic};
use crate::store::vm_order;
use crate::store::vms::VmRow;
use crate::vm::deploy::NicAsk;
use crate::vm::nic::{AddNic, DefaultNic, RemoveNic, another_nic, refusal, wrong_state};
use crate::vm::submit::{Wish, named, submit};
use crate::vm::{self, VmWorld, view};
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_compute::virtual_machine_nics_server::VirtualMachineNics;
use contract_compute::{
    AddNicToVirtualMachineRequest, RemoveNicFromVirtualMachineRequest, UpdateDefaultNicForVirtualMachineRequest,
};
use model::state::VmState;
use rpc::Cx;
use tonic::{Request, Response, Status};

/// The handlers.
pub struct VirtualMachineNicsApi(pub VmWorld);

impl VirtualMachineNicsApi {
    /// The VM, and its NICs. Refuses one whose NICs can't be changed now.
    async fn changeable(&self, cx: &Cx) -> Result<(VmRow, Vec<VmNic>), ApiError> {
        let vm = named(&self.0, cx, "virtualmachineid").await?;
        if !matches!(vm.state, VmState::Running | VmState::Stopped) {
            return Err(wrong_state(&vm, vm.state));
        }
        let nics = vm_nics::of_vm(&self.0.node.db, vm.id).await?;
        Ok((vm, nics))
    }

    /// The VM's NIC that the request names.
    async fn changeable_nic(&self, cx: &Cx) -> Result<(VmRow, VmNic), ApiError> {
        let (vm, nics) = self.changeable(cx).await?;
        let id: i64 = cx.refs.need("nicid")?;
        let nic = nics.into_iter().find(|nic| nic.id == id);
        // Without its UUID: by a number a foreign one could be asked for.
        let nic = nic.ok_or_else(|| ApiError::param(format!("The nic is not one of {}", view::label(&vm))))?;
        Ok((vm, nic))
    }
}

#[tonic::async_trait]
impl VirtualMachineNics for VirtualMachineNicsApi {
    async fn add(&self, request: Request<AddNicToVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let (vm, nics) = self.changeable(&cx).await?;
        let id: i64 = cx.refs.need("networkid")?;
        let network = vm_order::networks(db, &[id]).await.map_err(ApiError::from)?.pop();
        let network = network.ok_or_else(|| ApiError::param("unable to find a network with specified id"))?;
        if !network.admits(&vm.owner) {
            // Not its name: who may not use it may not learn it either.
            return Err(ApiError::permission("the virtual machine's account may not use the network").into());
        }
        if network.zone_id != vm.zone_id {
            return Err(ApiError::param(format!(
                "{} is in zone of another id than the network {}",
                view::label(&vm),
                network.name
            ))
            .into());
        }
        if nics.iter().any(|nic| nic.network_id == id) {
            let text = format!("A NIC already exists for VM:{} in network: {}", vm.instance_name, network.name);
            return Err(ApiError::failed(text).into());
        }
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let nic = NicAsk { network: id, ip: given(&request.ip_address), mac: given(&request.mac_address) };
        let check = another_nic(&vm, &nic, None);
        world.attachments().check(rpc::cx::repeatable(&cx.caller, check)).await?;
        let wish = Wish {
            command: AddNicToVirtualMachineRequest::COMMAND,
            custom_id: request.custom_job_id,
            description: format!("Adding network {} to user vm: {}", network.name, view::label(&vm)),
            about_vm: false,
            claims: vec![vm::network_claim(id)],
        };
        let job = AddNic { vm: vm.id, nic, network: network.name };
        Ok(Response::new(submit(world, &cx, &vm, job, wish).await?))
    }

    async fn remove(&self, request: Request<RemoveNicFromVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        let (vm, nic) = self.changeable_nic(&cx).await?;
        if let Some(why) = refusal(&nic, &view::label(&vm)) {
            return Err(why.into());
        }
        if vm_nics::has_rules(&world.node.db, vm.id, &nic).await.map_err(ApiError::from)? {
            return Err(ApiError::param(format!(
                "Unable to remove nic from {}: port forwarding, load balancing or static NAT is set up for it",
                view::label(&vm)
            ))
            .with_entity(&nic.uuid, "nicid")
            .into());
        }
        let wish = Wish {
            command: RemoveNicFromVirtualMachineRequest::COMMAND,
            custom_id: request.custom_job_id,
            description: format!("Removing NIC {} from user vm: {}", nic.uuid, view::label(&vm)),
            about_vm: false,
            claims: vec![vm::network_claim(nic.network_id)],
        };
        Ok(Response::new(submit(world, &cx, &vm, RemoveNic { vm: vm.id, nic: nic.id }, wish).await?))
    }

    async fn update_default(
        &self,
        request: Request<UpdateDefaultNicForVirtualMachineRequest>,
    ) -> Result<Response<JobRef>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        let (vm, nic) = self.changeable_nic(&cx).await?;
        if nic.is_default {
            // As 4.11: what is so already is an error.
            return Err(ApiError::failed(format!(
                "refusing to set default nic because chosen nic is already the default: {}",
                nic.uuid
            ))
            .into());
        }
        let wish = Wish {
            command: UpdateDefaultNicForVirtualMachineRequest::COMMAND,
            custom_id: request.custom_job_id,
            description: format!("Updating NIC {} on user vm: {}", nic.uuid, view::label(&vm)),
            about_vm: false,
            claims: Vec::new(),
        };
        Ok(Response::new(submit(world, &cx, &vm, DefaultNic { vm: vm.id, nic: nic.id }, wish).await?))
    }
}
