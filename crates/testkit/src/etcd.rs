//! Members of etcd.

use crate::place::Folder;
use crate::ports::reserve;
use crate::{Place, Process, ServerOptions, free_ports, wait_until};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The file in a member's folder that says which ports its data was made with.
const PORTS: &str = "ports";

/// A member of etcd (the only one, or one of [`Etcd::cluster`]) that tests may kill, pause and restart.
#[derive(Debug)]
pub struct Etcd {
    process: Option<Process>,
    folder: Folder,
    place: Place,
    name: String,
    client: u16,
    peer: u16,
    /// `name=peer URL` of every member.
    initial: String,
}

impl Etcd {
    /// Starts a server of one member with empty data.
    pub async fn start() -> Etcd {
        let mut members = Etcd::cluster(1).await;
        members.remove(0)
    }

    /// Starts `n` members on 127.0.0.1 with empty data; returns when all are healthy.
    pub async fn cluster(n: usize) -> Vec<Etcd> {
        Etcd::cluster_with(&ServerOptions::local(n)).await
    }

    /// Keeps the ports of `n` members that ran in this folder before from being given to others until they are back.
    pub fn reserve_ports(dir: &Path, n: usize) {
        for i in 1..=n {
            reserve(&known_ports(&dir.join(name(i))));
        }
    }

    /// Starts one member for each place; returns when all are healthy.
    pub async fn cluster_with(options: &ServerOptions) -> Vec<Etcd> {
        let mut members: Vec<Etcd> = (1..)
            .zip(&options.places)
            .map(|(i, place)| {
                let name = name(i);
                let folder = Folder::new(options.dir.as_deref(), &name);
                let ports = ports(&folder);
                let place = place.clone();
                Etcd { process: None, folder, place, name, client: ports[0], peer: ports[1], initial: String::new() }
            })
            .collect();
        let initial: Vec<String> = members.iter().map(|m| format!("{}={}", m.name, m.peer_url())).collect();
        for member in &mut members {
            member.initial = initial.join(",");
            member.spawn();
        }
        for member in &members {
            member.await_ready().await;
        }
        members
    }

    /// The client URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{}", self.place.address, self.client)
    }

    /// The running process.
    ///
    /// # Panics
    /// While it is killed.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("etcd is killed")
    }

    /// The process id, unless it is killed.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.folder.log()
    }

    /// Kills it (`kill -9`); its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it with SIGSTOP: its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.process().signal("STOP");
    }

    /// Lets it go on after [`Etcd::pause`].
    pub fn resume(&self) {
        self.process().signal("CONT");
    }

    /// Starts it again on the same ports and data; returns when it is healthy (most members must be up for that).
    pub async fn restart(&mut self) {
        self.spawn();
        self.await_ready().await;
    }

    /// Starts it again without waiting.
    pub fn spawn(&mut self) {
        self.process = None;
        let client = self.endpoint();
        let peer = self.peer_url();
        let command = vec![
            "etcd".to_owned(),
            format!("--name={}", self.name),
            format!("--data-dir={}", self.folder.path().join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", self.initial),
            "--auto-compaction-retention=1h".to_owned(),
            // Short, so that leases may be short too: etcd raises them to 1.5 elections.
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
        ];
        self.process = Some(Process::start(&self.place.command(command), &self.folder.log(), None));
    }

    /// Whether it answers and knows a leader.
    pub async fn ready(&self) -> bool {
        let address = format!("{}:{}", self.place.address, self.client);
        let ask = async {
            let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
            stream.write_all(b"GET /health HTTP/1.0\r\nHost: e\r\n\r\n").await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            answer.contains("\"true\"").then_some(())
        };
        tokio::time::timeout(Duration::from_secs(1), ask).await.ok().flatten().is_some()
    }

    /// Waits until it is [ready](Etcd::ready).
    pub async fn await_ready(&self) {
        let process = self.process();
        wait_until(
            || async {
                assert!(process.alive(), "etcd ended:\n{}", process.log_tail());
                self.ready().await
            },
            Duration::from_secs(30),
        )
        .await;
    }

    fn peer_url(&self) -> String {
        format!("http://{}:{}", self.place.address, self.peer)
    }
}

fn name(i: usize) -> String {
    format!("etcd-{i}")
}

/// The ports that a member's data was made with, when there is data.
fn known_ports(folder: &Path) -> Vec<u16> {
    let known = std::fs::read_to_string(folder.join(PORTS)).unwrap_or_default();
    known.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

/// The ports that the data in the folder was made with, or new ones: a member's peer URL belongs to its data.
fn ports(folder: &Folder) -> Vec<u16> {
    let file = folder.path().join(PORTS);
    let known = known_ports(folder.path());
    if known.len() == 2 {
        return known;
    }
    let new = free_ports(2);
    std::fs::write(&file, format!("{} {}", new[0], new[1])).expect("the file of ports");
    new
}
