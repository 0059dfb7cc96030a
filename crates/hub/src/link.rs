//! One agent's line: orders down, answers matched with them.

use crate::metrics;
use contract::ApiError;
use contract_agent::{
    AgentKind, Answer, Command, Execute, Hello, HostFacts, HubMessage, Outcome, hub_message, protocol,
};
use jobs::StepKey;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Orders under way on one line. More of them wait with the caller, so that a stuck agent costs bounded memory.
const UNDER_WAY: usize = 4096;

/// What goes down a line.
pub(crate) type Outbound = mpsc::UnboundedSender<Result<HubMessage, Status>>;

/// An order for a host; for the agent itself when `host` is empty.
pub(crate) struct Order<'k> {
    pub host: String,
    pub conn_epoch: i64,
    pub key: Option<&'k StepKey>,
    pub undo: bool,
    pub command: Command,
}

/// A stream that an agent holds open.
pub(crate) struct Link {
    /// Unique in this process.
    pub id: u64,
    /// The agent.
    pub agent: String,
    /// What it stands for.
    pub kind: AgentKind,
    /// The agent's version, for people.
    pub version: String,
    /// The protocol that is spoken.
    pub protocol: u32,
    out: Outbound,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
    places: Semaphore,
    closed: CancellationToken,
}

static LINKS: AtomicU64 = AtomicU64::new(1);

impl Link {
    /// The line of an agent whose hello was accepted.
    pub fn new(hello: &Hello, kind: AgentKind, protocol: u32, out: Outbound) -> Link {
        Link {
            id: LINKS.fetch_add(1, Ordering::Relaxed),
            agent: hello.agent_uuid.clone(),
            kind,
            version: hello.version.clone(),
            protocol,
            out,
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            places: Semaphore::new(UNDER_WAY),
            closed: CancellationToken::new(),
        }
    }

    /// A host's version is what its agent's hello said.
    pub fn sign(&self, facts: &mut HostFacts) {
        if !self.version.is_empty() {
            facts.agent_version.clone_from(&self.version);
        }
    }

    /// Sends a message that has no answer. Whether the line was open.
    pub fn tell(&self, body: hub_message::Body) -> bool {
        self.out.send(Ok(HubMessage { body: Some(body) })).is_ok()
    }

    /// Ends the stream with an error for the agent.
    pub fn fail(&self, status: Status) {
        // An error means that the stream is gone already.
        let _ = self.out.send(Err(status));
        self.close();
    }

    /// Everybody who waits for an answer hears that none will come.
    pub fn close(&self) {
        self.closed.cancel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the line is gone.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Sends an order and waits for the answer.
    pub async fn call(&self, order: Order<'_>, deadline: Duration) -> Result<Outcome, ApiError> {
        let begun = tokio::time::Instant::now();
        let result = self.send_and_wait(order, deadline).await;
        let what = match &result {
            Ok(_) => "done",
            Err(error) if error.code == 534 => "unavailable",
            Err(_) => "refused",
        };
        metrics::order(what, begun.elapsed());
        result
    }

    async fn send_and_wait(&self, order: Order<'_>, deadline: Duration) -> Result<Outcome, ApiError> {
        let whom = if order.host.is_empty() { format!("agent {}", self.agent) } else { format!("host {}", order.host) };
        let needs = protocol::needs(&order.command);
        if needs > self.protocol {
            let (name, version, spoken) = (protocol::name(&order.command), &self.version, self.protocol);
            return Err(ApiError::unsupported(format!(
                "{whom} can't do {name}, which needs protocol {needs}: its agent (version {version:?}) speaks {spoken}. \
                 Upgrade the agent"
            )));
        }
        let answer = tokio::select! {
            answer = tokio::time::timeout(deadline, self.exchange(order, deadline)) => answer,
            () = self.closed.cancelled() => {
                return Err(ApiError::unavailable(format!("the connection with {whom} was lost before it answered")));
            }
        };
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                return Err(ApiError::unavailable(format!("the connection with {whom} was lost before it answered")));
            }
            Err(_) => {
                return Err(ApiError::unavailable(format!(
                    "{whom} didn't answer within {:.1} s: the effect is unknown",
                    deadline.as_secs_f64()
                )));
            }
        };
        match (answer.error, answer.outcome) {
            (Some(error), _) => Err(error.into()),
            (None, Some(Outcome { body: None })) => Err(ApiError::unsupported(format!(
                "{whom} answered with something that this control plane doesn't know: its agent (version {:?}) is newer",
                self.version
            ))),
            (None, Some(outcome)) => Ok(outcome),
            (None, None) => Err(ApiError::internal(format!("{whom} answered with nothing"))),
        }
    }

    async fn exchange(&self, order: Order<'_>, deadline: Duration) -> Option<Answer> {
        let begun = tokio::time::Instant::now();
        let _place = self.places.acquire().await.ok()?;
        let request_id = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(request_id, send);
        let _forget = Forget { link: self, request_id };
        let left = deadline.saturating_sub(begun.elapsed());
        let execute = Execute {
            request_id,
            host_uuid: order.host,
            conn_epoch: order.conn_epoch,
            job_id: order.key.map_or(0, StepKey::job),
            step: order.key.map(|k| k.step().to_owned()).unwrap_or_default(),
            job_epoch: order.key.map_or(0, StepKey::epoch),
            undo: order.undo || order.key.is_some_and(StepKey::is_undo),
            needs: protocol::needs(&order.command),
            command: Some(order.command),
            trace_parent: trace_parent(),
            deadline_millis: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        };
        if !self.tell(hub_message::Body::Execute(execute)) {
            return None;
        }
        answer.await.ok()
    }

    /// Hands an answer to whoever waits for it. Late ones are dropped: their caller has given up.
    pub fn answered(&self, answer: Answer) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&answer.request_id);
        match waiting {
            Some(waiting) => drop(waiting.send(answer)),
            None => tracing::debug!(agent = self.agent, request = answer.request_id, "an answer came too late"),
        }
    }
}

/// The trace that the order belongs to; empty when none is exported.
fn trace_parent() -> String {
    let mut metadata = MetadataMap::new();
    telemetry::propagate::inject(&mut metadata);
    metadata.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Takes a request out of the table when its caller is gone.
struct Forget<'l> {
    link: &'l Link,
    request_id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.link.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.request_id);
    }
}
