//! Server processes that never outlive the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// A server under a watchdog: a shell that holds the read end of a pipe whose write end only this process has. When
/// that end closes (drop, exit, `kill -9` of the test), the shell kills the server and removes its folder. A parent-death
/// signal would not do: it fires when the *thread* that started the server ends.
#[derive(Debug)]
pub struct Process {
    watchdog: Child,
    pipe: Option<ChildStdin>,
    pid: u32,
    log: PathBuf,
}

const WATCHDOG: &str = r#"
log=$1; rubbish=$2; shift 2
exec 3<&0
"$@" </dev/null >>"$log" 2>&1 3<&- &
pid=$!
echo $pid
exec >/dev/null
read -r word <&3
kill -9 $pid 2>/dev/null
wait $pid
if [ -n "$rubbish" ] && [ "$word" != keep ]; then rm -rf "$rubbish"; fi
"#;

impl Process {
    /// Starts `command` with its output in `log`. `rubbish` is a folder to remove after its end.
    pub fn start(command: &[String], log: &Path, rubbish: Option<&Path>) -> Process {
        let mut watchdog = Command::new("/bin/sh")
            .arg("-c")
            .arg(WATCHDOG)
            .arg("watchdog")
            .arg(log)
            .arg(rubbish.unwrap_or(Path::new("")))
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let pipe = watchdog.stdin.take();
        let mut line = String::new();
        let stdout = watchdog.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("the server's pid");
        let pid = line.trim().parse().expect("a number");
        Process { watchdog, pipe, pid, log: log.to_owned() }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal: `"KILL"`, `"STOP"`, `"CONT"`, `"TERM"`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status();
        assert!(status.is_ok_and(|s| s.success()), "signal {name} to {}", self.pid);
        if name == "STOP" {
            self.await_stopped();
        }
    }

    /// The signal takes effect when the server's threads next run, which may take a while on a busy machine: until then it
    /// still answers.
    fn await_stopped(&self) {
        let start = std::time::Instant::now();
        let stopped = || {
            let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else { return true };
            threads.flatten().all(|t| state(&t.path().join("stat")).is_none_or(|s| matches!(s, 'T' | 't' | 'Z' | 'X')))
        };
        while !stopped() && start.elapsed() < std::time::Duration::from_secs(5) {
            std::thread::yield_now();
        }
    }

    /// Whether the server runs.
    pub fn alive(&self) -> bool {
        // Not the command line: that is empty for an instant during exec, too.
        state(Path::new(&format!("/proc/{}/stat", self.pid))).is_some_and(|s| !matches!(s, 'Z' | 'X'))
    }

    /// The end of what the server wrote, for messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Kills the server and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    /// The same; its `rubbish` stays.
    pub fn kill_sparing(mut self) {
        use std::io::Write as _;
        let told = self.pipe.as_mut().map(|pipe| pipe.write_all(b"keep\n"));
        assert!(told.is_some_and(|t| t.is_ok()), "the watchdog of {} is gone", self.pid);
        self.end();
    }

    fn end(&mut self) {
        if self.pipe.take().is_some() {
            let _ = self.watchdog.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The state letter of a process or thread.
fn state(stat: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(stat).ok()?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
}
