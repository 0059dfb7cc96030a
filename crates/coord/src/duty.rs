//! Singleton duties: elected by coordination, fenced by the database.

use crate::Coord;
use contract::ApiError;
use futures::FutureExt;
use rand::Rng;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use store::{Db, Error, Sql, Tx};
use tokio_util::sync::CancellationToken;

/// One turn of leading a duty. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Term {
    name: &'static str,
    epoch: i64,
    lost: CancellationToken,
}

impl Term {
    /// The turn's number: greater than all before.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether this turn is known to be over.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Waits until this turn is known to be over.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// First statement of every transaction of a duty: fails when another replica has taken over, whatever this one
    /// believes.
    ///
    /// # Errors
    /// [`ApiError::concurrent`] when deposed; those of the database.
    pub async fn fence(&self, tx: &mut Tx) -> Result<(), ApiError> {
        let held = tx
            .exec(
                Sql::new("UPDATE duties SET seq = seq + 1 WHERE name = ? AND epoch = ?")
                    .bind(self.name)
                    .bind(self.epoch),
            )
            .await?;
        if held == 0 && !store::chance::is_broken("duty-fence") {
            self.lost.cancel();
            return Err(ApiError::concurrent(format!("another replica has taken over the duty {}", self.name)));
        }
        Ok(())
    }
}

/// Campaigns for the duty `name`; runs `body` while leading, drops it when the lead is lost, and campaigns again. A body
/// that ends or panics while leading is run again after a pause. Returns when `stop` fires, dropping the body: everything
/// that a duty does must bear that at any instant, as it must bear a crash.
pub async fn run_duty<F, Fut>(
    db: &Db,
    coord: &Coord,
    name: &'static str,
    member: &str,
    stop: CancellationToken,
    body: F,
) where
    F: Fn(Term) -> Fut,
    Fut: Future<Output = ()> + Send,
{
    let work = async {
        loop {
            match coord.backend.campaign(name, member).await {
                Ok(leadership) => {
                    lead(db, name, member, leadership.lost(), &body).await;
                    drop(leadership);
                }
                Err(error) => tracing::debug!(duty = name, %error, "can't campaign"),
            }
            pause(&stop).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// One turn, until it is lost or the body ends.
async fn lead<F, Fut>(db: &Db, name: &'static str, member: &str, lost: &CancellationToken, body: &F)
where
    F: Fn(Term) -> Fut,
    Fut: Future<Output = ()> + Send,
{
    let epoch = tokio::select! {
        biased;
        () = lost.cancelled() => return,
        epoch = take_over(db, name, member) => epoch,
    };
    let epoch = match epoch {
        Ok(epoch) => epoch,
        Err(error) => {
            tracing::warn!(duty = name, %error, "can't take the duty over");
            return;
        }
    };
    // A child: a failed fence ends this turn, not more.
    let term = Term { name, epoch, lost: lost.child_token() };
    tracing::info!(duty = name, epoch, member, "leading");
    tokio::select! {
        biased;
        () = term.lost() => tracing::info!(duty = name, epoch, "deposed"),
        ended = AssertUnwindSafe(body(term.clone())).catch_unwind() => match ended {
            Ok(()) => tracing::debug!(duty = name, epoch, "the duty's work ended"),
            Err(_) => tracing::error!(duty = name, epoch, "the duty's work panicked"),
        },
    }
    term.lost.cancel();
}

/// Raises the epoch, which shuts out whoever led before.
async fn take_over(db: &Db, name: &'static str, member: &str) -> Result<i64, Error> {
    store::tx!(db, "take-duty", |tx| {
        let found = tx
            .exec(
                Sql::new("UPDATE duties SET epoch = epoch + 1, seq = 0, owner = ? WHERE name = ?")
                    .bind(member)
                    .bind(name),
            )
            .await?;
        if found == 0 {
            tx.exec(
                Sql::new("INSERT INTO duties (name, epoch, seq, owner) VALUES (?, 1, 0, ?)").bind(name).bind(member),
            )
            .await?;
            return Ok::<_, Error>(1);
        }
        tx.one(Sql::new("SELECT epoch FROM duties WHERE name = ?").bind(name)).await?.at(0)
    })
    .await
}

/// A short random wait before the next try, so that replicas don't try in step.
pub(crate) async fn pause(stop: &CancellationToken) {
    let wait = match store::chance::simulated_bits() {
        Some(bits) => 100 + (bits % 300) as u64,
        None => rand::rng().random_range(100..400),
    };
    let wait = Duration::from_millis(wait);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
    }
}
