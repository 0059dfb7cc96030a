//! The process under test.

use anyhow::{Context, Result, ensure};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};
use testkit::{Durability, MariaDb};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// `arcus dev`, and its database.
pub struct Server {
    process: Child,
    dev: Value,
    /// From process start to serving.
    pub start_millis: u128,
    _database: Option<MariaDb>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts it with a zone of `hosts` hosts.
    pub async fn start(binary: &str, mariadb: bool, hosts: usize) -> Result<Server> {
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        let database = if mariadb { Some(MariaDb::start(Durability::Disk).await) } else { None };
        let ports = testkit::free_ports(4);
        let mut command = Command::new(binary);
        command.arg("dev").arg("--data-dir").arg(&data).args(["--zone", "bench", "--hosts", &hosts.to_string()]);
        for (flag, port) in ["--listen", "--grpc-listen", "--agent-listen", "--metrics-listen"].iter().zip(&ports) {
            command.arg(format!("{flag}=127.0.0.1:{port}"));
        }
        if let Some(database) = &database {
            command.arg("--database").arg(database.fresh_url());
        }
        let begun = Instant::now();
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(binary.to_owned())?;
        let mut lines = BufReader::new(process.stdout.take().context("its output")?).lines();
        let mut start_millis = 0;
        // It tells when it serves, and ends its greeting with "try next" once the zone stands.
        let told = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("serving after") {
                    start_millis = begun.elapsed().as_millis();
                }
                if line.starts_with("try next") {
                    return Ok::<_, anyhow::Error>(true);
                }
            }
            Ok(false)
        };
        ensure!(
            tokio::time::timeout(Duration::from_secs(180), told).await.context("the zone took too long")??,
            "arcus dev ended"
        );
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let dev = serde_json::from_slice(&std::fs::read(data.join("dev.json"))?)?;
        Ok(Server { process, dev, start_millis, _database: database, _dir: dir })
    }

    /// A client with the administrator's keys.
    pub fn client(&self) -> ApiClient {
        let text = |key: &str| self.dev.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        ApiClient::new(&text("endpoint"), &text("apikey"), &text("secretkey"))
    }

    /// Resident memory of the process.
    pub fn resident_mib(&self) -> u64 {
        let status = self.process.id().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let line = status.as_deref().and_then(|s| s.lines().find(|l| l.starts_with("VmRSS:")).map(str::to_owned));
        let kib = line.and_then(|l| l.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()));
        kib.unwrap_or_default() / 1024
    }

    /// Ends it in order.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.process.id() {
            std::process::Command::new("kill").arg(pid.to_string()).status()?;
        }
        tokio::time::timeout(Duration::from_secs(30), self.process.wait()).await.context("arcus dev doesn't end")??;
        Ok(())
    }
}
