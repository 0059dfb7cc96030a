//! Jobs as the API shows them.

use crate::certificate;
use crate::world::World;
use contract::ApiError;
use contract::Request as _;
use contract_compute::{
    DeployVirtualMachineRequest, ResetPasswordForVirtualMachineRequest, ResetSshKeyForVirtualMachineRequest,
    VirtualMachine,
};
use contract_infra::{AsyncJob, Certificate, IssueCertificateRequest, ListAsyncJobsRequest, ListAsyncJobsResponse};
use jobs::{JobFilter, JobView};
use model::{ListScope, ScopeRequest};
use prost::Message as _;
use rpc::Cx;

/// Shows one job: to those whose it is, and to those who administer them.
pub async fn query(world: &World, cx: &Cx) -> Result<AsyncJob, ApiError> {
    let gone = || ApiError::param("Unable to find a job by id: it has been cleaned up, or never was");
    let job = cx.refs.one("jobid").ok_or_else(gone)?;
    if !job.owner.as_ref().is_some_and(|owner| model::scope::may_act_for(&cx.caller, owner)) {
        return Err(ApiError::permission(format!("account {} may not see this job", cx.caller.account_name)));
    }
    let mut found = jobs::view::find(&world.node.db, &job.uuid).await?.ok_or_else(gone)?;
    open_secret(world, &mut found)?;
    Ok(message(found))
}

/// Lists jobs.
pub async fn list(world: &World, cx: &Cx, r: ListAsyncJobsRequest) -> Result<ListAsyncJobsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let domain = cx.refs.living("domainid")?.and_then(|e| e.owner.clone());
    let db = &world.node.db;
    let request = ScopeRequest {
        account: r.account.as_deref().filter(|a| !a.is_empty()),
        domain: domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str())),
        list_all: r.list_all == Some(true),
        recursive: r.is_recursive == Some(true),
        by_id: false,
    };
    let scope = ListScope::of(db, &cx.caller, &request).await?;
    let filter = JobFilter { scope: &scope, since: r.start_date, keyword: r.keyword.as_deref(), page };
    let (mut found, count) = jobs::view::list(db, &filter).await?;
    found.iter_mut().try_for_each(|job| open_secret(world, job))?;
    Ok(ListAsyncJobsResponse { count: Some(count), async_jobs: found.into_iter().map(message).collect() })
}

/// Secrets lie sealed in results, too.
fn open_secret(world: &World, job: &mut JobView) -> Result<(), ApiError> {
    open_password(world, job)?;
    open_key(world, job)
}

fn open_key(world: &World, job: &mut JobView) -> Result<(), ApiError> {
    let issued = IssueCertificateRequest::COMMAND;
    let given = job.result.as_mut().filter(|r| issued.is_some_and(|c| r.command == c.name) && r.error.is_none());
    let Some(result) = given else { return Ok(()) };
    let damaged = |_| ApiError::internal("the result of a job can't be read");
    let mut shown = Certificate::decode(result.output.as_slice()).map_err(damaged)?;
    if let Some(sealed) = &shown.private_key {
        shown.private_key = Some(certificate::issue::open(world, &job.uuid, sealed)?);
        result.output = shown.encode_to_vec();
    }
    Ok(())
}

/// The result of a deployment or a reset holds the guest's password as it lies in the VM's row.
fn open_password(world: &World, job: &mut JobView) -> Result<(), ApiError> {
    let gives = [
        DeployVirtualMachineRequest::COMMAND,
        ResetPasswordForVirtualMachineRequest::COMMAND,
        ResetSshKeyForVirtualMachineRequest::COMMAND,
    ];
    let gives = |command: &str| gives.iter().flatten().any(|c| command == c.name);
    let given = job.result.as_mut().filter(|r| gives(&r.command) && r.error.is_none());
    let Some(result) = given else { return Ok(()) };
    let damaged = |_| ApiError::internal("the result of a job can't be read");
    let mut vm = VirtualMachine::decode(result.output.as_slice()).map_err(damaged)?;
    let (Some(uuid), Some(sealed)) = (&vm.id, &vm.password) else { return Ok(()) };
    let password = world.node.vault.open_sealed(&model::sealed::vm_password(uuid), sealed)?;
    vm.password = Some(String::from_utf8(password).map_err(|_| ApiError::internal("a sealed password is no text"))?);
    result.output = vm.encode_to_vec();
    Ok(())
}

fn message(job: JobView) -> AsyncJob {
    AsyncJob {
        job_status: Some(job.status()),
        job_proc_status: Some(0),
        job_result_code: Some(job.result_code()),
        job_result_type: job.result.is_some().then(|| "object".to_owned()),
        account_id: Some(job.account_uuid),
        user_id: Some(job.user_uuid),
        cmd: Some(job.job_class),
        job_result: job.result,
        job_instance_type: job.instance_type,
        job_instance_id: job.instance_uuid,
        created: Some(job.created),
        job_id: Some(job.uuid),
    }
}
