//! Daemons that outlive the agent: known by pid and start time, never by name.

use super::HostError;
use super::files;
use super::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// How long a daemon may take to end when asked.
const GRACE: Duration = Duration::from_secs(5);

/// A daemon that was started, as its record on disk has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub pid: i32,
    /// Of the process, in ticks since the machine's boot: with the boot's id it tells the process from a later one with
    /// its pid.
    pub started: u64,
    pub boot: String,
    /// What it runs with.
    pub conf: String,
    /// What it last read.
    pub data: String,
}

impl Record {
    /// Of a process that runs now.
    pub fn of(pid: i32) -> Option<Record> {
        let started = start_time(pid)?;
        Some(Record { pid, started, boot: boot_id(), ..Record::default() })
    }

    pub fn read(path: &Path) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub fn write(&self, path: &Path) -> Result<(), HostError> {
        let text = serde_json::to_vec(self).map_err(|e| HostError::failed(path.display(), e))?;
        files::replace(path, &text, 0o600)
    }

    /// Whether the very process still runs.
    pub fn alive(&self) -> bool {
        self.boot == boot_id() && start_time(self.pid) == Some(self.started)
    }

    pub fn signal(&self, signal: Signal) -> Result<(), HostError> {
        if !self.alive() {
            return Err(HostError::Failed(format!("process {} has ended", self.pid)));
        }
        signal_to(self.pid, signal)
    }
}

fn signal_to(pid: i32, signal: Signal) -> Result<(), HostError> {
    let Some(pid) = Pid::from_raw(pid) else { return Err(HostError::Failed(format!("{pid} is no process"))) };
    kill_process(pid, signal).map_err(|e| HostError::failed("a signal", e))
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// In ticks since the boot; `None` when it has ended.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // The 22nd field of all, the 20th after the state.
    fields.nth(18)?.parse().ok()
}

/// The number that a daemon wrote into its pid file.
pub(crate) fn pid_in(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.lines().next()?.trim().parse().ok()
}

/// The processes of a namespace that were started with `file` among their arguments: what a kill left without a record is
/// found so.
pub(crate) fn in_namespace(namespace: &Namespace, file: &Path) -> Vec<Record> {
    let Ok(number) = namespace.number() else { return Vec::new() };
    let wanted = file.as_os_str().as_encoded_bytes();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let at = Namespace::At(format!("/proc/{pid}/ns/net").into());
        let args = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        at.number().is_ok_and(|n| n == number) && args().split(|b| *b == 0).any(|arg| arg == wanted)
    })
    .filter_map(Record::of)
    .collect()
}

/// Ends every process of a namespace that was started with `file`, and waits until it is gone.
pub(crate) async fn end(namespace: &Namespace, file: &Path) -> Result<(), HostError> {
    let all = in_namespace(namespace, file);
    for process in &all {
        let _ = process.signal(Signal::TERM);
    }
    if gone(&all, GRACE).await {
        return Ok(());
    }
    // Those that a master has started in the meantime, too.
    let all = in_namespace(namespace, file);
    for process in &all {
        let _ = process.signal(Signal::KILL);
    }
    if gone(&all, GRACE).await {
        return Ok(());
    }
    let pids: Vec<i32> = all.iter().map(|r| r.pid).collect();
    Err(HostError::Failed(format!("processes {pids:?} don't end")))
}

async fn gone(all: &[Record], patience: Duration) -> bool {
    until(patience, || !all.iter().any(Record::alive)).await
}

/// Waits until something holds that nobody tells of. Whether it came in time.
pub(crate) async fn until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
