//! The duty of finding hosts whose replica has ended without saying so: they become Disconnected.
//!
//! A host counts as absent only when the replica that held its line is known to be gone. How long that has been so is
//! measured on this leader's monotonic clock: a new leader starts anew, and wall clocks don't matter. What becomes of
//! hosts that are connected with nobody isn't the hub's to say: whoever places VMs on them investigates.

use crate::Hub;
use crate::island::{self, LOOK};
use crate::registrar::announce;
use crate::store::{self, Absent};
use crate::timing::Watched;
use crate::waiting;
use contract::ApiError;
use coord::Term;
use model::HostId;
use model::state::HostStatus;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

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

/// Replicas that hold lines and aren't members, and since when in time that was watched.
type Gone = HashMap<String, Duration>;

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
        let mut gone = Gone::default();
        let mut watched = Watched::new();
        let mut counted = Duration::ZERO;
        loop {
            let pause = (self.timing().silence / 10).clamp(Duration::from_millis(20), Duration::from_secs(5));
            tokio::select! {
                () = term.lost() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let now = watched.advance(pause);
            if now.saturating_sub(counted) >= LOOK {
                counted = now;
                if let Err(error) = self.count(&term).await {
                    tracing::debug!(%error, "a round can't be counted");
                }
            }
            if let Err(error) = self.take_from_the_dead(&term, &mut gone, now).await {
                tracing::warn!(%error, "hosts of replicas that ended can't be looked for");
            }
        }
    }

    /// Shows replicas that etcd doesn't reach that others go on.
    async fn count(&self, term: &Term) -> Result<(), ApiError> {
        ::store::tx!(self.0.node.db, "count-round", |tx| {
            term.fence(tx).await?;
            island::count(tx).await?;
            Ok::<_, ApiError>(())
        })
        .await
    }

    /// Hosts whose replica has ended without saying goodbye.
    async fn take_from_the_dead(&self, term: &Term, gone: &mut Gone, now: Duration) -> Result<(), ApiError> {
        let node = &self.0.node;
        let silence = self.timing().silence;
        let members: HashSet<String> = node.coord.members().borrow().iter().map(|m| m.id.clone()).collect();
        for hub in waiting::hubs(&node.db).await? {
            if hub != node.replica && !members.contains(&hub) {
                // One that lives after all notes its agents again.
                ::store::tx!(node.db, "forget-waiting", |tx| {
                    term.fence(tx).await?;
                    waiting::forget(tx, &hub, None).await?;
                    Ok::<_, ApiError>(())
                })
                .await?;
            }
        }
        let mut hubs = store::hubs(&node.db).await?;
        hubs.retain(|hub| *hub != node.replica && !members.contains(hub));
        gone.retain(|hub, _| hubs.contains(hub));
        for hub in hubs {
            let since = *gone.entry(hub.clone()).or_insert(now);
            // Their agents look for another replica at once; a while is enough for them to find one.
            if now.saturating_sub(since) < silence {
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
