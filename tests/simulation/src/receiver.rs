//! A service that receives keyed calls, as services do.

use crate::network::Handler;
use crate::sim::Sim;
use contract::ApiError;
use contract_identity::limits_server::{Limits, LimitsServer};
use contract_identity::{ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse};
use futures::FutureExt as _;
use jobs::StepKey;
use std::sync::Arc;
use store::{Db, Sql};
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status};

/// The service.
pub struct Receiver {
    sim: Arc<Sim>,
    db: Db,
}

impl Receiver {
    /// What answers its calls.
    pub fn handler(sim: &Arc<Sim>, db: Db) -> Handler {
        let receiver = Arc::new(Receiver { sim: sim.clone(), db });
        Arc::new(move |request| {
            let mut server = LimitsServer::from_arc(receiver.clone());
            async move { server.call(request).await }.boxed()
        })
    }
}

fn parts(key: &str) -> Result<(i64, String, bool), ApiError> {
    let mut parts = key.split('/');
    let (number, step, mode) = (parts.next(), parts.next(), parts.next());
    let number = number.and_then(|n| n.parse().ok()).ok_or_else(|| ApiError::param("a number is missing"))?;
    Ok((number, step.unwrap_or_default().to_owned(), mode == Some("fails")))
}

#[async_trait::async_trait]
impl Limits for Receiver {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (number, step, fails) = parts(&request.into_inner().key)?;
        let answer = jobs::effect!(self.db, key, |tx| {
            tx.exec(Sql::new("INSERT INTO parts (number, step) VALUES (?, ?)").bind(number).bind(&step)).await?;
            if fails { Err(ApiError::in_use("it is to fail")) } else { Ok(ReserveResponse {}) }
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let key = StepKey::of(&request)?;
        let (number, step, _) = parts(&request.into_inner().key)?;
        jobs::undo_effect!(self.db, key, |tx, done: Option<ReserveResponse>| {
            let sql = "DELETE FROM parts WHERE number = ? AND step = ?";
            let gone = tx.exec(Sql::new(sql).bind(number).bind(&step)).await?;
            if gone != u64::from(done.is_some()) {
                let done = done.is_some();
                self.sim.wrong(format!("undoing {key} took {gone} parts away; done: {done}"));
            }
            Ok(())
        })
        .await?;
        Ok(Response::new(ReleaseResponse {}))
    }
}
