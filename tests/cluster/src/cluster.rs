//! A running cluster.

use crate::layout::Layout;
use crate::namespaces::Namespaces;
use crate::report::{PartReport, Report};
use crate::start::{BALANCER_SOCKET, Launch, PATIENCE};
use crate::unit::Unit;
use crate::{Api, Kind, Memory, Options, Part, balancer};
use anyhow::{Context as _, Result, bail};
use futures::future::join_all;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use testkit::Galera;
use tokio::sync::Mutex;

/// Arcus in its production form. All processes end with it, even when this process is killed.
pub struct Cluster {
    options: Options,
    dir: PathBuf,
    // Ended before their namespaces are removed: fields are dropped in this order.
    units: Vec<Arc<Unit>>,
    namespaces: Option<Namespaces>,
    galera: Option<Arc<Mutex<Galera>>>,
    api: Api,
    layout: Layout,
    started: OnceLock<Started>,
}

struct Started {
    took: Duration,
    database: String,
    etcd: Vec<String>,
}

impl Cluster {
    /// Starts everything with free ports; returns when the API serves, the agent is connected and the zone stands.
    ///
    /// # Errors
    /// As [`Launch::go`].
    ///
    /// # Panics
    /// As [`Launch::go`].
    pub async fn start(options: Options) -> Result<Cluster> {
        Launch::new(options).go().await
    }

    pub(crate) fn assemble(
        options: Options,
        dir: PathBuf,
        units: Vec<Unit>,
        namespaces: Option<Namespaces>,
        galera: Option<Arc<Mutex<Galera>>>,
        api: Api,
        layout: Layout,
    ) -> Cluster {
        let units = units.into_iter().map(Arc::new).collect();
        Cluster { options, dir, units, namespaces, galera, api, layout, started: OnceLock::new() }
    }

    pub(crate) fn started_in(&self, took: Duration, database: String, etcd: Vec<String>) {
        // Only ever called once, by the start.
        let _ = self.started.set(Started { took, database, etcd });
    }

    /// All parts, dead ones too.
    pub fn parts(&self) -> Vec<Part> {
        self.units.iter().map(|u| u.part()).collect()
    }

    /// The query API through the balancer, with the administrator's keys.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The query API of each gateway, without the balancer.
    pub fn endpoints(&self) -> Vec<String> {
        self.layout.of("gateway").map(|r| format!("http://{}/client/api", r.listen)).collect()
    }

    /// The database: all nodes, the first that is well is used.
    pub fn database_url(&self) -> String {
        self.started.get().map(|s| s.database.clone()).unwrap_or_default()
    }

    /// Runs SQL as root on the first living node of the database, past all services: for damage, and for users with other
    /// rights. Gives what it printed.
    ///
    /// # Errors
    /// When no node lives, or the statement failed.
    pub async fn sql(&self, text: &str) -> Result<String> {
        let node = self.units.iter().find(|u| u.kind == Kind::Database && u.alive()).context("no database lives")?;
        node.statement(text).await.with_context(|| format!("{} doesn't take {text}", node.name))
    }

    /// The URLs of etcd's members.
    pub fn etcd_urls(&self) -> Vec<String> {
        self.started.get().map(|s| s.etcd.clone()).unwrap_or_default()
    }

    /// How long the start took.
    pub fn start_time(&self) -> Duration {
        self.started.get().map(|s| s.took).unwrap_or_default()
    }

    /// The folder of everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration file of all services, also for `arcus audit --config FILE`.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("arcus.toml")
    }

    /// `kill -9`; returns when it is dead. Nothing starts it again but [`Cluster::restart`].
    ///
    /// # Panics
    /// When there is no such part.
    pub async fn kill(&self, name: &str) {
        self.unit(name).kill().await;
    }

    /// SIGTERM, and waits for the end (a minute, then it is killed).
    ///
    /// # Panics
    /// When there is no such part.
    pub async fn stop(&self, name: &str) {
        self.unit(name).stop().await;
    }

    /// Starts it again, after ending it in order when it runs; returns when it is ready, and in use by the balancer.
    ///
    /// # Errors
    /// When it doesn't get ready.
    ///
    /// # Panics
    /// When there is no such part.
    pub async fn restart(&self, name: &str) -> Result<()> {
        let unit = self.unit(name);
        if unit.alive() {
            unit.signal("CONT");
            unit.stop().await;
        }
        self.launch(&unit).await?;
        unit.await_ready(PATIENCE).await?;
        if matches!(unit.kind, Kind::Service("gateway" | "orchestrator")) && self.unit("balancer").alive() {
            self.await_in_use(name).await?;
        }
        Ok(())
    }

    /// Starts a dead part without waiting. A database of which no node lives is begun anew by the node that knows most.
    pub(crate) async fn launch(&self, unit: &Unit) -> Result<()> {
        let others = |u: &&Arc<Unit>| u.kind == Kind::Database && u.name != unit.name;
        match &self.galera {
            Some(nodes) if unit.kind == Kind::Database && !self.units.iter().filter(others).any(|u| u.alive()) => {
                let nodes = nodes.clone();
                // A task of its own, because testkit panics when a server doesn't come.
                let begun = tokio::spawn(async move {
                    let mut nodes = nodes.lock().await;
                    for i in 0..nodes.len() {
                        nodes.kill(i);
                    }
                    nodes.bootstrap().await;
                });
                let outcome = begun.await.context("the database can't be begun again");
                for unit in self.units.iter().filter(|u| u.kind == Kind::Database) {
                    unit.refresh().await;
                }
                outcome
            }
            _ => unit.spawn().await,
        }
    }

    /// SIGSTOP: its connections stay open and nothing answers.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn pause(&self, name: &str) {
        self.unit(name).signal("STOP");
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn resume(&self, name: &str) {
        self.unit(name).signal("CONT");
    }

    /// Cuts it off from everything, this process too: packets are dropped in both directions, also of connections that
    /// exist, and nobody is told. It stays cut off when it is restarted.
    ///
    /// # Panics
    /// When there is no such part, or the cluster isn't [isolated](Options::isolated).
    pub async fn partition(&self, name: &str) {
        self.cut(name, &[]);
    }

    /// Cuts it off from these parts only.
    ///
    /// # Panics
    /// As [`Cluster::partition`].
    pub async fn partition_from(&self, name: &str, others: &[&str]) {
        let others: Vec<String> = others.iter().map(|n| self.unit(n).name.clone()).collect();
        if !others.is_empty() {
            self.cut(name, &others);
        }
    }

    #[allow(clippy::expect_used)] // what the documentation promises
    fn cut(&self, name: &str, from: &[String]) {
        let name = &self.unit(name).name;
        let namespaces = self.namespaces.as_ref().expect("partitions need Options::isolated");
        namespaces.cut(name, from).expect("nftables");
    }

    /// Ends every partition of it.
    ///
    /// # Panics
    /// As [`Cluster::partition`].
    #[allow(clippy::expect_used)]
    pub async fn heal(&self, name: &str) {
        let name = &self.unit(name).name;
        let namespaces = self.namespaces.as_ref().expect("partitions need Options::isolated");
        namespaces.heal(name).expect("nftables");
    }

    /// Whether it serves: `/readyz` of services, synchronised nodes of the database, members of etcd that know a leader.
    ///
    /// # Panics
    /// When there is no such part.
    pub async fn ready(&self, name: &str) -> bool {
        self.unit(name).ready().await
    }

    /// Whether the process runs (or is paused).
    ///
    /// # Panics
    /// When there is no such part.
    pub fn alive(&self, name: &str) -> bool {
        self.unit(name).alive()
    }

    /// The file that its output goes to.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn logs(&self, name: &str) -> PathBuf {
        self.unit(name).log.clone()
    }

    /// Puts words before the command of a service or agent, from its next start on: `["faketime", "-f", "+1h"]`.
    ///
    /// # Errors
    /// For databases, etcd and the balancer.
    ///
    /// # Panics
    /// When there is no such part.
    pub async fn prefix(&self, name: &str, words: &[String]) -> Result<()> {
        self.unit(name).prefix(words).await
    }

    /// Memory of all processes.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for unit in &self.units {
            if let Some(pid) = unit.pid() {
                memory.add(&unit.kind.to_string(), pid);
            }
        }
        memory
    }

    /// Ends everything in order, the databases last.
    pub async fn shut_down(self) {
        self.stop_all(|_| {}).await;
    }

    pub(crate) async fn stop_all(&self, say: impl Fn(&str)) {
        let of = |wanted: fn(Kind) -> bool| self.units.iter().filter(move |u| wanted(u.kind));
        let groups: [fn(Kind) -> bool; 3] =
            [|k| matches!(k, Kind::Service(_) | Kind::Agent), |k| k == Kind::Balancer, |k| k == Kind::Etcd];
        for group in groups {
            for name in join_all(of(group).map(|unit| end(unit))).await.into_iter().flatten() {
                say(&format!("{name} didn't end and was killed"));
            }
        }
        // One after the other: the last one knows that it has everything, and begins next time.
        for unit in of(|k| k == Kind::Database) {
            if let Some(name) = end(unit).await {
                say(&format!("{name} didn't end and was killed"));
            }
        }
    }

    pub(crate) fn units(&self) -> &[Arc<Unit>] {
        &self.units
    }

    #[allow(clippy::panic)] // a test that names a part that doesn't exist is wrong
    fn unit(&self, name: &str) -> Arc<Unit> {
        match self.units.iter().find(|u| u.name == name) {
            Some(unit) => unit.clone(),
            None => panic!("no part {name}: there are {:?}", self.units.iter().map(|u| &u.name).collect::<Vec<_>>()),
        }
    }

    /// Waits until the balancer uses all it should.
    pub(crate) async fn await_front(&self) -> Result<()> {
        for unit in self.units.iter().filter(|u| matches!(u.kind, Kind::Service("gateway" | "orchestrator"))) {
            self.await_in_use(&unit.name).await?;
        }
        Ok(())
    }

    async fn await_in_use(&self, name: &str) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if balancer::uses(&self.dir.join(BALANCER_SOCKET), name).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the balancer doesn't use {name}: see {}", self.unit("balancer").log.display())
    }

    /// What `cluster.json` says.
    ///
    /// # Errors
    /// When the password can't be read.
    pub fn report(&self) -> Result<Report> {
        let front = self.layout.front;
        let password = std::fs::read_to_string(self.dir.join(crate::start::ADMIN_PASSWORD))?.trim().to_owned();
        let part = |unit: &Arc<Unit>| PartReport {
            name: unit.name.clone(),
            kind: unit.kind.to_string(),
            pid: unit.pid(),
            address: unit.address,
            probe: unit.probe.clone(),
            log: unit.log.clone(),
        };
        Ok(Report {
            endpoint: self.api.endpoint.clone(),
            username: "admin".to_owned(),
            password,
            apikey: self.api.key.clone(),
            secretkey: self.api.secret.clone(),
            grpc: front.grpc.to_string(),
            agents: front.agents.to_string(),
            metrics: format!("http://{}/metrics", front.metrics),
            balancer: format!("http://{}/", front.metrics),
            gateways: self.endpoints(),
            database: self.database_url(),
            etcd: self.etcd_urls(),
            config: self.config_file(),
            isolated: self.options.isolated,
            seed: self.options.seed,
            start_millis: u64::try_from(self.start_time().as_millis()).unwrap_or(u64::MAX),
            supervisor: std::process::id(),
            parts: self.units.iter().map(part).collect(),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once; dropping the units then only waits for what is dead already.
        for unit in &self.units {
            unit.signal("KILL");
        }
    }
}

/// Ends a part in order; gives its name if that didn't work.
async fn end(unit: &Unit) -> Option<String> {
    if !unit.alive() {
        unit.kill().await;
        return None;
    }
    unit.signal("CONT");
    (!unit.stop().await).then(|| unit.name.clone())
}
