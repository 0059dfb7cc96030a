//! A toy service with a job that has local and remote steps, in parallel too, and a receiver for the remote ones.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses a part; a failed set-up is a failed test

pub mod proxy;

use contract::api::{Caller, RoleType, Success};
use contract::{ApiError, CommandInfo, Execution, Form};
use contract_identity::limits_client::LimitsClient;
use contract_identity::limits_server::{Limits, LimitsServer};
use contract_identity::{ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse};
use coord::{Coord, Member, Membership};
use jobs::{AbortCx, Accept, Call, Claim, Ctx, Faults, Finished, Job, Jobs, Pace, StepKey, UndoCx};
use model::Owner;
use rpc::LocalNet;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Db, DbConfig, Migration, Sql, Tx};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub const TABLES: &[Migration] = &[Migration {
    owner: "toy",
    file: "0001_toy.sql",
    sql: "CREATE TABLE IF NOT EXISTS toys (name VARCHAR(64) NOT NULL PRIMARY KEY, state VARCHAR(16) NOT NULL);\n\
          CREATE TABLE IF NOT EXISTS toy_parts (name VARCHAR(64) NOT NULL PRIMARY KEY, amount BIGINT NOT NULL);\n",
}];

/// An empty database with all tables.
pub async fn database(url: &str) -> Db {
    let db = Db::connect(&DbConfig::new(url)).await.unwrap();
    for migrations in [jobs::MIGRATIONS, events::MIGRATIONS, coord::MIGRATIONS, TABLES] {
        db.migrate(migrations).await.unwrap();
    }
    db
}

pub fn caller() -> Caller {
    Caller {
        user_id: 2,
        user_uuid: "user".into(),
        account_id: 2,
        account_uuid: "account".into(),
        account_name: "toy".into(),
        domain_id: 1,
        domain_path: "/1/".into(),
        role_type: RoleType::User.into(),
        ..Caller::default()
    }
}

pub static BUILD: CommandInfo = CommandInfo {
    name: Cow::Borrowed("buildToy"),
    owner: Cow::Borrowed("toy"),
    service: Cow::Borrowed("toy.Toys"),
    method: Cow::Borrowed("Build"),
    request: Cow::Borrowed("toy.BuildRequest"),
    execution: Execution::Async,
    form: Form::Success,
    item: Cow::Borrowed(""),
    response: Cow::Borrowed("buildtoyresponse"),
    result: Cow::Borrowed("arcus.api.v1.Success"),
    roles: Cow::Borrowed(&[]),
    authorized: Cow::Borrowed(&[]),
    event: Cow::Borrowed("TOY.BUILD"),
    object: Cow::Borrowed("Toy"),
    job_class: Cow::Borrowed("toy.BuildToyCmd"),
    admin_job_class: Cow::Borrowed("toy.BuildToyCmdByAdmin"),
    post_only: false,
    sensitive_request: false,
    sensitive_response: false,
    authenticator: false,
    since: Cow::Borrowed(""),
    params: Cow::Borrowed(&[]),
};

/// Handles of the job's steps.
pub struct World {
    pub limits: LimitsClient<Channel>,
    /// Steps named here wait until the test adds a permit.
    pub gates: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// Names of the steps that were entered, and undone.
    pub log: Mutex<Vec<String>>,
}

impl World {
    pub fn new(net: &Arc<LocalNet>) -> Arc<World> {
        let limits = LimitsClient::new(net.channel("toy"));
        Arc::new(World { limits, gates: Mutex::default(), log: Mutex::default() })
    }

    pub fn gate(&self, step: &str) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.gates.lock().unwrap().insert(step.to_owned(), gate.clone());
        gate
    }

    async fn pass(&self, step: &str) {
        self.log.lock().unwrap().push(step.to_owned());
        let gate = self.gates.lock().unwrap().get(step).cloned();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
    }

    pub fn passed(&self, step: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|s| *s == step).count()
    }
}

/// Builds a toy: a row here, parts at the receiver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Build {
    pub name: String,
    /// The step after which it fails for good.
    pub fail_after: Option<String>,
    pub panic: bool,
}

impl Build {
    pub fn named(name: &str) -> Build {
        Build { name: name.into(), fail_after: None, panic: false }
    }

    fn fail(&self, step: &str) -> Result<(), ApiError> {
        if self.fail_after.as_deref() == Some(step) {
            Err(ApiError::in_use(format!("no luck after {step}")))
        } else {
            Ok(())
        }
    }

    async fn part(&self, world: &World, ctx: &Ctx, part: &str) -> Result<(), ApiError> {
        world.pass(part).await;
        let client = world.limits.clone();
        let message = ReserveRequest { key: format!("{}/{part}", self.name), account_id: 2, ..Default::default() };
        let make = |call: Call| {
            let (mut client, message) = (client.clone(), message.clone());
            async move { client.reserve(call.request(message)).await }
        };
        let _: ReserveResponse = ctx.call(part, Some(ToyUndo::Part(part.to_owned())), make).await?;
        self.fail(part)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToyUndo {
    Row,
    Part(String),
}

impl Job for Build {
    const KIND: &'static str = "toy.build";
    type World = World;
    type Undo = ToyUndo;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let name = self.name.as_str();
        world.pass("row").await;
        let made: String = jobs::step!(ctx, "row", undo: ToyUndo::Row, |tx| {
            tx.exec(Sql::new("INSERT INTO toys (name, state) VALUES (?, 'Building')").bind(name)).await?;
            Ok(format!("made {name}"))
        })
        .await?;
        assert_eq!(made, format!("made {name}"));
        self.fail("row")?;
        tokio::try_join!(self.part(&world, &ctx, "left"), self.part(&world, &ctx, "right"))?;
        // Somebody else's work: it is only waited for.
        ctx.idle(world.pass("paint")).await;
        jobs::step!(ctx, "paint", |tx| {
            tx.exec(Sql::new("UPDATE toys SET state = 'Painted' WHERE name = ?").bind(name)).await?;
            Ok(())
        })
        .await?;
        self.fail("paint")?;
        assert!(!self.panic, "told to");
        self.part(&world, &ctx, "top").await?;
        world.pass("finish").await;
        jobs::finish!(ctx, |tx| {
            tx.exec(Sql::new("UPDATE toys SET state = 'Ready' WHERE name = ?").bind(name)).await?;
            Ok(Success { success: true, display_text: Some(made.clone()) })
        })
        .await
    }

    async fn undo(self, world: Arc<World>, undo: ToyUndo, cx: UndoCx) -> Result<(), ApiError> {
        world.pass(&format!("undo {}", cx.step())).await;
        match undo {
            ToyUndo::Row => {
                assert_eq!(cx.value::<String>(), Some(format!("made {}", self.name)));
                jobs::undo_step!(cx, |tx| {
                    tx.exec(Sql::new("DELETE FROM toys WHERE name = ?").bind(&self.name)).await?;
                    Ok(())
                })
                .await
            }
            ToyUndo::Part(part) => {
                let message = ReleaseRequest { key: format!("{}/{part}", self.name), ..Default::default() };
                let mut client = world.limits.clone();
                let _: ReleaseResponse =
                    cx.call(|call| async move { client.release(call.request(message)).await }).await?;
                Ok(())
            }
        }
    }

    async fn abort(self, world: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        world.pass("abort").await;
        Ok(())
    }
}

/// The service that keeps parts.
pub struct Receiver {
    db: Db,
    /// Whether it loses the first answer to each call.
    pub flaky: AtomicBool,
    answered: Mutex<HashMap<String, usize>>,
    pub calls: AtomicUsize,
}

impl Receiver {
    /// Serves on `net` as "toy".
    pub fn serve(net: &Arc<LocalNet>, db: Db) -> Arc<Receiver> {
        let receiver = Arc::new(Receiver {
            db,
            flaky: AtomicBool::new(false),
            answered: Mutex::default(),
            calls: AtomicUsize::new(0),
        });
        let server = tonic::transport::Server::builder().add_service(LimitsServer::from_arc(receiver.clone()));
        tokio::spawn(server.serve_with_incoming(net.listen("toy")));
        receiver
    }

    fn lose(&self, what: String) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut answered = self.answered.lock().unwrap();
        let n = answered.entry(what).or_default();
        *n += 1;
        if *n == 1 && self.flaky.load(Ordering::SeqCst) {
            Err(Status::unavailable("the answer got lost"))
        } else {
            Ok(())
        }
    }
}

#[tonic::async_trait]
impl Limits for Receiver {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        let key = StepKey::of(&request)?;
        let message = request.into_inner();
        let answer = jobs::effect!(self.db, key, |tx| {
            tx.exec(Sql::new("INSERT INTO toy_parts (name, amount) VALUES (?, 1)").bind(&message.key)).await?;
            Ok(ReserveResponse {})
        })
        .await?;
        self.lose(format!("{key}"))?;
        Ok(Response::new(answer))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let key = StepKey::of(&request)?;
        let message = request.into_inner();
        jobs::undo_effect!(self.db, key, |tx, done: Option<ReserveResponse>| {
            let gone = tx.exec(Sql::new("DELETE FROM toy_parts WHERE name = ?").bind(&message.key)).await?;
            assert_eq!(gone == 1, done.is_some());
            Ok(())
        })
        .await?;
        self.lose(format!("{key}"))?;
        Ok(Response::new(ReleaseResponse {}))
    }
}

/// One replica of the toy service.
pub struct Replica {
    pub jobs: Jobs,
    pub world: Arc<World>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    pub membership: Option<Membership>,
}

/// A fast pace, for tests.
pub fn pace() -> Pace {
    let ms = Duration::from_millis;
    Pace { sweep: ms(100), grace: ms(50), housekeeping: ms(200), ..Pace::default() }
}

impl Replica {
    pub async fn start(db: &Db, coord: &Coord, net: &Arc<LocalNet>, id: &str) -> Replica {
        let member = Member { id: id.to_owned(), service: "toy".into(), ..Member::default() };
        let membership = Some(coord.join(member).await.unwrap());
        let world = World::new(net);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let jobs = Jobs::builder(db.clone(), coord.clone(), "toy", id.to_owned())
            .register::<Build>(world.clone())
            .pace(pace())
            .start(stop.clone(), &tasks);
        Replica { jobs, world, stop, tasks, membership }
    }

    /// Stops in order.
    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Everything for a test with one replica.
pub struct Toy {
    pub db: Db,
    pub coord: Coord,
    pub net: Arc<LocalNet>,
    pub receiver: Arc<Receiver>,
    pub replica: Replica,
}

impl Toy {
    pub async fn new(url: &str) -> Toy {
        let db = database(url).await;
        let (coord, net) = (Coord::local(), LocalNet::new());
        let receiver = Receiver::serve(&net, db.clone());
        let replica = Replica::start(&db, &coord, &net, "replica-1").await;
        Toy { db, coord, net, receiver, replica }
    }

    pub async fn submit(&self, job: Build) -> String {
        submit(&self.db, &self.replica.jobs, job).await.unwrap()
    }
}

pub fn accept_of(job: Build) -> Accept<Build> {
    let claims = vec![
        Claim::Exclusive(format!("toy/{}", job.name)),
        Claim::Shared("shelf/1".into()),
        Claim::Shared("account/2".into()),
    ];
    Accept {
        description: format!("building toy {}", job.name),
        instance: Some(("Toy".into(), format!("uuid-{}", job.name))),
        job,
        caller: caller(),
        command: Some(&BUILD),
        owner: Owner { account_id: 7, domain_id: 1, domain_path: "/1/".into() },
        claims,
        custom_id: None,
        entity_id: None,
    }
}

pub async fn submit(db: &Db, jobs: &Jobs, job: Build) -> Result<String, ApiError> {
    submit_as(db, jobs, accept_of(job)).await
}

pub async fn submit_as(db: &Db, jobs: &Jobs, accept: Accept<Build>) -> Result<String, ApiError> {
    let ticket = jobs.ticket().await?;
    let accepted =
        jobs::mutate!(db, accept.caller, "build-toy", |tx| jobs.accept(tx, ticket.clone(), accept.clone()).await)
            .await?;
    Ok(accepted.job_id)
}

/// What is left: toys, parts, claims, tickets, and how many events ended.
pub async fn look(db: &Db) -> String {
    let mut text = String::new();
    for (what, sql) in [
        ("toy", "SELECT name, state AS s FROM toys ORDER BY name"),
        ("part", "SELECT name, 'x' AS s FROM toy_parts ORDER BY name"),
        (
            "claim",
            "SELECT resource, 'held' AS s FROM claims WHERE exclusive <> 0 OR shared <> 0 OR waiting <> 0 ORDER BY resource",
        ),
        ("ticket", "SELECT resource, 'waits' AS s FROM claim_queue ORDER BY resource"),
    ] {
        for row in db.all(Sql::new(sql)).await.unwrap() {
            let (name, state): (String, String) = (row.at(0).unwrap(), row.at(1).unwrap());
            text += &format!("{what} {name} {state}\n");
        }
    }
    text
}

/// The kinds and states of the events told.
pub async fn events(db: &Db) -> Vec<String> {
    let rows = db.all(Sql::new("SELECT payload FROM outbox ORDER BY id")).await.unwrap();
    rows.iter()
        .map(|r| match serde_json::from_slice(&r.at::<Vec<u8>>(0).unwrap()).unwrap() {
            events::Record::Event(e) => format!("{} {:?} {:?} {}", e.kind, e.state, e.level, e.description),
            other => format!("{other:?}"),
        })
        .collect()
}

/// The toy as the harness sees it.
pub struct Scenario {
    pub mariadb: bool,
    pub flaky: bool,
}

pub struct ToyWorld {
    pub db: Db,
    pub net: Arc<LocalNet>,
    _test: testkit::TestDb,
}

impl jobs::harness::Scenario for Scenario {
    type World = ToyWorld;

    async fn world(&self) -> ToyWorld {
        let test = if self.mariadb { testkit::TestDb::mariadb().await } else { testkit::TestDb::sqlite() };
        let db = database(test.url()).await;
        let net = LocalNet::new();
        Receiver::serve(&net, db.clone()).flaky.store(self.flaky, Ordering::SeqCst);
        ToyWorld { db, net, _test: test }
    }

    fn db<'w>(&self, world: &'w ToyWorld) -> &'w Db {
        &world.db
    }

    fn service(&self) -> &'static str {
        "toy"
    }

    async fn start(&self, world: &ToyWorld, start: jobs::harness::Start) -> Jobs {
        Jobs::builder(start.db, start.coord, "toy", start.replica)
            .register::<Build>(World::new(&world.net))
            .faults(start.faults)
            .pace(start.pace)
            .start(start.stop, &start.tasks)
    }

    async fn submit(&self, world: &ToyWorld, jobs: &Jobs) -> Result<String, ApiError> {
        submit(&world.db, jobs, Build::named("duck")).await
    }

    async fn look(&self, world: &ToyWorld) -> String {
        look(&world.db).await
    }
}

/// Faults for a replica of one's own making.
pub fn faults() -> Arc<Faults> {
    Arc::default()
}
