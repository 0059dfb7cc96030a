//! Coordination within one process.

use crate::backend::{Backend, Leadership};
use crate::topics::{Subscription, Topics};
use crate::{CoordError, Member, Membership};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) struct Local {
    shared: Arc<Shared>,
    topics: Topics,
}

struct Shared {
    members: Mutex<BTreeMap<String, Member>>,
    view: watch::Sender<Arc<Vec<Member>>>,
    duties: Mutex<BTreeMap<String, Seat>>,
}

/// One duty: who may try (fair), and the token that deposes who leads.
#[derive(Clone, Default)]
struct Seat {
    lock: Arc<tokio::sync::Mutex<()>>,
    lost: CancellationToken,
}

impl Local {
    pub fn new() -> Local {
        let shared =
            Shared { members: Mutex::default(), view: watch::channel(Arc::default()).0, duties: Mutex::default() };
        Local { shared: Arc::new(shared), topics: Topics::default() }
    }
}

impl Shared {
    fn change(&self, f: impl FnOnce(&mut BTreeMap<String, Member>)) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut members);
        self.view.send_replace(Arc::new(members.values().cloned().collect()));
    }

    fn seat<T>(&self, duty: &str, f: impl FnOnce(&mut Seat) -> T) -> T {
        let mut duties = self.duties.lock().unwrap_or_else(PoisonError::into_inner);
        f(duties.entry(duty.to_owned()).or_default())
    }
}

#[async_trait::async_trait]
impl Backend for Local {
    async fn join(&self, member: Member) -> Result<Membership, CoordError> {
        let (lost, leave) = (CancellationToken::new(), CancellationToken::new());
        let membership = Membership::new(member.id.clone(), lost.clone(), leave.clone());
        let (shared, id) = (self.shared.clone(), member.id.clone());
        self.shared.change(|members| {
            members.insert(member.id.clone(), member);
        });
        store::chance::spawn(async move {
            leave.cancelled().await;
            shared.change(|members| {
                members.remove(&id);
            });
            lost.cancel();
        });
        Ok(membership)
    }

    fn without_lease(&self) -> Option<Duration> {
        None
    }

    fn members(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.shared.view.subscribe()
    }

    fn publish(&self, topic: &str, payload: &str) {
        self.topics.send(topic, payload);
    }

    fn subscribe(&self, topic: &str) -> Subscription {
        self.topics.subscribe(topic)
    }

    async fn campaign(&self, duty: &str, _candidate: &str) -> Result<Leadership, CoordError> {
        let lock = self.shared.seat(duty, |seat| seat.lock.clone());
        let held = lock.lock_owned().await;
        let lost = CancellationToken::new();
        self.shared.seat(duty, |seat| seat.lost = lost.clone());
        let resign = CancellationToken::new();
        let leadership = Leadership::new(lost.clone(), resign.clone());
        store::chance::spawn(async move {
            tokio::select! {
                biased;
                () = resign.cancelled() => {}
                () = lost.cancelled() => {}
            }
            drop(held);
        });
        Ok(leadership)
    }

    async fn depose(&self, duty: &str) -> Result<(), CoordError> {
        self.shared.seat(duty, |seat| seat.lost.cancel());
        Ok(())
    }
}
