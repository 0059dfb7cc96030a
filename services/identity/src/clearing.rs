//! Giving up what accounts own before they are removed: each thing by its own service's command, in an order in which
//! nothing stands in another's way: virtual machines, then what is left of disks, images and snapshots, then networks, then
//! addresses.
//!
//! Asking twice for the same is harmless, so nothing of this is journaled: a worker that takes the job over asks again for
//! what is still there.

use crate::Identity;
use crate::store::holdings::{self, Kind, Thing};
use contract::ApiError;
use contract_compute::DestroyVirtualMachineRequest;
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use contract_network::ip_addresses_client::IpAddressesClient;
use contract_network::networks_client::NetworksClient;
use contract_network::{DeleteNetworkRequest, DisassociateIpAddressRequest};
use contract_storage::snapshots_client::SnapshotsClient;
use contract_storage::templates_client::TemplatesClient;
use contract_storage::volumes_client::VolumesClient;
use contract_storage::{DeleteIsoRequest, DeleteSnapshotRequest, DeleteTemplateRequest, DeleteVolumeRequest};
use futures::stream::{self, StreamExt};
use rpc::cx::{request, system_caller};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Between looks at what is left.
const LOOK: Duration = Duration::from_millis(300);
/// What was refused is asked for again after this.
const REFUSED: Duration = Duration::from_secs(2);
/// What was accepted, and is still there, after this.
const ACCEPTED: Duration = Duration::from_secs(30);
/// How long a service may take to answer: it only accepts.
const ANSWER: Duration = Duration::from_secs(30);
/// Requests at a time.
const AT_ONCE: usize = 8;

/// Gives up all that the accounts own, and waits until it is gone. Whoever waits needs no worker's place
/// ([`jobs::Ctx::idle`]).
///
/// # Errors
/// 530 with what is left, and why the last of it is, when nothing has gone for as long as the service is patient.
pub(crate) async fn clear(world: &Identity, accounts: &[i64], whose: &str) -> Result<(), ApiError> {
    let mut next: HashMap<String, Instant> = HashMap::new();
    let mut refusal: Option<ApiError> = None;
    let (mut least, mut since) = (i64::MAX, Instant::now());
    loop {
        let left = match look(world, accounts).await {
            Ok(left) if left.counts.is_empty() => return Ok(()),
            Ok(left) => left,
            Err(error) if since.elapsed() > world.patience => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "what is left of accounts can't be read");
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        let all = left.counts.iter().map(|(_, count)| count).sum();
        if all < least {
            (least, since) = (all, Instant::now());
        }
        if since.elapsed() > world.patience {
            return Err(holdings_left(&left.counts, whose, refusal.as_ref()));
        }
        let now = Instant::now();
        let due = left.things.into_iter().filter(|thing| next.get(&thing.uuid).is_none_or(|at| *at <= now));
        let asked: Vec<(String, Result<(), ApiError>)> = stream::iter(due)
            .map(|thing| async move {
                let limit = world.patience.min(ANSWER);
                let answer = tokio::time::timeout(limit, give_up(world, &thing)).await;
                (thing.uuid, answer.unwrap_or_else(|_| Err(ApiError::unavailable("its service doesn't answer"))))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (uuid, answer) in asked {
            let again = match answer {
                Ok(()) => ACCEPTED,
                Err(error) => {
                    tracing::debug!(uuid, %error, "not given up yet");
                    refusal = Some(error);
                    REFUSED
                }
            };
            next.insert(uuid, Instant::now() + again);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What accounts still own.
struct Left {
    counts: Vec<(&'static str, i64)>,
    /// Whose turn it is.
    things: Vec<Thing>,
}

async fn look(world: &Identity, accounts: &[i64]) -> Result<Left, ApiError> {
    let db = &world.node.db;
    let counts = holdings::of_accounts(db, &world.tables, accounts).await?;
    let mut things = holdings::disposable(db, &world.tables, accounts).await?;
    let any = |kind: Kind| counts.iter().any(|(name, _)| *name == kind.name());
    let (vms, networks) = (any(Kind::Vm), any(Kind::Network));
    things.retain(|thing| match thing.kind {
        Kind::Network => !vms,
        Kind::IpAddress => !vms && !networks,
        Kind::Vm | Kind::Volume | Kind::Template | Kind::Iso | Kind::Snapshot => true,
    });
    Ok(Left { counts, things })
}

/// The error that says what stays.
pub(crate) fn holdings_left(left: &[(&'static str, i64)], whose: &str, refusal: Option<&ApiError>) -> ApiError {
    let left: Vec<String> = left.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let text = format!("Can't delete {whose}: it still owns {}", left.join(", "));
    match refusal {
        Some(error) => ApiError::failed(format!("{text}. The last that was refused: {}", error.text)),
        None => ApiError::failed(text),
    }
}

/// Asks its service to end a thing: accepted isn't done.
async fn give_up(world: &Identity, thing: &Thing) -> Result<(), ApiError> {
    let (caller, id) = (system_caller(), Some(thing.uuid.clone()));
    let peers = &world.node.peers;
    match thing.kind {
        Kind::Vm => {
            let wish = DestroyVirtualMachineRequest { id, expunge: Some(true), custom_job_id: None };
            VirtualMachinesClient::new(peers.orchestrator()).destroy(request(&caller, wish)).await.map(drop)
        }
        Kind::Volume => {
            VolumesClient::new(peers.storage()).delete(request(&caller, DeleteVolumeRequest { id })).await.map(drop)
        }
        Kind::Snapshot => {
            let wish = DeleteSnapshotRequest { id, custom_job_id: None };
            SnapshotsClient::new(peers.storage()).delete(request(&caller, wish)).await.map(drop)
        }
        Kind::Template => {
            let wish = DeleteTemplateRequest { id, forced: Some(true), ..DeleteTemplateRequest::default() };
            TemplatesClient::new(peers.storage()).delete(request(&caller, wish)).await.map(drop)
        }
        Kind::Iso => {
            let wish = DeleteIsoRequest { id, ..DeleteIsoRequest::default() };
            TemplatesClient::new(peers.storage()).delete_iso(request(&caller, wish)).await.map(drop)
        }
        Kind::Network => {
            let wish = DeleteNetworkRequest { id, ..DeleteNetworkRequest::default() };
            NetworksClient::new(peers.network()).delete(request(&caller, wish)).await.map(drop)
        }
        Kind::IpAddress => {
            let wish = DisassociateIpAddressRequest { id, custom_job_id: None };
            IpAddressesClient::new(peers.network()).disassociate(request(&caller, wish)).await.map(drop)
        }
    }
    .map_err(ApiError::from)
}
