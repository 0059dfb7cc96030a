//! Coordination by etcd.
//!
//! One leased session a process ([`session`]); members, duties and topics are keys below the prefix:
//! `PREFIX/members/ID`, `PREFIX/duties/NAME`, `PREFIX/topics/TOPIC`. Messages are versions of a topic's key, so etcd must
//! run with auto-compaction (`--auto-compaction-retention=1h`); who was away longer than that is told that it missed some.
//!
//! The client is generated from the part of etcd's API that is used here: the published crate needs `protoc` to build.

mod broadcast;
mod duties;
mod members;
mod session;
mod watch;
pub(crate) mod wire;

use crate::backend::{Backend, Leadership};
use crate::topics::{Subscription, Topics};
use crate::{CoordError, Member, Membership};
use session::Sessions;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as channel;
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::Client;

/// Between two tries to reach etcd at the start.
const RETRY: Duration = Duration::from_millis(100);

/// How to reach etcd.
#[derive(Clone)]
pub struct EtcdConfig {
    /// URLs of the members.
    pub endpoints: Vec<String>,
    /// What all keys begin with; installations that share an etcd differ in it.
    pub prefix: String,
    /// How long a replica may be silent before the others take it for dead.
    pub lease: Duration,
    /// Certificates for `https` endpoints.
    pub tls: Option<EtcdTls>,
    /// Name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
}

/// Certificates for TLS with etcd, PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Certificates of the authorities that sign the servers'.
    pub ca: Vec<u8>,
    /// Own certificate and key, where etcd asks for them.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl EtcdConfig {
    /// These endpoints, with a prefix of `/arcus` and a lease of 5 s.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdConfig {
        EtcdConfig {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/arcus".into(),
            lease: Duration::from_secs(5),
            tls: None,
            user: None,
        }
    }
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No keys, no password.
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Etcd {
    client: Client,
    prefix: String,
    sessions: Sessions,
    members: members::Members,
    topics: Arc<Topics>,
    outbound: broadcast::Outbound,
    _end: DropGuard,
}

impl Etcd {
    pub async fn connect(config: EtcdConfig) -> Result<Etcd, CoordError> {
        let until = tokio::time::Instant::now() + config.lease;
        loop {
            let tried = async { Etcd::over(Client::connect(&config).await?, config.clone()).await };
            match tried.await {
                // A member may be away: the next try reaches another.
                Err(CoordError::Unavailable(why)) if tokio::time::Instant::now() < until => {
                    tracing::debug!(why, "etcd isn't reached yet");
                    tokio::time::sleep(RETRY).await;
                }
                connected => return connected,
            }
        }
    }

    /// Over a client that is connected.
    pub async fn over(client: Client, config: EtcdConfig) -> Result<Etcd, CoordError> {
        let prefix = config.prefix.trim_end_matches('/').to_owned();
        let end = CancellationToken::new();
        let topics = Arc::new(Topics::default());
        let sessions = Sessions::start(client.clone(), config.lease, end.clone()).await?;
        let members = members::Members::start(client.clone(), format!("{prefix}/members/"), config.lease, end.clone());
        let outbound = broadcast::start(client.clone(), format!("{prefix}/topics/"), topics.clone(), end.clone());
        Ok(Etcd { client, prefix, sessions, members, topics, outbound, _end: end.drop_guard() })
    }
}

#[async_trait::async_trait]
impl Backend for Etcd {
    async fn join(&self, member: Member) -> Result<Membership, CoordError> {
        self.members.join(&self.client, &self.sessions, member).await
    }

    fn without_lease(&self) -> Option<Duration> {
        self.sessions.missing()
    }

    fn members(&self) -> channel::Receiver<Arc<Vec<Member>>> {
        self.members.view()
    }

    fn publish(&self, topic: &str, payload: &str) {
        // This process hears it at once, whether etcd answers or not; its echo from etcd is ignored.
        self.topics.send(topic, payload);
        self.outbound.push(topic, payload);
    }

    fn subscribe(&self, topic: &str) -> Subscription {
        self.topics.subscribe(topic)
    }

    async fn campaign(&self, duty: &str, candidate: &str) -> Result<Leadership, CoordError> {
        duties::campaign(&self.client, &self.sessions, format!("{}/duties/{duty}", self.prefix), candidate).await
    }

    async fn depose(&self, duty: &str) -> Result<(), CoordError> {
        self.client.delete(&format!("{}/duties/{duty}", self.prefix)).await
    }
}
