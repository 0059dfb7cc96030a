//! Accepting a job on one VM.

use super::{VmWorld, claim};
use crate::store::vms::{self, VmRow};
use contract::api::JobRef;
use contract::{ApiError, CommandInfo};
use jobs::{Accept, Claim, Job};
use rpc::Cx;

/// What is accepted beside the job.
pub struct Wish {
    /// The command that asks for it.
    pub command: Option<&'static CommandInfo>,
    /// Id that the job gets.
    pub custom_id: Option<String>,
    /// For people.
    pub description: String,
    /// Whether the job shows the VM as what it is about.
    pub about_vm: bool,
    /// Claims beside the VM's own.
    pub claims: Vec<Claim>,
}

/// Accepts a job on a VM.
///
/// # Errors
/// As those of [`jobs::Jobs::accept`].
pub async fn submit<J: Job>(world: &VmWorld, cx: &Cx, vm: &VmRow, job: J, wish: Wish) -> Result<JobRef, ApiError> {
    let ticket = world.jobs.ticket().await?;
    let mut claims = vec![claim(vm.id)];
    claims.extend(wish.claims);
    jobs::mutate!(world.node.db, &cx.caller, J::KIND, |tx| {
        let accept = Accept {
            job: job.clone(),
            caller: cx.caller.clone(),
            command: wish.command,
            owner: vm.owner.clone(),
            instance: wish.about_vm.then(|| ("VirtualMachine".to_owned(), vm.uuid.clone())),
            claims: claims.clone(),
            custom_id: wish.custom_id.clone(),
            description: wish.description.clone(),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}

/// The living VM that a parameter names.
///
/// # Errors
/// 431 when there is none.
pub async fn named(world: &VmWorld, cx: &Cx, param: &str) -> Result<VmRow, ApiError> {
    let row = vms::find(&world.node.db, cx.refs.need(param)?).await?.filter(|vm| !vm.removed);
    row.ok_or_else(|| ApiError::param("Unable to find a virtual machine with specified vmId"))
}
