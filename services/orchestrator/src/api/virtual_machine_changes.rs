//! `arcus.compute.v1.VirtualMachineChanges`.

use crate::host::maintenance::undisturbed;
use crate::store::vm_shapes::Shape;
use crate::store::vms::VmRow;
use crate::vm::assign;
use crate::vm::restore::{self, Ask};
use crate::vm::scale::{Facts, Scale, not_stopped};
use crate::vm::submit::{Wish, named, submit};
use crate::vm::{VmWorld, view};
use contract::api::JobRef;
use contract::{ApiError, CommandInfo, Request as _};
use contract_compute::virtual_machine_changes_server::VirtualMachineChanges;
use contract_compute::{
    AssignVirtualMachineRequest, ChangeServiceForVirtualMachineRequest, RestoreVirtualMachineRequest,
    ScaleVirtualMachineRequest, VirtualMachine,
};
use model::state::VmState;
use rpc::Cx;
use std::collections::HashMap;
use tonic::{Request, Response, Status};

/// The handlers.
pub struct VirtualMachineChangesApi(pub VmWorld);

/// Another offering, as it was asked for.
struct Size {
    command: Option<&'static CommandInfo>,
    details: HashMap<String, String>,
    custom_id: Option<String>,
    stopped_only: bool,
}

impl VirtualMachineChangesApi {
    /// Accepts a change that is allowed as things are now; the job looks again.
    async fn scale(&self, cx: &Cx, ask: Size) -> Result<JobRef, ApiError> {
        let world = &self.0;
        if let Some(known) = jobs::answered::<JobRef>(&world.node.db, &cx.caller).await? {
            return Ok(known);
        }
        let vm = named(world, cx, "id").await?;
        let offering: i64 = cx.refs.need("serviceofferingid")?;
        undisturbed(&world.node.db, (vm.id, &vm.uuid), "Scale").await?;
        if ask.stopped_only && vm.state != VmState::Stopped {
            return Err(not_stopped(&vm));
        }
        Facts::read(world, &vm, offering).await?.judge(&vm, &shape(&vm), offering, &ask.details)?;
        let wish = Wish {
            command: ask.command,
            custom_id: ask.custom_id,
            description: format!("Scaling VM: {} to service offering: {offering}", view::label(&vm)),
            about_vm: false,
            claims: Vec::new(),
        };
        let details = ask.details.into_iter().collect();
        submit(world, cx, &vm, Scale { vm: vm.id, offering, details, stopped_only: ask.stopped_only }, wish).await
    }
}

/// What the VM's row says of its size.
fn shape(vm: &VmRow) -> Shape {
    Shape {
        offering: vm.service_offering_id,
        cpu: vm.cpu,
        cpu_mhz: vm.cpu_mhz,
        memory_mb: vm.memory_mb,
        details: vm.details.clone(),
        ha_enabled: false,
    }
}

#[tonic::async_trait]
impl VirtualMachineChanges for VirtualMachineChangesApi {
    async fn scale(&self, request: Request<ScaleVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, request) = self.0.node.rpc.enter(request).await?;
        let ask = Size {
            command: ScaleVirtualMachineRequest::COMMAND,
            details: request.details,
            custom_id: request.custom_job_id,
            stopped_only: false,
        };
        Ok(Response::new(self.scale(&cx, ask).await?))
    }

    async fn change_service(
        &self,
        request: Request<ChangeServiceForVirtualMachineRequest>,
    ) -> Result<Response<VirtualMachine>, Status> {
        let (cx, request) = self.0.node.rpc.enter(request).await?;
        // It has a job only so that it is whole or not at all; clients know none.
        let ask = Size { command: None, details: request.details, custom_id: None, stopped_only: true };
        let job = self.scale(&cx, ask).await?;
        let done: VirtualMachine = self.0.jobs.end_of(&job.job_id).await?.output()?;
        Ok(Response::new(done))
    }

    async fn restore(&self, request: Request<RestoreVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        if let Some(known) = jobs::answered::<JobRef>(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(known));
        }
        let vm = named(world, &cx, "virtualmachineid").await?;
        undisturbed(&world.node.db, (vm.id, &vm.uuid), "Restore").await?;
        let template = cx.refs.living("templateid")?.map(|entity| entity.id);
        let ask = Ask {
            command: RestoreVirtualMachineRequest::COMMAND,
            custom_id: request.custom_job_id,
            template,
            reboot: false,
        };
        Ok(Response::new(restore::accept(world, &cx, &vm, ask).await?))
    }

    async fn assign(&self, request: Request<AssignVirtualMachineRequest>) -> Result<Response<VirtualMachine>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        // It has a job only so that it is whole or not at all; clients know none.
        let job = match jobs::answered::<JobRef>(&world.node.db, &cx.caller).await? {
            Some(known) => known,
            None => {
                let vm = named(world, &cx, "virtualmachineid").await?;
                let order = assign::check(world, &cx, &vm, &request).await?;
                let wish = Wish {
                    command: None,
                    custom_id: None,
                    description: format!("moving VM to another user: {}", view::label(&vm)),
                    about_vm: false,
                    claims: order.claims,
                };
                submit(world, &cx, &vm, order.job, wish).await?
            }
        };
        let done: VirtualMachine = world.jobs.end_of(&job.job_id).await?.output()?;
        Ok(Response::new(done))
    }
}
