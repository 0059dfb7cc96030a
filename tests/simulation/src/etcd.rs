//! The simulated etcd: keys, revisions, leases and watches.

use crate::sim::{Sim, bytes, lock};
use coord::simulation::pb;
use pb::compare::{CompareTarget, TargetUnion};
use pb::event::EventType;
use pb::request_op::Request as Op;
use pb::response_op::Response as Answer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The server.
pub struct Etcd {
    pub(crate) sim: Arc<Sim>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    revision: i64,
    keys: BTreeMap<Vec<u8>, pb::KeyValue>,
    leases: BTreeMap<i64, Lease>,
    history: Vec<pb::Event>,
    /// Events up to this revision are gone.
    compacted: i64,
    watchers: Vec<Watcher>,
    next_lease: i64,
}

struct Lease {
    ttl: Duration,
    until: Instant,
}

struct Watcher {
    range: (Vec<u8>, Vec<u8>),
    sender: mpsc::UnboundedSender<pb::WatchResponse>,
}

fn covers(range: &(Vec<u8>, Vec<u8>), key: &[u8]) -> bool {
    let (first, end) = range;
    if end.is_empty() { key == first } else { key >= first.as_slice() && key < end.as_slice() }
}

impl State {
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.revision, ..Default::default() })
    }

    fn range(&self, request: &pb::RangeRequest) -> pb::RangeResponse {
        let range = (request.key.clone(), request.range_end.clone());
        let kvs = self.keys.values().filter(|kv| covers(&range, &kv.key)).cloned().collect();
        pb::RangeResponse { header: self.header(), kvs }
    }

    /// Writes at `revision`.
    fn put(&mut self, request: &pb::PutRequest, revision: i64) -> Result<pb::Event, tonic::Status> {
        if request.lease != 0 && !self.leases.contains_key(&request.lease) {
            return Err(tonic::Status::not_found("etcdserver: requested lease not found"));
        }
        let old = self.keys.get(&request.key);
        let kv = pb::KeyValue {
            key: request.key.clone(),
            create_revision: old.map_or(revision, |o| o.create_revision),
            mod_revision: revision,
            version: old.map_or(0, |o| o.version) + 1,
            value: request.value.clone(),
            lease: request.lease,
        };
        self.keys.insert(request.key.clone(), kv.clone());
        Ok(pb::Event { r#type: EventType::Put.into(), kv: Some(kv) })
    }

    fn delete(&mut self, range: &(Vec<u8>, Vec<u8>), revision: i64) -> Vec<pb::Event> {
        let gone: Vec<Vec<u8>> = self.keys.keys().filter(|k| covers(range, k)).cloned().collect();
        gone.into_iter().map(|key| self.gone(key, revision)).collect()
    }

    fn gone(&mut self, key: Vec<u8>, revision: i64) -> pb::Event {
        self.keys.remove(&key);
        let kv = pb::KeyValue { key, mod_revision: revision, ..Default::default() };
        pb::Event { r#type: EventType::Delete.into(), kv: Some(kv) }
    }

    /// Makes events known.
    fn tell(&mut self, events: Vec<pb::Event>) {
        if events.is_empty() {
            return;
        }
        self.revision += 1;
        let header = self.header();
        self.watchers.retain(|watcher| {
            let seen = |e: &&pb::Event| e.kv.as_ref().is_some_and(|kv| covers(&watcher.range, &kv.key));
            let events: Vec<pb::Event> = events.iter().filter(seen).cloned().collect();
            let answer = pb::WatchResponse { header, events, ..Default::default() };
            answer.events.is_empty() && !watcher.sender.is_closed() || watcher.sender.send(answer).is_ok()
        });
        self.history.extend(events);
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let found = self.keys.get(&compare.key);
        let number = |f: fn(&pb::KeyValue) -> i64| found.map_or(0, f);
        match (CompareTarget::try_from(compare.target), &compare.target_union) {
            (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(n))) => number(|kv| kv.create_revision) == *n,
            (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(n))) => number(|kv| kv.mod_revision) == *n,
            (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(n))) => number(|kv| kv.lease) == *n,
            (Ok(CompareTarget::Value), Some(TargetUnion::Value(value))) => found.is_some_and(|kv| kv.value == *value),
            _ => false,
        }
    }
}

impl Etcd {
    /// An empty one.
    pub fn new(sim: &Arc<Sim>) -> Arc<Etcd> {
        let state = State { revision: 1, next_lease: 1, ..State::default() };
        Arc::new(Etcd { sim: sim.clone(), state: Mutex::new(state) })
    }

    /// Forgets what has been, as auto-compaction does.
    pub fn compact(&self) {
        let mut state = lock(&self.state);
        state.compacted = state.revision;
        state.history.clear();
    }

    pub(crate) fn range(&self, request: &pb::RangeRequest) -> pb::RangeResponse {
        lock(&self.state).range(request)
    }

    pub(crate) fn txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, tonic::Status> {
        let mut state = lock(&self.state);
        let succeeded = request.compare.iter().all(|c| state.holds(c));
        let revision = state.revision + 1;
        let mut events = Vec::new();
        let mut responses = Vec::new();
        for op in if succeeded { &request.success } else { &request.failure } {
            let response = match &op.request {
                Some(Op::RequestRange(range)) => Answer::ResponseRange(state.range(range)),
                Some(Op::RequestPut(put)) => {
                    events.push(state.put(put, revision)?);
                    Answer::ResponsePut(pb::PutResponse { header: state.header() })
                }
                Some(Op::RequestDeleteRange(delete)) => {
                    let gone = state.delete(&(delete.key.clone(), delete.range_end.clone()), revision);
                    let deleted = gone.len() as i64;
                    events.extend(gone);
                    Answer::ResponseDeleteRange(pb::DeleteRangeResponse { header: state.header(), deleted })
                }
                None => continue,
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        self.note(&events);
        state.tell(events);
        Ok(pb::TxnResponse { header: state.header(), succeeded, responses })
    }

    fn note(&self, events: &[pb::Event]) {
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let numbers = [bytes(&kv.key), bytes(&kv.value), kv.mod_revision.cast_unsigned()];
            self.sim.event("etcd", &numbers, || {
                let (key, value) = (String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value));
                if kv.version == 0 { format!("{key} is gone") } else { format!("{key} = {value} ({})", kv.lease) }
            });
        }
    }

    pub(crate) fn grant(self: &Arc<Etcd>, ttl: i64) -> pb::LeaseGrantResponse {
        let mut state = lock(&self.state);
        let id = state.next_lease;
        state.next_lease += 1;
        let ttl = ttl.max(1);
        let time = Duration::from_secs(ttl.unsigned_abs());
        state.leases.insert(id, Lease { ttl: time, until: Instant::now() + time });
        self.sim.event("lease", &[id.unsigned_abs()], || format!("{id} granted for {ttl} s"));
        let server = self.clone();
        self.sim.spawn(async move {
            loop {
                let Some(until) = lock(&server.state).leases.get(&id).map(|l| l.until) else { return };
                if until <= Instant::now() {
                    server.sim.event("lease", &[id.unsigned_abs()], || format!("{id} ran out"));
                    server.sim.reach("a lease in etcd ran out");
                    server.revoke(id);
                    return;
                }
                tokio::time::sleep_until(until).await;
            }
        });
        pb::LeaseGrantResponse { header: state.header(), id, ttl, error: String::new() }
    }

    pub(crate) fn revoke(&self, id: i64) -> bool {
        let mut state = lock(&self.state);
        let known = state.leases.remove(&id).is_some();
        let revision = state.revision + 1;
        let gone: Vec<Vec<u8>> = state.keys.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect();
        let events: Vec<pb::Event> = gone.into_iter().map(|key| state.gone(key, revision)).collect();
        self.note(&events);
        state.tell(events);
        known
    }

    /// The time that the lease has now; 0: there is no such lease.
    pub(crate) fn keep_alive(&self, id: i64) -> pb::LeaseKeepAliveResponse {
        let mut state = lock(&self.state);
        let mut ttl = 0;
        if let Some(lease) = state.leases.get_mut(&id) {
            lease.until = Instant::now() + lease.ttl;
            ttl = lease.ttl.as_secs().cast_signed();
        }
        pb::LeaseKeepAliveResponse { header: state.header(), id, ttl }
    }

    /// Everything in the range from the request's revision on.
    pub(crate) fn watch(&self, request: &pb::WatchCreateRequest) -> mpsc::UnboundedReceiver<pb::WatchResponse> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = lock(&self.state);
        let range = (request.key.clone(), request.range_end.clone());
        let created = pb::WatchResponse { header: state.header(), created: true, ..Default::default() };
        let _ = sender.send(created);
        if request.start_revision > 0 && request.start_revision <= state.compacted {
            let answer = pb::WatchResponse {
                header: state.header(),
                canceled: true,
                compact_revision: state.compacted + 1,
                ..Default::default()
            };
            let _ = sender.send(answer);
            return receiver;
        }
        let from = if request.start_revision > 0 { request.start_revision } else { state.revision + 1 };
        let seen = |e: &&pb::Event| e.kv.as_ref().is_some_and(|kv| kv.mod_revision >= from && covers(&range, &kv.key));
        let events: Vec<pb::Event> = state.history.iter().filter(seen).cloned().collect();
        if !events.is_empty() {
            let _ = sender.send(pb::WatchResponse { header: state.header(), events, ..Default::default() });
        }
        state.watchers.push(Watcher { range, sender });
        receiver
    }
}
