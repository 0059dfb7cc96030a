//! One MariaDB server a test process.

use crate::{Process, cache_dir, free_port, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The operating system has it: survives a killed server, not a power cut. For tests of behaviour.
    Process,
    /// The disk has it. For measurements.
    Disk,
}

/// A MariaDB server.
#[derive(Debug)]
pub struct MariaDb {
    process: Option<Process>,
    port: u16,
    dir: PathBuf,
    durability: Durability,
}

static SHARED: OnceCell<MariaDb> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl MariaDb {
    /// The server that all tests of this process share. It dies with the process.
    pub async fn shared() -> &'static MariaDb {
        SHARED.get_or_init(|| MariaDb::start(Durability::Process)).await
    }

    /// A server of its own: to kill, pause and restart.
    pub async fn start(durability: Durability) -> MariaDb {
        let dir = crate::temp_dir().keep();
        copy_prepared(&dir);
        let mut server = MariaDb { process: None, port: free_port(), dir, durability };
        server.restart().await;
        server
    }

    /// The URL of a database that nothing else uses. It is created by whoever connects first.
    pub fn fresh_url(&self) -> String {
        let n = DATABASES.fetch_add(1, Ordering::Relaxed);
        format!("mysql://root@127.0.0.1:{}/db_{n}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The running process.
    ///
    /// # Panics
    /// While it is killed.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the server is killed")
    }

    /// Kills the server (`kill -9`); its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) {
        self.process = None;
        let flush = if self.durability == Durability::Disk { 1 } else { 2 };
        let mut command = server_command(&self.dir, self.port);
        command.push(format!("--innodb-flush-log-at-trx-commit={flush}"));
        // No folder to remove here: the data must survive a kill. Drop removes it.
        let process = Process::start(&command, &self.dir.join("log"), None);
        await_port(self.port, &process).await;
        self.process = Some(process);
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.process = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The command that serves `dir/data` on `port`.
pub(crate) fn server_command(dir: &Path, port: u16) -> Vec<String> {
    let mut command: Vec<String> = vec![
        "mariadbd".into(),
        "--no-defaults".into(),
        format!("--datadir={}", dir.join("data").display()),
        format!("--socket={}", dir.join("s").display()),
        format!("--tmpdir={}", dir.display()),
        format!("--pid-file={}", dir.join("pid").display()),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".into(),
        "--skip-name-resolve".into(),
        "--max-connections=600".into(),
        "--innodb-buffer-pool-size=64M".into(),
        "--innodb-log-file-size=32M".into(),
        "--aria-pagecache-buffer-size=1M".into(),
        "--key-buffer-size=1M".into(),
        "--performance-schema=OFF".into(),
        "--innodb-buffer-pool-dump-at-shutdown=OFF".into(),
        "--innodb-buffer-pool-load-at-startup=OFF".into(),
    ];
    if am_root() {
        command.push("--user=mysql".into());
    }
    command
}

/// Waits until the server accepts connections.
pub(crate) async fn await_port(port: u16, process: &Process) {
    wait_until(
        || async {
            assert!(process.alive(), "the server ended:\n{}", process.log_tail());
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        },
        Duration::from_secs(60),
    )
    .await;
}

/// Copies a data folder as `mariadb-install-db` makes it into `dir/data`, making it first when no run has yet.
pub(crate) fn copy_prepared(dir: &Path) {
    let prepared = cache_dir().join("mariadb-10.11");
    if !prepared.exists() {
        // Made aside and renamed, so that a killed run leaves no half folder and two runs don't disturb each other.
        let aside = tempfile::Builder::new().prefix("mariadb-").tempdir_in(cache_dir()).expect("a folder").keep();
        install(&aside);
        if std::fs::rename(&aside, &prepared).is_err() {
            let _ = std::fs::remove_dir_all(&aside);
        }
    }
    let status = Command::new("cp").arg("-a").arg(&prepared).arg(dir.join("data")).status();
    assert!(status.is_ok_and(|s| s.success()), "copying {}", prepared.display());
    own(dir);
}

fn install(dir: &Path) {
    let mut command = Command::new("mariadb-install-db");
    command.arg("--no-defaults").arg(format!("--datadir={}", dir.display()));
    command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=8M"]);
    if am_root() {
        command.arg("--user=mysql");
    }
    let output = command.output().expect("mariadb-install-db (Debian package mariadb-server)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn own(dir: &Path) {
    if am_root() {
        let status = Command::new("chown").arg("-R").arg("mysql:mysql").arg(dir).status();
        assert!(status.is_ok_and(|s| s.success()), "chown {}", dir.display());
    }
}

pub(crate) fn am_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
