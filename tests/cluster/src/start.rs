//! How a cluster is started.

use crate::cluster::Cluster;
use crate::layout::{Layout, Replica, all_names, names};
use crate::namespaces::Namespaces;
use crate::unit::{Server, Unit};
use crate::{Api, Kind, Options, Probe, balancer, config, secrets};
use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::{Durability, Etcd, Galera, MariaDb, Place, ServerOptions};
use tokio::process::Command;
use tokio::sync::Mutex;

pub(crate) const ADMIN_PASSWORD: &str = "admin.password";
pub(crate) const AGENT_TOKEN: &str = "agent.token";
const DATABASE_PASSWORD: &str = "database.password";
const CONFIG: &str = "arcus.toml";
const BALANCER_CONFIG: &str = "haproxy.cfg";
pub(crate) const BALANCER_SOCKET: &str = "balancer/s";
/// The network of a folder's namespaces.
const NETWORK: &str = "network";
/// What the databases of a folder are: another form can't use them.
const FORM: &str = "form";
/// The zone of simulated hosts.
pub(crate) const ZONE: &str = "cluster";
/// Longest wait for a part.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A start: options, and what only few callers want.
pub struct Launch {
    options: Options,
    fixed: bool,
    say: Box<dyn Fn(&str) + Send + Sync>,
}

struct Databases {
    units: Vec<Unit>,
    url: String,
    galera: Option<Arc<Mutex<Galera>>>,
}

impl Launch {
    /// With free ports, in silence.
    pub fn new(options: Options) -> Launch {
        Launch { options, fixed: false, say: Box::new(|_| {}) }
    }

    /// The balancer gets the ports 8080 (API), 9090 (gRPC), 8250 (agents) and 9091 (metrics) of loopback.
    pub fn fixed_ports(mut self) -> Launch {
        self.fixed = true;
        self
    }

    /// Tells each step.
    pub fn say(mut self, say: impl Fn(&str) + Send + Sync + 'static) -> Launch {
        self.say = Box::new(say);
        self
    }

    /// Starts everything; returns when the API serves, the agent is connected and the zone stands.
    ///
    /// # Errors
    /// What couldn't be started, with the end of its log.
    ///
    /// # Panics
    /// When a database can't be started (testkit panics with its log).
    pub async fn go(mut self) -> Result<Cluster> {
        let begun = Instant::now();
        let dir = self.folder()?;
        secrets::remove(&dir.join(crate::FILE))?;
        let namespaces = match self.options.isolated {
            true => Some(Namespaces::create(&all_names(&self.options), &dir.join(NETWORK))?),
            false => None,
        };
        if namespaces.is_some() {
            self.tell(begun, "network namespaces");
        }
        Etcd::reserve_ports(&dir, self.options.etcd);
        let layout = Layout::new(&self.options, namespaces.as_ref(), self.fixed)?;
        if self.fixed && !self.options.isolated {
            free(&layout)?;
        }
        let (etcd, databases) = tokio::join!(self.etcd(&dir, &layout, begun), self.databases(&dir, &layout, begun));
        let databases = databases?;
        let etcd_urls: Vec<String> = etcd.iter().filter_map(|u| u.address).map(|a| format!("http://{a}")).collect();
        secrets::password(&dir.join(ADMIN_PASSWORD))?;
        let text = config::text(&dir, &layout, &databases.url, &etcd_urls)?;
        secrets::write_private(&dir.join(CONFIG), text.as_bytes())?;
        // Whoever comes first makes the tables. On one node that takes a third of the time.
        if self.token(&dir, &layout).await? {
            self.tell(begun, "schema, and a token for the agent");
        }
        if let Some(nodes) = &databases.galera {
            nodes.lock().await.join().await;
            for unit in &databases.units {
                unit.refresh().await;
            }
            self.tell(begun, &format!("database: {} nodes", databases.units.len()));
        }
        let mut units = etcd;
        units.extend(databases.units);
        let services = layout.replicas.iter().map(|r| self.service(&dir, r)).collect::<Result<Vec<_>>>()?;
        let balancer = self.balancer(&dir, &layout)?;
        for unit in services.iter().chain([&balancer]) {
            unit.spawn().await?;
        }
        try_join_all(services.iter().chain([&balancer]).map(|unit| unit.await_ready(PATIENCE))).await?;
        let count = services.len();
        self.tell(begun, &format!("{count} replicas of {} services, and the balancer", crate::SERVICES.len()));
        units.extend(services);
        let enter = &layout.agent.prefix;
        let keys = self.tool(enter, &["admin-keys", "--config", &path(&dir, CONFIG)]).await?;
        let text = |key: &str| keys.get(key).and_then(Value::as_str).map(str::to_owned).context("no keys");
        let api = Api::new(format!("http://{}/client/api", layout.front.api), text("apikey")?, text("secretkey")?);
        let agent = self.agent(&dir, &layout)?;
        agent.spawn().await?;
        units.push(agent);
        units.push(balancer);
        let front = layout.front;
        let cluster = Cluster::assemble(self.options.clone(), dir, units, namespaces, databases.galera, api, layout);
        cluster.await_front().await?;
        if self.options.hosts > 0 {
            self.zone(&cluster, begun).await?;
        }
        self.tell(begun, &format!("ready: http://{}/client/api", front.api));
        cluster.started_in(begun.elapsed(), databases.url, etcd_urls);
        Ok(cluster)
    }

    fn tell(&self, begun: Instant, what: &str) {
        (self.say)(&format!("{:5.1} s  {what}", begun.elapsed().as_secs_f64()));
    }

    /// Makes the folder and checks that it fits.
    fn folder(&mut self) -> Result<PathBuf> {
        let options = &mut self.options;
        ensure!(options.galera > 0 && options.etcd > 0 && options.replicas > 0, "at least one of each part is needed");
        std::fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
        let dir = std::fs::canonicalize(&options.dir)?;
        // Databases run as another user than root; files with secrets have modes of their own.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711))?;
        let longest = dir.join("galera-1/s").as_os_str().len();
        ensure!(longest <= 100, "{} is too long a path for the sockets in it", dir.display());
        options.arcus = std::fs::canonicalize(&options.arcus).with_context(|| options.arcus.display().to_string())?;
        let isolated = if options.isolated { ", isolated" } else { "" };
        let form = format!("{} nodes of the database, {} of etcd{isolated}", options.galera, options.etcd);
        match std::fs::read_to_string(dir.join(FORM)) {
            Ok(kept) if kept != form => {
                bail!("{} holds a cluster of {kept}, not {form}: begin anew with --reset", dir.display())
            }
            Ok(_) => {}
            Err(_) => std::fs::write(dir.join(FORM), form)?,
        }
        Ok(dir)
    }

    fn servers(&self, dir: &Path, places: &[Place]) -> ServerOptions {
        let durability = if self.options.durable { Durability::Disk } else { Durability::Process };
        ServerOptions { places: places.to_vec(), dir: Some(dir.to_owned()), durability }
    }

    async fn etcd(&self, dir: &Path, layout: &Layout, begun: Instant) -> Vec<Unit> {
        let members = Etcd::cluster_with(&self.servers(dir, &layout.etcd)).await;
        self.tell(begun, &format!("etcd: {} members", members.len()));
        let names = names("etcd", members.len());
        let unit = |(name, member): (&String, Etcd)| {
            let (log, pid) = (member.log(), member.pid());
            let address = member.endpoint().trim_start_matches("http://").parse::<SocketAddr>();
            let probe = address.as_ref().map_or(Probe::Alive, |a| Probe::http(*a, "/health"));
            let unit = Unit::new(name, Kind::Etcd, probe, log, Server::Etcd(Mutex::new(member))).running(pid);
            match address {
                Ok(address) => unit.at(address),
                Err(_) => unit,
            }
        };
        names.iter().zip(members).map(unit).collect()
    }

    async fn databases(&self, dir: &Path, layout: &Layout, begun: Instant) -> Result<Databases> {
        let options = self.servers(dir, &layout.databases);
        let names = names("database", layout.databases.len());
        let password = secrets::password(&dir.join(DATABASE_PASSWORD))?;
        let user = format!(
            "CREATE USER IF NOT EXISTS arcus@'%' IDENTIFIED BY '{password}'; \
             GRANT ALL PRIVILEGES ON *.* TO arcus@'%'; DROP USER IF EXISTS root@'%', root@'127.0.0.1', root@'::1'"
        );
        let mut units = Vec::new();
        let mut addresses: Vec<String> = Vec::new();
        let mut galera = None;
        let made;
        if let [name] = names.as_slice() {
            let server = MariaDb::start_with(&options).await;
            self.tell(begun, "database: MariaDB");
            made = server.statement(&user).await;
            let (log, pid) = (server.log(), server.pid());
            addresses.push(format!("{}:{}", options.places[0].address, server.port()));
            units.push(node(name, &addresses[0], log, Server::MariaDb(Mutex::new(server)), pid)?);
        } else {
            ensure!(Galera::installed(), "Galera is missing: run deploy/setup-dev cluster");
            let cluster = Galera::begin_with(&options).await;
            self.tell(begun, "database: the first node of Galera");
            let first = (0..cluster.len()).find(|i| cluster.pid(*i).is_some()).unwrap_or(0);
            made = cluster.statement(first, &user).await;
            let seen: Vec<_> =
                (0..cluster.len()).map(|i| (cluster.address(i), cluster.log(i), cluster.pid(i))).collect();
            let shared = Arc::new(Mutex::new(cluster));
            for (i, (name, (address, log, pid))) in names.iter().zip(seen).enumerate() {
                units.push(node(name, &address, log, Server::Galera(shared.clone(), i), pid)?);
                addresses.push(address);
            }
            galera = Some(shared);
        }
        made.context("the database doesn't take its user")?;
        let url = format!("mysql://arcus:{password}@{}/arcus", addresses.join(","));
        Ok(Databases { units, url, galera })
    }

    fn service(&self, dir: &Path, replica: &Replica) -> Result<Unit> {
        let mut command = replica.place.prefix.clone();
        command.push(self.options.arcus.display().to_string());
        command.extend([replica.service.to_owned(), "--config".to_owned(), path(dir, CONFIG)]);
        command.push(format!("--listen={}", replica.listen));
        command.push(format!("--metrics-listen={}", replica.metrics));
        command.extend(replica.grpc.map(|a| format!("--grpc-listen={a}")));
        command.extend(replica.agents.map(|a| format!("--agents-listen={a}")));
        let probe = Probe::http(replica.metrics, "/readyz");
        let unit = Unit::program(&replica.name, Kind::Service(replica.service), probe, dir, command)?;
        Ok(unit.at(replica.listen))
    }

    fn balancer(&self, dir: &Path, layout: &Layout) -> Result<Unit> {
        let file = dir.join(BALANCER_CONFIG);
        std::fs::write(&file, balancer::config(layout, &dir.join(BALANCER_SOCKET)))
            .with_context(|| file.display().to_string())?;
        let command = [layout.balancer.prefix.clone(), balancer::command(&file)].concat();
        let probe = Probe::http(layout.front.metrics, "/healthz");
        Ok(Unit::program("balancer", Kind::Balancer, probe, dir, command)?.at(layout.front.api))
    }

    /// A token, unless the agent has its certificate; the tables are there then in any case. Gives whether it was needed.
    async fn token(&self, dir: &Path, layout: &Layout) -> Result<bool> {
        if dir.join("agent").join("agent.pem").exists() {
            return Ok(false);
        }
        let (of, enter) = (path(dir, CONFIG), &layout.agent.prefix);
        let token = self.tool(enter, &["token", "--config", &of, "--kind", "factory"]).await?;
        let text = token.get("token").and_then(Value::as_str).context("no token")?;
        secrets::write_private(&dir.join(AGENT_TOKEN), text.as_bytes())?;
        Ok(true)
    }

    fn agent(&self, dir: &Path, layout: &Layout) -> Result<Unit> {
        let mut command = layout.agent.prefix.clone();
        command.push(self.options.arcus.display().to_string());
        command.extend(["agent".to_owned(), "--config".to_owned(), path(dir, CONFIG), "--name=agent-1".to_owned()]);
        Unit::program("agent-1", Kind::Agent, Probe::Alive, dir, command)
    }

    /// Runs `arcus ARGS`, where the network of the cluster is; gives the JSON that it prints.
    async fn tool(&self, enter: &[String], args: &[&str]) -> Result<Value> {
        let words: Vec<String> = enter.iter().cloned().chain([self.options.arcus.display().to_string()]).collect();
        let [program, before @ ..] = words.as_slice() else { bail!("no command") };
        let running = Command::new(program).args(before).args(args).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, running).await.with_context(|| format!("arcus {args:?}"))??;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "arcus {}: {}", args.join(" "), error.trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("what arcus {} printed", args.join(" ")))
    }

    /// The zone, through the public API. Until the agent is connected, no host can be added: that is tried again.
    async fn zone(&self, cluster: &Cluster, begun: Instant) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let say = |step: &str| self.tell(begun, &format!("zone {ZONE}: {step}"));
            match arcus::zone::build(cluster.api(), ZONE, self.options.hosts, say).await {
                Ok(()) => return Ok(()),
                Err(e) if Instant::now() > deadline => return Err(e).with_context(|| format!("zone {ZONE}")),
                Err(e) => {
                    self.tell(begun, &format!("zone {ZONE}: {e:#}; trying again"));
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
        }
    }
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

fn node(name: &str, address: &str, log: PathBuf, server: Server, pid: Option<u32>) -> Result<Unit> {
    let address: SocketAddr = address.parse().with_context(|| address.to_owned())?;
    Ok(Unit::new(name, Kind::Database, Probe::Tcp { address }, log, server).at(address).running(pid))
}

/// Fails early and clearly when somebody has the balancer's ports.
fn free(layout: &Layout) -> Result<()> {
    let front = layout.front;
    for address in [front.api, front.grpc, front.agents, front.metrics] {
        TcpListener::bind(address).with_context(|| {
            format!("{address}: is `make run` or another cluster running? Stop it, or use --free-ports")
        })?;
    }
    Ok(())
}
