//! One worker's work on one job: its place in the sequence of writes, and what it remembers.

use crate::backoff::Backoff;
use crate::engine::Engine;
use crate::job::Kind;
use crate::rows::{self, Entry, Facts, Loaded, Shown};
use contract::ApiError;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Error, Tx};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

/// A worker's work on a job.
pub(crate) struct Run {
    pub engine: Arc<Engine>,
    pub facts: Arc<Facts>,
    pub kind: Arc<dyn Kind>,
    pub epoch: i64,
    /// Somebody asked for the job to end.
    pub cancelled: AtomicBool,
    /// The job is another worker's: everything is dropped.
    pub lost: CancellationToken,
    /// The job can't go on: it is put aside, with an alert.
    pub stuck: CancellationToken,
    commit: Arc<tokio::sync::Mutex<Commit>>,
    memory: Mutex<Memory>,
    why_stuck: Mutex<String>,
    active: AtomicUsize,
    idle: Notify,
    /// The worker's place that the job holds while it works.
    place: Mutex<Option<lanes::Permit<i64>>>,
}

/// Where the sequence of writes stands.
struct Commit {
    seq: i64,
    /// A commit whose answer hasn't come, or whose future was dropped before it came.
    pending: Option<Pending>,
}

/// What is remembered once a commit has taken place.
#[derive(Clone, Default)]
pub(crate) struct Pending {
    pub entries: Vec<Entry>,
    pub undone: Vec<String>,
    /// Whether the job has ended with it.
    pub ends: bool,
}

/// What the worker remembers; the journal of earlier workers included.
#[derive(Default)]
pub(crate) struct Memory {
    names: HashSet<String>,
    pub journal: BTreeMap<String, Entry>,
    /// Remote results that go into the journal with the next commit.
    pub buffered: Vec<Entry>,
    /// Calls that were begun and have not succeeded: they may have taken place.
    pub in_flight: BTreeMap<String, Entry>,
    /// Undone steps whose marks go with the next commit.
    pub undone: Vec<String>,
    next_no: i64,
    pub finished: bool,
}

/// An open transaction of a job, after its fence.
pub(crate) struct Open {
    commit: OwnedMutexGuard<Commit>,
    pub tx: Tx,
}

/// How a commit went.
pub(crate) enum Sealed {
    Committed,
    /// Nothing took place; trying again may succeed at once.
    Conflict,
    /// Nothing took place.
    Failed(ApiError),
}

/// What a transaction of a job is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A step: not any more once the job is cancelled.
    Step,
    /// Anything else.
    Own,
}

/// Counts as work under way until dropped.
pub(crate) struct Active(Arc<Run>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
        self.0.idle.notify_waiters();
    }
}

/// Whether a step was done before.
pub(crate) enum Entered {
    Recorded(Vec<u8>),
    New(Active),
}

impl Run {
    pub fn new(engine: Arc<Engine>, kind: Arc<dyn Kind>, job: Loaded) -> Arc<Run> {
        let next_no = job.journal.iter().map(|e| e.seq_no).max().unwrap_or(0) + 1;
        let journal = job.journal.into_iter().map(|e| (e.name.clone(), e)).collect();
        Arc::new(Run {
            engine,
            facts: Arc::new(job.facts),
            kind,
            epoch: job.epoch,
            cancelled: AtomicBool::new(job.cancel),
            lost: CancellationToken::new(),
            stuck: CancellationToken::new(),
            commit: Arc::new(tokio::sync::Mutex::new(Commit { seq: job.seq, pending: None })),
            memory: Mutex::new(Memory { journal, next_no, ..Memory::default() }),
            why_stuck: Mutex::default(),
            active: AtomicUsize::new(0),
            idle: Notify::new(),
            place: Mutex::default(),
        })
    }

    /// Waits for a worker's place, and holds it. False when there is none to be had.
    pub async fn take_place(&self) -> bool {
        let Ok(place) = self.engine.workers().enter(self.facts.caller.account_id).await else { return false };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        true
    }

    /// Gives the worker's place to the next job. False when this one holds none.
    pub fn leave_place(&self) -> bool {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a fault point.
    pub async fn pass(&self, when: &str, what: &str) -> Result<(), ApiError> {
        match self.engine.faults.get() {
            None => Ok(()),
            Some(faults) => faults.pass(&format!("{when} {what}")).await,
        }
    }

    /// Begins a step: a name may be used once, and an earlier worker's step must be the same one.
    pub async fn enter(self: &Arc<Self>, name: &str, hash: &str, undo: Option<&[u8]>) -> Result<Entered, ApiError> {
        if !self.memory().names.insert(name.to_owned()) {
            return Err(ApiError::internal(format!("job {} uses the step name {name} twice", self.facts.kind)));
        }
        if let Some(data) = undo
            && !self.kind.knows_undo(data)
        {
            return Err(ApiError::internal(format!(
                "the undo of step {name} isn't of the type that job {} undoes",
                self.facts.kind
            )));
        }
        let recorded = self.memory().journal.get(name).cloned();
        if let Some(entry) = recorded {
            if entry.hash != hash {
                self.put_aside(format!("step {name} isn't the one that was recorded: its input or undo differs")).await;
            }
            if let Some(result) = entry.result {
                return Ok(Entered::Recorded(result));
            }
        }
        if self.engine.stop.is_cancelled() {
            // Another replica goes on from here.
            std::future::pending::<()>().await;
        }
        if self.cancelled.load(Ordering::SeqCst) {
            return Err(cancelled());
        }
        self.active.fetch_add(1, Ordering::SeqCst);
        Ok(Entered::New(Active(self.clone())))
    }

    /// Counts work under way outside of steps.
    pub fn busy(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::SeqCst);
        Active(self.clone())
    }

    /// Waits until nothing is under way.
    pub async fn quiet(&self) {
        loop {
            let idle = self.idle.notified();
            if self.active.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Has the job parked; never returns.
    pub async fn put_aside(&self, why: String) {
        *self.why_stuck.lock().unwrap_or_else(PoisonError::into_inner) = why;
        self.stuck.cancel();
        std::future::pending().await
    }

    pub fn why_stuck(&self) -> String {
        self.why_stuck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn next_no(&self) -> i64 {
        let mut memory = self.memory();
        memory.next_no += 1;
        memory.next_no - 1
    }

    /// Opens a transaction and fences it. Never returns once the job is another worker's.
    pub async fn open(&self, purpose: Purpose, shown: Option<&Shown>) -> Result<Open, Trouble> {
        let mut commit = self.commit.clone().lock_owned().await;
        self.resolve(&mut commit).await;
        let mut tx = self.engine.db.begin().await?;
        match rows::fence(&mut tx, self.facts.id, self.epoch, commit.seq, shown, purpose == Purpose::Step).await {
            Ok(true) => return Ok(Open { commit, tx }),
            Ok(false) => {}
            Err(e) => {
                tx.rollback().await;
                return Err(e.into());
            }
        }
        let position = rows::position(&mut tx, self.facts.id).await;
        tx.rollback().await;
        match position? {
            Some((epoch, seq, true)) if epoch == self.epoch && seq == commit.seq => {
                self.cancelled.store(true, Ordering::SeqCst);
                Err(Trouble::Api(cancelled()))
            }
            _ => {
                drop(commit);
                self.give_up().await
            }
        }
    }

    /// The job is another worker's now: this one is dropped silently.
    pub async fn give_up<T>(&self) -> T {
        tracing::info!(job = self.facts.uuid, epoch = self.epoch, "another worker has taken the job over");
        self.lost.cancel();
        std::future::pending().await
    }

    /// Writes into the journal what is known by now, and `own`.
    pub async fn write(&self, tx: &mut Tx, own: Vec<Entry>, mut undone: Vec<String>) -> Result<Pending, Error> {
        let mut entries;
        {
            let memory = self.memory();
            entries = memory.buffered.clone();
            undone.extend(memory.undone.iter().cloned());
        }
        entries.extend(own);
        rows::journal(tx, self.facts.id, &entries).await?;
        rows::undone(tx, self.facts.id, &undone).await?;
        Ok(Pending { entries, undone, ends: false })
    }

    /// Writes the journal and commits.
    pub async fn seal(&self, mut open: Open, own: Vec<Entry>, undone: Vec<String>) -> Sealed {
        match self.write(&mut open.tx, own, undone).await {
            Ok(pending) => self.commit(open, pending).await,
            Err(e) => {
                open.tx.rollback().await;
                failed(e)
            }
        }
    }

    /// Commits. A lost answer is resolved by reading back.
    pub async fn commit(&self, open: Open, pending: Pending) -> Sealed {
        let Open { mut commit, tx } = open;
        commit.pending = Some(pending);
        match tx.commit().await {
            Ok(()) => {
                commit.seq += 1;
                let pending = commit.pending.take();
                self.remember(pending);
                Sealed::Committed
            }
            Err(Error::Retry(_)) => {
                commit.pending = None;
                Sealed::Conflict
            }
            Err(error) => {
                tracing::warn!(job = self.facts.uuid, %error, "the answer to a commit was lost; reading back");
                if self.resolve(&mut commit).await == Some(true) { Sealed::Committed } else { Sealed::Conflict }
            }
        }
    }

    /// Finds out whether the pending commit took place; `None` when there is none. Insists until it knows.
    async fn resolve(&self, commit: &mut Commit) -> Option<bool> {
        let pending = commit.pending.clone()?;
        let mut backoff = Backoff::new();
        loop {
            match self.try_resolve(commit.seq).await {
                Ok(Some((seq, took_place))) => {
                    commit.seq = seq;
                    commit.pending = None;
                    if took_place {
                        self.remember(Some(pending));
                        // What the commit was to wake has not been woken.
                        self.engine.nudge_all();
                    }
                    return Some(took_place);
                }
                Ok(None) => return self.give_up().await,
                Err(error) => {
                    tracing::debug!(job = self.facts.uuid, %error, "reading back");
                    tokio::time::sleep(backoff.trouble()).await;
                }
            }
        }
    }

    /// The commit from `seq` to `seq + 1` took place, or is made impossible by going to `seq + 2` instead: the row's lock
    /// makes this wait for a COMMIT that is still under way.
    async fn try_resolve(&self, seq: i64) -> Result<Option<(i64, bool)>, Error> {
        let mut tx = self.engine.db.begin().await?;
        let skip = "UPDATE jobs SET seq = seq + 2 WHERE id = ? AND epoch = ? AND seq = ?";
        let skip = store::Sql::new(skip).bind(self.facts.id).bind(self.epoch).bind(seq);
        if tx.exec(skip).await? == 1 {
            tx.commit().await?;
            return Ok(Some((seq + 2, false)));
        }
        let position = rows::position(&mut tx, self.facts.id).await?;
        tx.rollback().await;
        Ok(match position {
            Some((epoch, now, _)) if epoch == self.epoch && now == seq + 1 => Some((now, true)),
            Some((epoch, now, _)) if epoch == self.epoch && now == seq + 2 => Some((now, false)),
            _ => None,
        })
    }

    fn remember(&self, pending: Option<Pending>) {
        let Some(pending) = pending else { return };
        let mut memory = self.memory();
        memory.finished |= pending.ends;
        memory.buffered.retain(|b| !pending.entries.iter().any(|e| e.name == b.name));
        memory.undone.retain(|u| !pending.undone.contains(u));
        for entry in pending.entries {
            memory.journal.insert(entry.name.clone(), entry);
        }
        for name in pending.undone {
            if let Some(entry) = memory.journal.get_mut(&name) {
                entry.undone = true;
            }
        }
    }

    /// Makes one of the engine's own commits, however long it takes.
    pub async fn insist<F>(&self, what: &str, entries: &[Entry], ends: bool, mut body: F)
    where
        F: for<'t> FnMut(&'t mut Tx) -> BoxFuture<'t, Result<(), ApiError>> + Send,
    {
        let mut backoff = Backoff::new();
        loop {
            let error = match self.attempt(what, entries, ends, &mut body).await {
                Ok(true) => return,
                Ok(false) => {
                    tokio::time::sleep(backoff.conflict()).await;
                    continue;
                }
                Err(error) => error,
            };
            let wait = backoff.trouble();
            if backoff.attempts() % 10 == 5 {
                tracing::error!(job = self.facts.uuid, kind = self.facts.kind, %error, attempts = backoff.attempts(), "can't commit: {what}");
            } else {
                tracing::debug!(job = self.facts.uuid, %error, "commit of {what} failed; again");
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<F>(&self, what: &str, entries: &[Entry], ends: bool, body: &mut F) -> Result<bool, ApiError>
    where
        F: for<'t> FnMut(&'t mut Tx) -> BoxFuture<'t, Result<(), ApiError>> + Send,
    {
        self.pass("before", what).await?;
        let mut open = match self.open(Purpose::Own, None).await {
            Ok(open) => open,
            Err(Trouble::Conflict) => return Ok(false),
            Err(Trouble::Api(e)) => return Err(e),
        };
        let written = match self.write(&mut open.tx, entries.to_vec(), Vec::new()).await {
            Ok(pending) => body(&mut open.tx).await.map(|()| Pending { ends, ..pending }),
            Err(e) => Err(e.into()),
        };
        if open.tx.must_retry() {
            open.tx.rollback().await;
            return Ok(false);
        }
        let pending = match written {
            Ok(pending) => pending,
            Err(e) => {
                open.tx.rollback().await;
                return Err(e);
            }
        };
        match self.commit(open, pending).await {
            Sealed::Committed => {
                // The commit stands: a failure after it means nothing, a kill does.
                let _ = self.pass("after", what).await;
                Ok(true)
            }
            Sealed::Conflict => Ok(false),
            Sealed::Failed(e) => Err(e),
        }
    }
}

impl Open {
    pub async fn rollback(self) {
        self.tx.rollback().await;
    }
}

/// Why a transaction could not be opened.
pub(crate) enum Trouble {
    Conflict,
    Api(ApiError),
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        if e.is_retry() { Trouble::Conflict } else { Trouble::Api(e.into()) }
    }
}

fn failed(e: Error) -> Sealed {
    if e.is_retry() { Sealed::Conflict } else { Sealed::Failed(e.into()) }
}

/// The error of a job that somebody cancelled.
pub(crate) fn cancelled() -> ApiError {
    ApiError::failed("The job was cancelled; what it had done has been undone.")
}
