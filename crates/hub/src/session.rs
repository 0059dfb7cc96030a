//! One agent's stream, from hello to its end.

use crate::Hub;
use crate::event::HostEvent;
use crate::link::{Link, Outbound};
use crate::registrar::{Join, Leave};
use crate::timing::Watched;
use contract::ApiError;
use contract_agent::protocol::Spoken;
use contract_agent::{AgentKind, AgentMessage, Hello, HostUp, Pulse, agent_message, hub_message};
use model::state::HostStatus;
use rpc::Peer;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Status, Streaming};

/// How long an agent may take to say hello.
const HELLO: Duration = Duration::from_secs(10);

const ISLAND: &str = "this replica is cut off from the others: try another one";

/// Who holds the stream.
pub(crate) struct Party {
    pub peer: Peer,
    /// Number of the certificate that it showed.
    pub serial: Option<String>,
}

/// Why a stream ended.
struct End {
    status: HostStatus,
    reason: String,
}

/// Serves a stream until it ends, then marks its hosts.
pub(crate) async fn serve(hub: Hub, party: Party, mut inbound: Streaming<AgentMessage>, out: Outbound) {
    let hello = match tokio::time::timeout(HELLO, inbound.message()).await {
        Ok(Ok(Some(AgentMessage { body: Some(agent_message::Body::Hello(hello)) }))) => hello,
        Ok(Ok(None) | Err(_)) => return,
        Ok(Ok(Some(_))) | Err(_) => {
            // An error means that the stream is gone already.
            let _ = out.send(Err(Status::invalid_argument("a stream begins with hello")));
            return;
        }
    };
    if *hub.0.island.borrow() {
        // An error means that the stream is gone already.
        let _ = out.send(Err(Status::unavailable(ISLAND)));
        return;
    }
    let link = match admit(&hub, &party, &hello, out.clone()).await {
        Ok(link) => Arc::new(link),
        Err(error) => {
            let _ = out.send(Err(error.into()));
            return;
        }
    };
    let joined = hub.0.registrar.join(Join {
        link: link.clone(),
        hosts: permitted(&link, hello.hosts),
        hello: Some(hub.timing()),
    });
    if let Err(error) = joined.await {
        link.fail(error.into());
    } else {
        let (kind, version, protocol) = (link.kind, &link.version, link.protocol);
        tracing::info!(agent = link.agent, ?kind, version, protocol, "an agent connected");
        let mut session = Session {
            hub: hub.clone(),
            link: link.clone(),
            silent: HashMap::new(),
            dead: HashSet::new(),
            watched: Watched::new(),
            seen: Duration::ZERO,
            heard: Duration::ZERO,
        };
        let end = session.run(&party, &mut inbound).await;
        tracing::info!(agent = link.agent, reason = end.reason, "an agent went away");
        link.close();
        let leave = Leave { link: link.clone(), hosts: None, status: end.status, reason: end.reason };
        hub.0.registrar.leave(leave).await;
    }
}

/// Checks that the agent is who it says and may be what it says.
async fn admit(hub: &Hub, party: &Party, hello: &Hello, out: Outbound) -> Result<Link, ApiError> {
    let kind = match &party.peer {
        // A part of this very process.
        Peer::InProcess => hello.kind(),
        Peer::Host(uuid) if *uuid == hello.agent_uuid => match hub.0.pki.agent(uuid).await?.kind {
            pki::AgentKind::Host => AgentKind::Host,
            pki::AgentKind::Factory => AgentKind::Factory,
        },
        _ => return Err(ApiError::unauthenticated("an agent must show its own certificate: enrol it first")),
    };
    if kind != hello.kind() || kind == AgentKind::Unspecified {
        return Err(ApiError::permission(format!("this agent was enrolled as {kind:?}")));
    }
    let theirs = Spoken::told(hello.protocol, hello.oldest_protocol);
    match hub.0.speaks.common(theirs) {
        Some(protocol) => Ok(Link::new(hello, kind, protocol, out)),
        None => Err(misfit(hub, hello, kind, theirs)),
    }
}

/// Leaves an agent outside that nothing can be agreed with, and tells people.
fn misfit(hub: &Hub, hello: &Hello, kind: AgentKind, theirs: Spoken) -> ApiError {
    let (agent, version, ours) = (&hello.agent_uuid, &hello.version, hub.0.speaks);
    let remedy = if theirs.newest < ours.oldest { "upgrade the agent" } else { "upgrade the control plane first" };
    let reason = format!(
        "the agent (version {version:?}) speaks protocol {theirs}, the control plane (version {:?}) {ours}: {remedy}",
        env!("CARGO_PKG_VERSION")
    );
    tracing::warn!(agent, reason, "an agent was refused");
    let mut hosts: Vec<String> = hello.hosts.iter().map(|host| host.host_uuid.clone()).collect();
    if kind == AgentKind::Host {
        hosts.retain(|host| host == agent);
    }
    let simulated = kind == AgentKind::Factory;
    let news = HostEvent::Misfit { hosts, simulated, version: version.clone(), reason: reason.clone() };
    let _ = hub.0.events.send(news); // an error means that nobody listens
    ApiError::unsupported(reason)
}

/// The hosts that an agent of this kind may stand for, with the version that it said of itself.
fn permitted(link: &Link, mut hosts: Vec<HostUp>) -> Vec<HostUp> {
    if link.kind == AgentKind::Host {
        hosts.retain(|host| host.host_uuid == link.agent);
    }
    for facts in hosts.iter_mut().filter_map(|host| host.facts.as_mut()) {
        link.sign(facts);
    }
    hosts
}

/// Returns when this replica has become an island.
async fn cut_off(island: &mut watch::Receiver<bool>) {
    if island.wait_for(|island| *island).await.is_err() {
        std::future::pending().await // the hub has ended, and this with it
    }
}

struct Session {
    hub: Hub,
    link: Arc<Link>,
    /// Hosts that the agent says are silent, and since when.
    silent: HashMap<String, Duration>,
    /// Those of them that it says are off.
    dead: HashSet<String>,
    /// Time that this session has watched: by it all silence is measured.
    watched: Watched,
    /// Its last reading.
    seen: Duration,
    /// When the agent was heard last.
    heard: Duration,
}

impl Session {
    async fn run(&mut self, party: &Party, inbound: &mut Streaming<AgentMessage>) -> End {
        let mut revoked = self.hub.0.pki.revoked();
        let stop = self.hub.0.node.stop.clone();
        let link = self.link.clone();
        let mut island = self.hub.0.island.subscribe();
        let is_revoked = |list: &pki::Revoked| party.serial.as_ref().is_some_and(|serial| list.has(serial));
        if is_revoked(&revoked.borrow_and_update()) {
            return self.revoked();
        }
        loop {
            // Read anew each time: the settings may change under a connection that lasts for months.
            let check = (self.hub.timing().silence / 5).max(Duration::from_millis(10));
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        self.seen = self.watched.advance(check);
                        self.heard = self.seen;
                        if let Some(body) = message.body {
                            self.take(body).await;
                        }
                    }
                    Ok(None) => return End { status: HostStatus::Disconnected, reason: "the agent hung up".into() },
                    Err(status) => {
                        let reason = format!("the connection broke: {}", status.message());
                        return End { status: HostStatus::Disconnected, reason };
                    }
                },
                () = tokio::time::sleep(check) => {
                    self.seen = self.watched.advance(check);
                    if let Some(end) = self.listen().await {
                        return end;
                    }
                },
                Ok(()) = revoked.changed() => if is_revoked(&revoked.borrow_and_update()) {
                    return self.revoked();
                },
                () = link.closed() => return End { status: HostStatus::Disconnected, reason: "the line was closed".into() },
                () = cut_off(&mut island) => {
                    link.fail(Status::unavailable(ISLAND));
                    return End { status: HostStatus::Disconnected, reason: "this replica is cut off from etcd".into() };
                }
                () = stop.cancelled() => {
                    link.fail(Status::unavailable("this replica is ending"));
                    return End { status: HostStatus::Disconnected, reason: "this replica is ending".into() };
                }
            }
        }
    }

    fn revoked(&self) -> End {
        self.link.fail(Status::unauthenticated("the agent's certificate was revoked"));
        End { status: HostStatus::Disconnected, reason: "the agent's certificate was revoked".into() }
    }

    async fn take(&mut self, body: agent_message::Body) {
        use agent_message::Body;
        match body {
            Body::Answer(answer) => self.link.answered(answer),
            Body::Beat(beat) => {
                self.link.tell(hub_message::Body::Pulse(Pulse {}));
                let now = self.seen;
                let before = std::mem::take(&mut self.silent);
                self.silent = beat
                    .silent
                    .into_iter()
                    .map(|uuid| {
                        let since = before.get(&uuid).copied().unwrap_or(now);
                        (uuid, since)
                    })
                    .collect();
                self.dead = beat.dead.into_iter().collect();
                self.judge().await;
            }
            Body::HostUp(host) => {
                // What was said of it before is over: else it would be given up the moment it is connected.
                self.silent.remove(&host.host_uuid);
                self.dead.remove(&host.host_uuid);
                self.join(host);
            }
            Body::HostGone(gone) => {
                self.silent.remove(&gone.host_uuid);
                self.leave(vec![gone.host_uuid], HostStatus::Disconnected, "the host said goodbye").await;
            }
            Body::Report(report) => {
                if let Some(host) = self.hub.0.registry.of_link(&report.host_uuid, &self.link) {
                    self.hub.0.registry.reported(&report.host_uuid, report.digest);
                    self.tell(HostEvent::Report { host, vms: Arc::new(report.vms), routers: Arc::new(report.routers) });
                }
            }
            Body::VmEvent(event) => {
                if let Some(host) = self.hub.0.registry.of_link(&event.host_uuid, &self.link)
                    && let Some(state) = event.vm
                {
                    self.tell(HostEvent::Vm { host, state });
                }
            }
            Body::Hello(_) => tracing::warn!(agent = self.link.agent, "a second hello on one stream is ignored"),
        }
    }

    fn tell(&self, event: HostEvent) {
        let _ = self.hub.0.events.send(event); // an error means that nobody listens
    }

    /// Not waited for: answers behind it must not wait for the database.
    fn join(&self, host: HostUp) {
        let hosts = permitted(&self.link, vec![host]);
        let (hub, link) = (self.hub.clone(), self.link.clone());
        self.hub.0.node.spawn("join-host", async move {
            if let Err(error) = hub.0.registrar.join(Join { link: link.clone(), hosts, hello: None }).await {
                // The agent comes back and tries again.
                link.fail(error.into());
            }
        });
    }

    async fn leave(&self, hosts: Vec<String>, status: HostStatus, reason: &str) {
        let leave = Leave { link: self.link.clone(), hosts: Some(hosts), status, reason: reason.to_owned() };
        self.hub.0.registrar.leave(leave).await;
    }

    /// Whether the whole agent has been silent for too long.
    async fn listen(&mut self) -> Option<End> {
        self.judge().await;
        let silence = self.hub.timing().silence;
        if self.seen.saturating_sub(self.heard) < silence {
            return None;
        }
        self.link.fail(Status::deadline_exceeded("no beat came"));
        let reason = format!("the agent was silent for {:.1} s", silence.as_secs_f64());
        Some(End { status: HostStatus::Alert, reason })
    }

    /// Hosts that their own agent hasn't heard for long enough: down when it knows that they are off, else whoever
    /// investigates must find out what they are.
    async fn judge(&mut self) {
        let silence = self.hub.timing().silence;
        let connected = |uuid: &str| self.hub.0.registry.of_link(uuid, &self.link).is_some();
        let long =
            self.silent.iter().filter(|(uuid, since)| self.seen.saturating_sub(**since) >= silence && connected(uuid));
        let (down, lost): (Vec<String>, Vec<String>) =
            long.map(|(uuid, _)| uuid.clone()).partition(|uuid| self.dead.contains(uuid));
        if !down.is_empty() {
            self.leave(down, HostStatus::Down, "its agent knows it to be off").await;
        }
        if !lost.is_empty() {
            self.leave(lost, HostStatus::Alert, "its agent doesn't hear it any more").await;
        }
    }
}
