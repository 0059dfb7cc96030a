//! Topics as keys: each message is a version of its topic's key, and every process watches them all.

use super::watch::{Ended, Watch};
use super::wire::{Client, nonce, pb, prefix_end};
use crate::CoordError;
use crate::topics::Topics;
use pb::request_op::Request as Op;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Different messages that may wait for etcd; with more, the others are told to drop all they cache.
const PENDING: usize = 10_000;
/// Topics of one transaction (etcd takes 128 operations).
const TOPICS_AT_ONCE: usize = 100;
/// Messages of one topic in one write.
const MESSAGES_AT_ONCE: usize = 1000;

/// One version of a topic's key.
#[derive(Serialize, Deserialize)]
struct Envelope {
    /// The process that wrote it.
    from: String,
    messages: Vec<String>,
    /// Some messages never made it.
    #[serde(default)]
    missed: bool,
}

#[derive(Default)]
struct Pending {
    messages: BTreeSet<(String, String)>,
    overflowed: bool,
}

/// Messages on their way to etcd. The same message twice is sent once.
#[derive(Clone)]
pub(crate) struct Outbound {
    pending: Arc<Mutex<Pending>>,
    wake: Arc<Notify>,
}

impl Outbound {
    pub fn push(&self, topic: &str, payload: &str) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.messages.len() >= PENDING {
            pending.messages.clear();
            pending.overflowed = true;
        }
        pending.messages.insert((topic.to_owned(), payload.to_owned()));
        drop(pending);
        self.wake.notify_one();
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn give_back(&self, taken: Pending) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.overflowed |= taken.overflowed;
        pending.messages.extend(taken.messages);
    }
}

/// Starts to send and to hear, until `end`.
pub(crate) fn start(client: Client, prefix: String, topics: Arc<Topics>, end: CancellationToken) -> Outbound {
    let outbound = Outbound { pending: Arc::default(), wake: Arc::default() };
    let me = nonce();
    let sending = send_all(client.clone(), prefix.clone(), me.clone(), outbound.clone());
    let hearing = hear_all(client, prefix, me, topics);
    store::chance::spawn(async move {
        tokio::select! {
            biased;
            () = end.cancelled() => {}
            () = async { tokio::join!(sending, hearing); } => {}
        }
    });
    outbound
}

async fn send_all(client: Client, prefix: String, me: String, outbound: Outbound) {
    loop {
        outbound.wake.notified().await;
        loop {
            let taken = outbound.take();
            if taken.messages.is_empty() && !taken.overflowed {
                break;
            }
            if let Err(error) = send(&client, &prefix, &me, &taken).await {
                tracing::debug!(%error, waiting = taken.messages.len(), "messages wait for etcd");
                outbound.give_back(taken);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn send(client: &Client, prefix: &str, me: &str, pending: &Pending) -> Result<(), CoordError> {
    let mut by_topic: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (topic, payload) in &pending.messages {
        by_topic.entry(topic).or_default().push(payload.clone());
    }
    let mut puts = Vec::new();
    if pending.overflowed {
        puts.push(put(prefix, "", Envelope { from: me.to_owned(), messages: Vec::new(), missed: true })?);
    }
    for (topic, messages) in by_topic {
        for chunk in messages.chunks(MESSAGES_AT_ONCE) {
            puts.push(put(prefix, topic, Envelope { from: me.to_owned(), messages: chunk.to_vec(), missed: false })?);
        }
    }
    while !puts.is_empty() {
        // A transaction writes each key once.
        let mut keys = BTreeSet::new();
        let (now, later): (Vec<_>, Vec<_>) =
            puts.into_iter().partition(|p| keys.len() < TOPICS_AT_ONCE && keys.insert(p.key.clone()));
        let success = now.into_iter().map(|p| pb::RequestOp { request: Some(Op::RequestPut(p)) }).collect();
        client.txn(pb::TxnRequest { compare: Vec::new(), success, failure: Vec::new() }).await?;
        puts = later;
    }
    Ok(())
}

fn put(prefix: &str, topic: &str, envelope: Envelope) -> Result<pb::PutRequest, CoordError> {
    let value = serde_json::to_vec(&envelope).map_err(|e| CoordError::Config(e.to_string()))?;
    Ok(pb::PutRequest { key: format!("{prefix}{topic}").into_bytes(), value, lease: 0 })
}

async fn hear_all(client: Client, prefix: String, me: String, topics: Arc<Topics>) {
    // None: from now on.
    let mut next: Option<i64> = None;
    loop {
        match hear(&client, &prefix, &me, &topics, &mut next).await {
            Ended::Compacted(revision) => next = Some(revision),
            Ended::Broken(error) => {
                tracing::debug!(%error, "other processes can't be heard");
                // A new token may be all that is missing.
                let _ = client.authenticate().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        topics.missed();
    }
}

async fn hear(client: &Client, prefix: &str, me: &str, topics: &Topics, next: &mut Option<i64>) -> Ended {
    let from = match *next {
        Some(revision) => revision,
        None => match client.range(prefix.as_bytes(), Vec::new()).await {
            Ok(answer) => answer.header.map_or(0, |h| h.revision) + 1,
            Err(error) => return Ended::Broken(error),
        },
    };
    let mut watch = match Watch::open(client, prefix, prefix_end(prefix), from).await {
        Ok(watch) => watch,
        Err(ended) => return ended,
    };
    if next.is_some() {
        // Nothing of what was sent is lost, but others may have died with messages unsent.
        topics.missed();
    }
    *next = Some(from);
    loop {
        let seen = match watch.next().await {
            Ok(seen) => seen,
            Err(ended) => return ended,
        };
        if seen.revision > 0 {
            *next = Some(seen.revision + 1);
        }
        for kv in seen.events.iter().filter_map(|e| e.kv.as_ref()) {
            let topic = String::from_utf8_lossy(&kv.key);
            let topic = topic.strip_prefix(prefix).unwrap_or(&topic);
            match serde_json::from_slice::<Envelope>(&kv.value) {
                Ok(envelope) if envelope.from == me => {}
                Ok(envelope) => {
                    if envelope.missed {
                        topics.missed();
                    }
                    envelope.messages.iter().for_each(|m| topics.send(topic, m));
                }
                Err(_) => topics.missed(), // from a version that writes otherwise
            }
        }
    }
}
