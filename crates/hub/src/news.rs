//! Events for followers that work on each of them: they may be slow without anything piling up.

use crate::Hub;
use crate::event::HostEvent;
use model::HostId;
use std::collections::{BTreeMap, HashMap};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// A follower's events, in order. Of several reports of a host only the newest is kept: a follower that compares one with
/// the database would else work on what has long changed.
pub struct News {
    hub: Hub,
    receiver: Receiver<HostEvent>,
    waiting: Waiting,
    /// Events were missed: when all others are worked off, full reports make up for them.
    missed: bool,
}

impl News {
    pub(crate) fn new(hub: Hub, receiver: Receiver<HostEvent>) -> News {
        News { hub, receiver, waiting: Waiting::default(), missed: false }
    }

    /// The next event; `None` when the hub has ended. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<HostEvent> {
        loop {
            self.drain();
            if let Some(event) = self.waiting.pop() {
                return Some(event);
            }
            if std::mem::take(&mut self.missed) {
                self.hub.ask_reports();
            }
            match self.receiver.recv().await {
                Ok(event) => self.waiting.put(event),
                Err(RecvError::Lagged(_)) => self.missed = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn drain(&mut self) {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => self.waiting.put(event),
                Err(TryRecvError::Lagged(_)) => self.missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

#[derive(Default)]
struct Waiting {
    events: BTreeMap<u64, HostEvent>,
    /// Where the report of a host is among them.
    reports: HashMap<HostId, u64>,
    next: u64,
}

impl Waiting {
    fn put(&mut self, event: HostEvent) {
        self.next += 1;
        if let HostEvent::Report { host, .. } = &event
            && let Some(older) = self.reports.insert(*host, self.next)
        {
            self.events.remove(&older);
        }
        self.events.insert(self.next, event);
    }

    fn pop(&mut self) -> Option<HostEvent> {
        let (_, event) = self.events.pop_first()?;
        if let HostEvent::Report { host, .. } = &event {
            self.reports.remove(host);
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract_agent::VmState;
    use std::sync::Arc;

    fn report(host: i64, vms: usize) -> HostEvent {
        HostEvent::Report { host: HostId(host), vms: Arc::new(vec![VmState::default(); vms]), routers: Arc::default() }
    }

    fn name(event: &HostEvent) -> String {
        match event {
            HostEvent::Report { host, vms, .. } => format!("report {} {}", host.0, vms.len()),
            HostEvent::Lost { host, .. } => format!("lost {}", host.0),
            _ => "other".into(),
        }
    }

    #[test]
    fn a_newer_report_takes_the_place_of_an_older_one_and_the_order_stays() {
        let mut waiting = Waiting::default();
        let lost = |host| HostEvent::Lost { host: HostId(host), reason: String::new() };
        for event in [report(1, 1), report(2, 5), lost(1), report(1, 2), report(2, 6), report(1, 3)] {
            waiting.put(event);
        }
        let left: Vec<String> = std::iter::from_fn(|| waiting.pop()).map(|e| name(&e)).collect();
        assert_eq!(left, ["lost 1", "report 2 6", "report 1 3"]);
        assert!(waiting.reports.is_empty());
        waiting.put(report(1, 4));
        assert_eq!(waiting.pop().map(|e| name(&e)).as_deref(), Some("report 1 4"));
    }
}
