//! A single MariaDB server.

use crate::place::Folder;
use crate::{Place, Process, ServerOptions, cache_dir, free_port, wait_until};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
    folder: Folder,
    place: Place,
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
        MariaDb::start_with(&ServerOptions { durability, ..ServerOptions::default() }).await
    }

    /// A server at the first of the places.
    pub async fn start_with(options: &ServerOptions) -> MariaDb {
        let folder = Folder::new(options.dir.as_deref(), "mariadb");
        copy_prepared(folder.path());
        let place = options.places.first().cloned().unwrap_or_default();
        let mut server = MariaDb { process: None, port: free_port(), folder, place, durability: options.durability };
        server.restart().await;
        server
    }

    /// The URL of a database that nothing else uses. It is created by whoever connects first.
    pub fn fresh_url(&self) -> String {
        let n = DATABASES.fetch_add(1, Ordering::Relaxed);
        self.url(&format!("db_{n}"))
    }

    /// The URL of database `name`.
    pub fn url(&self, name: &str) -> String {
        format!("mysql://root@{}:{}/{name}", self.place.address, self.port)
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

    /// The process id, unless it is killed.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.folder.log()
    }

    /// Kills the server (`kill -9`); its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it with SIGSTOP: its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.process().signal("STOP");
    }

    /// Lets it go on after [`MariaDb::pause`].
    pub fn resume(&self) {
        self.process().signal("CONT");
    }

    /// Starts it again on the same port and data; returns when it answers.
    pub async fn restart(&mut self) {
        self.spawn();
        await_socket(&self.folder, self.process()).await;
    }

    /// Starts it again without waiting.
    pub fn spawn(&mut self) {
        self.process = None;
        let command = server_command(&self.folder, &self.place, self.port, self.durability);
        // No folder to remove here: the data must survive a kill. The folder's Drop removes it.
        self.process = Some(Process::start(&command, &self.folder.log(), None));
    }

    /// Whether it answers statements.
    pub async fn ready(&self) -> bool {
        statement(&self.folder, "SELECT 1").await.is_some()
    }

    /// Runs SQL as root through the socket, which works whatever happens on the network; gives what it printed.
    pub async fn statement(&self, sql: &str) -> Option<String> {
        statement(&self.folder, sql).await
    }
}

/// The command that serves the data in `folder`.
pub(crate) fn server_command(folder: &Folder, place: &Place, port: u16, durability: Durability) -> Vec<String> {
    let dir = folder.path();
    let flush = if durability == Durability::Disk { 1 } else { 2 };
    let mut command: Vec<String> = vec![
        "mariadbd".into(),
        "--no-defaults".into(),
        format!("--datadir={}", dir.join("data").display()),
        format!("--socket={}", socket(folder).display()),
        format!("--tmpdir={}", dir.display()),
        format!("--pid-file={}", dir.join("pid").display()),
        format!("--port={port}"),
        format!("--bind-address={}", place.address),
        "--skip-name-resolve".into(),
        "--max-connections=1500".into(),
        // Each connection keeps its own, and tests have many connections.
        "--max-prepared-stmt-count=1048576".into(),
        format!("--innodb-flush-log-at-trx-commit={flush}"),
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
    place.command(command)
}

/// The socket of the server in `folder`.
pub(crate) fn socket(folder: &Folder) -> PathBuf {
    folder.path().join("s")
}

/// Runs SQL as root through the socket; `None` when the server doesn't answer within 5 s.
pub(crate) async fn statement(folder: &Folder, sql: &str) -> Option<String> {
    let mut command = tokio::process::Command::new("mariadb");
    command.arg("--no-defaults").arg(format!("--socket={}", socket(folder).display())).arg("--user=root");
    command.args(["-N", "-e", sql]).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(5), command.output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until the server accepts connections.
pub(crate) async fn await_socket(folder: &Folder, process: &Process) {
    wait_until(
        || async {
            assert!(process.alive(), "the server ended:\n{}", process.log_tail());
            tokio::net::UnixStream::connect(socket(folder)).await.is_ok()
        },
        Duration::from_secs(60),
    )
    .await;
}

/// Copies a data folder as `mariadb-install-db` makes it into `dir/data`, making it first when no run has yet. Data that
/// is there already stays.
pub(crate) fn copy_prepared(dir: &Path) {
    if dir.join("data").exists() {
        return;
    }
    let prepared = cache_dir().join("mariadb-10.11-any");
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
    allow_any_address(dir);
}

/// root may come from everywhere: servers in network namespaces are reached from other addresses than their own.
fn allow_any_address(dir: &Path) {
    let sql = "FLUSH PRIVILEGES;\nCREATE USER root@'%';\nGRANT ALL PRIVILEGES ON *.* TO root@'%' WITH GRANT OPTION;\n";
    let mut command = Command::new("mariadbd");
    command.args(["--no-defaults", "--bootstrap", "--innodb-log-file-size=8M"]);
    command.arg(format!("--datadir={}", dir.display()));
    if am_root() {
        command.arg("--user=mysql");
    }
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.expect("mariadbd (Debian package mariadb-server)");
    child.stdin.take().expect("its input").write_all(sql.as_bytes()).expect("the statements");
    let output = child.wait_with_output().expect("its end");
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
