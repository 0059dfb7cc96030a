//! Members as leased keys.

use super::session::Sessions;
use super::watch::{Ended, Watch, is_delete};
use super::wire::{Client, leased, pb, prefix_end};
use crate::{CoordError, Member, Membership};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) struct Members {
    prefix: String,
    view: watch::Receiver<Arc<Vec<Member>>>,
}

impl Members {
    /// Follows the members below `prefix` until `end`.
    pub fn start(client: Client, prefix: String, grace: Duration, end: CancellationToken) -> Members {
        let (sender, view) = watch::channel(Arc::default());
        let follower = Follower {
            client,
            prefix: prefix.clone(),
            grace,
            sender,
            known: BTreeMap::new(),
            doubtful: BTreeMap::new(),
        };
        store::chance::spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = follower.run() => {}
            }
        });
        Members { prefix, view }
    }

    pub fn view(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.view.clone()
    }

    pub async fn join(&self, client: &Client, sessions: &Sessions, member: Member) -> Result<Membership, CoordError> {
        let session = sessions.get_soon().await?;
        let key = format!("{}{}", self.prefix, member.id);
        let value = serde_json::to_vec(&member).map_err(|e| CoordError::Config(e.to_string()))?;
        client.put(&key, value, session.lease).await?;
        let (lost, leave) = (session.lost.child_token(), CancellationToken::new());
        let membership = Membership::new(member.id.clone(), lost.clone(), leave.clone());
        let client = client.clone();
        store::chance::spawn(async move {
            tokio::select! {
                biased;
                () = lost.cancelled() => return, // the key goes with the lease
                () = leave.cancelled() => lost.cancel(),
            }
            session.delete_if(&client, &key, leased(&key, session.lease)).await;
        });
        // Who has joined sees itself.
        let mut view = self.view.clone();
        let seen = view.wait_for(|members| members.iter().any(|m| m.id == member.id));
        let _ = tokio::time::timeout(Duration::from_secs(1), seen).await;
        Ok(membership)
    }
}

struct Follower {
    client: Client,
    prefix: String,
    grace: Duration,
    sender: watch::Sender<Arc<Vec<Member>>>,
    known: BTreeMap<String, Member>,
    /// Missing after etcd was away, and until when they are kept: they may only not have joined again yet.
    doubtful: BTreeMap<String, Instant>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::debug!(%error, "the members can't be followed; what is known stays");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Lists, then watches until the watch breaks.
    async fn follow(&mut self) -> Result<(), CoordError> {
        let listed = self.client.range(self.prefix.as_bytes(), prefix_end(&self.prefix)).await?;
        let alive: BTreeMap<String, Member> = listed.kvs.iter().filter_map(read).map(|m| (m.id.clone(), m)).collect();
        let until = Instant::now() + self.grace;
        for id in self.known.keys().filter(|id| !alive.contains_key(*id)) {
            self.doubtful.entry(id.clone()).or_insert(until);
        }
        self.known.retain(|id, _| self.doubtful.contains_key(id));
        for (id, member) in alive {
            self.doubtful.remove(&id);
            self.known.insert(id, member);
        }
        self.show();
        let revision = listed.header.map_or(0, |h| h.revision) + 1;
        let opened = Watch::open(&self.client, &self.prefix, prefix_end(&self.prefix), revision).await;
        let mut watch = opened.map_err(broken)?;
        loop {
            let doubt_ends = self.doubtful.values().min().copied();
            tokio::select! {
                biased;
                seen = watch.next() => for event in seen.map_err(broken)?.events {
                    self.apply(&event);
                },
                () = sleep_until(doubt_ends) => {
                    let now = Instant::now();
                    let gone: Vec<String> = self.doubtful.iter().filter(|(_, t)| **t <= now).map(|(id, _)| id.clone()).collect();
                    for id in gone {
                        self.doubtful.remove(&id);
                        self.known.remove(&id);
                    }
                }
            }
            self.show();
        }
    }

    fn apply(&mut self, event: &pb::Event) {
        let Some(kv) = &event.kv else { return };
        if is_delete(event) {
            let id = String::from_utf8_lossy(&kv.key);
            let id = id.strip_prefix(self.prefix.as_str()).unwrap_or(&id);
            self.doubtful.remove(id);
            self.known.remove(id);
        } else if let Some(member) = read(kv) {
            self.doubtful.remove(&member.id);
            self.known.insert(member.id.clone(), member);
        }
    }

    fn show(&self) {
        let members: Vec<Member> = self.known.values().cloned().collect();
        self.sender.send_if_modified(|shown| {
            let changed = **shown != members;
            if changed {
                *shown = Arc::new(members);
            }
            changed
        });
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn broken(ended: Ended) -> CoordError {
    match ended {
        Ended::Compacted(revision) => CoordError::Unavailable(format!("revisions before {revision} are gone")),
        Ended::Broken(error) => error,
    }
}

fn read(kv: &pb::KeyValue) -> Option<Member> {
    serde_json::from_slice(&kv.value)
        .inspect_err(|error| tracing::warn!(key = %String::from_utf8_lossy(&kv.key), %error, "a member can't be read"))
        .ok()
}
