//! One service's engine: accepts jobs, works on them, takes over what others left.

use crate::backlog::{Backlog, Bounds};
use crate::faults::Faults;
use crate::job::{Accept, Job, Kind, KindOf, Ticket};
use crate::run::Run;
use crate::view::{self, JobView};
use contract::ApiError;
use contract::api::JobRef;
use coord::Coord;
use lanes::Gate;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use store::{Db, Sql, Tx};
use telemetry::metrics;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often things are looked at that are normally told.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between looks for jobs without a worker.
    pub sweep: Duration,
    /// How long a job's worker must have been seen missing before the job is taken.
    pub grace: Duration,
    /// Between clean-ups.
    pub housekeeping: Duration,
    /// How long ended jobs can be asked for.
    pub keep: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            sweep: Duration::from_secs(2),
            grace: Duration::from_secs(2),
            housekeeping: Duration::from_secs(60),
            keep: Duration::from_secs(24 * 3600),
        }
    }
}

pub(crate) struct Engine {
    pub db: Db,
    pub coord: Coord,
    pub service: &'static str,
    pub replica: String,
    pub faults: OnceLock<Arc<Faults>>,
    /// Jobs that wait for claims.
    pub backlog: Backlog,
    /// Fires when the replica is to stop in order.
    pub stop: CancellationToken,
    /// Undos that are past their deadline.
    pub late: AtomicI64,
    pub wake: Notify,
    pace: OnceLock<Pace>,
    bounds: OnceLock<Bounds>,
    /// Jobs at work; more of this replica's jobs wait in memory.
    workers: OnceLock<Gate<i64>>,
    live: AtomicBool,
    kinds: OnceLock<HashMap<(String, i64), Arc<dyn Kind>>>,
    tasks: OnceLock<TaskTracker>,
    runs: Mutex<HashMap<i64, Arc<Run>>>,
    ends: broadcast::Sender<String>,
}

/// Figures of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Jobs that this replica has taken.
    pub running: usize,
    /// Those of them that wait for a worker.
    pub waiting: usize,
    /// Undos that are past their deadline; the objective is 0.
    pub past_deadline: i64,
}

/// Handle of one service's engine. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    engine: Arc<Engine>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("service", &self.engine.service).finish_non_exhaustive()
    }
}

/// An engine before it starts.
pub struct Builder {
    engine: Arc<Engine>,
    kinds: HashMap<(String, i64), Arc<dyn Kind>>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("service", &self.engine.service).finish_non_exhaustive()
    }
}

impl Builder {
    /// The engine's handle, which worlds and handlers need before it starts. Jobs accepted until then wait.
    pub fn handle(&self) -> Jobs {
        Jobs { engine: self.engine.clone() }
    }

    /// Declares a kind, with the handles that its steps use.
    #[must_use]
    pub fn register<J: Job>(mut self, world: Arc<J::World>) -> Builder {
        self.kinds.insert((J::KIND.to_owned(), i64::from(J::VERSION)), Arc::new(KindOf::<J> { world }));
        self
    }

    /// Sets faults, for the harness.
    #[must_use]
    pub fn faults(self, faults: Arc<Faults>) -> Builder {
        let _ = self.engine.faults.set(faults); // the first ones count
        self
    }

    /// Sets another pace, for tests.
    #[must_use]
    pub fn pace(self, pace: Pace) -> Builder {
        let _ = self.engine.pace.set(pace); // the first one counts
        self
    }

    /// Sets other bounds.
    #[must_use]
    pub fn bounds(self, bounds: Bounds) -> Builder {
        let _ = self.engine.bounds.set(bounds); // the first ones count
        self
    }

    /// Starts the engine; it ends in order when `stop` fires.
    pub fn start(self, stop: CancellationToken, tasks: &TaskTracker) -> Jobs {
        let engine = self.engine;
        let _ = engine.kinds.set(self.kinds); // a builder starts once
        let _ = engine.tasks.set(tasks.clone());
        engine.live.store(true, Ordering::SeqCst);
        let stopping = engine.clone();
        engine.spawn(async move {
            stop.cancelled().await;
            stopping.live.store(false, Ordering::SeqCst);
            stopping.stop.cancel();
        });
        let sweeping = engine.clone();
        engine.spawn(async move { sweeping.watch().await });
        let keeping = engine.clone();
        engine.spawn(async move { keeping.keep_house().await });
        show(&engine);
        Jobs { engine }
    }
}

impl Jobs {
    /// Begins an engine of `service` on the replica with this member id.
    pub fn builder(db: Db, coord: Coord, service: &'static str, replica: String) -> Builder {
        let engine = Engine {
            db,
            coord,
            service,
            replica,
            faults: OnceLock::new(),
            backlog: Backlog::default(),
            stop: CancellationToken::new(),
            late: AtomicI64::new(0),
            wake: Notify::new(),
            pace: OnceLock::new(),
            bounds: OnceLock::new(),
            workers: OnceLock::new(),
            live: AtomicBool::new(false),
            kinds: OnceLock::new(),
            tasks: OnceLock::new(),
            runs: Mutex::default(),
            ends: broadcast::channel(1024).0,
        };
        Builder { engine: Arc::new(engine), kinds: HashMap::new() }
    }

    /// Number and UUID for a job. Take it before the transaction that accepts the job.
    pub async fn ticket(&self) -> Result<Ticket, ApiError> {
        Ok(Ticket { id: self.engine.db.next_id("job").await?, uuid: model::new_uuid() })
    }

    /// Accepts a job as part of the caller's transaction: its row, its claims, its event. It starts when the transaction
    /// has been committed and its claims are free.
    ///
    /// # Errors
    /// 431 when the job's UUID (`customjobid`) is taken; 503, with nothing written, when too many jobs wait ([`Bounds`]).
    pub async fn accept<J: Job>(&self, tx: &mut Tx, ticket: Ticket, accept: Accept<J>) -> Result<JobRef, ApiError> {
        self.engine.accept(tx, ticket, accept).await
    }

    /// Waits until a job has ended, wherever it runs.
    ///
    /// # Errors
    /// When there is no such job, or the database doesn't answer.
    pub async fn end_of(&self, uuid: &str) -> Result<JobView, ApiError> {
        let mut ends = self.engine.ends.subscribe();
        loop {
            match view::find(&self.engine.db, uuid).await? {
                Some(job) if job.ended.is_some() => return Ok(job),
                Some(_) => {}
                None => return Err(ApiError::param(format!("there is no job {uuid}"))),
            }
            // Jobs of other replicas end without a word here.
            let told = async {
                while let Ok(ended) = ends.recv().await {
                    if ended == uuid {
                        break;
                    }
                }
            };
            let _ = tokio::time::timeout(Duration::from_millis(250), told).await;
        }
    }

    /// Asks a job to end: it fails at its next step, and what it has done is undone. A job that waits does so when it
    /// gets its claims. Gives whether there is such a job that hasn't ended.
    pub async fn cancel(&self, uuid: &str) -> Result<bool, ApiError> {
        let db = &self.engine.db;
        let sql = "UPDATE jobs SET cancel = 1 WHERE uuid = ? AND ended IS NULL";
        let found = store::tx!(db, "cancel-job", |tx| tx.exec(Sql::new(sql).bind(uuid)).await).await?;
        if found == 0 {
            return Ok(false);
        }
        let row = db.one(Sql::new("SELECT id, service FROM jobs WHERE uuid = ?").bind(uuid)).await?;
        let (id, service): (i64, String) = (row.at(0)?, row.at(1)?);
        self.engine.flag_cancelled(id);
        self.engine.nudge(&service, &format!("cancel/{id}"));
        Ok(true)
    }

    /// Lets a parked job go on, after whatever kept it has been seen to. Gives whether it was parked.
    pub async fn resume(&self, uuid: &str) -> Result<bool, ApiError> {
        let db = &self.engine.db;
        // With an error it was being undone.
        let sql = "UPDATE jobs SET state = (CASE WHEN error IS NULL THEN 'Running' ELSE 'Undoing' END), owner = NULL, \
                   takeovers = 0, seq = seq + 1 WHERE uuid = ? AND state = 'Parked'";
        let found = store::tx!(db, "resume-job", |tx| tx.exec(Sql::new(sql).bind(uuid)).await).await?;
        self.engine.nudge_all();
        Ok(found > 0)
    }

    /// `kind@version` of what this engine can run, for the replica's membership.
    pub fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> =
            self.engine.kinds().keys().map(|(kind, version)| format!("{kind}@{version}")).collect();
        kinds.sort();
        kinds
    }

    /// Figures, for metrics.
    pub fn stats(&self) -> JobStats {
        JobStats {
            running: self.engine.runs().len(),
            waiting: self.engine.workers().stats().waiting,
            past_deadline: self.engine.late.load(Ordering::Relaxed),
        }
    }
}

static NO_KINDS: std::sync::LazyLock<HashMap<(String, i64), Arc<dyn Kind>>> = std::sync::LazyLock::new(HashMap::new);

impl Engine {
    pub(crate) fn kinds(&self) -> &HashMap<(String, i64), Arc<dyn Kind>> {
        self.kinds.get().unwrap_or(&NO_KINDS)
    }

    pub(crate) fn kind(&self, kind: &str, version: i64) -> Option<Arc<dyn Kind>> {
        self.kinds().get(&(kind.to_owned(), version)).cloned()
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace.get().copied().unwrap_or_default()
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds.get().copied().unwrap_or_default()
    }

    /// Who may work on a job, by account.
    pub(crate) fn workers(&self) -> &Gate<i64> {
        self.workers.get_or_init(|| Gate::new(self.bounds().rules()))
    }

    /// Whether jobs are taken.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst)
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_running(&self, id: i64) -> bool {
        self.runs().contains_key(&id)
    }

    pub(crate) fn flag_cancelled(&self, id: i64) {
        if let Some(run) = self.runs().get(&id) {
            run.cancelled.store(true, Ordering::SeqCst);
        }
    }

    /// Notes that this replica works on a job; none when it does so already.
    pub(crate) fn register(self: &Arc<Self>, run: &Arc<Run>) -> Option<Registered> {
        let id = run.facts.id;
        let mut runs = self.runs();
        if let Some(other) = runs.get(&id) {
            if other.epoch >= run.epoch {
                return None;
            }
            // An older run of this very replica: this one took the job over from it.
            other.lost.cancel();
        }
        runs.insert(id, run.clone());
        Some(Registered { engine: self.clone(), id, epoch: run.epoch })
    }

    /// Runs a task of the engine's own; the harness may drop them all at once.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let Some(tasks) = self.tasks.get() else { return };
        let work = store::chance::placed(work);
        match self.faults.get() {
            None => drop(tasks.spawn(work)),
            Some(faults) => {
                let killed = faults.kill_token();
                tasks.spawn(async move {
                    tokio::select! {
                        biased;
                        () = killed.cancelled() => {}
                        () = work => {}
                    }
                });
            }
        }
    }

    pub(crate) fn ended(&self, uuid: &str) {
        let _ = self.ends.send(uuid.to_owned()); // nobody may be waiting
    }

    /// Tells the replicas of a service to look for work.
    pub(crate) fn nudge(&self, service: &str, what: &str) {
        self.coord.publish(&format!("jobs/{service}"), what);
    }

    /// Looks for work here, and has other replicas look.
    pub(crate) fn nudge_all(&self) {
        self.wake.notify_one();
        self.nudge(self.service, "look");
    }
}

/// Notes until dropped that this replica works on a job.
pub(crate) struct Registered {
    engine: Arc<Engine>,
    id: i64,
    epoch: i64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut runs = self.engine.runs();
        if runs.get(&self.id).is_some_and(|r| r.epoch == self.epoch) {
            runs.remove(&self.id);
        }
    }
}

/// Figures of a running engine as metrics.
fn show(engine: &Arc<Engine>) {
    let running = metrics::gauges("jobs_running", "Jobs at work, by service");
    let late = metrics::gauges("jobs_past_deadline", "Jobs past their deadline, by service; the objective is 0");
    let (engine, labels) = (Arc::downgrade(engine), vec![("service", engine.service.to_owned())]);
    metrics::before_each_scrape(move || {
        let Some(engine) = engine.upgrade() else { return false };
        let stats = Jobs { engine }.stats();
        running.get_or_create(&labels).set(i64::try_from(stats.running).unwrap_or(i64::MAX));
        late.get_or_create(&labels).set(stats.past_deadline);
        true
    });
}
