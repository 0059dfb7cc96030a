//! Reconnecting a host: its agent is asked for all that it runs, and the answer is waited for.

use super::{gone, view};
use crate::store::hosts as rows;
use crate::world::World;
use ::store::Tx;
use contract::api::{Caller, JobRef};
use contract::{ApiError, Request as _};
use contract_infra::ReconnectHostRequest;
use hub::HostEvent;
use jobs::{Accept, Claim, Ctx, Finished, Job, UndoCx};
use model::state::HostStatus;
use model::{HostId, Owner};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long the host may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reconnect {
    /// Number of the host.
    pub host: i64,
}

/// Accepts the job.
pub async fn accept(world: &World, cx: &Cx, r: ReconnectHostRequest) -> Result<JobRef, ApiError> {
    let host = cx.refs.living("id")?.ok_or_else(gone)?.clone();
    let ticket = world.jobs.ticket().await?;
    let custom_id = r.custom_job_id.clone().filter(|id| !id.is_empty());
    jobs::mutate!(world.node.db, cx.caller, "reconnect-host", |tx| {
        let accept = Accept {
            job: Reconnect { host: host.id },
            caller: cx.caller.clone(),
            command: ReconnectHostRequest::COMMAND,
            owner: owner(&cx.caller),
            instance: Some(("Host".to_owned(), host.uuid.clone())),
            claims: vec![Claim::Shared(format!("host/{}", host.id))],
            custom_id: custom_id.clone(),
            description: format!("reconnecting host: {}", host.id),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}

fn owner(caller: &Caller) -> Owner {
    Owner::caller(caller)
}

impl Job for Reconnect {
    const KIND: &'static str = "host.reconnect";
    type World = World;
    type Undo = ();

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        // It changes nothing, so a repeat after a crash asks again.
        let answered = answers(&world, HostId(self.host)).await?;
        jobs::finish!(ctx, |tx| {
            let host = rows::find(&mut *tx, self.host).await?.filter(|h| h.removed.is_none()).ok_or_else(gone)?;
            if !answered {
                let text =
                    format!("Host {} is not connected: its state is {}. Start its agent", host.uuid, host.status);
                return Err(ApiError::failed(text).with_entity(host.uuid, "id"));
            }
            Ok(view::shown(host, view::Details::all(), super::ha_tag(&world.node.settings).as_deref()))
        })
        .await
    }

    async fn undo(self, _: Arc<World>, (): (), _: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &jobs::AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Whether the host answers a question, or is connected with another replica, which asks by itself.
async fn answers(world: &World, id: HostId) -> Result<bool, ApiError> {
    let mut events = world.hub.subscribe();
    if !world.hub.ask_report(id) {
        let host = rows::find(&world.node.db, id.0).await?.ok_or_else(gone)?;
        return Ok(host.status == HostStatus::Up);
    }
    let heard = async {
        loop {
            match events.recv().await {
                Ok(HostEvent::Report { host, .. }) if host == id => return true,
                Ok(_) => {}
                Err(_) => return world.hub.is_connected(id),
            }
        }
    };
    Ok(tokio::time::timeout(PATIENCE, heard).await.unwrap_or(false))
}
