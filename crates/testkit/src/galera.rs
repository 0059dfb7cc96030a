//! A Galera cluster: several MariaDB nodes that certify each other's writes.

use crate::mariadb::{am_root, await_port, copy_prepared, server_command};
use crate::{Process, free_ports, temp_dir, wait_until};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A cluster of nodes on 127.0.0.1.
#[derive(Debug)]
pub struct Galera {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    dir: PathBuf,
    sql: u16,
    group: u16,
    sst: u16,
    ist: u16,
    process: Option<Process>,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Galera {
    /// Whether the provider library is installed (Debian package `galera-4`).
    pub fn installed() -> bool {
        std::path::Path::new(PROVIDER).exists()
    }

    /// Starts `n` nodes and waits until all are synchronised.
    pub async fn start(n: usize) -> Galera {
        let nodes = (0..n)
            .map(|_| {
                let p = free_ports(4);
                let dir = temp_dir().keep();
                copy_prepared(&dir);
                Node { dir, sql: p[0], group: p[1], sst: p[2], ist: p[3], process: None }
            })
            .collect();
        let mut cluster = Galera { nodes };
        cluster.launch(0, true).await;
        for i in 1..n {
            cluster.launch(i, false).await;
        }
        cluster
    }

    /// The name of a database that nothing else uses.
    pub fn fresh_name(&self) -> String {
        format!("g_{}", DATABASES.fetch_add(1, Ordering::Relaxed))
    }

    /// The URL of database `name` through node `i`.
    pub fn url(&self, i: usize, name: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{name}", self.nodes[i].sql)
    }

    /// The process of node `i`.
    ///
    /// # Panics
    /// While it is killed.
    pub fn process(&self, i: usize) -> &Process {
        self.nodes[i].process.as_ref().expect("the node is killed")
    }

    /// Kills node `i`.
    pub fn kill(&mut self, i: usize) {
        self.nodes[i].process = None;
    }

    /// Starts node `i` again and waits until it is synchronised.
    pub async fn restart(&mut self, i: usize) {
        self.launch(i, false).await;
    }

    async fn launch(&mut self, i: usize, first: bool) {
        let members: Vec<String> = self.nodes.iter().map(|n| format!("127.0.0.1:{}", n.group)).collect();
        let node = &mut self.nodes[i];
        let mut command = server_command(&node.dir, node.sql);
        command.extend([
            "--innodb-flush-log-at-trx-commit=2".into(),
            "--binlog-format=ROW".into(),
            "--innodb-autoinc-lock-mode=2".into(),
            "--wsrep-on=ON".into(),
            format!("--wsrep-provider={PROVIDER}"),
            format!("--wsrep-cluster-address=gcomm://{}", members.join(",")),
            format!("--wsrep-node-address=127.0.0.1:{}", node.group),
            format!("--wsrep-sst-receive-address=127.0.0.1:{}", node.sst),
            "--wsrep-sst-method=rsync".into(),
            format!(
                "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{};ist.recv_addr=127.0.0.1:{};gcache.size=16M",
                node.group, node.ist
            ),
        ]);
        if first {
            command.push("--wsrep-new-cluster".into());
        }
        let process = Process::start(&command, &node.dir.join("log"), None);
        await_port(node.sql, &process).await;
        let socket = node.dir.join("s");
        wait_until(
            || async {
                assert!(process.alive(), "the node ended:\n{}", process.log_tail());
                synced(&socket)
            },
            Duration::from_secs(120),
        )
        .await;
        node.process = Some(process);
    }
}

impl Drop for Galera {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.process = None;
            let _ = std::fs::remove_dir_all(&node.dir);
        }
    }
}

const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";

fn synced(socket: &std::path::Path) -> bool {
    let mut command = Command::new("mariadb");
    command.arg("--no-defaults").arg(format!("--socket={}", socket.display()));
    if am_root() {
        command.arg("--user=root");
    }
    command.args(["-N", "-e", "SHOW STATUS LIKE 'wsrep_local_state_comment'"]);
    command.output().is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("Synced"))
}
