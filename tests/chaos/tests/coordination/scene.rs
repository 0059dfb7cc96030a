//! A cluster for one test, and what tests ask it.

use chaos::aftermath;
use chaos::client::Client;
use chaos::hosts;
use chaos::workload::{Ground, prepare};
use cluster::{Cluster, Options};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Db, DbConfig, Sql};
use testkit::wait_until;
use tokio::sync::{Semaphore, SemaphorePermit};

/// One cluster at a time: times are measured.
static TURN: Semaphore = Semaphore::const_new(1);

/// A running cluster with a zone, a network and somebody to ask.
pub struct Scene {
    pub cluster: Cluster,
    pub db: Db,
    pub api: Client,
    pub ground: Ground,
    pub network: String,
    _dir: tempfile::TempDir,
    _turn: SemaphorePermit<'static>,
}

/// A job that hasn't ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    pub state: String,
    pub owner: Option<String>,
    pub epoch: i64,
    pub step: Option<String>,
}

impl Scene {
    /// Two replicas of each service on one MariaDB, with so many members of etcd.
    pub async fn small(etcd: usize) -> Scene {
        Scene::with(|options| options.etcd = etcd).await
    }

    /// The same, each process in a network namespace of its own: nothing without root.
    pub async fn isolated(etcd: usize) -> Option<Scene> {
        if !chaos::run::am_root() {
            println!("NOT RUN: network namespaces need root");
            return None;
        }
        let isolated = |options: &mut Options| {
            options.etcd = etcd;
            options.isolated = true;
        };
        Some(Scene::with(isolated).await)
    }

    pub async fn with(choose: impl FnOnce(&mut Options)) -> Scene {
        let turn = TURN.acquire().await.unwrap();
        let dir = testkit::temp_dir();
        let mut options = Options { hosts: 4, ..Options::small(dir.path()).unwrap() };
        choose(&mut options);
        let cluster = Cluster::start(options).await.unwrap();
        let db = Db::connect(&DbConfig { connections: 4, ..DbConfig::new(cluster.database_url()) }).await.unwrap();
        let history = Arc::new(chaos::history::History::new(None).unwrap());
        let (key, secret) = (cluster.api().key.clone(), cluster.api().secret.clone());
        let mut endpoints = vec![cluster.api().endpoint.clone()];
        endpoints.extend(cluster.endpoints());
        let api = Client::new(0, "admin", (&key, &secret), endpoints, history);
        let (ground, _) = prepare(&api, 0).await.unwrap();
        let params = [
            ("zoneid", ground.zone.as_str()),
            ("networkofferingid", ground.network_offering.as_str()),
            ("name", "scene"),
            ("displaytext", "scene"),
        ];
        let network = text(&api.call("createNetwork", &params).await.unwrap(), "/network/id");
        println!("cluster: {:.1} s", cluster.start_time().as_secs_f64());
        Scene { cluster, db, api, ground, network, _dir: dir, _turn: turn }
    }

    pub fn deploy_params<'a>(&'a self, name: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("zoneid", &self.ground.zone),
            ("templateid", &self.ground.template),
            ("serviceofferingid", &self.ground.offering),
            ("networkids", &self.network),
            ("name", name),
        ]
    }

    /// Deploys, and waits for the VM; gives its id.
    pub async fn deploy(&self, name: &str) -> String {
        text(&self.api.call("deployVirtualMachine", &self.deploy_params(name)).await.unwrap(), "/virtualmachine/id")
    }

    /// Begins a command; gives its job.
    pub async fn begin(&self, command: &str, params: &[(&str, &str)]) -> String {
        text(&self.cluster.api().call(command, params).await.unwrap(), "/jobid")
    }

    /// Makes hosts slow at an order.
    pub async fn slow(&self, order: &str, seconds: u32) {
        let value = format!("wait:{seconds}");
        self.api.call("configureSimulator", &[("name", order), ("value", &value)]).await.unwrap();
    }

    pub async fn job(&self, id: &str) -> Live {
        let sql = Sql::new("SELECT state, owner, epoch, step FROM jobs WHERE uuid = ?").bind(id);
        let row = self.db.one(sql).await.unwrap();
        Live {
            state: row.at(0).unwrap(),
            owner: row.at(1).unwrap(),
            epoch: row.at(2).unwrap(),
            step: row.at(3).unwrap(),
        }
    }

    /// Waits until a job has begun a step, by the beginning of its name; gives the job and the part that works on it.
    pub async fn at_work(&self, id: &str, step: &str, service: &str) -> (Live, String) {
        let begun = || async {
            let job = self.job(id).await;
            assert!(!matches!(job.state.as_str(), "Done" | "Failed"), "{job:?}");
            let sql =
                "SELECT COUNT(*) FROM job_steps s JOIN jobs j ON j.id = s.job_id WHERE j.uuid = ? AND s.name LIKE ?";
            let sql = Sql::new(sql).bind(id).bind(format!("{step}%"));
            job.owner.is_some() && self.db.one(sql).await.unwrap().at::<i64>(0).unwrap() > 0
        };
        wait_until(begun, Duration::from_secs(30)).await;
        let job = self.job(id).await;
        let part = self.part_of(service, job.owner.as_deref().unwrap());
        (job, part)
    }

    /// Waits until another worker has a job; gives how long that took.
    pub async fn taken_over(&self, id: &str, from: &Live, begun: Instant) -> Duration {
        let other = || async {
            let job = self.job(id).await;
            job.epoch > from.epoch && job.owner != from.owner
        };
        wait_until(other, Duration::from_secs(30)).await;
        begun.elapsed()
    }

    /// Waits for a job's end; gives its state.
    pub async fn end_of(&self, id: &str, within: Duration) -> String {
        let ended = || async { matches!(self.job(id).await.state.as_str(), "Done" | "Failed" | "Parked") };
        wait_until(ended, within).await;
        self.job(id).await.state
    }

    /// The part of a service whose replica has this member id.
    pub fn part_of(&self, service: &str, member: &str) -> String {
        let name = format!("{service}-");
        let says = |p: &cluster::Part| self.log(&p.name).lines().any(|l| l.contains("serving") && l.contains(member));
        let found = self.cluster.parts().into_iter().filter(|p| p.name.starts_with(&name)).find(says);
        found.unwrap_or_else(|| panic!("no {service} says that it is {member}")).name
    }

    /// What a part has logged, without colours.
    pub fn log(&self, part: &str) -> String {
        let text = std::fs::read(self.cluster.logs(part)).unwrap_or_default();
        let (mut plain, mut escaped) = (String::new(), false);
        for c in String::from_utf8_lossy(&text).chars() {
            match (escaped, c) {
                (false, '\u{1b}') => escaped = true,
                (false, c) => plain.push(c),
                (true, 'm') => escaped = false,
                (true, _) => {}
            }
        }
        plain
    }

    /// Duties by name: epoch and owner.
    pub async fn duties(&self) -> BTreeMap<String, (i64, String)> {
        let rows = self.db.all(Sql::new("SELECT name, epoch, owner FROM duties")).await.unwrap();
        rows.iter().map(|r| (r.at(0).unwrap(), (r.at(1).unwrap(), r.at(2).unwrap()))).collect()
    }

    /// Fails unless nothing is under way soon, the books agree, and hosts run what they should, once each.
    pub async fn is_sound(&self) {
        assert!(aftermath::quiet(&self.db).await.unwrap(), "not quiet: {:?}", audit::run(&self.db).await);
        let running = "SELECT v.uuid, h.uuid, v.generation FROM vms v JOIN hosts h ON h.id = v.host_id \
                       WHERE v.removed IS NULL AND v.state = 'Running'";
        let rows = self.db.all(Sql::new(running)).await.unwrap();
        let mut should: Vec<(String, String, i64)> =
            rows.iter().map(|r| (r.at(0).unwrap(), r.at(1).unwrap(), r.at(2).unwrap())).collect();
        let hosts = hosts::read(&[self.cluster.dir().join("agent")]).unwrap();
        let mut run: Vec<(String, String, i64)> =
            hosts.running.into_iter().map(|v| (v.vm, v.host, v.generation)).collect();
        should.sort();
        run.sort();
        assert_eq!(should, run, "what the database says and what hosts run");
    }
}

pub fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}
