//! What hosts are told, through whichever replica of the orchestrator holds their connection.

use contract::ApiError;
use contract::api::Caller;
use contract_agent::{Command, Outcome, command, outcome};
use contract_infra::ExecuteRequest;
use contract_infra::host_commands_client::HostCommandsClient;
use jobs::StepKey;
use rpc::PeerChannel;
use std::time::Duration;

/// Longest that a host may take to make, resize or delete a disk: copying a template takes its time.
const DEADLINE: Duration = Duration::from_secs(100);

/// An order that isn't an effect of a job: it may be given again and again, to whichever host.
#[derive(Clone, Debug)]
pub struct Tell {
    /// The host.
    pub host: i64,
    /// What it is to do.
    pub body: command::Body,
    /// How long it may take to answer.
    pub deadline: Duration,
}

/// The way to hosts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hosts {
    client: HostCommandsClient<PeerChannel>,
}

impl Hosts {
    /// Through the orchestrator's channel.
    pub fn new(orchestrator: PeerChannel) -> Hosts {
        Hosts { client: HostCommandsClient::new(orchestrator) }
    }

    /// Lets a host do `body` and waits for the outcome. With a key a repeat has no second effect, and an undo that comes
    /// first wins.
    ///
    /// # Errors
    /// 534 when the host isn't connected or doesn't answer in time; what it answered when it failed.
    pub async fn tell(
        &self,
        caller: &Caller,
        key: Option<&StepKey>,
        host: i64,
        body: command::Body,
    ) -> Result<Outcome, ApiError> {
        let undo = key.is_some_and(StepKey::is_undo);
        let mut request = rpc::cx::request(caller, order(host, body, undo, DEADLINE));
        if let Some(key) = key {
            key.attach(&mut request);
        }
        let answer = self.client.clone().execute(request).await?.into_inner();
        answer.outcome.ok_or_else(|| ApiError::internal(format!("host {host} answered without an outcome")))
    }

    /// Lets a host do what has no key, within its own time.
    ///
    /// # Errors
    /// As [`Hosts::tell`].
    pub async fn ask(&self, caller: &Caller, tell: Tell) -> Result<Outcome, ApiError> {
        let request = rpc::cx::request(caller, order(tell.host, tell.body, false, tell.deadline));
        let answer = self.client.clone().execute(request).await?.into_inner();
        answer.outcome.ok_or_else(|| ApiError::internal(format!("host {} answered without an outcome", tell.host)))
    }

    /// [`Hosts::tell`] as a step of a job.
    ///
    /// # Errors
    /// As [`Hosts::tell`].
    pub async fn step(&self, call: &jobs::Call, host: i64, body: command::Body) -> Result<Outcome, ApiError> {
        let request = call.request(order(host, body, call.is_undo(), DEADLINE));
        let answer = self.client.clone().execute(request).await?.into_inner();
        answer.outcome.ok_or_else(|| ApiError::internal(format!("host {host} answered without an outcome")))
    }
}

fn order(host: i64, body: command::Body, undo: bool, deadline: Duration) -> ExecuteRequest {
    ExecuteRequest {
        host_id: host,
        command: Some(Command { body: Some(body) }),
        undo,
        deadline_millis: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
    }
}

/// Capacity and use of a pool, from the outcome of `EnsurePool`.
pub fn pool_facts(outcome: &Outcome) -> Option<(i64, i64)> {
    match &outcome.body {
        Some(outcome::Body::Pool(facts)) => Some((signed(facts.capacity), signed(facts.used))),
        _ => None,
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes as agents take them.
pub fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}
