//! `arcus.compute.v1.VirtualMachineAccess`.

use crate::store::{vm_nics, vm_order};
use crate::vm::access::{NewKey, Reset, no_passwords, not_stopped};
use crate::vm::submit::{Wish, named, submit};
use crate::vm::{VmWorld, view};
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_compute::virtual_machine_access_server::VirtualMachineAccess;
use contract_compute::{ResetPasswordForVirtualMachineRequest, ResetSshKeyForVirtualMachineRequest};
use model::state::VmState;
use tonic::{Request, Response, Status};

/// The handlers.
pub struct VirtualMachineAccessApi(pub VmWorld);

#[tonic::async_trait]
impl VirtualMachineAccess for VirtualMachineAccessApi {
    async fn reset_password(
        &self,
        request: Request<ResetPasswordForVirtualMachineRequest>,
    ) -> Result<Response<JobRef>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        let vm = named(world, &cx, "id").await?;
        let access = vm_nics::access(&world.node.db, vm.id).await.map_err(ApiError::from)?;
        if !access.is_some_and(|(_, enabled)| enabled) {
            return Err(no_passwords().into());
        }
        if vm.state != VmState::Stopped {
            return Err(not_stopped(&vm, false).into());
        }
        let wish = Wish {
            command: ResetPasswordForVirtualMachineRequest::COMMAND,
            custom_id: request.custom_job_id,
            description: format!("resetting password for vm: {}", view::label(&vm)),
            about_vm: true,
            claims: Vec::new(),
        };
        Ok(Response::new(submit(world, &cx, &vm, Reset { vm: vm.id, key: None }, wish).await?))
    }

    async fn reset_ssh_key(
        &self,
        request: Request<ResetSshKeyForVirtualMachineRequest>,
    ) -> Result<Response<JobRef>, Status> {
        let world = &self.0;
        let (cx, request) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let vm = named(world, &cx, "id").await?;
        let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
        let domain = domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str()));
        let account = request.account.as_deref().filter(|a| !a.is_empty());
        let owner = model::scope::owner_for_create(db, &cx.caller, account, domain).await?;
        let name = request.key_pair().to_owned();
        let public = vm_order::public_key(db, owner.account_id, &name).await.map_err(ApiError::from)?;
        let public = public.ok_or_else(|| {
            ApiError::param(format!(
                "A key pair with name '{name}' does not exist for account {} in specified domain id",
                account.unwrap_or(&cx.caller.account_name)
            ))
        })?;
        if vm.state != VmState::Stopped {
            return Err(not_stopped(&vm, true).into());
        }
        let wish = Wish {
            command: ResetSshKeyForVirtualMachineRequest::COMMAND,
            custom_id: request.custom_job_id,
            description: format!("resetting SSHKey for vm: {}", view::label(&vm)),
            about_vm: true,
            claims: Vec::new(),
        };
        let job = Reset { vm: vm.id, key: Some(NewKey { name, public }) };
        Ok(Response::new(submit(world, &cx, &vm, job, wish).await?))
    }
}
