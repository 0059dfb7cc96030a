//! Broadcast within this process; backends carry messages between processes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Messages that a slow subscriber may be behind before it is told that it missed some.
const BACKLOG: usize = 1024;

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A message.
    Message(String),
    /// Something may have been lost: drop all that is cached, look for work yourself.
    Missed,
}

/// Follows one topic.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Notice>,
}

impl Subscription {
    /// Waits for the next notice. Waits for ever once the last [`crate::Coord`] is gone.
    pub async fn next(&mut self) -> Notice {
        match self.receiver.recv().await {
            Ok(notice) => notice,
            Err(RecvError::Lagged(_)) => Notice::Missed,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[derive(Default)]
pub(crate) struct Topics(Mutex<BTreeMap<String, broadcast::Sender<Notice>>>);

impl Topics {
    pub fn subscribe(&self, topic: &str) -> Subscription {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = topics.entry(topic.to_owned()).or_insert_with(|| broadcast::channel(BACKLOG).0);
        Subscription { receiver: sender.subscribe() }
    }

    pub fn send(&self, topic: &str, payload: &str) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = topics.get(topic)
            && sender.send(Notice::Message(payload.to_owned())).is_err()
        {
            topics.remove(topic); // nobody listens any more
        }
    }

    pub fn missed(&self) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in topics.values() {
            let _ = sender.send(Notice::Missed); // an error means that nobody listens
        }
    }
}
