//! Reservations whose holder never came to be, or is gone.

use super::Limits;
use crate::store::{holdings, limits as store};
use ::store::now_micros;
use contract::ApiError;
use coord::Term;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between looks.
const EVERY: Duration = Duration::from_secs(60);
/// Age below which a holder may still be on its way into its table.
pub const FRESH: Duration = Duration::from_secs(3600);
/// How long a holder that ended is remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Holders looked at in one go.
const BATCH: i64 = 256;

impl Limits {
    /// The duty: gives back what was lost, now and then, while this replica leads. Every step is conditional on what was
    /// read, so that a leader that was deposed can't do harm.
    pub async fn sweep(self, term: Term) {
        while !term.is_lost() {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "looking for lost reservations failed; the next round tries again");
            }
            tokio::select! {
                () = term.lost() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn round(&self) -> Result<(), ApiError> {
        self.give_back_lost(None, FRESH).await?;
        let before = before(REMEMBERED);
        ::store::tx!(self.node.db, "forget-ended", |tx| store::forget_ended(tx, before).await).await?;
        Ok(())
    }

    /// Gives back what holders older than `age` are counted with and that don't exist. Gives how many there were.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn give_back_lost(&self, account: Option<i64>, age: Duration) -> Result<usize, ApiError> {
        let (mut after, mut lost) = (String::new(), 0);
        let before = before(age);
        loop {
            let holders = store::old_holders(&self.node.db, before, &after, account, BATCH).await?;
            let Some(last) = holders.last() else { return Ok(lost) };
            after.clone_from(last);
            let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for holder in holders {
                let kind = holder.split(':').next().unwrap_or_default().to_owned();
                kinds.entry(kind).or_default().push(holder);
            }
            for (kind, holders) in kinds {
                let Some(alive) = holdings::alive(&self.node.db, &self.tables, &kind, &holders).await? else {
                    continue;
                };
                for holder in holders.iter().filter(|h| !alive.contains(*h)) {
                    tracing::info!(holder, "gives back the reservation of a holder that is gone");
                    self.release(holder, &[]).await?;
                    lost += 1;
                }
            }
        }
    }
}

fn before(age: Duration) -> i64 {
    now_micros() - i64::try_from(age.as_micros()).unwrap_or(i64::MAX)
}
