//! Reservations whose holder never came to be, or is gone.

use super::Limits;
use crate::store::{holdings, limits as store};
use ::store::now_micros;
use contract::ApiError;
use coord::Term;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// Between looks at reservations of replicas that died.
const EVERY: Duration = Duration::from_secs(3);
/// Looks between two at all that is old.
const LONG: u32 = 1200;
/// Looks between two at holders that were removed. One follows each loss of a replica, too.
const REMOVED: u32 = 20;
/// Age below which a holder may still be on its way into its table.
pub const FRESH: Duration = Duration::from_secs(3600);
/// The same when the replica that was to make it is gone.
const DEAD: Duration = Duration::from_secs(3);
/// How long a holder that ended is remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Holders looked at in one go.
const BATCH: i64 = 256;

impl Limits {
    /// The duty: gives back what was lost, now and then, while this replica leads. Every step is conditional on what was
    /// read, so that a leader that was deposed can't do harm.
    pub async fn sweep(self, term: Term) {
        let mut looks = 0;
        let mut known: HashSet<String> = HashSet::new();
        while !term.is_lost() {
            let all = looks % LONG == 0;
            let living: HashSet<String> = self.node.coord.members().borrow().iter().map(|m| m.id.clone()).collect();
            if looks % REMOVED == 0 || !known.is_subset(&living) {
                match self.give_back_ended().await {
                    Ok(_) => known = living,
                    Err(error) => {
                        tracing::warn!(%error, "looking for removed holders failed; the next round tries again")
                    }
                }
            } else {
                known = living;
            }
            looks += 1;
            if let Err(error) = self.round(all).await {
                tracing::warn!(%error, "looking for lost reservations failed; the next round tries again");
            }
            tokio::select! {
                () = term.lost() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn round(&self, all: bool) -> Result<(), ApiError> {
        self.look_at_unseen().await?;
        if !all {
            return Ok(());
        }
        self.give_back_lost(None, FRESH).await?;
        let before = before(REMEMBERED);
        ::store::tx!(self.node.db, "forget-ended", |tx| store::forget_ended(tx, before).await).await?;
        Ok(())
    }

    /// Settles reservations whose holder nobody has seen: it exists, or it never will.
    async fn look_at_unseen(&self) -> Result<(), ApiError> {
        let live: Vec<String> = self.node.coord.members().borrow().iter().map(|m| m.id.clone()).collect();
        let (dead, fresh) = (before(DEAD), before(FRESH));
        let mut after = String::new();
        loop {
            let holders = store::unseen_holders(&self.node.db, &live, dead, fresh, &after, BATCH).await?;
            let Some(last) = holders.last() else { return Ok(()) };
            after.clone_from(last);
            self.settle(holders).await?;
        }
    }

    /// Gives back what holders are counted with that have been removed: whoever ends one gives it back afterwards, and may
    /// die in between. Gives how many there were.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn give_back_ended(&self) -> Result<usize, ApiError> {
        let (mut after, mut ended) = (String::new(), 0);
        loop {
            let holders = store::old_holders(&self.node.db, now_micros(), &after, None, BATCH).await?;
            let Some(last) = holders.last() else { return Ok(ended) };
            after.clone_from(last);
            for (kind, holders) in by_kind(holders) {
                for holder in holdings::removed(&self.node.db, &self.tables, &kind, &holders).await? {
                    tracing::info!(holder, "gives back the reservation of a holder that was removed");
                    self.release(&holder, &[]).await?;
                    ended += 1;
                }
            }
        }
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
            lost += self.settle(holders).await?;
        }
    }

    /// Leaves only those that no job under way makes and that aren't there either once that is known.
    async fn without_expected(&self, kind: &str, mut gone: Vec<String>) -> Result<Vec<String>, ApiError> {
        if gone.is_empty() {
            return Ok(gone);
        }
        let expected = holdings::expected(&self.node.db, &gone).await?;
        gone.retain(|h| !expected.contains(h));
        // A job that has ended since the first look has made them.
        let made = holdings::alive(&self.node.db, &self.tables, kind, &gone).await?.unwrap_or_default();
        gone.retain(|h| !made.contains(h));
        Ok(gone)
    }

    /// Gives back what holders that don't exist are counted with, and notes the others as seen. Gives how many were lost.
    async fn settle(&self, holders: Vec<String>) -> Result<usize, ApiError> {
        let mut lost = 0;
        for (kind, holders) in by_kind(holders) {
            let Some(alive) = holdings::alive(&self.node.db, &self.tables, &kind, &holders).await? else {
                continue;
            };
            let (here, gone): (Vec<String>, Vec<String>) = holders.into_iter().partition(|h| alive.contains(h));
            let gone = self.without_expected(&kind, gone).await?;
            if !here.is_empty() {
                ::store::tx!(self.node.db, "seen", |tx| store::seen(tx, &here).await).await?;
            }
            for holder in gone {
                tracing::info!(holder, "gives back the reservation of a holder that is gone");
                self.release(&holder, &[]).await?;
                lost += 1;
            }
        }
        Ok(lost)
    }
}

/// "vm:UUID" is a VM's.
fn by_kind(holders: Vec<String>) -> BTreeMap<String, Vec<String>> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for holder in holders {
        let kind = holder.split(':').next().unwrap_or_default().to_owned();
        kinds.entry(kind).or_default().push(holder);
    }
    kinds
}

fn before(age: Duration) -> i64 {
    now_micros() - i64::try_from(age.as_micros()).unwrap_or(i64::MAX)
}
