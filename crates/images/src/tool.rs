//! `qemu-img`, and what unpacks, as processes on a leash.

use crate::errors::ToolError;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// More than `qemu-img info` has to say of anything honest.
const MOST_OUTPUT: usize = 1 << 20;
/// Characters of an error output that are kept.
const MOST_SAID: usize = 1000;
/// What `prlimit` answers with when it finds no such program.
const NOT_FOUND: i32 = 127;

/// What one run of the tool may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of address space.
    pub address_space: u64,
    /// CPU time, whole seconds.
    pub cpu: Duration,
    /// Time by the clock.
    pub deadline: Duration,
}

/// `qemu-img`, always confined and always told the format.
#[derive(Clone, Debug)]
pub struct QemuImg {
    /// The program.
    pub program: PathBuf,
    /// For looking at an image, and for work on its metadata.
    pub quick: Limits,
    /// For reading or copying whole images.
    pub copy: Limits,
    /// Largest disk that is accepted or made.
    pub max_virtual_bytes: u64,
}

impl QemuImg {
    /// The `qemu-img` of the PATH, with limits that fit all but the largest disks.
    pub fn new(max_virtual_bytes: u64) -> QemuImg {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        QemuImg {
            program: "qemu-img".into(),
            quick: Limits { address_space: 1 << 30, cpu: Duration::from_secs(30), deadline: minutes(2) },
            copy: Limits { address_space: 2 << 30, cpu: minutes(120), deadline: minutes(360) },
            max_virtual_bytes,
        }
    }

    /// Runs a command to its end, whatever its exit code: that and its output. `file_bytes` is how large a file may become.
    /// The tool holds `lock` as long as it lives. Dropping the future kills it.
    pub(crate) async fn run(
        &self,
        command: &str,
        args: &[&OsStr],
        limits: Limits,
        file_bytes: u64,
        lock: Option<&File>,
    ) -> Result<Ran, ToolError> {
        let args: Vec<&OsStr> = std::iter::once(OsStr::new(command)).chain(args.iter().copied()).collect();
        let streams = (lock, None);
        leashed(self.program.as_os_str(), format!("qemu-img {command}"), &args, limits, file_bytes, streams).await
    }
}

/// Runs a program to its end, whatever its exit code; `said` is what it is called in errors. Its standard input and output are
/// the files, if any; else there is no input, and the output is in the answer. Dropping the future kills it.
pub(crate) async fn leashed(
    program: &OsStr,
    said: String,
    args: &[&OsStr],
    limits: Limits,
    file_bytes: u64,
    (input, output): (Option<&File>, Option<&File>),
) -> Result<Ran, ToolError> {
    let name = said;
    let start = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ToolError::Missing("prlimit".into()),
        _ => ToolError::Start { program: name.clone(), reason: error.to_string() },
    };
    let or = |file: Option<&File>, else_: fn() -> Stdio| match file {
        Some(file) => file.try_clone().map(Stdio::from).map_err(start),
        None => Ok(else_()),
    };
    // What the tool says must not depend on the agent's language, nor its memory on the number of threads.
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let mut child = tokio::process::Command::new("prlimit")
        .arg(format!("--as={}", limits.address_space))
        .arg(format!("--cpu={}", limits.cpu.as_secs().max(1)))
        .arg(format!("--fsize={file_bytes}"))
        .arg("--core=0")
        .arg("--")
        .arg(program)
        .args(args)
        .env_clear()
        .envs([("PATH", path), ("LC_ALL", "C".into()), ("MALLOC_ARENA_MAX", "2".into())])
        .current_dir("/")
        .stdin(or(input, Stdio::null)?)
        .stdout(or(output, Stdio::piped)?)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (stdout, stderr) = tokio::try_join!(bounded(stdout, &name), bounded(stderr, &name))?;
        let status = child.wait().await.map_err(start)?;
        Ok::<_, ToolError>((status, stdout, stderr))
    };
    let ended = tokio::time::timeout(limits.deadline, work).await;
    let outcome =
        ended.unwrap_or_else(|_| Err(ToolError::Deadline { program: name.clone(), deadline: limits.deadline }));
    let (status, stdout, stderr) = match outcome {
        Ok(done) => done,
        Err(error) => {
            // Also waits, so that nothing writes to the file any more.
            let _ = child.kill().await;
            return Err(error);
        }
    };
    if let Some(signal) = status.signal() {
        return Err(ToolError::Signal { program: name, signal });
    }
    let code = status.code().unwrap_or(-1);
    if code == NOT_FOUND {
        return Err(ToolError::Missing(program.display().to_string()));
    }
    let said = String::from_utf8_lossy(&stderr).trim().chars().take(MOST_SAID).collect();
    Ok(Ran { program: name, code, stdout, said })
}

/// How a run ended.
pub(crate) struct Ran {
    program: String,
    pub code: i32,
    stdout: Vec<u8>,
    said: String,
}

impl Ran {
    pub(crate) fn succeeded(&self) -> Result<(), ToolError> {
        if self.code == 0 { Ok(()) } else { Err(self.failed()) }
    }

    pub(crate) fn failed(&self) -> ToolError {
        ToolError::Failed { program: self.program.clone(), code: self.code, said: self.said.clone() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn said(&self) -> &str {
        &self.said
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, ToolError> {
        serde_json::from_slice(&self.stdout)
            .map_err(|e| ToolError::Nonsense { program: self.program.clone(), reason: e.to_string() })
    }
}

async fn bounded(from: Option<impl AsyncRead + Unpin>, program: &str) -> Result<Vec<u8>, ToolError> {
    let mut output = Vec::new();
    let Some(from) = from else { return Ok(output) };
    let read = from.take(MOST_OUTPUT as u64 + 1).read_to_end(&mut output).await;
    read.map_err(|e| ToolError::Start { program: program.to_owned(), reason: e.to_string() })?;
    if output.len() > MOST_OUTPUT {
        return Err(ToolError::Flood { program: program.to_owned(), max: MOST_OUTPUT });
    }
    Ok(output)
}
