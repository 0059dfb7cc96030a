//! A new certificate for a host's agent, before the old one ends (HOST-141).

use super::{Asked, accept, check_provider};
use crate::host::gone;
use crate::world::World;
use ::store::Tx;
use contract::api::{JobRef, Success};
use contract::{ApiError, Request as _};
use contract_agent::{Command, RenewCertificate, command};
use contract_infra::ProvisionCertificateRequest;
use jobs::{AbortCx, Claim, Ctx, Finished, Job, UndoCx};
use model::HostId;
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Provision {
    host: i64,
    reconnect: bool,
}

/// Accepts the job.
///
/// # Errors
/// 431 when the host isn't there, or for another provider than the built-in one.
pub async fn provision(world: &World, cx: &Cx, r: ProvisionCertificateRequest) -> Result<JobRef, ApiError> {
    check_provider(r.provider.as_deref())?;
    let host = cx.refs.living("hostid")?.ok_or_else(gone)?.clone();
    let asked = Asked {
        command: ProvisionCertificateRequest::COMMAND,
        instance: Some(("Host".to_owned(), host.uuid.clone())),
        claims: vec![Claim::Shared(format!("host/{}", host.id))],
        custom_id: r.custom_job_id.clone(),
        description: format!("provisioning certificate for host: {}", host.uuid),
    };
    accept(world, &cx.caller, Provision { host: host.id, reconnect: r.reconnect.unwrap_or(true) }, asked).await
}

impl Job for Provision {
    const KIND: &'static str = "certificate.provision";
    type World = World;
    type Undo = ();

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        // After a crash it is renewed once more, which harms nobody.
        let order = RenewCertificate { reconnect: self.reconnect };
        let order = Command { body: Some(command::Body::RenewCertificate(order)) };
        world.hub.execute(HostId(self.host), None, false, order, PATIENCE).await?;
        jobs::finish!(ctx, |_tx| Ok(Success { success: true, ..Success::default() })).await
    }

    async fn undo(self, _: Arc<World>, (): (), _: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
