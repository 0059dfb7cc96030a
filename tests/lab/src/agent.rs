//! QEMU's guest agent, over a virtio-serial port: works whatever happens to the machine's network.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// How long the agent may take for a single answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of a file in one message.
const PART: usize = 1 << 20;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit status; 128 and the signal's number when a signal ended it.
    pub status: i64,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

#[derive(Debug)]
pub(crate) struct Agent {
    socket: PathBuf,
    line: Mutex<Option<BufReader<UnixStream>>>,
}

impl Agent {
    pub(crate) fn new(socket: PathBuf) -> Agent {
        Agent { socket, line: Mutex::new(None) }
    }

    /// Whether it answers within `patience`.
    pub(crate) async fn answers(&self, patience: Duration) -> bool {
        matches!(tokio::time::timeout(patience, self.call("guest-ping", json!({}))).await, Ok(Ok(_)))
    }

    /// Forgets the connection, after the machine ended.
    pub(crate) async fn reset(&self) {
        *self.line.lock().await = None;
    }

    /// Starts a program; gives the process id.
    pub(crate) async fn start(&self, script: &str, capture: bool) -> Result<i64, String> {
        let order = json!({ "path": "/bin/sh", "arg": ["-c", script], "capture-output": capture });
        let answer = self.call("guest-exec", order).await?;
        answer["pid"].as_i64().ok_or_else(|| format!("no process id: {answer}"))
    }

    /// How a program that was started ended, or `None` while it runs. An ended one is told once.
    pub(crate) async fn ended(&self, pid: i64) -> Result<Option<Output>, String> {
        let answer = self.call("guest-exec-status", json!({ "pid": pid })).await?;
        if answer["exited"] != true {
            return Ok(None);
        }
        let text = |key: &str| {
            let bytes = answer[key].as_str().and_then(|data| BASE64.decode(data).ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()
        };
        let signal = answer["signal"].as_i64().map(|number| 128 + number);
        let status = answer["exitcode"].as_i64().or(signal).ok_or_else(|| format!("no exit status: {answer}"))?;
        Ok(Some(Output { status, stdout: text("out-data"), stderr: text("err-data") }))
    }

    /// Writes a file, whole.
    pub(crate) async fn write(&self, path: &str, content: &[u8]) -> Result<(), String> {
        let handle = self.call("guest-file-open", json!({ "path": path, "mode": "w" })).await?;
        for part in content.chunks(PART) {
            self.call("guest-file-write", json!({ "handle": handle, "buf-b64": BASE64.encode(part) })).await?;
        }
        self.call("guest-file-close", json!({ "handle": handle })).await.map(|_| ())
    }

    /// Reads a file, whole.
    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let handle = self.call("guest-file-open", json!({ "path": path, "mode": "r" })).await?;
        let mut content = Vec::new();
        loop {
            let answer = self.call("guest-file-read", json!({ "handle": handle, "count": PART })).await?;
            let part = answer["buf-b64"].as_str().and_then(|data| BASE64.decode(data).ok());
            content.extend(part.ok_or_else(|| format!("no content: {answer}"))?);
            if answer["eof"] == true {
                break;
            }
        }
        self.call("guest-file-close", json!({ "handle": handle })).await?;
        Ok(content)
    }

    async fn call(&self, command: &str, arguments: Value) -> Result<Value, String> {
        let mut line = self.line.lock().await;
        // Taken out: a call that is given up or fails leaves no half answer for the next one.
        let mut stream = match line.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        let answer = tokio::time::timeout(ANSWER, exchange(&mut stream, command, &arguments)).await;
        let answer = answer.map_err(|_| format!("{command}: no answer within {ANSWER:?}"))??;
        *line = Some(stream);
        drop(line);
        match answer.get("error") {
            Some(error) => Err(format!("{command}: {}", error["desc"].as_str().unwrap_or("refused"))),
            None => Ok(answer["return"].clone()),
        }
    }

    /// Connects, and passes over what others before were answered.
    async fn connect(&self) -> Result<BufReader<UnixStream>, String> {
        let failed = |e| format!("the agent's socket: {e}");
        let mut stream = BufReader::new(UnixStream::connect(&self.socket).await.map_err(failed)?);
        let id = i64::from(std::process::id()) << 20 | i64::from(rand());
        let sync = format!("{}\n", json!({ "execute": "guest-sync", "arguments": { "id": id } }));
        stream.get_mut().write_all(sync.as_bytes()).await.map_err(failed)?;
        let in_step = async {
            loop {
                let answer = next(&mut stream).await?;
                if answer["return"].as_i64() == Some(id) {
                    return Ok::<(), String>(());
                }
            }
        };
        tokio::time::timeout(ANSWER, in_step).await.map_err(|_| "the agent doesn't answer".to_owned())??;
        Ok(stream)
    }
}

async fn exchange(stream: &mut BufReader<UnixStream>, command: &str, arguments: &Value) -> Result<Value, String> {
    let order = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
    stream.get_mut().write_all(order.as_bytes()).await.map_err(|e| format!("{command}: {e}"))?;
    next(stream).await
}

async fn next(stream: &mut BufReader<UnixStream>) -> Result<Value, String> {
    let mut line = Vec::new();
    let n = stream.read_until(b'\n', &mut line).await.map_err(|e| format!("the agent's line: {e}"))?;
    if n == 0 {
        return Err("the agent's line has ended".into());
    }
    Ok(serde_json::from_slice(&line).unwrap_or(Value::Null))
}

/// Another number each time.
fn rand() -> u16 {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
