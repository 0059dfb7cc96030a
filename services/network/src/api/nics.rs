//! Interfaces of VMs.

use super::{Api, keyword};
use crate::present;
use crate::store::nics;
use contract::ApiError;
use contract::api::Access;
use contract_network::nics_server::Nics;
use contract_network::{ListNicsRequest, ListNicsResponse};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Nics for Api {
    async fn list(&self, request: Request<ListNicsRequest>) -> Result<Response<ListNicsResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let vm = cx.refs.one("virtualmachineid").ok_or_else(|| ApiError::empty_param("virtualmachineid"))?;
        if !model::entity::allowed(&cx.caller, vm, Access::Operate) {
            return Err(ApiError::permission("the virtual machine belongs to somebody else").into());
        }
        let page = world.page(req.page, req.page_size)?;
        let nic = cx.refs.one("nicid").map(|e| e.id);
        let network = cx.refs.one("networkid").map(|e| e.id);
        let (rows, mut count) = nics::list(db, vm.id, nic, network, &page).await.map_err(ApiError::from)?;
        let mut nic = present::nics(db, &rows, cx.caller.is_root_admin()).await.map_err(ApiError::from)?;
        if let Some(word) = keyword(&req.keyword) {
            // A VM has a few interfaces, all of them on the page.
            nic.retain(|n| n.ip_address.as_deref().is_some_and(|ip| ip.contains(&word)));
            count = i64::try_from(nic.len()).unwrap_or(count);
        }
        Ok(Response::new(ListNicsResponse { count: Some(count), nic }))
    }
}
