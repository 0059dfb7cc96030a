//! The line with a hub: one stream, kept as long as the agent runs.

use crate::executor::Executor;
use crate::hypervisor::{Failure, News};
use crate::identity::Known;
use crate::{Says, backoff, console};
use contract::ApiError;
use contract_agent::hub_client::HubClient;
use contract_agent::protocol::{self, Spoken};
use contract_agent::{
    AgentKind, AgentMessage, Answer, Beat, Execute, Hello, HostGone, HubMessage, Nothing, OpenConsole, Outcome,
    RenewCertificate, agent_message, command, hub_message, outcome,
};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tracing::Instrument as _;

/// Orders at the same time.
const UNDER_WAY: usize = 4096;
/// How long a hub may take to answer hello: a thousand others may say it at the same moment.
const WELCOME: Duration = Duration::from_secs(15);
/// How long a hub may take to take a stream: before it says anything, so that a stopped one costs little time.
const TAKEN: Duration = Duration::from_secs(4);
/// How long a host that was just made may take to be accepted.
const ACCEPTANCE: Duration = Duration::from_secs(30);
/// A line that lasted longer was a good one: the next attempt comes soon.
const GOOD: Duration = Duration::from_secs(5);
/// How long an answer may take to go out before its line is cut: to "forget this host", and to "renew and reconnect".
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long orders under way may take when the agent ends.
const LAST_ORDERS: Duration = Duration::from_secs(3);

type Outbound = mpsc::UnboundedSender<Outgoing>;

/// What waits to go up the line.
enum Outgoing {
    Message(Box<agent_message::Body>),
    /// The report of a host, made when the hub is ready to take it.
    Report(String),
}

/// What the hub says of a host.
#[derive(Clone, Debug)]
enum Standing {
    /// Connected; orders must carry this epoch.
    Accepted(i64),
    Refused(String),
}

pub(crate) struct Line {
    executor: Arc<Executor>,
    identity: Arc<Known>,
    says: Arc<Says>,
    orders: TaskTracker,
    places: Arc<Semaphore>,
    forgotten: CancellationToken,
}

/// One stream.
#[derive(Clone)]
struct Stream {
    executor: Arc<Executor>,
    says: Arc<Says>,
    out: Outbound,
    /// Hosts whose report waits in `out`: once each, however often it is asked for, so that a slow hub costs no memory.
    reports: Arc<Mutex<HashSet<String>>>,
    standings: Arc<watch::Sender<HashMap<String, Standing>>>,
    /// The way to this very hub, for what goes beside the stream.
    hub: HubClient<Channel>,
    /// Fires when the one host that this agent stands for was deleted.
    forgotten: CancellationToken,
    /// Fires when the stream is over: what goes beside it ends, too.
    over: CancellationToken,
    /// Gets new certificates.
    identity: Arc<Known>,
    /// Fires when the line is to be made anew.
    hang_up: CancellationToken,
}

impl Line {
    pub fn new(executor: Arc<Executor>, identity: Known, says: Says) -> Line {
        Line {
            executor,
            identity: Arc::new(identity),
            says: Arc::new(says),
            orders: TaskTracker::new(),
            places: Arc::new(Semaphore::new(UNDER_WAY)),
            forgotten: CancellationToken::new(),
        }
    }

    /// Connects until `stop`, or until the state can't be written any more.
    pub async fn keep(self, stop: CancellationToken) -> Result<(), ApiError> {
        let (send, mut news) = mpsc::unbounded_channel();
        self.executor.driver.listen(send);
        let identity = self.identity.clone();
        let result = tokio::select! {
            result = self.reconnect(&mut news) => result,
            () = identity.keep_valid() => Ok(()),
            () = stop.cancelled() => Ok(()),
            () = self.forgotten() => {
                identity.forget();
                Err(ApiError::permission(
                    "this host was deleted, and all that was kept of it is gone: to add the machine anew, start the agent with a \
                     new enrolment token",
                ))
            }
        };
        self.orders.close();
        if tokio::time::timeout(LAST_ORDERS, self.orders.wait()).await.is_err() {
            tracing::warn!(left = self.orders.len(), "orders under way are given up: their effects are unknown");
        }
        result
    }

    /// Returns once the host was deleted and the hub has had a moment to hear the answer.
    async fn forgotten(&self) {
        self.forgotten.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    }

    async fn reconnect(&self, news: &mut mpsc::UnboundedReceiver<News>) -> Result<(), ApiError> {
        let mut waits = backoff::waits();
        // Agents that start together shouldn't all begin with the same hub.
        let first = rand::random_range(0..self.identity.hubs());
        for attempt in first.. {
            let begun = Instant::now();
            match self.connect(attempt, news).await {
                Ok(()) => tracing::info!("the hub hung up"),
                Err(error) => tracing::warn!(%error, "the line with the hub is gone"),
            }
            if self.executor.has_failed() {
                return Err(ApiError::internal("the agent's state can't be written any more"));
            }
            if begun.elapsed() > GOOD {
                waits = backoff::waits();
            }
            tokio::time::sleep(waits.next().unwrap_or(WELCOME)).await;
        }
        Ok(())
    }

    /// One stream, from hello to its end.
    async fn connect(&self, attempt: usize, news: &mut mpsc::UnboundedReceiver<News>) -> Result<(), ApiError> {
        let driver = &self.executor.driver;
        let (out, messages) = mpsc::unbounded_channel();
        let (executor, says) = (self.executor.clone(), self.says.clone());
        let mut hub = self.identity.hub(attempt)?;
        let over = CancellationToken::new();
        let _ends = over.clone().drop_guard();
        let (reports, standings) = Default::default();
        let forgotten = self.forgotten.clone();
        let (identity, hang_up) = (self.identity.clone(), CancellationToken::new());
        let stream =
            Stream { executor, says, out, reports, standings, hub: hub.clone(), forgotten, over, identity, hang_up };
        let outgoing = stream.outgoing(messages);
        stream.say(agent_message::Body::Hello(Hello {
            agent_uuid: self.identity.uuid.clone(),
            kind: driver.kind().into(),
            version: self.says.version.clone(),
            hosts: driver.hosts(),
            protocol: self.says.spoken.newest,
            oldest_protocol: self.says.spoken.oldest,
        }));
        let late = || ApiError::unavailable("the hub doesn't answer hello");
        let attached = tokio::time::timeout(TAKEN, hub.attach(outgoing)).await;
        let mut inbound = attached.map_err(|_| late())??.into_inner();
        let first = tokio::time::timeout(WELCOME, inbound.message()).await.map_err(|_| late())??;
        let Some(HubMessage { body: Some(hub_message::Body::Welcome(welcome)) }) = first else {
            return Err(ApiError::internal("the hub doesn't begin with welcome"));
        };
        let hub = Spoken::told(welcome.protocol, 0);
        let Some(protocol) = self.says.spoken.common(hub) else {
            let (version, ours) = (&self.says.version, self.says.spoken);
            return Err(ApiError::unsupported(format!(
                "the hub speaks protocol {hub}, this agent (version {version:?}) {ours}: upgrade the older of the two"
            )));
        };
        tracing::info!(hosts = welcome.hosts.len(), protocol, "connected with the hub");
        let patience = Duration::from_millis(welcome.patience_millis.into());
        let mut beat = tokio::time::interval(Duration::from_millis(welcome.beat_millis.max(10).into()));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for accepted in welcome.hosts {
            stream.take(hub_message::Body::HostAccepted(accepted));
        }
        self.serve(&stream, &mut inbound, &mut beat, patience, news).await
    }

    async fn serve(
        &self,
        stream: &Stream,
        inbound: &mut Streaming<HubMessage>,
        beat: &mut tokio::time::Interval,
        patience: Duration,
        news: &mut mpsc::UnboundedReceiver<News>,
    ) -> Result<(), ApiError> {
        // Beats that the hub hasn't answered, the first of them since then. Counted in beats too: an agent that stood still
        // itself must not blame the hub.
        let (mut unanswered, mut since) = (0, Instant::now());
        loop {
            tokio::select! {
                biased;
                message = inbound.message() => {
                    unanswered = 0;
                    match message? {
                        Some(HubMessage { body: Some(hub_message::Body::Execute(order)) }) => self.order(stream, order).await,
                        Some(HubMessage { body: Some(body) }) => stream.take(body),
                        Some(HubMessage { body: None }) => {}
                        None => return Ok(()),
                    }
                },
                _ = beat.tick() => {
                    if unanswered == 0 {
                        since = Instant::now();
                    }
                    if unanswered > 1 && !patience.is_zero() && since.elapsed() > patience {
                        return Err(ApiError::unavailable("the hub says nothing any more"));
                    }
                    unanswered += 1;
                    stream.beat();
                    if self.executor.has_failed() {
                        return Err(ApiError::internal("the agent's state can't be written"));
                    }
                },
                Some(news) = news.recv() => stream.tell(news),
                () = stream.hang_up.cancelled() => return Ok(()),
            }
        }
    }

    /// Carries an order out beside the line. It goes on when the line is lost: the same order on the next one finds it.
    async fn order(&self, stream: &Stream, order: Execute) {
        // The semaphore is never closed.
        let Ok(place) = self.places.clone().acquire_owned().await else { return };
        let stream = stream.clone();
        let span = span_of(&order);
        let work = async move {
            let _place = place;
            stream.execute(order).await;
        };
        self.orders.spawn(work.instrument(span));
    }
}

/// The span of an order, in the trace of whoever gave it.
fn span_of(order: &Execute) -> tracing::Span {
    let span = tracing::info_span!("order", host = order.host_uuid, job_id = order.job_id, step = order.step);
    if let Ok(parent) = order.trace_parent.parse() {
        let mut metadata = MetadataMap::new();
        metadata.insert("traceparent", parent);
        telemetry::propagate::follow(&span, &metadata);
    }
    span
}

impl Stream {
    fn say(&self, body: agent_message::Body) {
        let _ = self.out.send(Outgoing::Message(Box::new(body))); // the line is gone: the next one says it anew
    }

    /// What the hub takes, as it takes it.
    fn outgoing(
        &self,
        messages: mpsc::UnboundedReceiver<Outgoing>,
    ) -> impl tokio_stream::Stream<Item = AgentMessage> + Send + 'static {
        // The stream may outlive the agent: it mustn't keep its state file.
        let (reports, executor) = (self.reports.clone(), Arc::downgrade(&self.executor));
        UnboundedReceiverStream::new(messages).filter_map(move |outgoing| {
            let body = match outgoing {
                Outgoing::Message(body) => Some(*body),
                Outgoing::Report(host) => {
                    reports.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
                    executor.upgrade()?.driver.report(&host).map(agent_message::Body::Report)
                }
            };
            body.map(|body| AgentMessage { body: Some(body) })
        })
    }

    fn beat(&self) {
        let standings = self.standings.borrow();
        let accepted = |host: &String| matches!(standings.get(host), Some(Standing::Accepted(_)));
        let (mut silent, mut dead) = (self.executor.driver.silent(), self.executor.driver.dead());
        silent.retain(accepted);
        dead.retain(accepted);
        self.say(agent_message::Body::Beat(Beat { silent, dead }));
        for host in self.executor.driver.changed() {
            if accepted(&host) {
                self.report(&host);
            }
        }
    }

    fn take(&self, body: hub_message::Body) {
        use hub_message::Body;
        match body {
            Body::HostAccepted(host) => {
                let standing = Standing::Accepted(host.conn_epoch);
                self.standings.send_modify(|all| drop(all.insert(host.host_uuid.clone(), standing)));
                if host.want_report {
                    self.report(&host.host_uuid);
                }
            }
            Body::Refused(refused) => {
                tracing::warn!(host = refused.host_uuid, reason = refused.reason, "the hub refuses a host");
                if refused.forget {
                    self.executor.forget(&refused.host_uuid);
                    self.forgotten_for_good();
                }
                let standing = Standing::Refused(refused.reason);
                self.standings.send_modify(|all| drop(all.insert(refused.host_uuid, standing)));
            }
            Body::Ask(ask) => self.report(&ask.host_uuid),
            // Orders are taken by the line, any message is a pulse, and a second welcome means nothing.
            Body::Execute(_) | Body::Welcome(_) | Body::Pulse(_) => {}
        }
    }

    fn report(&self, host: &str) {
        if self.reports.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned()) {
            let _ = self.out.send(Outgoing::Report(host.to_owned())); // the line is gone: the next one asks anew
        }
    }

    fn tell(&self, news: News) {
        match news {
            News::Vm(event) => self.say(agent_message::Body::VmEvent(event)),
            News::HostUp(host) => self.announce(&host),
        }
    }

    fn announce(&self, host: &str) {
        if let Some(up) = self.executor.driver.host(host) {
            self.say(agent_message::Body::HostUp(up));
        }
    }

    async fn execute(&self, order: Execute) {
        let request_id = order.request_id;
        let removed =
            matches!(order.command.as_ref().and_then(|c| c.body.as_ref()), Some(command::Body::RemoveHost(_)));
        let host = order.host_uuid.clone();
        let anew = matches!(
            order.command.as_ref().and_then(|c| c.body.as_ref()),
            Some(command::Body::RenewCertificate(RenewCertificate { reconnect: true }))
        );
        let answer = match self.obey(order).await {
            Ok(outcome) => Answer { request_id, outcome: Some(outcome), error: None },
            Err(Failure::Refused(error)) => Answer { request_id, outcome: None, error: Some(error.to_detail()) },
            Err(Failure::Silent) => return,
        };
        let (gone, anew) = (removed && answer.error.is_none(), anew && answer.error.is_none());
        self.say(agent_message::Body::Answer(answer));
        if anew {
            tokio::time::sleep(LAST_WORDS).await;
            self.hang_up.cancel();
        }
        if gone {
            self.standings.send_modify(|all| drop(all.remove(&host)));
            self.say(agent_message::Body::HostGone(HostGone { host_uuid: host }));
            self.forgotten_for_good();
        }
    }

    /// An agent that stands for its machine has nothing to stand for any more; a factory has its other hosts.
    fn forgotten_for_good(&self) {
        if self.executor.driver.kind() == AgentKind::Host {
            self.forgotten.cancel();
        }
    }

    async fn obey(&self, order: Execute) -> Result<Outcome, Failure> {
        self.check_meaning(&order)?;
        if order.host_uuid.is_empty() {
            let spawned = match order.command.as_ref().and_then(|c| c.body.as_ref()) {
                Some(command::Body::SpawnHost(spec)) => Some(spec.host_uuid.clone()),
                _ => None,
            };
            let outcome = self.executor.execute(order).await?;
            if let Some(host) = spawned {
                self.await_acceptance(&host).await?;
            }
            return Ok(outcome);
        }
        self.check_route(&order)?;
        if let Some(command::Body::OpenConsole(open)) = order.command.as_ref().and_then(|c| c.body.as_ref()) {
            return self.open_console(&order.host_uuid, open).await;
        }
        if let Some(command::Body::RenewCertificate(_)) = order.command.as_ref().and_then(|c| c.body.as_ref()) {
            self.identity.renew_now().await?;
            return Ok(Outcome { body: Some(outcome::Body::Nothing(Nothing {})) });
        }
        self.executor.execute(order).await
    }

    async fn open_console(&self, host: &str, open: &OpenConsole) -> Result<Outcome, Failure> {
        let endpoint = self.executor.console(host, &open.vm_uuid).await?;
        console::open(endpoint, self.hub.clone(), open.tunnel.clone(), self.over.clone()).await?;
        Ok(Outcome { body: Some(outcome::Body::Nothing(Nothing {})) })
    }

    /// Refuses orders that would be done only in part: fields that this build doesn't know are passed over.
    fn check_meaning(&self, order: &Execute) -> Result<(), ApiError> {
        let (version, newest) = (&self.says.version, self.says.spoken.newest);
        if order.needs <= newest {
            return Ok(());
        }
        let name = order.command.as_ref().map_or("the order", protocol::name);
        Err(ApiError::unsupported(format!(
            "{name} needs protocol {}, and this agent (version {version:?}) speaks {newest}: upgrade the agent",
            order.needs
        )))
    }

    /// Refuses orders that came by a route that isn't the host's any more.
    fn check_route(&self, order: &Execute) -> Result<(), ApiError> {
        match self.standings.borrow().get(&order.host_uuid) {
            Some(Standing::Accepted(epoch)) if *epoch == order.conn_epoch => Ok(()),
            Some(Standing::Accepted(epoch)) => Err(ApiError::concurrent(format!(
                "the order came by connection {} of the host, but {epoch} counts",
                order.conn_epoch
            ))),
            Some(Standing::Refused(reason)) => {
                Err(ApiError::unavailable(format!("the host isn't connected: {reason}")))
            }
            None => Err(ApiError::unavailable("the host isn't connected by this agent")),
        }
    }

    /// A host that was just made is connected before its maker gets the answer.
    async fn await_acceptance(&self, host: &str) -> Result<(), ApiError> {
        let mut standings = self.standings.subscribe();
        if !matches!(standings.borrow().get(host), Some(Standing::Accepted(_))) {
            self.standings.send_modify(|all| drop(all.remove(host)));
            self.announce(host);
        }
        let standing = tokio::time::timeout(ACCEPTANCE, standings.wait_for(|all| all.contains_key(host))).await;
        let standing = match standing {
            Ok(Ok(all)) => all.get(host).cloned(),
            Ok(Err(_)) | Err(_) => None,
        };
        match standing {
            Some(Standing::Accepted(_)) => Ok(()),
            Some(Standing::Refused(reason)) => Err(ApiError::failed(format!("The new host was refused: {reason}"))),
            None => Err(ApiError::unavailable("the new host wasn't accepted in time")),
        }
    }
}
