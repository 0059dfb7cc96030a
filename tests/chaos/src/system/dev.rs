//! The smallest system: `arcus dev` as one process, with a MariaDB server and an etcd member of its own. Nothing stands in
//! for anything, so each fault is an outage, and every state of a job meets a kill of everything at once.

use super::{Part, System};
use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use testkit::{Durability, Etcd, MariaDb, Process};
use tokio::sync::Mutex as AsyncMutex;

/// Longest start.
const START_IN: Duration = Duration::from_secs(120);

/// The system.
pub struct Dev {
    dir: tempfile::TempDir,
    command: Vec<String>,
    arcus: Mutex<Option<Process>>,
    database: AsyncMutex<MariaDb>,
    database_pid: Mutex<Option<u32>>,
    etcd: AsyncMutex<Etcd>,
    etcd_pid: Mutex<Option<u32>>,
    database_url: String,
    endpoint: String,
    keys: (String, String),
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dev {
    /// Starts it with a zone of `hosts` hosts.
    ///
    /// # Errors
    /// What doesn't start.
    pub async fn start(arcus: &Path, hosts: usize) -> Result<Dev> {
        let dir = testkit::temp_dir();
        let (database, etcd) = (MariaDb::start(Durability::Process).await, Etcd::start().await);
        let database_url = database.fresh_url();
        let ports = testkit::free_ports(4);
        let flags = ["--listen", "--grpc-listen", "--agent-listen", "--metrics-listen"];
        let mut command = vec![
            arcus.display().to_string(),
            "dev".into(),
            format!("--data-dir={}", dir.path().join("data").display()),
            format!("--database={database_url}"),
            format!("--etcd={}", etcd.endpoint()),
            "--log=info".into(),
        ];
        command.extend(flags.iter().zip(&ports).map(|(flag, port)| format!("{flag}=127.0.0.1:{port}")));
        let (database_pid, etcd_pid) = (database.process().pid(), etcd.process().pid());
        let mut dev = Dev {
            command,
            arcus: Mutex::new(None),
            database: AsyncMutex::new(database),
            database_pid: Mutex::new(Some(database_pid)),
            etcd: AsyncMutex::new(etcd),
            etcd_pid: Mutex::new(Some(etcd_pid)),
            database_url,
            endpoint: format!("http://127.0.0.1:{}/client/api", ports[0]),
            keys: Default::default(),
            dir,
        };
        dev.launch(&["--zone=test".into(), format!("--hosts={hosts}")]).await?;
        let begun = Instant::now();
        // The greeting ends the building of the zone.
        while !std::fs::read_to_string(dev.log("arcus")).is_ok_and(|t| t.contains("try next")) {
            ensure!(begun.elapsed() < START_IN, "the zone isn't built in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let file: Value = serde_json::from_slice(&std::fs::read(dev.dir.path().join("data/dev.json"))?)?;
        let text = |key: &str| file.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        dev.keys = (text("apikey"), text("secretkey"));
        Ok(dev)
    }

    async fn launch(&self, more: &[String]) -> Result<()> {
        let command: Vec<String> = self.command.iter().chain(more).cloned().collect();
        let begun = (Instant::now(), SystemTime::now());
        let process = Process::start(&command, &self.log("arcus"), None);
        *locked(&self.arcus) = Some(process);
        let file = self.dir.path().join("data/dev.json");
        loop {
            let ready = std::fs::metadata(&file).and_then(|m| m.modified()).is_ok_and(|t| t > begun.1);
            if ready {
                return Ok(());
            }
            // It ends when the database is away: whoever keeps services running starts it again.
            let dead = locked(&self.arcus).as_ref().is_some_and(|p| !p.alive());
            if dead {
                tokio::time::sleep(Duration::from_millis(300)).await;
                *locked(&self.arcus) = Some(Process::start(&command, &self.log("arcus"), None));
            }
            ensure!(begun.0.elapsed() < START_IN, "arcus dev doesn't start: see {}", self.log("arcus").display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, name: &str, signal: &str) {
        let pid = match name {
            "arcus" => locked(&self.arcus).as_ref().map(Process::pid),
            "database" => *locked(&self.database_pid),
            _ => *locked(&self.etcd_pid),
        };
        if let Some(pid) = pid {
            // One that has just ended can't be signalled, which is as good.
            let _ = std::process::Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
        }
    }
}

#[async_trait]
impl System for Dev {
    fn parts(&self) -> Vec<Part> {
        let part = |name: &str| Part { name: name.into(), group: name.into(), spare: 1 };
        ["arcus", "database", "etcd"].map(part).into()
    }

    async fn kill(&self, name: &str) {
        match name {
            "arcus" => drop(locked(&self.arcus).take()),
            "database" => {
                locked(&self.database_pid).take();
                self.database.lock().await.kill();
            }
            _ => {
                locked(&self.etcd_pid).take();
                self.etcd.lock().await.kill();
            }
        }
    }

    async fn stop(&self, name: &str) {
        self.signal(name, "TERM");
        let begun = Instant::now();
        let alive = || locked(&self.arcus).as_ref().is_some_and(Process::alive);
        while name == "arcus" && alive() && begun.elapsed() < START_IN {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill(name).await;
    }

    async fn restart(&self, name: &str) -> Result<()> {
        match name {
            "arcus" => return self.launch(&[]).await.context("arcus"),
            "database" => {
                let mut database = self.database.lock().await;
                database.restart().await;
                *locked(&self.database_pid) = Some(database.process().pid());
            }
            _ => {
                let mut etcd = self.etcd.lock().await;
                etcd.restart().await;
                *locked(&self.etcd_pid) = Some(etcd.process().pid());
            }
        }
        Ok(())
    }

    fn pause(&self, name: &str) {
        self.signal(name, "STOP");
    }

    fn resume(&self, name: &str) {
        self.signal(name, "CONT");
    }

    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint.clone()]
    }

    fn front(&self) -> String {
        self.endpoint.clone()
    }

    fn keys(&self) -> (String, String) {
        self.keys.clone()
    }

    fn database_url(&self) -> String {
        self.database_url.clone()
    }

    fn agent_states(&self) -> Vec<PathBuf> {
        vec![self.dir.path().join("data/simulator")]
    }

    fn log(&self, _name: &str) -> PathBuf {
        self.dir.path().join("log")
    }
}
