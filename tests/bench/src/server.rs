//! An Arcus of our own.

use anyhow::{Context, Result, ensure};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use testkit::{Durability, MariaDb};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// `arcus dev`, and its database.
pub struct Server {
    process: Option<Child>,
    command: Vec<String>,
    data: PathBuf,
    dev: Value,
    /// From process start to serving, on an empty database.
    pub start_millis: f64,
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
        let mut command = vec![binary.to_owned(), "dev".into(), "--data-dir".into(), data.display().to_string()];
        command.extend(["--zone", "bench", "--hosts"].map(str::to_owned));
        command.push(hosts.to_string());
        for (flag, port) in ["--listen", "--grpc-listen", "--agent-listen", "--metrics-listen"].iter().zip(&ports) {
            command.push(format!("{flag}=127.0.0.1:{port}"));
        }
        if let Some(database) = &database {
            command.extend(["--database".to_owned(), database.fresh_url()]);
        }
        let mut server = Server {
            process: None,
            command,
            data,
            dev: Value::Null,
            start_millis: 0.0,
            _database: database,
            _dir: dir,
        };
        server.start_millis = server.launch().await?;
        Ok(server)
    }

    /// Starts the process; gives the milliseconds until it served. The zone stands when this returns.
    pub async fn launch(&mut self) -> Result<f64> {
        let begun = Instant::now();
        let mut process = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| self.command[0].clone())?;
        let mut lines = BufReader::new(process.stdout.take().context("its output")?).lines();
        let mut serving = None;
        // It tells when it serves, and ends its greeting with "try next" once the zone stands.
        let told = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("serving after") {
                    serving = Some(begun.elapsed());
                }
                if line.starts_with("try next") {
                    return Ok::<_, anyhow::Error>(true);
                }
            }
            Ok(false)
        };
        let told = tokio::time::timeout(Duration::from_secs(180), told).await.context("the zone took too long")??;
        ensure!(told, "arcus dev ended");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.dev = serde_json::from_slice(&std::fs::read(self.data.join("dev.json"))?)?;
        self.process = Some(process);
        Ok(serving.context("it never said that it serves")?.as_secs_f64() * 1000.0)
    }

    /// A client with the administrator's keys.
    pub fn client(&self) -> ApiClient {
        let text = |key: &str| self.dev.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        ApiClient::new(&text("endpoint"), &text("apikey"), &text("secretkey"))
    }

    /// Resident memory of the process.
    pub fn resident_mib(&self) -> f64 {
        let pid = self.process.as_ref().and_then(Child::id);
        let status = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let line = status.as_deref().and_then(|s| s.lines().find(|l| l.starts_with("VmRSS:")).map(str::to_owned));
        let kib = line.and_then(|l| l.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()));
        (kib.unwrap_or_default() / 1024.0).round()
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Ends it in order.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if let Some(pid) = process.id() {
            std::process::Command::new("kill").arg(pid.to_string()).status()?;
        }
        tokio::time::timeout(Duration::from_secs(30), process.wait()).await.context("arcus dev doesn't end")??;
        Ok(())
    }
}
