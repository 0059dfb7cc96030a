//! Who is alive, who leads, and what has changed.
//!
//! * [`Coord::join`]: leased membership of replicas.
//! * [`run_duty`]: one replica at a time does a singleton duty; the database's `duties` row fences who was deposed.
//! * [`Coord::publish`], [`Coord::subscribe`]: best-effort broadcast, for nudges and cache invalidation.
//!
//! Two implementations stand behind one [`Coord`]: in-process (`arcus dev`, tests) and etcd. Losing etcd stops elections
//! and makes duties pause; it never stops a request, because nothing on a request's way asks etcd.

mod backend;
mod duty;
mod error;
mod etcd;
mod local;
mod member;
#[cfg(feature = "simulation")]
pub mod simulation;
mod topics;

pub use duty::{Term, run_duty};
pub use error::CoordError;
pub use etcd::{EtcdConfig, EtcdTls};
pub use member::{Member, Membership};
pub use topics::{Notice, Subscription};

use backend::Backend;
use std::sync::Arc;
use std::time::Duration;
use store::Migration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The table of duties, migrated by whichever service starts first.
pub const MIGRATIONS: &[Migration] =
    &[Migration { owner: "coord", file: "0001_duties.sql", sql: include_str!("../migrations/0001_duties.sql") }];

/// Coordination of replicas. Cheap to clone.
#[derive(Clone)]
pub struct Coord {
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Coord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coord").finish_non_exhaustive()
    }
}

impl Coord {
    /// In-process. Several replicas in one process share clones of it.
    pub fn local() -> Coord {
        Coord { backend: Arc::new(local::Local::new()) }
    }

    /// Connects with etcd.
    ///
    /// # Errors
    /// When no endpoint answers within the lease's time, or the configuration is wrong.
    pub async fn etcd(config: EtcdConfig) -> Result<Coord, CoordError> {
        Ok(Coord { backend: Arc::new(etcd::Etcd::connect(config).await?) })
    }

    /// Joins as a replica. The membership is leased: it ends when it is dropped or its lease is lost.
    ///
    /// # Errors
    /// When etcd doesn't answer.
    pub async fn join(&self, member: Member) -> Result<Membership, CoordError> {
        self.backend.join(member).await
    }

    /// Stays a member until `stop`: joins again whenever the lease was lost.
    pub async fn stay(&self, member: Member, stop: CancellationToken) {
        loop {
            let membership = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                joined = self.join(member.clone()) => joined,
            };
            match membership {
                Ok(membership) => tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = membership.lost() => tracing::warn!(member = member.id, "membership lost; joining again"),
                },
                Err(error) => {
                    tracing::warn!(member = member.id, %error, "can't join; trying again");
                    duty::pause(&stop).await;
                }
            }
        }
    }

    /// The living replicas of all services, by id. While etcd is lost it keeps what was last known.
    pub fn members(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.backend.members()
    }

    /// How long a lease lasts, while this process has none: it knows of no change of the members then, and others take it
    /// for dead.
    pub fn without_lease(&self) -> Option<Duration> {
        self.backend.without_lease()
    }

    /// Tells all subscribers of `topic`, in this and other processes, without waiting. Best effort; `payload` is small.
    pub fn publish(&self, topic: &str, payload: &str) {
        self.backend.publish(topic, payload);
    }

    /// Follows a topic from now on.
    pub fn subscribe(&self, topic: &str) -> Subscription {
        self.backend.subscribe(topic)
    }

    /// Takes a duty from whoever has it; the next candidate gets it.
    ///
    /// # Errors
    /// When etcd doesn't answer.
    pub async fn depose(&self, duty: &str) -> Result<(), CoordError> {
        self.backend.depose(duty).await
    }
}
