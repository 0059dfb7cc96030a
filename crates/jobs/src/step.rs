//! Local steps: what [`crate::step!`], [`crate::finish!`] and [`crate::undo_step!`] expand to.

use crate::backoff::{Backoff, may_pass};
use crate::ctx::Ctx;
use crate::job::Finished;
use crate::rows::{self, Entry, Shown};
use crate::run::{Active, Entered, Open, Pending, Purpose, Run, Sealed, Trouble};
use crate::undo::UndoCx;
use aws_lc_rs::digest;
use contract::ApiError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use store::{Tx, now_micros};
use tokio::time::Instant;

/// A local step: its writes and its checkpoint in one commit.
///
/// `step!(ctx, "name", |tx| { …; Ok(value) }).await?`, or with `undo: value,` after the name. The value is what a later
/// run gets back. The body may run several times: it must have no effect outside `tx`. Errors are [`ApiError`].
#[macro_export]
macro_rules! step {
    ($ctx:expr, $name:expr, undo: $undo:expr, |$tx:ident| $body:expr) => {
        $crate::__local!($crate::LocalStep::new(&$ctx, $name, Some($undo)), |$tx| $body)
    };
    ($ctx:expr, $name:expr, |$tx:ident| $body:expr) => {
        $crate::__local!($crate::LocalStep::new(&$ctx, $name, $crate::NO_UNDO), |$tx| $body)
    };
}

/// The last commit of a job that succeeds: writes, journal, result, event, claims given up.
///
/// `finish!(ctx, |tx| { …; Ok(message) }).await`; the message (prost) is the job's result.
#[macro_export]
macro_rules! finish {
    ($ctx:expr, |$tx:ident| $body:expr) => {
        $crate::__local!($crate::LastStep::new(&$ctx), |$tx| $body)
    };
}

/// The local part of an undo: writes and the mark that the step is undone, in one commit. The last thing an undo does.
///
/// `undo_step!(cx, |tx| { …; Ok(()) }).await`
#[macro_export]
macro_rules! undo_step {
    ($cx:expr, |$tx:ident| $body:expr) => {
        $crate::__local!($crate::LocalUndo::new(&$cx), |$tx| $body)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __local {
    ($step:expr, |$tx:ident| $body:expr) => {
        async {
            let mut step = $step;
            loop {
                match step.begin().await {
                    Err(e) => break Err(e),
                    Ok($crate::Begun::Known(value)) => break Ok(value),
                    Ok($crate::Begun::Run(mut attempt)) => {
                        let outcome = {
                            let $tx: &mut $crate::Tx = attempt.tx();
                            step.within(async { $body }).await
                        };
                        if let Some(result) = step.finish(attempt, outcome).await {
                            break result;
                        }
                    }
                }
            }
        }
    };
}

/// What a macro goes on with.
#[doc(hidden)]
pub enum Begun<T> {
    /// The value is known already.
    Known(T),
    /// The body is to run.
    Run(Attempt),
}

/// An attempt at a transaction.
#[doc(hidden)]
pub struct Attempt(pub(crate) Open);

impl Attempt {
    /// The transaction.
    pub fn tx(&mut self) -> &mut Tx {
        &mut self.0.tx
    }
}

/// What local steps of all sorts share: attempts until the deadline.
struct Tries {
    run: Arc<Run>,
    name: String,
    deadline: Instant,
    backoff: Backoff,
    last: Option<ApiError>,
}

impl Tries {
    fn new(run: Arc<Run>, name: &str, time: Duration) -> Tries {
        Tries { run, name: name.to_owned(), deadline: Instant::now() + time, backoff: Backoff::new(), last: None }
    }

    fn shown(&self) -> Shown {
        Shown { step: self.name.clone(), attempt: self.backoff.attempts() + 1, deadline: wall(self.deadline) }
    }

    /// Opens a transaction; gives up at the deadline.
    async fn open(&mut self, purpose: Purpose) -> Result<Open, ApiError> {
        loop {
            match self.run.open(purpose, Some(&self.shown())).await {
                Ok(open) => return Ok(open),
                Err(Trouble::Conflict) => self.conflict().await?,
                Err(Trouble::Api(e)) => self.trouble(e).await?,
            }
        }
    }

    async fn within<T>(&self, body: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        match tokio::time::timeout_at(self.deadline, body).await {
            Ok(result) => result,
            Err(_) => Err(late(&self.name, None)),
        }
    }

    async fn conflict(&mut self) -> Result<(), ApiError> {
        let wait = self.backoff.conflict();
        let why = || ApiError::unavailable("the database met a conflict too often");
        self.pause(wait, why).await
    }

    /// Waits when the error may pass and there is time; gives it back otherwise.
    async fn trouble(&mut self, error: ApiError) -> Result<(), ApiError> {
        if !may_pass(&error) {
            return Err(error);
        }
        let wait = self.backoff.trouble();
        tracing::debug!(job = self.run.facts.uuid, step = self.name, %error, "again");
        self.last = Some(error.clone());
        self.pause(wait, || error).await
    }

    async fn pause(&mut self, wait: Duration, error: impl FnOnce() -> ApiError) -> Result<(), ApiError> {
        if Instant::now() + wait > self.deadline {
            return Err(late(&self.name, Some(self.last.take().unwrap_or_else(error))));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// After a body: `Ok(Some)` to be sealed, `Ok(None)` to be tried again.
    async fn judge<T>(
        &mut self,
        attempt: Attempt,
        outcome: Result<T, ApiError>,
    ) -> Result<Option<(Open, T)>, ApiError> {
        let open = attempt.0;
        if open.tx.must_retry() {
            open.rollback().await;
            self.conflict().await?;
            return Ok(None);
        }
        match outcome {
            Ok(value) => Ok(Some((open, value))),
            Err(e) => {
                open.rollback().await;
                self.trouble(e).await?;
                Ok(None)
            }
        }
    }

    /// After a commit: whether it took place.
    async fn sealed(&mut self, sealed: Sealed) -> Result<bool, ApiError> {
        match sealed {
            Sealed::Committed => Ok(true),
            Sealed::Conflict => self.conflict().await.map(|()| false),
            Sealed::Failed(e) => self.trouble(e).await.map(|()| false),
        }
    }
}

/// The error of a step that ran out of time.
pub(crate) fn late(name: &str, last: Option<ApiError>) -> ApiError {
    match last {
        Some(e) => ApiError { internal_text: Some(format!("step {name} ran out of time: {}", e.full_text())), ..e },
        None => ApiError::unavailable(format!("step {name} ran out of time")),
    }
}

/// A deadline on the wall clock, to be shown.
pub(crate) fn wall(deadline: Instant) -> i64 {
    let left = deadline.saturating_duration_since(Instant::now());
    now_micros().saturating_add(i64::try_from(left.as_micros()).unwrap_or(i64::MAX))
}

/// Identifies a step's form: its name and its undo.
pub(crate) fn hash(name: &str, undo: Option<&[u8]>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(name.as_bytes());
    context.update(&[0]);
    context.update(undo.unwrap_or_default());
    context.finish().as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn encode<T: Serialize>(value: &T, what: &str) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|e| ApiError::internal(format!("{what} can't be written: {e}")))
}

/// The state of [`crate::step!`] between attempts.
#[doc(hidden)]
pub struct LocalStep<T> {
    tries: Tries,
    undo: Result<Option<Vec<u8>>, ApiError>,
    active: Option<Active>,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> LocalStep<T> {
    /// Prepares the step.
    pub fn new<U: Serialize>(ctx: &Ctx, name: &str, undo: Option<U>) -> Self {
        let undo = undo.map(|u| encode(&u, "the step's undo")).transpose();
        LocalStep { tries: Tries::new(ctx.run.clone(), name, ctx.time), undo, active: None, value: PhantomData }
    }

    /// Opens an attempt, or gives what an earlier run recorded.
    pub async fn begin(&mut self) -> Result<Begun<T>, ApiError> {
        if self.active.is_none() {
            let undo = self.undo.clone()?;
            let name = self.tries.name.clone();
            match self.tries.run.enter(&name, &hash(&name, undo.as_deref()), undo.as_deref()).await? {
                Entered::Recorded(bytes) => {
                    return match serde_json::from_slice(&bytes) {
                        Ok(value) => Ok(Begun::Known(value)),
                        Err(e) => {
                            self.tries.run.put_aside(format!("what step {name} returned can't be read: {e}")).await;
                            Err(ApiError::internal("unreachable"))
                        }
                    };
                }
                Entered::New(active) => self.active = Some(active),
            }
            self.tries.run.pass("before", &name).await?;
        }
        Ok(Begun::Run(Attempt(self.tries.open(Purpose::Step).await?)))
    }

    /// Runs the body within the step's time.
    pub async fn within(&self, body: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        self.tries.within(body).await
    }

    /// Commits, or asks for another attempt.
    pub async fn finish(&mut self, attempt: Attempt, outcome: Result<T, ApiError>) -> Option<Result<T, ApiError>> {
        self.end(attempt, outcome).await.transpose()
    }

    async fn end(&mut self, attempt: Attempt, outcome: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
        let Some((open, value)) = self.tries.judge(attempt, outcome).await? else {
            return Ok(None);
        };
        let run = self.tries.run.clone();
        let undo = self.undo.clone()?;
        let entry = Entry {
            name: self.tries.name.clone(),
            seq_no: run.next_no(),
            hash: hash(&self.tries.name, undo.as_deref()),
            result: Some(encode(&value, "the step's value")?),
            undo,
            undone: false,
        };
        if !self.tries.sealed(run.seal(open, vec![entry], Vec::new()).await).await? {
            return Ok(None);
        }
        run.pass("after", &self.tries.name).await?;
        self.active = None;
        Ok(Some(value))
    }
}

/// The state of [`crate::finish!`] between attempts.
#[doc(hidden)]
pub struct LastStep<M> {
    tries: Tries,
    _active: Active,
    message: PhantomData<fn() -> M>,
}

/// What the last step gives.
impl<M: prost::Message> LastStep<M> {
    /// Prepares the step.
    pub fn new(ctx: &Ctx) -> Self {
        LastStep {
            tries: Tries::new(ctx.run.clone(), "finish", ctx.time),
            _active: ctx.run.busy(),
            message: PhantomData,
        }
    }

    /// Opens an attempt.
    pub async fn begin(&mut self) -> Result<Begun<Finished>, ApiError> {
        self.tries.run.pass("before", "finish").await?;
        Ok(Begun::Run(Attempt(self.tries.open(Purpose::Own).await?)))
    }

    /// Runs the body within the step's time.
    pub async fn within(&self, body: impl Future<Output = Result<M, ApiError>>) -> Result<M, ApiError> {
        self.tries.within(body).await
    }

    /// Commits, or asks for another attempt.
    pub async fn finish(
        &mut self,
        attempt: Attempt,
        outcome: Result<M, ApiError>,
    ) -> Option<Result<Finished, ApiError>> {
        self.end(attempt, outcome).await.transpose()
    }

    async fn end(&mut self, attempt: Attempt, outcome: Result<M, ApiError>) -> Result<Option<Finished>, ApiError> {
        let Some((open, message)) = self.tries.judge(attempt, outcome).await? else {
            return Ok(None);
        };
        let run = self.tries.run.clone();
        let mut attempt = Attempt(open);
        let written = ending(&run, attempt.tx(), message.encode_to_vec()).await;
        let Some((open, pending)) = self.tries.judge(attempt, written).await? else {
            return Ok(None);
        };
        if !self.tries.sealed(run.commit(open, pending).await).await? {
            return Ok(None);
        }
        // The commit stands: a failure after it means nothing, a kill does.
        let _ = run.pass("after", "finish").await;
        Ok(Some(Finished(())))
    }
}

/// The writes of the commit that ends a job well. Claims come last: rows of busy containers are locked only briefly.
async fn ending(run: &Run, tx: &mut Tx, output: Vec<u8>) -> Result<Pending, ApiError> {
    let pending = run.write(tx, Vec::new(), Vec::new()).await?;
    rows::done(tx, &run.facts, output).await?;
    run.engine.release(tx, &run.facts).await?;
    Ok(Pending { ends: true, ..pending })
}

/// The state of [`crate::undo_step!`] between attempts.
#[doc(hidden)]
pub struct LocalUndo {
    tries: Tries,
}

impl LocalUndo {
    /// Prepares the undo.
    pub fn new(cx: &UndoCx) -> Self {
        LocalUndo { tries: Tries::new(cx.run.clone(), &cx.entry.name, cx.time) }
    }

    /// Opens an attempt; nothing is left to do when the mark is there.
    pub async fn begin(&mut self) -> Result<Begun<()>, ApiError> {
        let name = &self.tries.name;
        if self.tries.run.memory().journal.get(name).is_some_and(|e| e.undone) {
            return Ok(Begun::Known(()));
        }
        Ok(Begun::Run(Attempt(self.tries.open(Purpose::Own).await?)))
    }

    /// Runs the body within the undo's time.
    pub async fn within(&self, body: impl Future<Output = Result<(), ApiError>>) -> Result<(), ApiError> {
        self.tries.within(body).await
    }

    /// Commits, or asks for another attempt.
    pub async fn finish(&mut self, attempt: Attempt, outcome: Result<(), ApiError>) -> Option<Result<(), ApiError>> {
        self.end(attempt, outcome).await.transpose()
    }

    async fn end(&mut self, attempt: Attempt, outcome: Result<(), ApiError>) -> Result<Option<()>, ApiError> {
        let Some((open, ())) = self.tries.judge(attempt, outcome).await? else {
            return Ok(None);
        };
        let name = self.tries.name.clone();
        let sealed = self.tries.run.seal(open, Vec::new(), vec![name]).await;
        Ok(self.tries.sealed(sealed).await?.then_some(()))
    }
}
