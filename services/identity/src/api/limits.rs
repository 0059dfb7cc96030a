//! Reserve and Release, for the services that make and remove resources.

use super::Answer;
use crate::Identity;
use crate::resource::Resource;
use contract::ApiError;
use contract_identity::limit_transfers_server::LimitTransfers;
use contract_identity::limits_server::Limits;
use contract_identity::{
    ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse, ResourceAmount, TransferRequest, TransferResponse,
};
use jobs::StepKey;
use tonic::{Request, Response};

/// Longest name of a holder that a row keeps.
const HOLDER: usize = 128;
/// Longest member id that a row keeps.
const RESERVER: usize = 64;

#[tonic::async_trait]
impl Limits for Identity {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Answer<ReserveResponse> {
        let (_, req) = self.node.rpc.enter(request).await?;
        let holder = holder(&req.key)?;
        if req.reserver.is_empty() || req.reserver.len() > RESERVER {
            return Err(ApiError::internal("a reservation names the replica that is about to make its holder").into());
        }
        let items = req.items.iter().map(|i| Ok((kind(i)?, i.amount))).collect::<Result<Vec<_>, ApiError>>()?;
        self.limits.reserve(holder, req.account_id, &items, &req.reserver).await?;
        Ok(Response::new(ReserveResponse {}))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Answer<ReleaseResponse> {
        let (_, req) = self.node.rpc.enter(request).await?;
        let holder = holder(&req.key)?;
        let kinds = req.items.iter().map(kind).collect::<Result<Vec<_>, ApiError>>()?;
        self.limits.release(holder, &kinds).await?;
        Ok(Response::new(ReleaseResponse {}))
    }
}

#[tonic::async_trait]
impl LimitTransfers for Identity {
    async fn transfer(&self, request: Request<TransferRequest>) -> Answer<TransferResponse> {
        let step = StepKey::of(&request)?;
        let (_, req) = self.node.rpc.enter(request).await?;
        for key in &req.keys {
            holder(key)?;
        }
        if step.is_undo() {
            self.limits.take_back(&step).await?;
            return Ok(Response::new(TransferResponse::default()));
        }
        Ok(Response::new(self.limits.transfer(&step, &req.keys, req.account_id).await?))
    }
}

fn kind(item: &ResourceAmount) -> Result<Resource, ApiError> {
    Resource::of(item.r#type).ok_or_else(|| ApiError::internal(format!("there is no resource type {}", item.r#type)))
}

fn holder(key: &str) -> Result<&str, ApiError> {
    if key.is_empty() || key.len() > HOLDER {
        return Err(ApiError::internal(format!(
            "a holder of resources has a name of 1 to {HOLDER} bytes, not {key:?}"
        )));
    }
    Ok(key)
}
