//! Proves a job: fails and kills it at every point, and compares what is left with the state before or after.
//!
//! A [`Scenario`] makes a fresh world, submits one job in it, and tells what the world looks like. [`prove`] runs it
//! undisturbed to learn its points, then once for each point and fault. After every run the job must have ended; the
//! world must look as if it had never been when the job failed, and as after the undisturbed run when it succeeded. For
//! each failing point it learns the points of the undo, too, and disturbs those.
//!
//! Points are named "before NAME" and "after NAME", where NAME is a step, "undo STEP", "start", "finish", "fail" (the
//! commit that journals a failure) or "abort" (the one that ends the job).

use crate::engine::{Jobs, Pace};
use crate::faults::{Fault, Faults};
use crate::view::{JobState, JobView};
use contract::ApiError;
use coord::{Coord, Member, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use store::Db;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a disturbed job may take to its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an engine is to be started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The scenario's database.
    pub db: Db,
    /// Coordination, which outlives the engine.
    pub coord: Coord,
    /// Member id of this incarnation.
    pub replica: String,
    /// For [`crate::Builder::faults`].
    pub faults: Arc<Faults>,
    /// For [`crate::Builder::pace`].
    pub pace: Pace,
    /// For [`crate::Builder::start`].
    pub stop: CancellationToken,
    /// For [`crate::Builder::start`].
    pub tasks: TaskTracker,
}

/// One job in a world of its own.
pub trait Scenario: Send + Sync {
    /// What belongs to one run: the database, and services that outlive the engine.
    type World: Send + Sync;

    /// A fresh world.
    fn world(&self) -> impl Future<Output = Self::World> + Send;
    /// Its database.
    fn db<'w>(&self, world: &'w Self::World) -> &'w Db;
    /// The service whose engine it is.
    fn service(&self) -> &'static str;
    /// Starts the engine; called again after each kill.
    fn start(&self, world: &Self::World, start: Start) -> impl Future<Output = Jobs> + Send;
    /// Accepts the job; gives its UUID.
    fn submit(&self, world: &Self::World, jobs: &Jobs) -> impl Future<Output = Result<String, ApiError>> + Send;
    /// What the world looks like, without what every run changes (ids of jobs, times).
    fn look(&self, world: &Self::World) -> impl Future<Output = String> + Send;
    /// What the world looks like once the job has ended; a scenario may let duties finish their part first.
    fn look_ended(&self, world: &Self::World) -> impl Future<Output = String> + Send {
        self.look(world)
    }
    /// What it must look like when the job has failed: as before it was submitted, unless that leaves a trace.
    fn look_failed(&self, before: &str) -> String {
        before.to_owned()
    }
    /// Whether a failed job may leave `after`; for jobs that have a point of no return, and so more than one way to fail.
    fn may_fail_as(&self, before: &str, _succeeded: &str, after: &str) -> bool {
        after == self.look_failed(before)
    }
}

/// What was proved.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// Runs made.
    pub runs: usize,
    /// Points passed, disturbed at least once each.
    pub points: BTreeSet<String>,
}

/// Proves a scenario. `steps` are the names of all its job's steps.
///
/// # Errors
/// What was different, where, after which faults; or which step was never reached.
pub async fn prove<S: Scenario>(scenario: &S, steps: &[&str]) -> Result<Proof, String> {
    let mut proof = Proof::default();
    let calm = run(scenario, BTreeMap::new()).await?;
    proof.runs += 1;
    let succeeded = calm.expect_success()?.to_owned();
    for step in steps {
        if !calm.trace.iter().any(|p| p.strip_prefix("before ") == Some(step)) {
            return Err(format!("step {step} was never reached; reached: {:?}", calm.trace));
        }
    }
    let mut undo_points: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for point in points_of(&calm) {
        proof.points.insert(point.clone());
        let killed = run(scenario, [(point.clone(), Fault::Kill)].into()).await?;
        killed.compare(scenario, &succeeded, Some(JobState::Done))?;
        let broken = run(scenario, [(point.clone(), Fault::Fail)].into()).await?;
        broken.compare(scenario, &succeeded, (point != "after finish").then_some(JobState::Failed))?;
        proof.runs += 2;
        // With nothing to undo, the failure is journaled by the commit that ends the job.
        let journaled = broken.trace.iter().any(|p| p == "after fail");
        for later in points_of(&broken) {
            if !calm.trace.contains(&later) {
                // The last forward point leaves the most to undo.
                undo_points.insert(later, (point.clone(), journaled));
            }
        }
    }
    for (undo, (cause, journaled)) in undo_points {
        proof.points.insert(undo.clone());
        for fault in [Fault::Fail, Fault::Kill] {
            let faults = [(cause.clone(), Fault::Fail), (undo.clone(), fault)].into();
            // Killed before the failure was journaled, the job is simply run again, and may succeed.
            let told = if journaled { "before fail" } else { "before abort" };
            let state = (undo != told || fault != Fault::Kill).then_some(JobState::Failed);
            run(scenario, faults).await?.compare(scenario, &succeeded, state)?;
            proof.runs += 1;
        }
    }
    Ok(proof)
}

fn points_of(run: &Run) -> Vec<String> {
    let mut seen = BTreeSet::new();
    run.trace.iter().filter(|p| seen.insert((*p).clone())).cloned().collect()
}

struct Run {
    faults: BTreeMap<String, Fault>,
    before: String,
    after: String,
    job: JobView,
    trace: Vec<String>,
}

impl Run {
    fn expect_success(&self) -> Result<&str, String> {
        if self.job.state == JobState::Done {
            Ok(&self.after)
        } else {
            Err(format!("the undisturbed job ended as {:?}: {:?}", self.job.state, self.job.error()))
        }
    }

    fn compare<S: Scenario>(&self, scenario: &S, succeeded: &str, state: Option<JobState>) -> Result<(), String> {
        let done = self.job.state == JobState::Done;
        let good =
            if done { self.after == succeeded } else { scenario.may_fail_as(&self.before, succeeded, &self.after) };
        let told = format!("with {:?} the job ended as {:?} ({:?})", self.faults, self.job.state, self.job.error());
        if let Some(state) = state
            && state != self.job.state
        {
            return Err(format!("{told} instead of {state:?}"));
        }
        if !good {
            let wanted = if done { succeeded } else { &scenario.look_failed(&self.before) };
            return Err(format!("{told}, and left\n{}\ninstead of\n{wanted}\npoints: {:?}", self.after, self.trace));
        }
        Ok(())
    }
}

/// One incarnation of the replica.
struct Incarnation {
    jobs: Jobs,
    stop: CancellationToken,
    tasks: TaskTracker,
    _membership: Membership,
}

async fn incarnate<S: Scenario>(
    scenario: &S,
    world: &S::World,
    coord: &Coord,
    number: usize,
    faults: Arc<Faults>,
) -> Result<Incarnation, String> {
    let replica = format!("replica-{number}");
    let member = Member { id: replica.clone(), service: scenario.service().to_owned(), ..Member::default() };
    let membership = coord.join(member).await.map_err(|e| e.to_string())?;
    let pace = Pace { sweep: Duration::from_millis(50), grace: Duration::from_millis(20), ..Pace::default() };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let start = Start {
        db: scenario.db(world).clone(),
        coord: coord.clone(),
        replica,
        faults,
        pace,
        stop: stop.clone(),
        tasks: tasks.clone(),
    };
    let jobs = scenario.start(world, start).await;
    Ok(Incarnation { jobs, stop, tasks, _membership: membership })
}

impl Incarnation {
    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn run<S: Scenario>(scenario: &S, faults: BTreeMap<String, Fault>) -> Result<Run, String> {
    let told = format!("{faults:?}");
    let told = |what: String| format!("with {told}: {what}");
    let world = scenario.world().await;
    let before = scenario.look(&world).await;
    let coord = Coord::local();
    let mut plan = Arc::new(Faults::planned(faults.clone()));
    let mut number = 1;
    let mut incarnation = incarnate(scenario, &world, &coord, number, plan.clone()).await?;
    let uuid = scenario.submit(&world, &incarnation.jobs).await.map_err(|e| told(e.to_string()))?;
    let mut trace = Vec::new();
    let job = loop {
        let jobs = incarnation.jobs.clone();
        let ended = tokio::select! {
            biased;
            () = plan.killed() => None,
            ended = tokio::time::timeout(PATIENCE, jobs.end_of(&uuid)) => Some(ended),
        };
        if let Some(ended) = ended {
            let ended = ended.map_err(|_| told(format!("the job didn't end; points: {:?}", plan.trace())))?;
            break ended.map_err(|e| told(e.to_string()))?;
        }
        trace.append(&mut plan.trace());
        // What hasn't happened yet may happen to the next incarnation.
        plan = Arc::new(Faults::planned(plan.left()));
        number += 1;
        incarnation.end().await;
        incarnation = incarnate(scenario, &world, &coord, number, plan.clone()).await?;
    };
    trace.append(&mut plan.trace());
    let left = plan.left();
    let after = scenario.look_ended(&world).await;
    incarnation.end().await;
    // "after abort" and "after finish" come when the job has ended already.
    if let Some((point, _)) = left.iter().find(|(p, _)| !matches!(p.as_str(), "after abort" | "after finish")) {
        return Err(told(format!("point {point} was not reached; points: {trace:?}")));
    }
    Ok(Run { faults, before, after, job, trace })
}
