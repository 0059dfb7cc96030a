//! Jobs per second and commits per job of a toy job with one local step and one remote one, on MariaDB that flushes
//! every commit to disk: `cargo run --release -p jobs --example throughput`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use contract::ApiError;
use contract::api::{Caller, Success};
use contract_identity::limits_client::LimitsClient;
use contract_identity::limits_server::{Limits, LimitsServer};
use contract_identity::{ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse};
use coord::{Coord, Member};
use futures::StreamExt as _;
use jobs::{AbortCx, Accept, Call, Claim, Ctx, Finished, Job, Jobs, StepKey, UndoCx};
use model::Owner;
use rpc::LocalNet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use store::{Db, DbConfig, Sql, Tx};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

#[derive(Clone, Serialize, Deserialize)]
struct Toy {
    number: i64,
}

impl Job for Toy {
    const KIND: &'static str = "toy";
    type World = LimitsClient<Channel>;
    type Undo = ();

    async fn run(self, world: Arc<Self::World>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::step!(ctx, "row", undo: (), |tx| {
            tx.exec(Sql::new("UPDATE toys SET state = 1 WHERE id = ?").bind(self.number)).await?;
            Ok(())
        })
        .await?;
        let message = ReserveRequest { key: self.number.to_string(), account_id: 2, ..Default::default() };
        let make = |call: Call| {
            let (mut client, message) = ((*world).clone(), message.clone());
            async move { client.reserve(call.request(message)).await }
        };
        let _: ReserveResponse = ctx.call("part", Some(()), make).await?;
        jobs::finish!(ctx, |tx| {
            tx.exec(Sql::new("UPDATE toys SET state = 2 WHERE id = ?").bind(self.number)).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, _: Arc<Self::World>, (): (), _: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _: Arc<Self::World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

struct Receiver(Db);

#[tonic::async_trait]
impl Limits for Receiver {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        let key = StepKey::of(&request)?;
        let name = request.into_inner().key;
        let answer = jobs::effect!(self.0, key, |tx| {
            tx.exec(Sql::new("INSERT INTO parts (name) VALUES (?)").bind(&name)).await?;
            Ok(ReserveResponse {})
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

const TABLES: &[store::Migration] = &[store::Migration {
    owner: "toy",
    file: "0001_toy.sql",
    sql: "CREATE TABLE IF NOT EXISTS toys (id BIGINT NOT NULL PRIMARY KEY, state BIGINT NOT NULL);\n\
          CREATE TABLE IF NOT EXISTS parts (name VARCHAR(64) NOT NULL PRIMARY KEY);\n",
}];

async fn one(db: &Db, jobs: &Jobs) {
    let caller = Caller { user_id: 2, account_id: 2, domain_id: 1, domain_path: "/1/".into(), ..Caller::default() };
    let ticket = jobs.ticket().await.unwrap();
    let number = ticket.id();
    let accepted = jobs::mutate!(db, caller, "toy", |tx| {
        tx.exec(Sql::new("INSERT INTO toys (id, state) VALUES (?, 0)").bind(number)).await?;
        let claims = vec![
            Claim::Exclusive(format!("vm/{number}")),
            Claim::Shared("network/1".into()),
            Claim::Shared("account/2".into()),
        ];
        let accept = Accept {
            job: Toy { number },
            caller: caller.clone(),
            command: None,
            owner: Owner::caller(&caller),
            instance: None,
            claims,
            custom_id: None,
            description: "toy".into(),
            entity_id: None,
        };
        jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
    .unwrap();
    let end = jobs.end_of(&accepted.job_id).await.unwrap();
    assert_eq!(end.status(), 1, "{:?}", end.error());
}

async fn measure(url: &str, name: &str) {
    let mut config = DbConfig::new(url);
    config.connections = 32;
    let db = Db::connect(&config).await.unwrap();
    for migrations in [jobs::MIGRATIONS, events::MIGRATIONS, TABLES] {
        db.migrate(migrations).await.unwrap();
    }
    let (coord, net) = (Coord::local(), LocalNet::new());
    let server = tonic::transport::Server::builder().add_service(LimitsServer::new(Receiver(db.clone())));
    tokio::spawn(server.serve_with_incoming(net.listen("toy")));
    let member = Member { id: "one".into(), service: "toy".into(), ..Member::default() };
    let _membership = coord.join(member).await.unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let world = Arc::new(LimitsClient::new(net.channel("toy")));
    let jobs = Jobs::builder(db.clone(), coord, "toy", "one".into()).register::<Toy>(world).start(stop.clone(), &tasks);
    for _ in 0..20 {
        one(&db, &jobs).await;
    }
    for concurrent in [1usize, 16, 64] {
        let n = if concurrent == 1 { 200 } else { 2000 };
        let (before, start) = (db.stats(), Instant::now());
        futures::stream::iter(0..n).for_each_concurrent(concurrent, |_| one(&db, &jobs)).await;
        let (took, after) = (start.elapsed(), db.stats());
        let each = |a: u64, b: u64| (a - b) as f64 / n as f64;
        println!(
            "{name}: {concurrent:3} at once: {:7.0} jobs/s, {:6.2} ms each, {:.2} commits, {:.1} statements, {:.3} retries a job",
            n as f64 / took.as_secs_f64(),
            took.as_secs_f64() * 1000.0 * concurrent as f64 / n as f64,
            each(after.commits, before.commits),
            each(after.statements, before.statements),
            each(after.retries, before.retries),
        );
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::main]
async fn main() {
    let server = testkit::MariaDb::start(testkit::Durability::Disk).await;
    measure(&server.fresh_url(), "MariaDB").await;
    let dir = testkit::temp_dir();
    measure(&format!("sqlite:{}/db", dir.path().display()), "SQLite").await;
}
