//! A job from where it stands to its end.

use crate::ctx::{AbortCx, Ctx};
use crate::engine::Engine;
use crate::rows::{self, Loaded};
use crate::run::{Purpose, Run, Sealed};
use contract::ApiError;
use events::{Alert, Record};
use futures::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::Sql;

/// How long steps under way may go on once the replica is to stop; then they are dropped, and run again elsewhere.
const GRACE: Duration = Duration::from_secs(5);

impl Engine {
    /// Works on a job that is this replica's, in a task of its own.
    pub(crate) fn work(self: &Arc<Self>, job: Loaded) {
        let Some(kind) = self.kind(&job.facts.kind, job.facts.version) else {
            tracing::error!(
                kind = job.facts.kind,
                version = job.facts.version,
                "a job of a kind that isn't registered here"
            );
            return;
        };
        let undoing = job.undoing.clone();
        let run = Run::new(self.clone(), kind, job);
        // Counted before the task runs, so that the sweep doesn't take it for forgotten.
        let Some(registered) = self.register(&run) else {
            return;
        };
        // Made in the course of the request that accepted the job, when it is run at once: one trace.
        let span = tracing::info_span!(
            "job",
            request_id = run.facts.caller.request_id,
            job_id = run.facts.id,
            kind = run.facts.kind
        );
        let work = async move {
            let _registered = registered;
            if !run.take_place().await {
                return;
            }
            run.drive(undoing).await;
            run.leave_place();
        };
        self.spawn(tracing::Instrument::instrument(work, span));
    }
}

impl Run {
    async fn drive(self: &Arc<Self>, undoing: Option<ApiError>) {
        enum End {
            Ended,
            Stuck,
            Lost,
            Stopped,
        }
        let end = tokio::select! {
            biased;
            () = self.lost.cancelled() => End::Lost,
            () = self.stuck.cancelled() => End::Stuck,
            () = self.life(undoing) => End::Ended,
            () = self.stopped() => End::Stopped,
        };
        match end {
            End::Ended => {
                tracing::info!(uuid = self.facts.uuid, "the job has ended");
                self.engine.ended(&self.facts.uuid);
            }
            End::Lost => {}
            End::Stuck => self.park().await,
            End::Stopped => self.put_down().await,
        }
    }

    /// The replica stops, and nothing is under way or grace has passed.
    async fn stopped(&self) {
        self.engine.stop.cancelled().await;
        let _ = tokio::time::timeout(GRACE, self.quiet()).await; // late steps are dropped
    }

    async fn life(self: &Arc<Self>, undoing: Option<ApiError>) {
        let error = match undoing {
            Some(error) => error,
            None => {
                let Err(error) = self.forward().await else { return };
                if self.memory().finished {
                    return;
                }
                tracing::info!(job = self.facts.uuid, kind = self.facts.kind, %error, "job failed");
                let owed = self.owed().await;
                if !owed.is_empty() {
                    self.begin_undo(&error, &owed).await;
                }
                error
            }
        };
        // What is owed is in the journal by now.
        let mut owed: Vec<_> =
            self.memory().journal.values().filter(|e| e.undo.is_some() && !e.undone).cloned().collect();
        owed.sort_by_key(|e| -e.seq_no);
        self.undo_all(owed).await;
        self.end_failed(&error).await;
    }

    async fn forward(self: &Arc<Self>) -> Result<(), ApiError> {
        self.pass("before", "start").await?;
        let work = match self.kind.run(&self.facts.input, Ctx::new(self.clone())) {
            Ok(work) => work,
            Err(error) => {
                self.put_aside(error.full_text().to_owned()).await;
                return Err(error);
            }
        };
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(ended) => ended.map(drop),
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                tracing::error!(job = self.facts.uuid, kind = self.facts.kind, panic = text, "a job function panicked");
                Err(ApiError::internal(format!("job {} panicked: {text}", self.facts.kind)))
            }
        }
    }

    async fn end_failed(self: &Arc<Self>, error: &ApiError) {
        self.insist("abort", &[], true, |tx| {
            let (run, error) = (self.clone(), error.clone());
            async move {
                let cx = AbortCx { facts: run.facts.clone() };
                let abort = run.kind.abort(&run.facts.input, &error, tx, &cx)?;
                AssertUnwindSafe(abort).catch_unwind().await.unwrap_or_else(|panic| {
                    Err(ApiError::internal(format!("abort panicked: {}", panic_text(panic.as_ref()))))
                })?;
                rows::failed(tx, &run.facts, &error).await?;
                run.engine.release(tx, &run.facts).await
            }
            .boxed()
        })
        .await;
    }

    /// Puts a job that can't go on aside, with its claims: somebody must look.
    async fn park(self: &Arc<Self>) {
        let why = self.why_stuck();
        tracing::error!(
            job = self.facts.uuid,
            kind = self.facts.kind,
            reason = why,
            "job is parked: it can't go on by itself"
        );
        let (id, alert) = (self.facts.id, alert(self, &why));
        let parked = self.insist("park", &[], true, |tx| {
            let alert = alert.clone();
            async move {
                tx.exec(Sql::new("UPDATE jobs SET state = 'Parked' WHERE id = ?").bind(id)).await?;
                Ok(events::record(tx, &[alert]).await?)
            }
            .boxed()
        });
        tokio::select! {
            biased;
            () = self.lost.cancelled() => {}
            () = parked => {}
        }
    }

    /// Gives the job to whoever takes it, with what is known so far.
    async fn put_down(&self) {
        let put = async {
            let mut open = self.open(Purpose::Own, None).await.ok()?;
            let sql = Sql::new("UPDATE jobs SET owner = NULL WHERE id = ?").bind(self.facts.id);
            open.tx.exec(sql).await.ok()?;
            matches!(self.seal(open, Vec::new(), Vec::new()).await, Sealed::Committed).then_some(())
        };
        // When this fails, the job is taken over once this replica's membership has ended.
        if let Ok(Some(())) = tokio::time::timeout(GRACE, put).await {
            self.engine.nudge(&self.facts.service, "put down");
        }
    }
}

fn alert(run: &Run, why: &str) -> Record {
    let text = format!("Job {} ({}) is parked and keeps its claims: {why}", run.facts.uuid, run.facts.kind);
    Alert::management("AsyncJob", &run.facts.uuid).raise(text)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}
