//! Asks hosts through the orchestrator's internal service, whichever replica holds their line.

use crate::reports::{HostReport, Reports};
use contract::ApiError;
use contract_agent::{Command, DiskState, Inventory, ListDisks, command, outcome};
use contract_infra::ExecuteRequest;
use contract_infra::host_commands_client::HostCommandsClient;
use rpc::PeerChannel;
use std::time::Duration;

/// How long a host may take to tell.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// How much longer the call may take than the host.
const GRACE: Duration = Duration::from_secs(3);
/// Disks of a page.
pub(crate) const DISKS: u32 = 1000;
/// Largest answer: a host with thousands of machines.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// Asks over a channel to the orchestrator.
#[derive(Clone)]
pub struct GrpcReports {
    channel: PeerChannel,
}

impl GrpcReports {
    /// Over this channel, which shows a service's certificate.
    pub fn new(channel: impl Into<PeerChannel>) -> GrpcReports {
        GrpcReports { channel: channel.into() }
    }

    async fn ask(&self, host_id: i64, body: command::Body) -> Result<Option<outcome::Body>, ApiError> {
        let mut client = HostCommandsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT);
        let message = ExecuteRequest {
            host_id,
            command: Some(Command { body: Some(body) }),
            undo: false,
            deadline_millis: u32::try_from(DEADLINE.as_millis()).unwrap_or(u32::MAX),
        };
        let request = rpc::cx::request(&rpc::cx::system_caller(), message);
        match tokio::time::timeout(DEADLINE + GRACE, client.execute(request)).await {
            Ok(answer) => Ok(answer?.into_inner().outcome.and_then(|outcome| outcome.body)),
            Err(_) => Err(ApiError::unavailable("the orchestrator doesn't answer")),
        }
    }
}

#[async_trait::async_trait]
impl Reports for GrpcReports {
    async fn host(&self, host: i64) -> Result<HostReport, ApiError> {
        inventory(self.ask(host, command::Body::Inventory(Inventory {})).await?)
    }

    async fn disks(&self, host: i64, pool: &str, after: &str) -> Result<(Vec<DiskState>, bool), ApiError> {
        disks(self.ask(host, page(pool, after)).await?)
    }
}

/// The question for a page of disks.
pub fn page(pool: &str, after: &str) -> command::Body {
    command::Body::ListDisks(ListDisks { pool_uuid: pool.to_owned(), after: after.to_owned(), limit: DISKS })
}

/// Reads a host's answer.
///
/// # Errors
/// When it is another one.
pub fn inventory(answer: Option<outcome::Body>) -> Result<HostReport, ApiError> {
    match answer {
        Some(outcome::Body::Inventory(report)) => Ok(report),
        other => Err(ApiError::internal(format!("the host answered with {other:?}"))),
    }
}

/// Reads a host's answer about a pool.
///
/// # Errors
/// When it is another one.
pub fn disks(answer: Option<outcome::Body>) -> Result<(Vec<DiskState>, bool), ApiError> {
    match answer {
        Some(outcome::Body::Disks(list)) => Ok((list.disks, list.more)),
        other => Err(ApiError::internal(format!("the host answered with {other:?}"))),
    }
}
