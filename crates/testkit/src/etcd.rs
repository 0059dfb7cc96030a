//! One etcd member.

use crate::{Process, free_ports, wait_until};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An etcd server that tests may kill, pause and restart.
#[derive(Debug)]
pub struct Etcd {
    process: Option<Process>,
    dir: PathBuf,
    client: u16,
    peer: u16,
}

impl Etcd {
    /// Starts a server with empty data.
    pub async fn start() -> Etcd {
        let ports = free_ports(2);
        let mut etcd = Etcd { process: None, dir: crate::temp_dir().keep(), client: ports[0], peer: ports[1] };
        etcd.restart().await;
        etcd
    }

    /// The client URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    /// The running process.
    ///
    /// # Panics
    /// While it is killed.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("etcd is killed")
    }

    /// Kills it (`kill -9`); its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same ports and data.
    pub async fn restart(&mut self) {
        self.process = None;
        let client = format!("http://127.0.0.1:{}", self.client);
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let command = [
            "etcd".to_owned(),
            format!("--data-dir={}", self.dir.join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // Short, so that leases may be short too: etcd raises them to 1.5 elections.
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
        ];
        let process = Process::start(&command, &self.dir.join("log"), None);
        let port = self.client;
        wait_until(
            || async {
                assert!(process.alive(), "etcd ended:\n{}", process.log_tail());
                healthy(port).await
            },
            Duration::from_secs(30),
        )
        .await;
        self.process = Some(process);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn healthy(port: u16) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /health HTTP/1.0\r\nHost: e\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.contains("\"true\"").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(1), ask).await.ok().flatten().is_some()
}
