//! Routers.

use super::{Api, Owners, given, keyword};
use crate::job::{self, Order, Power, PowerRouter};
use crate::present;
use crate::store::routers::{self, Filter};
use contract::api::{Access, JobRef};
use contract::{ApiError, CommandInfo, Request as _};
use contract_network::routers_server::Routers;
use contract_network::{
    DestroyRouterRequest, ListRoutersRequest, ListRoutersResponse, RebootRouterRequest, StartRouterRequest,
    StopRouterRequest,
};
use jobs::Claim;
use rpc::Cx;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Routers for Api {
    async fn list(&self, request: Request<ListRoutersRequest>) -> Result<Response<ListRoutersResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let page = world.page(req.page, req.page_size)?;
        let id = cx.refs.one("id").map(|e| e.id);
        let owners = Owners {
            account: req.account.as_deref(),
            list_all: req.list_all,
            recursive: req.is_recursive,
            by_id: id.is_some(),
        };
        let scope = owners.scope(db, &cx).await?;
        // Routers of VPCs, and routers of other versions than this program's, don't exist.
        if req.for_vpc == Some(true) || given(&req.version).is_some() {
            return Ok(Response::new(ListRoutersResponse { count: Some(0), router: Vec::new() }));
        }
        let filter = Filter {
            id,
            name: given(&req.name),
            host_id: cx.refs.one("hostid").map(|e| e.id),
            pod_id: cx.refs.one("podid").map(|e| e.id),
            cluster_id: cx.refs.one("clusterid").map(|e| e.id),
            zone_id: cx.refs.one("zoneid").map(|e| e.id),
            network_id: cx.refs.one("networkid").map(|e| e.id),
            state: given(&req.state),
            keyword: keyword(&req.keyword),
        };
        let (rows, count) = routers::list(db, &filter, &scope, &page).await.map_err(ApiError::from)?;
        let router = present::routers(db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListRoutersResponse { count: Some(count), router }))
    }

    async fn start(&self, request: Request<StartRouterRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        let task = Task { command: StartRouterRequest::COMMAND, verb: "starting", custom_job_id: &req.custom_job_id };
        Ok(Response::new(self.power(&cx, task, Power::Start).await?))
    }

    async fn stop(&self, request: Request<StopRouterRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        let task = Task { command: StopRouterRequest::COMMAND, verb: "stopping", custom_job_id: &req.custom_job_id };
        let power = Power::Stop { forced: req.forced.unwrap_or(false) };
        Ok(Response::new(self.power(&cx, task, power).await?))
    }

    async fn reboot(&self, request: Request<RebootRouterRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        let task = Task { command: RebootRouterRequest::COMMAND, verb: "rebooting", custom_job_id: &req.custom_job_id };
        Ok(Response::new(self.power(&cx, task, Power::Reboot).await?))
    }

    async fn destroy(&self, request: Request<DestroyRouterRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.world.node.rpc.enter(request).await?;
        let task =
            Task { command: DestroyRouterRequest::COMMAND, verb: "destroying", custom_job_id: &req.custom_job_id };
        Ok(Response::new(self.power(&cx, task, Power::Destroy).await?))
    }
}

/// What a command says of its job.
struct Task<'a> {
    command: Option<&'static CommandInfo>,
    verb: &'static str,
    custom_job_id: &'a Option<String>,
}

impl Api {
    async fn power(&self, cx: &Cx, task: Task<'_>, power: Power) -> Result<JobRef, ApiError> {
        let world = &self.world;
        let entity = cx.refs.living("id")?.ok_or_else(|| ApiError::empty_param("id"))?;
        if !model::entity::allowed(&cx.caller, entity, Access::Operate) {
            return Err(ApiError::permission("that router belongs to somebody else"));
        }
        let router = routers::one(&world.node.db, entity.id).await?.ok_or_else(|| {
            ApiError::param(format!("Unable to find router by id {}.", entity.uuid)).with_entity(&entity.uuid, "id")
        })?;
        let order = Order {
            command: task.command,
            caller: &cx.caller,
            owner: Some(router.owner.clone()),
            instance: Some(("DomainRouter", router.uuid.clone())),
            claims: vec![Claim::Exclusive(format!("network/{}", router.network_id))],
            custom_id: task.custom_job_id.clone(),
            description: format!("{} router: {}", task.verb, router.uuid),
            entity_id: None,
        };
        job::accept(world, order, PowerRouter { id: router.id, network: router.network_id, power }).await
    }
}
