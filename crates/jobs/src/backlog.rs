//! How many jobs may wait, and whose.
//!
//! A job waits for its claims (a row) or, with them, for a worker of its replica (memory). Both cost, and neither makes
//! anything faster: above the bounds no more are accepted. Workers go round the accounts, so that one account's thousands
//! delay another's single job by no more than the job that happens to end next.

use crate::engine::Engine;
use contract::ApiError;
use lanes::Rules;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Error, Sql};
use telemetry::metrics;
use tokio::time::Instant;

/// What a replica takes on at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Jobs that it works on at the same time; no account has the last eighth of them.
    pub workers: usize,
    /// Jobs of one account that may wait.
    pub account: usize,
    /// Jobs that may wait; when they do, each account has an equal part of them.
    pub all: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { workers: 512, account: 10_000, all: 40_000 }
    }
}

impl Bounds {
    pub(crate) fn rules(self) -> Rules {
        Rules::places(self.workers)
    }
}

/// Jobs that wait for claims, by account: as counted last, and those accepted here since.
#[derive(Default)]
pub(crate) struct Backlog(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    at: Option<Instant>,
    by_account: BTreeMap<i64, usize>,
    all: usize,
}

impl Backlog {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a job that waits for its claims.
    pub fn add(&self, account: i64) {
        let mut counted = self.counted();
        *counted.by_account.entry(account).or_default() += 1;
        counted.all += 1;
    }

    fn replace(&self, by_account: BTreeMap<i64, usize>, now: Instant) {
        let all = by_account.values().sum();
        *self.counted() = Counted { at: Some(now), by_account, all };
    }

    /// Of the account, of all, and of how many accounts.
    fn of(&self, account: i64) -> (usize, usize, usize) {
        let counted = self.counted();
        (counted.by_account.get(&account).copied().unwrap_or(0), counted.all, counted.by_account.len())
    }
}

impl Engine {
    /// Whether another job of this account may wait.
    ///
    /// # Errors
    /// 503 when too many do.
    pub(crate) fn has_room(&self, account: i64) -> Result<(), ApiError> {
        let bounds = self.bounds();
        let (for_claims, all_for_claims, accounts) = self.backlog.of(account);
        let workers = self.workers().stats();
        let mine = for_claims + self.workers().waiting_in(&account);
        let all = all_for_claims + workers.waiting;
        let part = bounds.all / accounts.max(workers.queues).max(1);
        if mine >= bounds.account || (all >= bounds.all && mine >= part) {
            let text = format!("{mine} jobs of account {account} wait, {all} of all accounts: no more are accepted");
            tracing::warn!(service = self.service, account, mine, all, "a job isn't accepted: too many wait");
            return Err(ApiError::overloaded(text));
        }
        Ok(())
    }

    /// Counts who waits for claims, unless that was done a moment ago.
    pub(crate) async fn count_backlog(self: &Arc<Self>) -> Result<(), Error> {
        let now = Instant::now();
        if self.backlog.counted().at.is_some_and(|at| now.saturating_duration_since(at) < self.pace().sweep) {
            return Ok(());
        }
        let sql = "SELECT account_id, COUNT(*) FROM jobs WHERE service = ? AND state = 'Waiting' GROUP BY account_id";
        let mut by_account = BTreeMap::new();
        for row in self.db.all(Sql::new(sql).bind(self.service)).await? {
            by_account.insert(row.at(0)?, usize::try_from(row.at::<i64>(1)?).unwrap_or(0));
        }
        self.backlog.replace(by_account, now);
        let gauge = metrics::gauges("jobs_waiting", "Jobs that wait, by service and by what for");
        let show = |what: &str, n: usize| {
            let labels = vec![("service", self.service.to_owned()), ("for", what.to_owned())];
            gauge.get_or_create(&labels).set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        show("claims", self.backlog.counted().all);
        show("worker", self.workers().stats().waiting);
        Ok(())
    }
}
