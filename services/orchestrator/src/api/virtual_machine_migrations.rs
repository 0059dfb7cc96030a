//! `arcus.compute.v1.VirtualMachineMigrations`.

use crate::host::maintenance::undisturbed;
use crate::store::{vm_order, vms};
use crate::vm::migrate::Migrate;
use crate::vm::{self, VmWorld};
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_compute::MigrateVirtualMachineRequest;
use contract_compute::virtual_machine_migrations_server::VirtualMachineMigrations;
use jobs::{Accept, Claim, Job as _};
use tonic::{Request, Response, Status};

/// The handlers.
pub struct Api {
    world: VmWorld,
}

impl Api {
    /// Handlers that work with `world`.
    pub fn new(world: VmWorld) -> Api {
        Api { world }
    }
}

#[tonic::async_trait]
impl VirtualMachineMigrations for Api {
    async fn migrate(&self, request: Request<MigrateVirtualMachineRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        if !cx.caller.is_root_admin() {
            return Err(ApiError::permission("No permission to migrate VM, Only Root Admin can migrate a VM!").into());
        }
        let db = &self.world.node.db;
        let row = vms::find(db, cx.refs.need("virtualmachineid")?).await.map_err(ApiError::from)?;
        let vm = row.filter(|vm| !vm.removed).ok_or_else(|| ApiError::param("Unable to find the VM by id"))?;
        undisturbed(db, (vm.id, &vm.uuid), "Migrate").await?;
        let host: Option<i64> = cx.refs.id("hostid")?;
        let host = host.ok_or_else(|| ApiError::param("Either hostId or storageId must be specified"))?;
        let (host_uuid, _) = vm_order::host(db, host).await.map_err(ApiError::from)?;
        let ticket = self.world.jobs.ticket().await?;
        let answer = jobs::mutate!(db, &cx.caller, Migrate::KIND, |tx| {
            let accept = Accept {
                job: Migrate { vm: vm.id, host },
                caller: cx.caller.clone(),
                command: MigrateVirtualMachineRequest::COMMAND,
                owner: vm.owner.clone(),
                instance: Some(("VirtualMachine".to_owned(), vm.uuid.clone())),
                // The host isn't deleted while the VM is on its way to it.
                claims: vec![vm::claim(vm.id), Claim::Shared(format!("host/{host}"))],
                custom_id: request.custom_job_id.clone(),
                description: format!("Attempting to migrate VM Id: {} to host Id: {host_uuid}", vm.uuid),
                entity_id: None,
            };
            self.world.jobs.accept(tx, ticket.clone(), accept).await
        })
        .await?;
        Ok(Response::new(answer))
    }
}
