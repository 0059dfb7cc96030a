//! An Arcus of our own, and what can be seen of a server's processes from outside.

use anyhow::{Context, Result, bail, ensure};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use testkit::{Durability, MariaDb, Process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest wait for a start, the zone, or an end.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at something that is waited for: what a measured start may be too long.
const LOOK: Duration = Duration::from_millis(2);
/// Ticks of processor time a second, on every Linux there is.
const TICKS: f64 = 100.0;

/// `arcus dev`, and its database. Both end with this process, however that ends.
pub struct Server {
    process: Option<Process>,
    command: Vec<String>,
    metrics: String,
    dir: tempfile::TempDir,
    launches: usize,
    database: Option<MariaDb>,
}

impl Server {
    /// Prepares one with a zone of `hosts` hosts; nothing runs yet but its database.
    ///
    /// # Errors
    /// When a folder can't be made.
    pub async fn prepare(binary: &str, mariadb: bool, hosts: usize) -> Result<Server> {
        let dir = testkit::temp_dir();
        let database = if mariadb { Some(MariaDb::start(Durability::Disk).await) } else { None };
        let ports = testkit::free_ports(4);
        let data = dir.path().join("data");
        let mut command = vec![binary.to_owned(), "dev".into(), "--data-dir".into(), data.display().to_string()];
        command.extend(["--zone".into(), "bench".into(), "--hosts".into(), hosts.to_string()]);
        let flags = ["--listen", "--grpc-listen", "--agent-listen", "--metrics-listen"];
        command.extend(flags.iter().zip(&ports).map(|(flag, port)| format!("{flag}=127.0.0.1:{port}")));
        let metrics = command.last().and_then(|flag| flag.split_once('=')).map(|(_, a)| a.to_owned());
        let metrics = metrics.context("no port for metrics")?;
        if let Some(database) = &database {
            command.extend(["--database".to_owned(), database.fresh_url()]);
        }
        Ok(Server { process: None, command, metrics, dir, launches: 0, database })
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        self.launches += 1;
        self.process = Some(Process::start(&self.command, &self.log(), None));
    }

    /// Starts it; gives the milliseconds from its start to the first good `listZones`. The zone stands when this returns.
    ///
    /// # Errors
    /// When it ends or takes too long.
    pub async fn launch(&mut self) -> Result<f64> {
        let begun = Instant::now();
        self.spawn();
        self.answers().await?;
        let millis = begun.elapsed().as_secs_f64() * 1000.0;
        self.stands().await?;
        Ok(millis)
    }

    /// Waits for the first good `listZones`.
    ///
    /// # Errors
    /// When the process ends or takes too long.
    pub async fn answers(&self) -> Result<()> {
        let begun = Instant::now();
        // Made anew until the keys are there; those of a predecessor that was killed are the same.
        while let Err(e) = self.zones().await {
            self.alive()?;
            ensure!(begun.elapsed() < PATIENCE, "it doesn't serve after {PATIENCE:?}: {e:#}");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn zones(&self) -> Result<()> {
        crate::ask::value(&self.client()?, "listZones", &[]).await.map(drop)
    }

    /// Waits until the zone stands, which ends the greeting.
    ///
    /// # Errors
    /// When the process ends or takes too long.
    pub async fn stands(&self) -> Result<()> {
        let begun = Instant::now();
        while !std::fs::read_to_string(self.log()).is_ok_and(|text| text.contains("try next")) {
            self.alive()?;
            ensure!(begun.elapsed() < PATIENCE, "the zone doesn't stand after {PATIENCE:?}");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join(format!("log-{}", self.launches))
    }

    fn alive(&self) -> Result<()> {
        match &self.process {
            Some(process) if process.alive() => Ok(()),
            Some(process) => bail!("arcus dev ended:\n{}", process.log_tail()),
            None => bail!("arcus dev doesn't run"),
        }
    }

    /// A client with the administrator's keys.
    ///
    /// # Errors
    /// When the server hasn't written them yet.
    pub fn client(&self) -> Result<ApiClient> {
        let dev: Value = serde_json::from_slice(&std::fs::read(self.dir.path().join("data/dev.json"))?)?;
        let text = |key: &str| dev.get(key).and_then(Value::as_str).context("dev.json").map(str::to_owned);
        Ok(ApiClient::new(&text("endpoint")?, &text("apikey")?, &text("secretkey")?))
    }

    /// Looks at the processes that run now.
    pub fn watch(&self) -> Watch {
        let server = self.process.as_ref().map(Process::pid);
        let database = self.database.as_ref().and_then(MariaDb::pid);
        Watch { server, database, metrics: Some(self.metrics.clone()) }
    }

    /// What the database says it is, and how it commits.
    pub async fn database(&self) -> String {
        match &self.database {
            None => "SQLite, synchronous=FULL".into(),
            Some(server) => {
                let version = server.statement("SELECT VERSION()").await.unwrap_or_default();
                format!("MariaDB {}, innodb_flush_log_at_trx_commit=1", version.trim())
            }
        }
    }

    /// The URL of another database on the same server; none for SQLite.
    pub fn another_database(&self) -> Option<String> {
        self.database.as_ref().map(MariaDb::fresh_url)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it doesn't end in time.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { return Ok(()) };
        process.signal("TERM");
        let begun = Instant::now();
        while process.alive() {
            ensure!(begun.elapsed() < PATIENCE, "arcus dev doesn't end");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// What can be seen of a server's processes; nothing of one on another machine.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The server's process.
    pub server: Option<u32>,
    /// The database's.
    pub database: Option<u32>,
    /// Address of the port for metrics.
    pub metrics: Option<String>,
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Resident, in MiB.
    pub mib: f64,
    /// The most that it ever had, in MiB.
    pub peak_mib: f64,
    /// Its threads.
    pub threads: f64,
}

impl Watch {
    /// Processor time of server and database so far, in seconds.
    pub fn cpu(&self) -> Option<f64> {
        let of = |pid: u32| seconds(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
        Some(of(self.server?)? + self.database.map_or(Some(0.0), of)?)
    }

    /// Memory of the server.
    pub fn memory(&self) -> Option<Memory> {
        memory(&std::fs::read_to_string(format!("/proc/{}/status", self.server?)).ok()?)
    }

    /// Statements and commits of the server so far.
    pub async fn database(&self) -> Option<(f64, f64)> {
        let text = self.scrape().await?;
        let of = |what: &str| metric(&text, &format!("arcus_database_done{{what=\"{what}\"}}"));
        Some((of("statements")?, of("commits")?))
    }

    /// Hosts that are connected with the server.
    pub async fn hosts(&self) -> Option<f64> {
        metric(&self.scrape().await?, "arcus_hub_hosts{}")
    }

    async fn scrape(&self) -> Option<String> {
        let address = self.metrics.as_ref()?;
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }
}

/// The value of the series `name`, labels and all.
fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Processor seconds in `/proc/PID/stat`: user and system, the 14th and 15th field; the second may hold blanks.
fn seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS)
}

fn memory(status: &str) -> Option<Memory> {
    let value = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(Memory { mib: value("VmRSS:")? / 1024.0, peak_mib: value("VmHWM:")? / 1024.0, threads: value("Threads:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says() {
        let stat = "77 (a (strange) name) S 1 2 3 4 5 6 7 8 9 10 250 150 9 9";
        assert_eq!(seconds(stat), Some(4.0));
        assert_eq!(seconds("77"), None);
        let status = "Name:\tarcus\nVmHWM:\t  4096 kB\nVmRSS:\t  2048 kB\nThreads:\t7\n";
        assert_eq!(memory(status), Some(Memory { mib: 2.0, peak_mib: 4.0, threads: 7.0 }));
        assert_eq!(memory("Name:\tx\n"), None);
    }

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "arcus_hub_hosts_more{} 1\narcus_hub_hosts{} 32\narcus_database_done{what=\"commits\"} 12\n";
        assert_eq!(metric(text, "arcus_hub_hosts{}"), Some(32.0));
        assert_eq!(metric(text, "arcus_database_done{what=\"commits\"}"), Some(12.0));
        assert_eq!(metric(text, "arcus_database_done{what=\"retries\"}"), None);
    }
}
