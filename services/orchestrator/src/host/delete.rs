//! Deleting a host.

use super::{evict, gone};
use crate::store::{hosts as rows, pod_ips};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use contract_agent::{Command, RemoveHost, command};
use contract_infra::DeleteHostRequest;
use jobs::Claim;
use model::HostId;
use model::state::ResourceState;
use rpc::Cx;
use std::time::Duration;

/// How long the agent may take to forget the host.
const FORGET_DEADLINE: Duration = Duration::from_secs(10);

/// Deletes a host. Its agent is told to forget it, and refused should it come back.
pub async fn delete(world: &World, cx: &Cx, r: DeleteHostRequest) -> Result<Success, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let forced = r.forced == Some(true);
    let mut tickets = Vec::new();
    if forced {
        evict::stop_guests(world, id).await?;
        tickets = evict::tickets(world, id).await?;
    }
    let done = jobs::mutate!(world.node.db, cx.caller, "delete-host", |tx| {
        let host = rows::find(&mut *tx, id).await?.filter(|h| h.removed.is_none()).ok_or_else(gone)?;
        if !forced && !matches!(host.resource_state, ResourceState::Maintenance | ResourceState::Disabled) {
            return Err(ApiError::failed(format!(
                "Host {} cannot be deleted as it is not in maintenance mode. Either put the host into maintenance or disable it \
                 (updateHost allocationstate=Disable), or perform a forced deletion.",
                host.uuid
            )));
        }
        jobs::free(tx, &[Claim::Exclusive(format!("host/{id}"))]).await?;
        if forced {
            evict::write_off(world, tx, &cx.caller, &host, &tickets).await?;
        }
        if !rows::remove(tx, id).await? {
            let guests = rows::guests(tx, id).await?;
            return Err(ApiError::failed(format!(
                "Host {} cannot be deleted: {guests} virtual machines are on it. Stop or move them first",
                host.uuid
            )));
        }
        pod_ips::free(tx, &format!("host/{}", host.uuid)).await?;
        Ok(Success { success: true, ..Success::default() })
    })
    .await?;
    world.host_changed(id);
    let (hub, uuid) = (world.hub.clone(), cx.refs.one("id").map(|e| e.uuid.clone()).unwrap_or_default());
    world.node.spawn("forget-host", async move {
        let forget = Command { body: Some(command::Body::RemoveHost(RemoveHost {})) };
        if let Err(error) = hub.execute(HostId(id), None, false, forget, FORGET_DEADLINE).await {
            tracing::info!(host = id, %error, "the agent of a deleted host is told by the replica that has it, or when it connects");
            hub.hurry(&uuid);
        }
    });
    Ok(done)
}
