//! One process of a cluster, and how it is started, ended and looked at.

use crate::{Kind, Part, Probe};
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use testkit::{Etcd, Galera, MariaDb, Process};
use tokio::sync::Mutex;

/// Longest wait for a process that was told to end. Then it is killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A part: what it is, and its process.
pub(crate) struct Unit {
    pub name: String,
    pub kind: Kind,
    pub probe: Probe,
    pub address: Option<SocketAddr>,
    pub log: PathBuf,
    /// 0: none.
    pid: AtomicU32,
    /// Whether it should run: the supervisor starts what should run and doesn't.
    wanted: AtomicBool,
    server: Server,
}

/// Who knows how to start it.
pub(crate) enum Server {
    Program(Mutex<Program>),
    Etcd(Mutex<Etcd>),
    MariaDb(Mutex<MariaDb>),
    /// One node of a cluster that is one thing to testkit.
    Galera(Arc<Mutex<Galera>>, usize),
}

/// A command.
pub(crate) struct Program {
    pub command: Vec<String>,
    pub process: Option<Process>,
}

impl Unit {
    pub(crate) fn new(name: &str, kind: Kind, probe: Probe, log: PathBuf, server: Server) -> Unit {
        let pid = AtomicU32::new(0);
        Unit { name: name.to_owned(), kind, probe, address: None, log, pid, wanted: AtomicBool::new(true), server }
    }

    /// One that a command starts.
    pub(crate) fn program(name: &str, kind: Kind, probe: Probe, dir: &Path, command: Vec<String>) -> Result<Unit> {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let server = Server::Program(Mutex::new(Program { command, process: None }));
        Ok(Unit::new(name, kind, probe, folder.join("log"), server))
    }

    pub(crate) fn at(mut self, address: SocketAddr) -> Unit {
        self.address = Some(address);
        self
    }

    pub(crate) fn running(self, pid: Option<u32>) -> Unit {
        self.set_pid(pid);
        self
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match self.pid.load(Ordering::Relaxed) {
            0 => None,
            pid => Some(pid),
        }
    }

    fn set_pid(&self, pid: Option<u32>) {
        self.pid.store(pid.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn part(&self) -> Part {
        Part { name: self.name.clone(), kind: self.kind, pid: self.pid() }
    }

    pub(crate) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether its process runs (or is paused).
    pub(crate) fn alive(&self) -> bool {
        self.pid().is_some_and(alive)
    }

    /// Whether it serves.
    pub(crate) async fn ready(&self) -> bool {
        if !self.alive() {
            return false;
        }
        match &self.server {
            Server::Galera(nodes, i) => nodes.lock().await.synced(*i).await,
            Server::MariaDb(server) => server.lock().await.ready().await,
            Server::Etcd(member) => member.lock().await.ready().await,
            Server::Program(_) => self.probe.ask().await,
        }
    }

    /// Runs SQL as root on this database node, whatever its users may do; `None`: it is no database, or it failed.
    pub(crate) async fn statement(&self, sql: &str) -> Option<String> {
        match &self.server {
            Server::Galera(nodes, i) => nodes.lock().await.statement(*i, sql).await,
            Server::MariaDb(server) => server.lock().await.statement(sql).await,
            Server::Etcd(_) | Server::Program(_) => None,
        }
    }

    /// Starts it without waiting until it serves.
    pub(crate) async fn spawn(&self) -> Result<()> {
        self.wanted.store(true, Ordering::Relaxed);
        let pid = match &self.server {
            Server::Program(program) => {
                let mut program = program.lock().await;
                program.process = None;
                let process = Process::start(&program.command, &self.log, None);
                let pid = process.pid();
                program.process = Some(process);
                Some(pid)
            }
            Server::Etcd(member) => {
                let mut member = member.lock().await;
                member.spawn();
                member.pid()
            }
            Server::MariaDb(server) => {
                let mut server = server.lock().await;
                server.spawn();
                server.pid()
            }
            Server::Galera(nodes, i) => {
                let mut nodes = nodes.lock().await;
                nodes.spawn(*i).await;
                nodes.pid(*i)
            }
        };
        self.set_pid(pid);
        Ok(())
    }

    /// `kill -9`, and waits for the end.
    pub(crate) async fn kill(&self) {
        self.wanted.store(false, Ordering::Relaxed);
        self.end().await;
    }

    /// Reads its process id anew: several nodes of a database were started at once.
    pub(crate) async fn refresh(&self) {
        if let Server::Galera(nodes, i) = &self.server {
            self.set_pid(nodes.lock().await.pid(*i));
        }
    }

    async fn end(&self) {
        match &self.server {
            Server::Program(program) => program.lock().await.process = None,
            Server::Etcd(member) => member.lock().await.kill(),
            Server::MariaDb(server) => server.lock().await.kill(),
            Server::Galera(nodes, i) => nodes.lock().await.kill(*i),
        }
        self.set_pid(None);
    }

    /// SIGTERM, and waits for the end. Gives whether it ended by itself.
    pub(crate) async fn stop(&self) -> bool {
        self.wanted.store(false, Ordering::Relaxed);
        self.signal("TERM");
        let begun = Instant::now();
        while self.alive() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ended = !self.alive();
        self.end().await;
        ended
    }

    /// Sends "STOP", "CONT", "TERM", "KILL" to its process, if there is one.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(pid) = self.pid().filter(|pid| alive(*pid)) {
            // It may end in this instant: then there is nothing to signal.
            let _ = std::process::Command::new("kill")
                .arg(format!("-{name}"))
                .arg(pid.to_string())
                .stderr(std::process::Stdio::null())
                .status();
        }
    }

    /// Waits until it serves.
    pub(crate) async fn await_ready(&self, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        while !self.ready().await {
            ensure!(self.alive(), "{} ended:\n{}", self.name, tail(&self.log));
            ensure!(begun.elapsed() < patience, "{} isn't ready after {patience:?}:\n{}", self.name, tail(&self.log));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Ok(())
    }

    /// The command of a program is preceded by `prefix` from its next start on.
    pub(crate) async fn prefix(&self, prefix: &[String]) -> Result<()> {
        let Server::Program(program) = &self.server else {
            anyhow::bail!("{} is started by other means than a command", self.name);
        };
        let mut program = program.lock().await;
        let inner = std::mem::take(&mut program.command);
        // Behind the entry into its namespace.
        let at = inner.iter().position(|word| word == "--").map_or(0, |i| i + 1);
        let (enter, command) = inner.split_at(at);
        program.command = [enter, prefix, command].concat();
        Ok(())
    }
}

/// Whether a process runs: a zombie doesn't.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|s| !matches!(s, 'Z' | 'X'))
}

/// The end of a log, for messages.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
