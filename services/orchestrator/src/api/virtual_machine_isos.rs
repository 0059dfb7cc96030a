//! `arcus.compute.v1.VirtualMachineIsos`.

use crate::store::isos;
use crate::store::vms::VmRow;
use crate::vm::VmWorld;
use crate::vm::iso::{self, ChangeIso};
use crate::vm::submit::{Wish, named, submit};
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_compute::virtual_machine_isos_server::VirtualMachineIsos;
use contract_compute::{AttachIsoRequest, DetachIsoRequest};
use model::state::VmState;
use rpc::Cx;
use tonic::{Request, Response, Status};

/// The handlers.
pub struct VirtualMachineIsosApi(pub VmWorld);

impl VirtualMachineIsosApi {
    /// The VM. Refuses one whose drive can't be changed now.
    async fn changeable(&self, cx: &Cx) -> Result<VmRow, ApiError> {
        let vm = named(&self.0, cx, "virtualmachineid").await?;
        if matches!(vm.state, VmState::Running | VmState::Stopped) { Ok(vm) } else { Err(iso::wrong_state(&vm)) }
    }
}

#[tonic::async_trait]
impl VirtualMachineIsos for VirtualMachineIsosApi {
    async fn attach(&self, request: Request<AttachIsoRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        let vm = self.changeable(&cx).await?;
        let id: i64 = cx.refs.need("id")?;
        let facts = isos::find(&world.node.db, id, vm.zone_id, &vm.owner).await.map_err(ApiError::from)?;
        iso::check(&vm.hypervisor, facts.as_ref())?;
        let uuid = facts.map(|iso| iso.uuid).unwrap_or_default();
        let wish = Wish {
            command: AttachIsoRequest::COMMAND,
            custom_id: request.custom_job_id,
            description: format!("attaching ISO: {uuid} to VM: {}", vm.uuid),
            about_vm: false,
            claims: vec![iso::claim(id)],
        };
        Ok(Response::new(submit(world, &cx, &vm, ChangeIso { vm: vm.id, iso: Some(id) }, wish).await?))
    }

    async fn detach(&self, request: Request<DetachIsoRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        let vm = self.changeable(&cx).await?;
        if vm.iso_id.is_none() {
            return Err(iso::nothing_there().into());
        }
        let wish = Wish {
            command: DetachIsoRequest::COMMAND,
            custom_id: request.custom_job_id,
            description: format!("detaching ISO from VM: {}", vm.uuid),
            about_vm: false,
            // Should the job fail, the ISO is put back.
            claims: vm.iso_id.map(iso::claim).into_iter().collect(),
        };
        Ok(Response::new(submit(world, &cx, &vm, ChangeIso { vm: vm.id, iso: None }, wish).await?))
    }
}
