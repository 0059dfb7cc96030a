//! Undoing what a failed job did: every step that has an undo and finished or may have taken place, last first.

use crate::backoff::Backoff;
use crate::ctx::STEP_TIME;
use crate::key::{Answer, Call, StepKey};
use crate::rows::{self, Entry};
use crate::run::Run;
use contract::ApiError;
use contract::api::Caller;
use futures::FutureExt as _;
use model::Owner;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::Sql;
use tokio::time::Instant;

/// How long an undo may take before it counts as past its deadline. It is tried on.
const UNDO_DEADLINE: Duration = Duration::from_secs(600);

/// Name of the journal's entry for what was done before the acceptance.
const ACCEPT: &str = "accept";

/// What an undo has besides its data. Undo remotely with [`UndoCx::call`], locally with [`crate::undo_step!`], last.
#[derive(Clone)]
pub struct UndoCx {
    pub(crate) run: Arc<Run>,
    pub(crate) entry: Arc<Entry>,
    pub(crate) time: Duration,
}

impl std::fmt::Debug for UndoCx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UndoCx")
            .field("job", &self.run.facts.uuid)
            .field("step", &self.entry.name)
            .finish_non_exhaustive()
    }
}

impl UndoCx {
    /// The step that is undone.
    pub fn step(&self) -> &str {
        &self.entry.name
    }

    /// What the local step returned; none when it isn't known to have finished.
    pub fn value<T: DeserializeOwned>(&self) -> Option<T> {
        self.entry.result.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok())
    }

    /// What the remote step answered; none when it isn't known to have finished.
    pub fn answer<M: prost::Message + Default>(&self) -> Option<M> {
        self.entry.result.as_deref().and_then(|bytes| M::decode(bytes).ok())
    }

    /// In whose name the job runs.
    pub fn caller(&self) -> &Caller {
        &self.run.facts.caller
    }

    /// Who owns what the job works on.
    pub fn owner(&self) -> &Owner {
        &self.run.facts.owner
    }

    /// The job's number.
    pub fn job_id(&self) -> i64 {
        self.run.facts.id
    }

    /// The job's UUID.
    pub fn job_uuid(&self) -> &str {
        &self.run.facts.uuid
    }

    /// The error that made the job fail is not this undo's business; its time is: another one for each attempt.
    #[must_use]
    pub fn deadline(&self, time: Duration) -> UndoCx {
        UndoCx { time, ..self.clone() }
    }

    /// One attempt at undoing remotely, with the key of the step. The engine tries again when the undo fails.
    ///
    /// # Errors
    /// What the receiver answered, or that it didn't in time.
    pub async fn call<R, F, Fut>(&self, f: F) -> Result<R::Message, ApiError>
    where
        R: Answer,
        F: FnOnce(Call) -> Fut,
        Fut: Future<Output = R>,
    {
        let key = StepKey::new(self.run.facts.id, &self.entry.name, self.run.epoch, true);
        let call = Call::new(key, self.caller().clone(), self.time);
        match tokio::time::timeout(self.time, f(call)).await {
            Ok(answered) => answered.into_answer(),
            Err(_) => Err(ApiError::unavailable(format!("the undo of step {} ran out of time", self.entry.name))),
        }
    }
}

impl Run {
    /// What is owed: steps with an undo that isn't done. Steps in flight come last, so they are undone first.
    pub async fn owed(&self) -> Vec<Entry> {
        let mut owed: Vec<Entry> = {
            let memory = self.memory();
            memory.journal.values().chain(&memory.buffered).filter(|e| e.undo.is_some() && !e.undone).cloned().collect()
        };
        let mut begun: Vec<Entry> = self.memory().in_flight.values().filter(|e| e.undo.is_some()).cloned().collect();
        if self.epoch > 1 {
            let mut backoff = Backoff::new();
            let known: Vec<String> = owed.iter().chain(&begun).map(|e| e.name.clone()).collect();
            begun.extend(loop {
                match self.unknown_effects(&known).await {
                    Ok(found) => break found,
                    Err(error) => tracing::debug!(job = self.facts.uuid, %error, "reading effects"),
                }
                tokio::time::sleep(backoff.trouble()).await;
            });
        }
        for entry in &mut begun {
            entry.seq_no = self.next_no();
        }
        owed.append(&mut begun);
        if !self.memory().journal.contains_key(ACCEPT) {
            owed.extend(self.acceptance());
        }
        owed.sort_by_key(|e| -e.seq_no);
        owed
    }

    /// What was done before the job was accepted comes first in the journal, and is undone last.
    fn acceptance(&self) -> Option<Entry> {
        let undo = self.kind.accepted(&self.facts.input).unwrap_or_else(|error| {
            // The same input was read when it was accepted.
            tracing::error!(job = self.facts.uuid, %error, "the acceptance can't be undone");
            None
        });
        undo.map(|undo| Entry { name: ACCEPT.to_owned(), seq_no: -1, undo: Some(undo), ..Entry::default() })
    }

    /// Effects of an earlier worker that this one never got to: they were not journaled, but the receiver knows them.
    async fn unknown_effects(&self, known: &[String]) -> Result<Vec<Entry>, store::Error> {
        let sql = "SELECT step, undo_data FROM effects WHERE job_id = ? AND state = 'Done' AND undo_data IS NOT NULL ORDER BY created";
        let mut found = Vec::new();
        for row in self.engine.db.all(Sql::new(sql).bind(self.facts.id)).await? {
            let name: String = row.at(0)?;
            if !known.contains(&name) && !self.memory().journal.contains_key(&name) {
                found.push(Entry { name, undo: row.at(1)?, ..Entry::default() });
            }
        }
        Ok(found)
    }

    /// Journals that the job is being undone, and what for.
    pub async fn begin_undo(self: &Arc<Self>, error: &ApiError, owed: &[Entry]) {
        let known: Vec<Entry> = {
            let memory = self.memory();
            let is_new =
                |e: &&Entry| !memory.journal.contains_key(&e.name) && !memory.buffered.iter().any(|b| b.name == e.name);
            owed.iter().filter(is_new).cloned().collect()
        };
        let id = self.facts.id;
        self.insist("fail", &known, false, |tx| {
            let error = error.clone();
            async move { Ok(rows::undoing(tx, id, &error).await?) }.boxed()
        })
        .await;
        self.memory().in_flight.clear();
    }

    /// Undoes what is owed.
    pub async fn undo_all(self: &Arc<Self>, owed: Vec<Entry>) {
        for entry in owed {
            let _active = self.busy();
            self.undo_one(Arc::new(entry)).await;
        }
    }

    async fn undo_one(self: &Arc<Self>, entry: Arc<Entry>) {
        let mut backoff = Backoff::new();
        let deadline = Instant::now() + UNDO_DEADLINE;
        let mut late = None;
        loop {
            let Err(error) = self.try_undo(&entry).await else { break };
            let wait = backoff.trouble();
            let attempt = backoff.attempts();
            if Instant::now() > deadline {
                late.get_or_insert_with(|| Late::new(self));
                tracing::error!(job = self.facts.uuid, step = entry.name, %error, attempt, "undo is past its deadline");
            } else {
                tracing::warn!(job = self.facts.uuid, step = entry.name, %error, attempt, "undo failed; again");
            }
            tokio::time::sleep(wait).await;
        }
        let mut memory = self.memory();
        if memory.journal.get(&entry.name).is_some_and(|e| !e.undone) {
            memory.undone.push(entry.name.clone());
        }
    }

    async fn try_undo(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), ApiError> {
        self.pass("before undo", &entry.name).await?;
        let cx = UndoCx { run: self.clone(), entry: entry.clone(), time: STEP_TIME };
        let data = entry.undo.as_deref().unwrap_or_default();
        let undo = self.kind.undo(&self.facts.input, data, cx)?;
        AssertUnwindSafe(undo)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(ApiError::internal(format!("the undo of step {} panicked", entry.name))))?;
        self.pass("after undo", &entry.name).await
    }
}

/// Counts an undo as past its deadline until dropped.
struct Late(Arc<Run>);

impl Late {
    fn new(run: &Arc<Run>) -> Late {
        run.engine.late.fetch_add(1, Ordering::Relaxed);
        Late(run.clone())
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.0.engine.late.fetch_sub(1, Ordering::Relaxed);
    }
}
