//! The processes of a run: replicas that work on jobs and do duties, and receivers. They die and come again.

use crate::craft::{Craft, World};
use crate::database::Database;
use crate::etcd::Etcd;
use crate::etcd_link::EtcdLink;
use crate::host::Host;
use crate::network::Network;
use crate::receiver::Receiver;
use crate::sim::{Sim, lock};
use contract::ApiError;
use contract_identity::limits_client::LimitsClient;
use coord::{Coord, EtcdConfig, Member, Term};
use jobs::{Jobs, Pace};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Db, Sql};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Name of the service that runs the jobs.
pub const SERVICE: &str = "craft";
/// What one replica at a time does.
pub const DUTIES: &[&str] = &["count", "sweep"];

/// Everything that runs.
pub struct Cast {
    /// The run.
    pub sim: Arc<Sim>,
    /// The database.
    pub database: Arc<Database>,
    /// etcd.
    pub etcd: Arc<Etcd>,
    /// Between the services.
    pub network: Arc<Network>,
    /// Places for replicas.
    pub replicas: Vec<Place>,
    /// Places for receivers.
    pub receivers: Vec<Place>,
    hosts: AtomicU64,
}

/// A place that one process after the other takes.
#[derive(Default)]
pub struct Place {
    host: Mutex<Option<Arc<Host>>>,
    serving: Mutex<Option<Serving>>,
}

/// A replica that takes requests.
#[derive(Clone)]
pub struct Serving {
    /// Its process.
    pub host: Arc<Host>,
    /// Its connection.
    pub db: Db,
    /// Its engine.
    pub jobs: Jobs,
    /// Its coordination.
    pub coord: Coord,
    /// Has it stop in order.
    pub stop: CancellationToken,
    tasks: TaskTracker,
}

impl Place {
    /// The process that is there, dead or alive.
    pub fn host(&self) -> Option<Arc<Host>> {
        lock(&self.host).clone()
    }

    /// The replica that takes requests.
    pub fn serving(&self) -> Option<Serving> {
        lock(&self.serving).clone().filter(|s| !s.host.is_dead())
    }
}

impl Cast {
    /// Nobody runs yet.
    pub fn new(sim: &Arc<Sim>, database: Arc<Database>) -> Arc<Cast> {
        let places = |n| (0..n).map(|_| Place::default()).collect();
        Arc::new(Cast {
            database,
            etcd: Etcd::new(sim),
            network: Network::new(sim),
            replicas: places(sim.plan.replicas),
            receivers: places(sim.plan.receivers),
            hosts: AtomicU64::new(1),
            sim: sim.clone(),
        })
    }

    fn host(&self, kind: &str, place: usize) -> Arc<Host> {
        let number = self.hosts.fetch_add(1, Ordering::SeqCst);
        self.sim.event("start", &[number], || format!("{kind}-{place} is process {number}"));
        Host::new(&self.sim.scheduler, format!("{kind}-{place}-{number}"), number)
    }

    /// Starts a receiver at a place.
    pub fn start_receiver(&self, place: usize) {
        let host = self.host("receiver", place);
        *lock(&self.receivers[place].host) = Some(host.clone());
        let db = self.database.connect(Some(host.clone()));
        self.network.serve(place, &host, Receiver::handler(&self.sim, db));
    }

    /// Starts a replica at a place.
    pub fn start_replica(self: &Arc<Cast>, place: usize) {
        let host = self.host("replica", place);
        *lock(&self.replicas[place].host) = Some(host.clone());
        *lock(&self.replicas[place].serving) = None;
        let cast = self.clone();
        host.clone().spawn(async move { cast.live(place, host).await });
    }

    /// Stops a replica in order.
    pub async fn stop_replica(&self, place: usize) {
        let Some(serving) = self.replicas[place].serving() else { return };
        serving.stop.cancel();
        serving.tasks.close();
        // As a service does: what hasn't ended by then is cut off.
        let ended = tokio::time::timeout(Duration::from_secs(20), serving.tasks.wait()).await;
        self.sim.event("stopped", &[serving.host.number, u64::from(ended.is_ok())], || serving.host.name.clone());
        let host = serving.host.clone();
        // The session ends with its last handle, and says so.
        *lock(&self.replicas[place].serving) = None;
        drop(serving);
        tokio::time::sleep(Duration::from_millis(300)).await;
        host.kill();
    }

    async fn live(self: Arc<Cast>, place: usize, host: Arc<Host>) {
        let (plan, sim) = (&self.sim.plan, &self.sim);
        let mut config = EtcdConfig::new(["http://simulated"]);
        config.lease = plan.lease;
        let coord = loop {
            match Coord::simulated(EtcdLink::new(&self.etcd, &host), config.clone()).await {
                Ok(coord) => break coord,
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        };
        let db = self.database.connect(Some(host.clone()));
        let receivers = (0..plan.receivers).map(|n| LimitsClient::new(self.network.wire(&host, n))).collect();
        let world = Arc::new(World { sim: sim.clone(), receivers });
        let pace = Pace {
            sweep: plan.sweep,
            grace: plan.grace,
            housekeeping: Duration::from_secs(10),
            keep: Duration::from_secs(24 * 3600),
        };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let jobs = Jobs::builder(db.clone(), coord.clone(), SERVICE, host.name.clone())
            .register::<Craft>(world)
            .pace(pace)
            .start(stop.clone(), &tasks);
        let member =
            Member { id: host.name.clone(), service: SERVICE.to_owned(), kinds: jobs.kinds(), ..Member::default() };
        let serving = Serving {
            host: host.clone(),
            db: db.clone(),
            jobs,
            coord: coord.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        *lock(&self.replicas[place].serving) = Some(serving);
        for duty in DUTIES {
            let (db, coord, stop, host, sim) = (db.clone(), coord.clone(), stop.clone(), host.clone(), sim.clone());
            tasks.spawn(store::chance::placed(async move {
                let name = host.name.clone();
                let body = |term| work(duty, term, db.clone(), host.clone(), sim.clone());
                coord::run_duty(&db, &coord, duty, &name, stop, body).await;
            }));
        }
        coord.stay(member, stop).await;
    }
}

/// One turn of a duty: it writes for as long as it may.
async fn work(duty: &'static str, term: Term, db: Db, host: Arc<Host>, sim: Arc<Sim>) {
    let turns = sim.dice(crate::sim::Purpose::Code).within(1, 60);
    for _ in 0..turns {
        let written: Result<(), ApiError> = store::tx!(db, "duty", |tx| {
            term.fence(tx).await?;
            let sql = "INSERT INTO duty_log (n, duty, epoch, writer, at) \
                       SELECT COALESCE(MAX(n), 0) + 1, ?, ?, ?, ? FROM duty_log";
            let at = i64::try_from(sim.elapsed().as_millis()).unwrap_or(i64::MAX);
            let number = host.number.cast_signed();
            tx.exec(Sql::new(sql).bind(duty).bind(term.epoch()).bind(number).bind(at)).await?;
            Ok(())
        })
        .await;
        sim.event("duty", &[host.number, term.epoch().unsigned_abs(), u64::from(written.is_ok())], || {
            format!("{duty} by {} in epoch {}: {written:?}", host.name, term.epoch())
        });
        let wait = sim.dice(crate::sim::Purpose::Code).within(50, 1_500);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}
