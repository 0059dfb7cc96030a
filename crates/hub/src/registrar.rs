//! The one writer of this replica's connections: what waits goes into one transaction.

use crate::event::HostEvent;
use crate::link::Link;
use crate::registry::{Connected, Registry};
use crate::timing::Timing;
use crate::{metrics, store, waiting};
use ::store::Db;
use contract::ApiError;
use contract_agent::{AgentKind, HostAccepted, HostUp, Refused, Welcome, hub_message};
use coord::Coord;
use model::HostId;
use model::state::HostStatus;
use node::Node;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most requests of one transaction.
const BATCH: usize = 256;
/// More hosts than this are announced as "all".
const SINGLE_NOTICES: usize = 64;
/// The hypervisor that factories may stand for.
const SIMULATOR: &str = "Simulator";
/// How long lines may take to say goodbye when the replica ends.
const GOODBYE: Duration = Duration::from_secs(3);

/// Hosts that a line brings.
pub(crate) struct Join {
    pub link: Arc<Link>,
    pub hosts: Vec<HostUp>,
    /// How often the agent is to beat and how long to be patient, when this is its hello.
    pub hello: Option<Timing>,
}

/// Hosts that went away.
pub(crate) struct Leave {
    pub link: Arc<Link>,
    /// None: all of the line's.
    pub hosts: Option<Vec<String>>,
    pub status: HostStatus,
    pub reason: String,
}

enum Request {
    Join(Join, oneshot::Sender<Result<(), ApiError>>),
    Leave(Leave, oneshot::Sender<()>),
}

/// The way to the registrar.
pub(crate) struct Registrar(mpsc::Sender<Request>);

struct Work {
    db: Db,
    coord: Coord,
    replica: String,
    registry: Arc<Registry>,
    events: broadcast::Sender<HostEvent>,
}

impl Registrar {
    /// Ends after the last of `sessions`, once the node stops.
    pub fn start(
        node: &Node,
        registry: Arc<Registry>,
        events: broadcast::Sender<HostEvent>,
        sessions: TaskTracker,
    ) -> Registrar {
        let (send, requests) = mpsc::channel(BATCH * 4);
        let work =
            Work { db: node.db.clone(), coord: node.coord.clone(), replica: node.replica.clone(), registry, events };
        // Not `Node::spawn`, which ends at once: the goodbyes of the lines are still to be written then.
        node.tasks.spawn(work.run(requests, node.stop.clone(), sessions));
        Registrar(send)
    }

    /// Connects hosts. When it returns, the agent has been told, and commands may be sent.
    pub async fn join(&self, join: Join) -> Result<(), ApiError> {
        let (send, done) = oneshot::channel();
        let ended = || ApiError::unavailable("this replica is ending");
        self.0.send(Request::Join(join, send)).await.map_err(|_| ended())?;
        done.await.map_err(|_| ended())?
    }

    /// Disconnects hosts.
    pub async fn leave(&self, leave: Leave) {
        let (send, done) = oneshot::channel();
        if self.0.send(Request::Leave(leave, send)).await.is_ok() {
            // An error means that the replica ended: the watch will find the hosts.
            let _ = done.await;
        }
    }
}

impl Work {
    async fn run(self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken, sessions: TaskTracker) {
        let mut waiting = Vec::with_capacity(BATCH);
        let end = async {
            stop.cancelled().await;
            sessions.close();
            let _ = tokio::time::timeout(GOODBYE, sessions.wait()).await; // too late: the watch finds their hosts
        };
        tokio::pin!(end);
        loop {
            let got = tokio::select! {
                got = requests.recv_many(&mut waiting, BATCH) => got,
                () = &mut end => return,
            };
            if got == 0 {
                return;
            }
            let mut joins = Vec::new();
            let mut leaves = Vec::new();
            let mut named = HashSet::new();
            for request in waiting.drain(..) {
                // Kept in order: a run of one kind is one transaction, and no host is in it twice.
                match request {
                    Request::Join(join, done) => {
                        self.leave(std::mem::take(&mut leaves)).await;
                        if join.hosts.iter().any(|h| named.contains(&h.host_uuid)) {
                            named.clear();
                            self.join(std::mem::take(&mut joins)).await;
                        }
                        named.extend(join.hosts.iter().map(|h| h.host_uuid.clone()));
                        joins.push((join, done));
                    }
                    Request::Leave(leave, done) => {
                        named.clear();
                        self.join(std::mem::take(&mut joins)).await;
                        leaves.push((leave, done));
                    }
                }
            }
            self.join(joins).await;
            self.leave(leaves).await;
            metrics::connected(self.registry.len());
        }
    }

    async fn join(&self, joins: Vec<(Join, oneshot::Sender<Result<(), ApiError>>)>) {
        if joins.is_empty() {
            return;
        }
        match self.connect(&joins).await {
            Ok((claimed, epochs)) => {
                let mut ids = Vec::new();
                for (join, done) in joins {
                    ids.extend(self.accept(&join, &claimed, &epochs));
                    let _ = done.send(Ok(())); // an error means that the line is gone: its end comes next
                }
                self.announce(&ids);
            }
            Err(error) => {
                for (_, done) in joins {
                    let _ = done.send(Err(error.clone()));
                }
            }
        }
    }

    async fn connect(
        &self,
        joins: &[(Join, oneshot::Sender<Result<(), ApiError>>)],
    ) -> Result<(HashMap<String, store::Claimed>, HashMap<HostId, i64>), ApiError> {
        let mut wanted = Vec::new();
        for (join, _) in joins {
            wanted.extend(join.hosts.iter().map(|host| (join.link.clone(), host.clone())));
        }
        let uuids: Vec<String> = wanted.iter().map(|(_, host)| host.host_uuid.clone()).collect();
        if uuids.is_empty() {
            return Ok(Default::default());
        }
        ::store::tx!(self.db, "connect-hosts", |tx| {
            let claimed = store::find(tx, &uuids).await?;
            let mut ids = Vec::with_capacity(wanted.len());
            for (link, host) in &wanted {
                let machine = link.kind == AgentKind::Host;
                match claimed.get(&host.host_uuid) {
                    None if machine => waiting::note(tx, &self.replica, host).await?,
                    None => {}
                    Some(claim) => {
                        if machine {
                            waiting::take_waiting(tx, &host.host_uuid).await?;
                        }
                        if refusal(link, claim).is_none() {
                            ids.push(claim.id);
                        }
                    }
                }
            }
            let epochs = store::connect(tx, &ids, &self.replica).await?;
            Ok::<_, ApiError>((claimed, epochs))
        })
        .await
    }

    /// Tells the agent, then lets commands through: in this order, or a command could come before its `conn_epoch`.
    fn accept(
        &self,
        join: &Join,
        claimed: &HashMap<String, store::Claimed>,
        epochs: &HashMap<HostId, i64>,
    ) -> Vec<HostId> {
        let link = &join.link;
        let mut accepted = Vec::new();
        let mut refused = Vec::new();
        let mut connected = Vec::new();
        for host in &join.hosts {
            let uuid = &host.host_uuid;
            let waits = link.kind == AgentKind::Host && !claimed.contains_key(uuid);
            if waits {
                self.registry.wait(link, host);
            } else {
                self.registry.end_wait(uuid);
            }
            let refusal = match claimed.get(uuid) {
                None if waits => Some((to_be_added(host), false)),
                None => Some(("no such host was added".to_owned(), false)),
                Some(claim) => refusal(link, claim),
            };
            let found = claimed.get(uuid).and_then(|c| epochs.get(&c.id).map(|e| (c.id, *e)));
            match (refusal, found) {
                (None, Some((id, conn_epoch))) => {
                    let want_report = !self.registry.knows_report(uuid, &host.digest);
                    accepted.push(HostAccepted { host_uuid: uuid.clone(), conn_epoch, want_report });
                    connected.push((Connected { id, uuid: uuid.clone(), conn_epoch, link: link.clone() }, host));
                }
                (refusal, _) => {
                    let (reason, forget) = refusal.unwrap_or_else(|| ("the host was removed".into(), true));
                    refused.push(Refused { host_uuid: uuid.clone(), reason, forget });
                }
            }
        }
        match join.hello {
            Some(timing) => {
                let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
                let (beat_millis, patience_millis) = (millis(timing.beat), millis(timing.patience()));
                let (hosts, protocol) = (accepted, link.protocol);
                link.tell(hub_message::Body::Welcome(Welcome { hosts, beat_millis, patience_millis, protocol }));
            }
            None => {
                for host in accepted {
                    link.tell(hub_message::Body::HostAccepted(host));
                }
            }
        }
        for host in refused {
            tracing::warn!(agent = link.agent, host = host.host_uuid, reason = host.reason, "a host was refused");
            self.registry.forget_report(&host.host_uuid);
            link.tell(hub_message::Body::Refused(host));
        }
        if join.hello.is_some() {
            self.registry.add_factory(link);
        }
        let mut ids = Vec::with_capacity(connected.len());
        for (host, up) in connected {
            let (id, uuid) = (host.id, host.uuid.clone());
            ids.push(id);
            if let Some(before) = self.registry.insert(host)
                && before.link.id != link.id
            {
                let reason = "the host has connected elsewhere".to_owned();
                before.link.tell(hub_message::Body::Refused(Refused { host_uuid: uuid, reason, forget: false }));
            }
            self.tell(HostEvent::Up { host: id, facts: up.facts.clone().unwrap_or_default() });
        }
        ids
    }

    async fn leave(&self, leaves: Vec<(Leave, oneshot::Sender<()>)>) {
        let mut ids = Vec::new();
        for (leave, done) in leaves {
            let gone = self.registry.remove(&leave.link, leave.hosts.as_deref());
            if leave.hosts.is_none() {
                self.registry.remove_factory(&leave.link);
                let waited = self.registry.end_wait_of(&leave.link);
                if let Err(error) = self.forget_waiting(&waited).await {
                    // Another replica finds this one gone, or the agent is back and noted anew.
                    tracing::debug!(%error, "that an agent doesn't wait any more can't be noted");
                }
            }
            let gone: Vec<HostId> = gone.into_iter().map(|h| h.id).collect();
            if let Err(error) = self.disconnect(&gone, leave.status).await {
                // The watch finds them: their rows name a replica that doesn't have them, or that has ended.
                tracing::warn!(%error, hosts = gone.len(), "hosts that went away can't be marked");
            }
            for host in &gone {
                let (host, reason) = (*host, leave.reason.clone());
                self.tell(match leave.status {
                    HostStatus::Down => HostEvent::Down { host, reason },
                    _ => HostEvent::Lost { host, reason },
                });
            }
            ids.extend(gone);
            let _ = done.send(());
        }
        self.announce(&ids);
    }

    async fn forget_waiting(&self, agents: &[String]) -> Result<(), ApiError> {
        if agents.is_empty() {
            return Ok(());
        }
        ::store::tx!(self.db, "forget-waiting", |tx| {
            waiting::forget(tx, &self.replica, Some(agents)).await?;
            Ok::<_, ApiError>(())
        })
        .await
    }

    async fn disconnect(&self, ids: &[HostId], status: HostStatus) -> Result<(), ApiError> {
        if ids.is_empty() {
            return Ok(());
        }
        ::store::tx!(self.db, "disconnect-hosts", |tx| {
            store::disconnect(tx, ids, &self.replica, status).await?;
            Ok::<_, ApiError>(())
        })
        .await
    }

    fn announce(&self, ids: &[HostId]) {
        announce(&self.coord, ids);
    }

    fn tell(&self, event: HostEvent) {
        let _ = self.events.send(event); // an error means that nobody listens
    }
}

/// Tells the placement of all replicas that hosts changed.
pub(crate) fn announce(coord: &Coord, ids: &[HostId]) {
    if ids.len() > SINGLE_NOTICES {
        coord.publish("placement", "all");
    } else {
        for id in ids {
            coord.publish("placement", &format!("host/{id}"));
        }
    }
}

/// What the agent of a machine hears that no host was added for.
fn to_be_added(host: &HostUp) -> String {
    let facts = host.facts.clone().unwrap_or_default();
    let at = if facts.private_ip.is_empty() { &facts.name } else { &facts.private_ip };
    format!(
        "no host was added for this machine yet, so the agent waits: add it with addHost hypervisor={} url=http://{at}",
        facts.hypervisor
    )
}

/// Why a host may not connect by this line, and whether its agent is to forget it.
fn refusal(link: &Link, host: &store::Claimed) -> Option<(String, bool)> {
    if host.removed {
        return Some(("the host was removed".into(), true));
    }
    if link.kind == AgentKind::Factory && host.hypervisor != SIMULATOR {
        return Some((format!("a factory doesn't stand for hosts of {}", host.hypervisor), false));
    }
    None
}
