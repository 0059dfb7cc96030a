//! A Galera cluster: several MariaDB nodes that certify each other's writes.

use crate::mariadb::{await_socket, copy_prepared, server_command, statement};
use crate::place::Folder;
use crate::{Durability, Place, Process, ServerOptions, free_ports, wait_until};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A cluster of nodes, each of which tests may kill, pause and restart.
#[derive(Debug)]
pub struct Galera {
    nodes: Vec<Node>,
    durability: Durability,
}

#[derive(Debug)]
struct Node {
    process: Option<Process>,
    folder: Folder,
    place: Place,
    sql: u16,
    group: u16,
    sst: u16,
    ist: u16,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Galera {
    /// Whether the provider library is installed (Debian package `galera-4`).
    pub fn installed() -> bool {
        std::path::Path::new(PROVIDER).exists()
    }

    /// Starts `n` nodes on 127.0.0.1 and waits until all are synchronised.
    pub async fn start(n: usize) -> Galera {
        Galera::start_with(&ServerOptions::local(n)).await
    }

    /// Starts a node for each place and waits until all are synchronised.
    pub async fn start_with(options: &ServerOptions) -> Galera {
        let mut cluster = Galera::begin_with(options).await;
        cluster.join().await;
        cluster
    }

    /// The same with only one node running, the one that has the most: what is written now is faster, and the others
    /// get it as a copy when they [join](Galera::join).
    pub async fn begin_with(options: &ServerOptions) -> Galera {
        let nodes = (1..)
            .zip(&options.places)
            .map(|(i, place)| {
                let p = free_ports(4);
                let folder = Folder::new(options.dir.as_deref(), &format!("galera-{i}"));
                copy_prepared(folder.path());
                Node { process: None, folder, place: place.clone(), sql: p[0], group: p[1], sst: p[2], ist: p[3] }
            })
            .collect();
        let mut cluster = Galera { nodes, durability: options.durability };
        cluster.begin().await;
        cluster
    }

    /// The number of nodes, dead ones too.
    #[allow(clippy::len_without_is_empty)] // a cluster is never empty
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The name of a database that nothing else uses.
    pub fn fresh_name(&self) -> String {
        format!("g_{}", DATABASES.fetch_add(1, Ordering::Relaxed))
    }

    /// `address:port` of node `i`.
    pub fn address(&self, i: usize) -> String {
        format!("{}:{}", self.nodes[i].place.address, self.nodes[i].sql)
    }

    /// The URL of database `name` through node `i` only.
    pub fn url(&self, i: usize, name: &str) -> String {
        format!("mysql://root@{}/{name}", self.address(i))
    }

    /// The URL of database `name` through the first node that is well.
    pub fn urls(&self, name: &str) -> String {
        let hosts: Vec<String> = (0..self.len()).map(|i| self.address(i)).collect();
        format!("mysql://root@{}/{name}", hosts.join(","))
    }

    /// The process of node `i`.
    ///
    /// # Panics
    /// While it is killed.
    pub fn process(&self, i: usize) -> &Process {
        self.nodes[i].process.as_ref().expect("the node is killed")
    }

    /// The process id of node `i`, unless it is killed.
    pub fn pid(&self, i: usize) -> Option<u32> {
        self.nodes[i].process.as_ref().map(Process::pid)
    }

    /// Where the output of node `i` goes.
    pub fn log(&self, i: usize) -> PathBuf {
        self.nodes[i].folder.log()
    }

    /// Kills node `i` (`kill -9`); its data stays.
    pub fn kill(&mut self, i: usize) {
        self.nodes[i].process = None;
    }

    /// Stops node `i` with SIGSTOP: its connections stay open and nothing answers.
    pub fn pause(&self, i: usize) {
        self.process(i).signal("STOP");
    }

    /// Lets node `i` go on after [`Galera::pause`].
    pub fn resume(&self, i: usize) {
        self.process(i).signal("CONT");
    }

    /// Ends node `i` in good order (SIGTERM), so that it knows where it was.
    pub async fn stop(&mut self, i: usize) {
        if let Some(process) = self.nodes[i].process.take() {
            process.signal("TERM");
            wait_until(|| async { !process.alive() }, Duration::from_secs(60)).await;
        }
    }

    /// Starts node `i` again and waits until it is synchronised. It joins the others: when all are dead, see
    /// [`Galera::bootstrap`].
    pub async fn restart(&mut self, i: usize) {
        self.spawn(i).await;
        self.await_synced(i).await;
    }

    /// Starts node `i` again without waiting for more than the recovery of its position, with which it is sent only
    /// what it missed.
    pub async fn spawn(&mut self, i: usize) {
        self.nodes[i].process = None;
        let position = self.position(i).await;
        self.launch(i, false, position);
    }

    /// Makes a cluster of dead nodes: the one that has the most begins, the others join it. All are synchronised then.
    ///
    /// # Panics
    /// When a node runs.
    pub async fn bootstrap(&mut self) {
        self.begin().await;
        self.join().await;
    }

    /// Starts the dead nodes, one after the other; all are synchronised then.
    pub async fn join(&mut self) {
        for i in 0..self.len() {
            if self.nodes[i].process.is_none() {
                self.restart(i).await;
            }
        }
    }

    async fn begin(&mut self) {
        assert!(self.nodes.iter().all(|n| n.process.is_none()), "only a cluster of dead nodes is bootstrapped");
        let mut best = (0, None::<Position>);
        for i in 0..self.len() {
            let position = self.position(i).await;
            let furthest = best.1.as_ref().map_or(-1, |p| p.seqno);
            if position.as_ref().is_some_and(|p| p.seqno > furthest) {
                best = (i, position);
            }
        }
        let (first, position) = best;
        self.make_safe(first);
        self.launch(first, true, position);
        self.await_synced(first).await;
    }

    /// Whether node `i` takes part in the cluster with all there is.
    pub async fn synced(&self, i: usize) -> bool {
        let ask = "SHOW STATUS WHERE Variable_name IN ('wsrep_local_state_comment', 'wsrep_ready')";
        self.statement(i, ask).await.is_some_and(|s| s.contains("Synced") && s.contains("ON"))
    }

    /// Waits until node `i` is [synchronised](Galera::synced).
    pub async fn await_synced(&self, i: usize) {
        let node = &self.nodes[i];
        await_socket(&node.folder, self.process(i)).await;
        wait_until(
            || async {
                assert!(self.process(i).alive(), "the node ended:\n{}", self.process(i).log_tail());
                self.synced(i).await
            },
            Duration::from_secs(120),
        )
        .await;
    }

    /// Runs SQL on node `i` as root through its socket, which works whatever happens on the network; gives what it printed.
    pub async fn statement(&self, i: usize, sql: &str) -> Option<String> {
        statement(&self.nodes[i].folder, sql).await
    }

    fn launch(&mut self, i: usize, first: bool, position: Option<Position>) {
        let mut command = self.command(i);
        if first {
            command.push("--wsrep-new-cluster".into());
        }
        if let Some(p) = position {
            command.push(format!("--wsrep-start-position={}:{}", p.history, p.seqno));
        }
        let node = &mut self.nodes[i];
        node.process = Some(Process::start(&command, &node.folder.log(), None));
    }

    fn command(&self, i: usize) -> Vec<String> {
        let members: Vec<String> = self.nodes.iter().map(|n| format!("{}:{}", n.place.address, n.group)).collect();
        let node = &self.nodes[i];
        let at = &node.place.address;
        let mut command = server_command(&node.folder, &node.place, node.sql, self.durability);
        command.extend([
            "--binlog-format=ROW".into(),
            "--innodb-autoinc-lock-mode=2".into(),
            "--wsrep-on=ON".into(),
            format!("--wsrep-provider={PROVIDER}"),
            format!("--wsrep-cluster-address=gcomm://{}", members.join(",")),
            format!("--wsrep-node-address={at}:{}", node.group),
            format!("--wsrep-node-name=galera-{}", i + 1),
            format!("--wsrep-sst-receive-address={at}:{}", node.sst),
            "--wsrep-sst-method=rsync".into(),
            format!(
                "--wsrep-provider-options=gmcast.listen_addr=tcp://{at}:{};ist.recv_addr={at}:{};gcache.size=32M;{TIMES}",
                node.group, node.ist
            ),
        ]);
        command
    }

    /// How far the data of the dead node `i` got, as its own recovery finds it. `None` for a new or a torn folder.
    async fn position(&self, i: usize) -> Option<Position> {
        let data = self.nodes[i].folder.path().join("data");
        let state = std::fs::read_to_string(data.join("grastate.dat")).ok()?;
        let found = |key: &str| state.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_owned());
        let kept = Position { history: found("uuid:")?, seqno: found("seqno:")?.parse().ok()? };
        if kept.history.starts_with("00000000-0000") {
            return None; // a copy of another node's data was under way
        }
        if kept.seqno >= 0 {
            return Some(kept);
        }
        let mut command = self.command(i);
        command.push("--wsrep-recover".into());
        let output = tokio::process::Command::new(&command[0]).args(&command[1..]).output().await.ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let at = text.lines().find_map(|l| l.split_once("Recovered position: ")).map(|(_, p)| p.trim().to_owned())?;
        let (history, seqno) = at.split_once(':')?;
        // Behind the sequence number a domain may follow.
        let seqno = seqno.split(',').next()?.parse().ok()?;
        Some(Position { history: history.to_owned(), seqno })
    }

    /// Allows node `i` to begin the cluster though it wasn't the last to leave.
    fn make_safe(&self, i: usize) {
        let path = self.nodes[i].folder.path().join("data/grastate.dat");
        if let Ok(state) = std::fs::read_to_string(&path) {
            let safe = state.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
            std::fs::write(&path, safe).expect("grastate.dat");
        }
    }
}

/// A point in the history of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    history: String,
    seqno: i64,
}

const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";

/// A node that is silent for 2 s is left out when the others agree: tests don't wait for the usual 5 s and 15 s.
const TIMES: &str = "evs.keepalive_period=PT0.5S;evs.inactive_check_period=PT0.25S;evs.suspect_timeout=PT2S;\
                     evs.inactive_timeout=PT5S;evs.install_timeout=PT5S";
