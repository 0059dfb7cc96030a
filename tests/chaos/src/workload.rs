//! What clients do meanwhile: a mix of everything on machines, volumes, networks and tags. Each worker has things of its
//! own, so that what it knows of them is exact; sometimes it does two things at once to one of them.

mod setup;
mod worker;

pub use setup::{Ground, prepare};

use crate::client::Client;
use crate::history::{Failure, Outcome};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use worker::Worker;

/// How names of the workload begin.
pub const PREFIX: &str = "chaos-";

/// How much of it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Clients at once.
    pub workers: usize,
    /// Longest pause of a worker between two operations.
    pub think: Duration,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

/// The workers, under way.
pub struct Workers {
    end: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Workers {
    /// Lets them begin. Each account has its share of the workers.
    pub fn start(load: &Load, ground: &Arc<Ground>, accounts: &[Client]) -> Workers {
        let end = Arc::new(AtomicBool::new(false));
        let tasks = (0..load.workers).map(|n| {
            let client = accounts[n % accounts.len()].clone();
            let random = StdRng::seed_from_u64(load.seed ^ ((n as u64 + 1) << 40));
            let worker = Worker::new(n, client, ground.clone(), random, load.think);
            let end = end.clone();
            tokio::spawn(async move { worker.run(|| end.load(Ordering::Relaxed)).await })
        });
        Workers { tasks: tasks.collect(), end }
    }

    /// Lets each finish what it is doing.
    ///
    /// # Errors
    /// When one of them broke.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.end.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}

/// The error of an operation that didn't go well.
fn error_of(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Refused { error } | Outcome::Failed { error, .. } => Some(error),
        Outcome::Ok { .. } | Outcome::Unknown { .. } => None,
    }
}
