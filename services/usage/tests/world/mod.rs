//! The usage service over a database with a few people.
#![allow(dead_code)] // each test binary uses a part of it

use contract::ApiError;
use contract::api::{Caller, RoleType, Success};
use contract_usage::alerts_client::AlertsClient;
use contract_usage::events_client::EventsClient;
use contract_usage::{
    ArchiveAlertsRequest, ArchiveEventsRequest, DeleteAlertsRequest, DeleteEventsRequest, ListAlertsRequest,
    ListAlertsResponse, ListEventsRequest, ListEventsResponse,
};
use events::Record;
use node::Node;
use std::time::Duration;
use store::{Db, DbConfig, Migration, Sql};
use testkit::wait_until;
use tonic::transport::{Channel, Server};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub node: Node,
    pub client: EventsClient<Channel>,
    pub alerts: AlertsClient<Channel>,
}

/// The tables of identity, as far as lists read them: ROOT with admin (2) and below it /1/5/ with ann (10) and bob (11).
const IDENTITY: Migration = Migration {
    owner: "identity",
    file: "0001_few.sql",
    sql: "CREATE TABLE domains (id BIGINT PRIMARY KEY, uuid VARCHAR(40), name VARCHAR(64), name_path VARCHAR(255), path VARCHAR(255), removed BIGINT);\n\
          CREATE TABLE accounts (id BIGINT PRIMARY KEY, uuid VARCHAR(40), name VARCHAR(64), domain_id BIGINT, domain_path VARCHAR(255), removed BIGINT);\n\
          CREATE TABLE users (id BIGINT PRIMARY KEY, uuid VARCHAR(40), username VARCHAR(64));\n\
          INSERT INTO domains VALUES (1, 'd-1', 'ROOT', 'ROOT', '/1/', NULL), (5, 'd-5', 'sub', 'ROOT/sub', '/1/5/', NULL);\n\
          INSERT INTO accounts VALUES (2, 'a-2', 'admin', 1, '/1/', NULL), (10, 'a-10', 'ann', 5, '/1/5/', NULL), (11, 'a-11', 'bob', 5, '/1/5/', NULL);\n\
          INSERT INTO users VALUES (2, 'u-2', 'admin'), (10, 'u-10', 'ann'), (11, 'u-11', 'bob');\n",
};

impl World {
    pub async fn new(test: &testkit::TestDb) -> World {
        World::on(&DbConfig::new(test.url())).await
    }

    pub async fn on(config: &DbConfig) -> World {
        let db = Db::connect(config).await.unwrap();
        db.migrate(events::MIGRATIONS).await.unwrap();
        db.migrate(jobs::MIGRATIONS).await.unwrap();
        db.migrate(arcus_usage::MIGRATIONS).await.unwrap();
        // Not in a transaction: statements that define tables end one.
        db.migrate(&[IDENTITY]).await.unwrap();
        World::over(db).await
    }

    /// Another one over the same database.
    pub async fn again(config: &DbConfig) -> World {
        World::over(Db::connect(config).await.unwrap()).await
    }

    async fn over(db: Db) -> World {
        let (node, net) = Node::for_tests(db).await;
        let routes = arcus_usage::start(node.clone()).await.unwrap();
        tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(net.listen("usage")));
        World { node, client: EventsClient::new(net.channel("usage")), alerts: AlertsClient::new(net.channel("usage")) }
    }

    pub async fn list(&self, caller: &Caller, request: ListEventsRequest) -> Result<ListEventsResponse, ApiError> {
        let answer = self.client.clone().list(rpc::cx::request(caller, request)).await;
        answer.map(tonic::Response::into_inner).map_err(ApiError::from)
    }

    pub async fn list_alerts(
        &self,
        caller: &Caller,
        request: ListAlertsRequest,
    ) -> Result<ListAlertsResponse, ApiError> {
        let answer = self.alerts.clone().list(rpc::cx::request(caller, request)).await;
        answer.map(tonic::Response::into_inner).map_err(ApiError::from)
    }

    pub async fn archive(&self, caller: &Caller, request: ArchiveEventsRequest) -> Result<Success, ApiError> {
        answered(self.client.clone().archive(rpc::cx::request(caller, request)).await)
    }

    pub async fn delete(&self, caller: &Caller, request: DeleteEventsRequest) -> Result<Success, ApiError> {
        answered(self.client.clone().delete(rpc::cx::request(caller, request)).await)
    }

    pub async fn archive_alerts(&self, caller: &Caller, request: ArchiveAlertsRequest) -> Result<Success, ApiError> {
        answered(self.alerts.clone().archive(rpc::cx::request(caller, request)).await)
    }

    pub async fn delete_alerts(&self, caller: &Caller, request: DeleteAlertsRequest) -> Result<Success, ApiError> {
        answered(self.alerts.clone().delete(rpc::cx::request(caller, request)).await)
    }

    pub async fn descriptions(&self, caller: &Caller, request: ListEventsRequest) -> Vec<String> {
        let listed = self.list(caller, request).await.unwrap();
        assert_eq!(listed.count, Some(listed.event.len() as i64));
        listed.event.into_iter().map(|e| e.description.unwrap()).collect()
    }

    pub async fn record(&self, records: &[Record]) {
        store::tx!(self.node.db, "record", |tx| events::record(tx, records).await).await.unwrap();
    }

    pub async fn archived(&self, n: i64) {
        let count =
            || async { self.node.db.one(Sql::new("SELECT COUNT(*) FROM events")).await.unwrap().at::<i64>(0).unwrap() };
        wait_until(|| async { count().await == n }, PATIENCE).await;
    }
}

pub fn caller(id: i64, name: &str, role: RoleType) -> Caller {
    let (domain_id, path) = if id == 2 { (1, "/1/") } else { (5, "/1/5/") };
    Caller {
        user_id: id,
        account_id: id,
        account_name: name.into(),
        domain_id,
        domain_path: path.into(),
        role_type: role.into(),
        request_id: "r-1".into(),
        remote_address: "192.0.2.1".into(),
        ..Caller::default()
    }
}

fn answered<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, ApiError> {
    answer.map(tonic::Response::into_inner).map_err(ApiError::from)
}
