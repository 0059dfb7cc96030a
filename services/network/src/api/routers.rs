//! Routers.

use super::{Api, Owners, given, keyword};
use crate::present;
use crate::store::routers::{self, Filter};
use contract::ApiError;
use contract_network::routers_server::Routers;
use contract_network::{ListRoutersRequest, ListRoutersResponse};
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
}
