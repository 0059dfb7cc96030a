//! Jobs without a living worker, found by looking. Normally nothing is found: workers start with the commit itself.

use crate::claims;
use crate::engine::Engine;
use crate::rows;
use contract::ApiError;
use coord::Notice;
use events::Alert;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Error, Sql};
use tokio::time::Instant;

/// How often a job may lose its worker without having got any further. Many: what kills its worker every time is found out all the same, and
/// a long step may lose several to faults that it has nothing to do with (four, in a kill loop on a slow machine).
const TAKEOVERS: i64 = 12;
/// Jobs taken in one go, so that several replicas share them.
const AT_ONCE: usize = 32;
/// Sweeps between two looks at waiting jobs.
const WAITING_EVERY: u32 = 5;

/// What a sweep remembers for the next one.
#[derive(Default)]
struct Seen {
    /// Jobs whose worker is missing: since when, at which epoch.
    missing: BTreeMap<i64, (i64, Instant)>,
    /// Members that were there at some time.
    known: BTreeSet<String>,
    sweeps: u32,
}

impl Engine {
    /// Looks for work when told, when members come or go, and now and then.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut members = self.coord.members();
        let mut notices = self.coord.subscribe(&format!("jobs/{}", self.service));
        let mut tick = tokio::time::interval(self.pace().sweep);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = Seen::default();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                changed = members.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                notice = notices.next() => {
                    if let Notice::Message(text) = notice
                        && let Some(id) = text.strip_prefix("cancel/")
                    {
                        if let Ok(id) = id.parse() {
                            self.flag_cancelled(id);
                        }
                        continue;
                    }
                }
                _ = tick.tick() => {}
                () = self.wake.notified() => {}
            }
            let live: BTreeSet<String> = members.borrow_and_update().iter().map(|m| m.id.clone()).collect();
            seen.known.extend(live.iter().cloned());
            loop {
                match self.sweep(&mut seen, &live).await {
                    Ok(taken) if taken == AT_ONCE => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(service = self.service, %error, "looking for jobs failed");
                        break;
                    }
                }
            }
        }
    }

    async fn sweep(self: &Arc<Self>, seen: &mut Seen, live: &BTreeSet<String>) -> Result<usize, Error> {
        seen.sweeps = seen.sweeps.wrapping_add(1);
        if seen.sweeps % WAITING_EVERY == 1 {
            self.regrant().await?;
        }
        self.count_backlog().await?;
        let others: Vec<&String> = live.iter().filter(|m| **m != self.replica).collect();
        let mut sql = Sql::new(
            "SELECT id, kind, version, owner, epoch FROM jobs WHERE service = ? AND state IN ('Running', 'Undoing')",
        )
        .bind(self.service);
        if !others.is_empty() {
            sql = sql.push(" AND (owner IS NULL OR NOT (").in_list("owner", others).push("))");
        }
        let mut missing = BTreeMap::new();
        let mut due = Vec::new();
        for row in self.db.all(sql.push(" ORDER BY id")).await? {
            let (id, epoch): (i64, i64) = (row.at(0)?, row.at(4)?);
            let owner: Option<String> = row.at(3)?;
            let known = self.kinds().contains_key(&(row.at(1)?, row.at(2)?));
            let mine = owner.as_deref() == Some(self.replica.as_str());
            if !known || (mine && self.is_running(id)) {
                continue;
            }
            let since = match seen.missing.get(&id) {
                Some((e, since)) if *e == epoch => *since,
                _ => Instant::now(),
            };
            // A worker that left is gone; one that was never seen may be too new for this view of the members.
            let left = owner.as_ref().is_none_or(|o| !mine && seen.known.contains(o));
            if left || since.elapsed() >= self.pace().grace {
                due.push((id, epoch));
            } else {
                missing.insert(id, (epoch, since));
            }
        }
        if !missing.is_empty() {
            let engine = self.clone();
            self.spawn(async move {
                tokio::time::sleep(engine.pace().grace).await;
                engine.wake.notify_one();
            });
        }
        seen.missing = missing;
        due.truncate(AT_ONCE);
        let taken = due.len();
        for (id, epoch) in due {
            if self.is_live() {
                self.take_over(id, epoch).await?;
            }
        }
        Ok(taken)
    }

    async fn take_over(self: &Arc<Self>, id: i64, epoch: i64) -> Result<(), Error> {
        let db = &self.db;
        let taken = store::tx!(db, "take-over", |tx| {
            let Some(job) = rows::take_over(tx, id, epoch, &self.replica).await? else {
                return Ok(None);
            };
            if job.takeovers > TAKEOVERS {
                tx.exec(Sql::new("UPDATE jobs SET state = 'Parked' WHERE id = ?").bind(id)).await?;
                let text = format!(
                    "Job {} ({}) is parked and keeps its claims: it lost its worker {} times without getting any further",
                    job.facts.uuid, job.facts.kind, job.takeovers
                );
                events::record(tx, &[Alert::management("AsyncJob", &job.facts.uuid).raise(text)]).await?;
            }
            Ok::<_, Error>(Some(job))
        })
        .await?;
        match taken {
            Some(job) if job.takeovers > TAKEOVERS => {
                tracing::error!(
                    job = job.facts.uuid,
                    kind = job.facts.kind,
                    "job is parked: it lost its worker too often"
                );
            }
            Some(job) => {
                tracing::info!(job = job.facts.uuid, kind = job.facts.kind, epoch = job.epoch, "job taken over");
                self.work(job);
            }
            None => {}
        }
        Ok(())
    }

    /// The safety net for jobs that wait for claims which nobody holds any more.
    async fn regrant(self: &Arc<Self>) -> Result<(), Error> {
        let sql = "SELECT resource FROM claims WHERE waiting > 0 AND exclusive = 0 LIMIT 1";
        if self.db.optional(Sql::new(sql)).await?.is_none() {
            return Ok(());
        }
        let db = &self.db;
        let granted: Result<(), ApiError> = store::tx!(db, "regrant", |tx| {
            let resources = claims::idle(tx).await?;
            let granted = claims::grant(tx, resources).await?;
            self.start_granted(tx, &granted).await?;
            Ok(())
        })
        .await;
        granted.map_err(|e| Error::Other(e.to_string()))
    }
}
