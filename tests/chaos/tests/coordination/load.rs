//! Clients that try once: what fails for them has failed.

use arcus::api_client::ApiClient;
use cluster::Api;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::wait_until;
use tokio::task::JoinSet;

/// What was sent, and what failed.
#[derive(Debug, Default)]
pub struct Sent {
    pub all: u64,
    pub failed: Vec<String>,
}

/// An open loop of requests that come at fixed times, however long the answers take.
pub struct Load {
    end: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

const COMMANDS: &[(&str, &[(&str, &str)])] = &[
    ("listZones", &[]),
    ("listVirtualMachines", &[("listall", "true"), ("page", "1"), ("pagesize", "20")]),
    ("listNetworks", &[]),
    ("listVolumes", &[("page", "1"), ("pagesize", "20")]),
    ("listAccounts", &[("page", "1"), ("pagesize", "20")]),
    ("listEvents", &[("page", "1"), ("pagesize", "5")]),
];

impl Load {
    /// A request every `every`.
    pub fn start(api: &Api, every: Duration) -> Load {
        let client = Arc::new(ApiClient::new(&api.endpoint, &api.key, &api.secret));
        let (end, done, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::default());
        let task = tokio::spawn(run(client, every, end.clone(), done.clone(), Arc::clone(&failed)));
        Load { end, done, failed, task }
    }

    /// Waits for so many more answers.
    pub async fn have(&self, more: u64) {
        let target = self.done.load(Ordering::Relaxed) + more;
        wait_until(|| async { self.done.load(Ordering::Relaxed) >= target }, Duration::from_secs(60)).await;
    }

    /// Ends it when all answers are there.
    pub async fn end(self) -> Sent {
        self.end.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        Sent { all: self.done.load(Ordering::Relaxed), failed: std::mem::take(&mut self.failed.lock().unwrap()) }
    }
}

async fn run(
    client: Arc<ApiClient>,
    every: Duration,
    end: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
) {
    let mut tick = tokio::time::interval(every);
    let mut under_way = JoinSet::new();
    for n in 0.. {
        tick.tick().await;
        if end.load(Ordering::Relaxed) {
            break;
        }
        let (command, params) = COMMANDS[n % COMMANDS.len()];
        let (client, done, failed) = (client.clone(), done.clone(), failed.clone());
        under_way.spawn(async move {
            if let Err(e) = client.call(command, params).await {
                failed.lock().unwrap().push(format!("{e:#}"));
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
}

/// A login session.
pub struct Session {
    cookie: String,
    key: String,
}

/// Logs the administrator in.
pub async fn login(endpoint: &str, password: &Path) -> Session {
    let password = std::fs::read_to_string(password).unwrap();
    let form = [("command", "login"), ("username", "admin"), ("password", password.trim()), ("response", "json")];
    let form: Vec<String> = form.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let client = reqwest::Client::new();
    let request =
        client.post(endpoint).header("content-type", "application/x-www-form-urlencoded").body(form.join("&"));
    let answer = request.send().await.unwrap();
    let cookies = answer.headers().get_all("set-cookie").iter();
    let cookies: Vec<String> = cookies.filter_map(|c| c.to_str().ok()?.split(';').next().map(str::to_owned)).collect();
    let body: Value = answer.json().await.unwrap();
    let key = body.pointer("/loginresponse/sessionkey").and_then(Value::as_str);
    Session { cookie: cookies.join("; "), key: key.unwrap_or_else(|| panic!("{body}")).to_owned() }
}

impl Session {
    pub async fn call(&self, endpoint: &str, command: &str) -> Value {
        let url = format!("{endpoint}?command={command}&response=json&sessionkey={}", self.key);
        let answer = reqwest::Client::new().get(url).header("cookie", &self.cookie).send().await.unwrap();
        answer.json().await.unwrap()
    }
}
