//! The duty of watching hosts that are connected with nobody.
//!
//! A host whose line was lost is Disconnected; absent for a while it raises an Alert, and for another while it is Down.
//! All times are measured from when this leader first saw the host so, on its monotonic clock: a new leader starts anew,
//! and wall clocks don't matter. A host counts as absent only when the replica that held its line is known to be gone.

use crate::registrar::announce;
use crate::store::{self, Absent};
use crate::{HostEvent, Hub};
use contract::ApiError;
use coord::Term;
use model::HostId;
use model::state::HostStatus;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// Longest time between two notes of this replica's beats.
const BEATS: Duration = Duration::from_secs(60);

/// Starts what this replica does for its own hosts, and campaigns for the duty.
pub(crate) fn start(hub: &Hub) {
    let node = hub.0.node.clone();
    let own = hub.clone();
    node.spawn("host-beats", async move { own.note_beats().await });
    let own = hub.clone();
    node.duty("host-watch", move |term| {
        let hub = own.clone();
        async move { hub.watch(term).await }
    });
}

#[derive(Default)]
struct Seen {
    /// Replicas that aren't members, and since when.
    gone: HashMap<String, Instant>,
    hosts: HashMap<HostId, (Absent, Instant)>,
}

impl Hub {
    /// Writes now and then that this replica's hosts are alive: for people who look, not for decisions. Finds rows whose
    /// end couldn't be written when it came.
    async fn note_beats(&self) {
        let mut strays = Vec::new();
        loop {
            tokio::time::sleep((self.timing().silence / 2).clamp(Duration::from_millis(100), BEATS)).await;
            match self.note_once(&strays).await {
                Ok(found) => strays = found,
                Err(error) => tracing::debug!(%error, "beats can't be noted"),
            }
        }
    }

    /// Gives the hosts that the table says are connected here and aren't. Those that were so before are put right: a host
    /// that is just connecting looks the same for a moment.
    async fn note_once(&self, before: &[Absent]) -> Result<Vec<Absent>, ApiError> {
        let node = &self.0.node;
        let mut strays = store::of_hub(&node.db, &node.replica).await?;
        strays.retain(|host| !self.is_connected(host.id));
        let (gone, fresh): (Vec<_>, Vec<_>) = strays.into_iter().partition(|host| before.contains(host));
        if self.connected() > 0 || !gone.is_empty() {
            ::store::tx!(node.db, "note-beats", |tx| {
                for host in &gone {
                    store::age(tx, host, HostStatus::Disconnected).await?;
                }
                store::beat(tx, &node.replica).await?;
                Ok::<_, ApiError>(())
            })
            .await?;
            announce(&node.coord, &gone.iter().map(|host| host.id).collect::<Vec<_>>());
        }
        Ok(fresh)
    }

    async fn watch(&self, term: Term) {
        let mut seen = Seen::default();
        loop {
            let pause = (self.timing().silence / 10).clamp(Duration::from_millis(20), Duration::from_secs(5));
            tokio::select! {
                () = term.lost() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = self.look(&term, &mut seen).await {
                tracing::warn!(%error, "absent hosts can't be looked at");
            }
        }
    }

    async fn look(&self, term: &Term, seen: &mut Seen) -> Result<(), ApiError> {
        let silence = self.timing().silence;
        self.take_from_the_dead(term, seen, silence).await?;
        let now = Instant::now();
        let absent = store::absent(&self.0.node.db).await?;
        let mut still = HashMap::with_capacity(absent.len());
        let mut due = Vec::new();
        for host in absent {
            let since = match seen.hosts.get(&host.id) {
                Some((known, since)) if *known == host => *since,
                _ => now,
            };
            if now.duration_since(since) >= silence {
                due.push(host);
            }
            still.insert(host.id, (host, since));
        }
        seen.hosts = still;
        if due.is_empty() {
            return Ok(());
        }
        let moved = ::store::tx!(self.0.node.db, "age-hosts", |tx| {
            term.fence(tx).await?;
            let mut moved = Vec::new();
            for host in &due {
                let to = if host.status == HostStatus::Alert { HostStatus::Down } else { HostStatus::Alert };
                if store::age(tx, host, to).await? {
                    moved.push((host.id, to));
                }
            }
            Ok::<_, ApiError>(moved)
        })
        .await?;
        for (host, to) in &moved {
            tracing::warn!(host = host.0, status = to.as_str(), "a host is absent");
            if *to == HostStatus::Down {
                let reason = "it is connected with no replica".to_owned();
                let _ = self.0.events.send(HostEvent::Down { host: *host, reason }); // nobody may listen
            }
        }
        announce(&self.0.node.coord, &moved.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        Ok(())
    }

    /// Hosts whose replica has ended without saying goodbye.
    async fn take_from_the_dead(&self, term: &Term, seen: &mut Seen, silence: Duration) -> Result<(), ApiError> {
        let node = &self.0.node;
        let members: HashSet<String> = node.coord.members().borrow().iter().map(|m| m.id.clone()).collect();
        let mut hubs = store::hubs(&node.db).await?;
        hubs.retain(|hub| *hub != node.replica && !members.contains(hub));
        let now = Instant::now();
        seen.gone.retain(|hub, _| hubs.contains(hub));
        for hub in hubs {
            let since = *seen.gone.entry(hub.clone()).or_insert(now);
            // Their agents look for another replica at once; a while is enough for them to find one.
            if now.duration_since(since) < silence {
                continue;
            }
            let hosts: Vec<HostId> = store::of_hub(&node.db, &hub).await?.iter().map(|host| host.id).collect();
            ::store::tx!(node.db, "take-from-the-dead", |tx| {
                term.fence(tx).await?;
                store::disconnect(tx, &hosts, &hub, HostStatus::Disconnected).await?;
                Ok::<_, ApiError>(())
            })
            .await?;
            tracing::warn!(hub, hosts = hosts.len(), "a replica ended and its hosts haven't come back");
            announce(&node.coord, &hosts);
        }
        Ok(())
    }
}
