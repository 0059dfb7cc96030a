//! One seed's run, from an empty database to the checks.

use crate::cast::{Cast, DUTIES};
use crate::client::{self, Book};
use crate::craft::TABLES;
use crate::database::Database;
use crate::scheduler::Dispatcher;
use crate::sim::{Entered, Options, Sim, lock};
use crate::sqlite::Sqlite;
use crate::{check, nemesis};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Db, Sql};

/// How long jobs may take to their end once everything has healed.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a duty may rest then.
const DUTY_PATIENCE: Duration = Duration::from_secs(30);
/// How long calls may be under way that came late.
const BELATED: Duration = Duration::from_secs(17);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What was wrong; empty when all is well.
    pub wrong: Vec<String>,
    /// What happened, as one number.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// How long it took in the virtual time.
    pub virtual_time: Duration,
    /// The longest time from healing until all jobs had ended.
    pub settled: Duration,
    /// How often places of interest were reached.
    pub places: BTreeMap<&'static str, u64>,
}

/// Runs seeds, one after the other.
pub struct Runner {
    data: Arc<Mutex<Sqlite>>,
}

impl Runner {
    /// With a database of its own.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> anyhow::Result<Runner> {
        let data = Arc::new(Mutex::new(Sqlite::new()?));
        let runtime = runtime()?;
        runtime.block_on(async {
            let sim = Sim::new(0, Options::default());
            let db = Database::new(&sim, data.clone()).connect(None);
            for migrations in [jobs::MIGRATIONS, events::MIGRATIONS, coord::MIGRATIONS, TABLES] {
                db.migrate(migrations).await?;
            }
            lock(&data).ready()
        })?;
        Ok(Runner { data })
    }

    /// Runs a seed.
    ///
    /// # Errors
    /// When the simulation itself can't go on.
    pub fn run(&self, seed: u64, options: Options) -> anyhow::Result<Report> {
        let runtime = runtime()?;
        let local = async {
            let sim = Sim::new(seed, options);
            let _entered = Entered::new(&sim);
            let report = self.play(&sim).await;
            sim.scheduler.clear();
            report
        };
        runtime.block_on(local).with_context(|| format!("seed {seed}"))
    }

    async fn play(&self, sim: &Arc<Sim>) -> anyhow::Result<Report> {
        let database = Database::new(sim, self.data.clone());
        let db = database.connect(None);
        lock(&self.data).empty()?;
        for thing in 0..sim.plan.things {
            let sql = "INSERT INTO things (name, busy, readers, total) VALUES (?, 0, 0, 0)";
            store::tx!(db, "thing", |tx| tx.exec(Sql::new(sql).bind(format!("thing/{thing}"))).await).await?;
        }
        sim.event("plan", &[], || format!("{:?}", sim.plan));
        let cast = Cast::new(sim, database);
        (0..sim.plan.receivers).for_each(|place| cast.start_receiver(place));
        (0..sim.plan.replicas).for_each(|place| cast.start_replica(place));
        let book = client::ask_for_all(&cast);
        let driven = drive(cast, db, book);
        let ended = Arc::new(Mutex::new(None));
        let outcome = ended.clone();
        let over = sim.spawn(async move {
            *lock(&outcome) = Some(driven.await);
        });
        let dispatcher = Dispatcher(sim.scheduler.clone());
        tokio::select! {
            biased;
            _ = over => {}
            // The budget of a tokio task isn't one of ours.
            () = tokio::task::unconstrained(dispatcher) => {}
        }
        let settled = lock(&ended).take().context("the run broke off")??;
        let (hash, events) = sim.hash();
        Ok(Report {
            seed: sim.seed,
            wrong: sim.found(),
            hash,
            events,
            virtual_time: sim.elapsed(),
            settled,
            places: sim.places(),
        })
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
}

/// Faults, healing, the end of all jobs, the checks. Gives how long it took from healing to the last job's end.
async fn drive(cast: Arc<Cast>, db: Db, book: Book) -> anyhow::Result<Duration> {
    nemesis::rage(&cast).await;
    let healed = cast.sim.elapsed();
    let mut parked = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let all_told = lock(&book).values().all(|asked| asked.uuid.is_some());
        let left = check::unended(&db).await?;
        if all_told && left.is_empty() {
            break;
        }
        for (uuid, state) in &left {
            // Somebody has seen to it.
            if state == "Parked"
                && let Some(serving) = cast.replicas.iter().find_map(crate::cast::Place::serving)
            {
                parked += 1;
                let uuid = uuid.clone();
                cast.sim.reach("a parked job was resumed");
                let _ = serving.jobs.resume(&uuid).await; // again in a moment
            }
        }
        if cast.sim.elapsed() - healed > PATIENCE {
            cast.sim.wrong(format!("jobs don't end (told: {all_told}, resumed: {parked}): {left:?}"));
            break;
        }
    }
    let settled = cast.sim.elapsed() - healed;
    for duty in DUTIES {
        let healed = i64::try_from(healed.as_millis())?;
        while check::last_done(&db, duty).await? <= healed {
            if cast.sim.elapsed() - settled > DUTY_PATIENCE + Duration::from_millis(healed.unsigned_abs()) {
                cast.sim.wrong(format!("nobody does the duty {duty} any more"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    // What is late comes still, and changes nothing.
    if cast.sim.plan.rates.belated + cast.sim.plan.rates.doubled > 0 {
        tokio::time::sleep(BELATED).await;
    }
    check::everything(&cast, &db, &book).await?;
    Ok(settled)
}

/// Plays `scene` on an empty database, without faults but its own.
#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed set-up is a failed test
pub(crate) fn stage<F: Future<Output = ()> + Send + 'static>(scene: impl FnOnce(Arc<Sim>, Arc<Database>) -> F) {
    let runner = Runner::new().unwrap();
    runtime().unwrap().block_on(async {
        let sim = Sim::new(1, Options::default());
        let _entered = Entered::new(&sim);
        sim.heal();
        lock(&runner.data).empty().unwrap();
        let over = sim.spawn(scene(sim.clone(), Database::new(&sim, runner.data.clone())));
        tokio::select! {
            biased;
            ended = over => ended.unwrap(),
            () = tokio::task::unconstrained(Dispatcher(sim.scheduler.clone())) => {}
        }
        sim.scheduler.clear();
    });
}
