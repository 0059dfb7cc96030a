//! What a job function has besides its input.

use crate::backoff::{Backoff, may_pass};
use crate::key::{Answer, Call, StepKey};
use crate::rows::Entry;
use crate::run::{Entered, Run};
use crate::step::{encode, hash, late};
use contract::ApiError;
use contract::api::Caller;
use model::Owner;
use prost::Message as _;
use serde::Serialize;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long a step may take when nothing else is said.
pub(crate) const STEP_TIME: Duration = Duration::from_secs(120);

/// For steps that need no undo.
pub const NO_UNDO: Option<()> = None;

/// A job's context: its steps go through it. Cheap to clone, so that steps may run in parallel.
#[derive(Clone)]
pub struct Ctx {
    pub(crate) run: Arc<Run>,
    pub(crate) time: Duration,
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("job", &self.run.facts.uuid).finish_non_exhaustive()
    }
}

impl Ctx {
    pub(crate) fn new(run: Arc<Run>) -> Ctx {
        Ctx { run, time: STEP_TIME }
    }

    /// The same context with another time for each step (from its start, retries included).
    #[must_use]
    pub fn deadline(&self, time: Duration) -> Ctx {
        Ctx { time, ..self.clone() }
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

    /// When the job was accepted, UTC µs: the same in every run.
    pub fn accepted(&self) -> i64 {
        self.run.facts.created
    }

    /// Waits within a step for something that others do, which may take days: the job keeps its claims, and its worker's place
    /// goes to another job until `what` is over. `what` must find out by itself, at every start, whether it has happened
    /// already: a worker that takes over waits anew. Steps of the same job that run at the same time go on without a place.
    /// When the wait is dropped (the step's time is over), what the job still does to end needs no place either.
    pub async fn idle<T>(&self, what: impl Future<Output = T>) -> T {
        let left = self.run.leave_place();
        let out = what.await;
        if left {
            // Refused: it goes on all the same, as it was let in before.
            self.run.take_place().await;
        }
        out
    }

    /// A remote step. `f` makes one attempt; it is called again while the error may pass and time is left, and again by a
    /// worker that took over, always with the same key. The result goes into the journal with the job's next commit.
    ///
    /// # Errors
    /// What the receiver answered, or that it didn't in time. The step's `undo` runs then, too.
    pub async fn call<R, U, F, Fut>(&self, name: &str, undo: Option<U>, mut f: F) -> Result<R::Message, ApiError>
    where
        R: Answer,
        U: Serialize,
        F: FnMut(Call) -> Fut,
        Fut: Future<Output = R>,
    {
        let run = &self.run;
        let undo = undo.map(|u| encode(&u, "the step's undo")).transpose()?;
        let hash = hash(name, undo.as_deref());
        let active = match run.enter(name, &hash, undo.as_deref()).await? {
            Entered::Recorded(bytes) => {
                return match R::Message::decode(bytes.as_slice()) {
                    Ok(message) => Ok(message),
                    Err(e) => {
                        run.put_aside(format!("what step {name} answered can't be read: {e}")).await;
                        Err(e.into())
                    }
                };
            }
            Entered::New(active) => active,
        };
        run.pass("before", name).await?;
        let entry =
            Entry { name: name.to_owned(), seq_no: run.next_no(), hash, undo: undo.clone(), ..Entry::default() };
        run.memory().in_flight.insert(name.to_owned(), entry);
        let key = StepKey::new(run.facts.id, name, run.epoch, false).with_undo_data(undo.as_deref());
        let answer = self.attempts(&key, &mut f).await?;
        // Still in flight here: a fault after the call leaves an effect whose answer was lost.
        run.pass("after", name).await?;
        {
            let mut memory = run.memory();
            if let Some(mut entry) = memory.in_flight.remove(name) {
                entry.result = Some(answer.encode_to_vec());
                memory.buffered.push(entry);
            }
        }
        // The order of completion is the order of undo.
        let no = run.next_no();
        if let Some(entry) = run.memory().buffered.iter_mut().find(|e| e.name == name) {
            entry.seq_no = no;
        }
        drop(active);
        Ok(answer)
    }

    async fn attempts<R, F, Fut>(&self, key: &StepKey, f: &mut F) -> Result<R::Message, ApiError>
    where
        R: Answer,
        F: FnMut(Call) -> Fut,
        Fut: Future<Output = R>,
    {
        let name = key.step();
        let deadline = Instant::now() + self.time;
        let mut backoff = Backoff::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let call = Call::new(key.clone(), self.run.facts.caller.clone(), left);
            let Ok(answered) = tokio::time::timeout_at(deadline, f(call)).await else {
                return Err(late(name, None));
            };
            let error = match answered.into_answer() {
                Ok(answer) => return Ok(answer),
                Err(error) if may_pass(&error) => error,
                Err(error) => return Err(error),
            };
            let wait = backoff.trouble();
            tracing::debug!(job = self.run.facts.uuid, step = name, %error, attempt = backoff.attempts(), "again");
            if Instant::now() + wait > deadline {
                return Err(late(name, Some(error)));
            }
            tokio::time::sleep(wait).await;
            self.run.still_wanted().await?;
        }
    }
}

/// What an abort knows of its job.
#[derive(Clone, Debug)]
pub struct AbortCx {
    pub(crate) facts: Arc<crate::rows::Facts>,
}

impl AbortCx {
    /// In whose name the job ran.
    pub fn caller(&self) -> &Caller {
        &self.facts.caller
    }

    /// Who owns what the job worked on.
    pub fn owner(&self) -> &Owner {
        &self.facts.owner
    }

    /// The job's number.
    pub fn job_id(&self) -> i64 {
        self.facts.id
    }

    /// The job's UUID.
    pub fn job_uuid(&self) -> &str {
        &self.facts.uuid
    }
}

impl Run {
    /// Between attempts: whether the job is still this worker's, and not cancelled.
    async fn still_wanted(&self) -> Result<(), ApiError> {
        if let Ok(found) = crate::rows::peek(&self.engine.db, self.facts.id).await {
            match found {
                Some((epoch, cancel)) if epoch == self.epoch => self.cancelled.store(cancel, Ordering::SeqCst),
                _ => return self.give_up().await,
            }
        }
        if self.cancelled.load(Ordering::SeqCst) { Err(crate::run::cancelled()) } else { Ok(()) }
    }
}
