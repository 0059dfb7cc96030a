//! `arcus dev` as a process of its own.

use arcus::api_client::ApiClient;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use testkit::{Process, free_ports, wait_until};

/// The binary of this build; `ARCUS_BINARY` names another one, for figures of a release build.
pub fn binary() -> String {
    std::env::var("ARCUS_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_arcus").to_owned())
}

/// A running process; its data folder outlives it.
pub struct Dev {
    process: Option<Process>,
    dir: tempfile::TempDir,
    args: Vec<String>,
}

impl Dev {
    /// Starts it with a zone of `hosts` hosts, and waits for the zone.
    pub async fn with_zone(hosts: usize) -> Dev {
        Dev::with_zone_and(hosts, &[]).await
    }

    /// The same with more flags.
    pub async fn with_zone_and(hosts: usize, flags: &[String]) -> Dev {
        let mut dev = Dev::new(flags);
        dev.start(&["--zone=test".into(), format!("--hosts={hosts}")]).await;
        // The greeting ends the building of the zone.
        let log = dev.log();
        wait_until(
            || async { std::fs::read_to_string(&log).is_ok_and(|t| t.contains("try next")) },
            Duration::from_secs(120),
        )
        .await;
        dev
    }

    /// Starts it with these flags and no zone.
    #[allow(dead_code)] // used by tests/overload.rs
    pub async fn empty(flags: &[String]) -> Dev {
        let mut dev = Dev::new(flags);
        dev.start(&[]).await;
        dev
    }

    fn new(more: &[String]) -> Dev {
        let dir = testkit::temp_dir();
        let ports = free_ports(4);
        let flags = ["--listen", "--grpc-listen", "--agent-listen", "--metrics-listen"];
        let mut args = vec![binary(), "dev".into(), format!("--data-dir={}", dir.path().display())];
        args.extend(flags.iter().zip(ports).map(|(flag, port)| format!("{flag}=127.0.0.1:{port}")));
        args.extend(more.iter().cloned());
        Dev { process: None, dir, args }
    }

    /// Its process id.
    #[allow(dead_code)] // used by tests/overload.rs
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().pid()
    }

    /// Where the query API listens.
    #[allow(dead_code)] // used by tests/overload.rs
    pub fn api_address(&self) -> std::net::SocketAddr {
        self.told("endpoint").split('/').nth(2).unwrap().parse().unwrap()
    }

    fn log(&self) -> std::path::PathBuf {
        self.dir.path().join("log")
    }

    /// Where its data is.
    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    async fn start(&mut self, more: &[String]) {
        let command: Vec<String> = self.args.iter().chain(more).cloned().collect();
        let process = Process::start(&command, &self.log(), None);
        let file = self.dir.path().join("dev.json");
        let pid = process.pid();
        wait_until(
            || async {
                assert!(process.alive(), "arcus dev ended:\n{}", process.log_tail());
                // One that a killed predecessor left is removed at start.
                file.exists() && std::fs::metadata(&file).is_ok_and(|m| m.modified().is_ok_and(|t| t > started(pid)))
            },
            Duration::from_secs(60),
        )
        .await;
        self.process = Some(process);
    }

    /// Starts it again after a kill.
    pub async fn restart(&mut self) {
        self.start(&[]).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// A client with the administrator's keys.
    pub fn api(&self) -> ApiClient {
        self.api_as(&self.told("apikey"), &self.told("secretkey"))
    }

    /// A client with these keys.
    pub fn api_as(&self, key: &str, secret: &str) -> ApiClient {
        ApiClient::new(&self.told("endpoint"), key, secret)
    }

    /// The same client for `/client/plan`: what a command would decide.
    #[allow(dead_code)] // used by tests/system
    pub fn planned(&self) -> ApiClient {
        let endpoint = self.told("endpoint").replace("/client/api", "/client/plan");
        ApiClient::new(&endpoint, &self.told("apikey"), &self.told("secretkey"))
    }

    /// What dev.json says.
    fn told(&self, key: &str) -> String {
        let dev: Value = serde_json::from_slice(&std::fs::read(self.dir.path().join("dev.json")).unwrap()).unwrap();
        dev.get(key).and_then(Value::as_str).unwrap().to_owned()
    }

    /// Its database.
    pub async fn db(&self) -> Db {
        let url = format!("sqlite:{}", self.dir.path().join("arcus.db").display());
        Db::connect(&DbConfig::new(url)).await.unwrap()
    }

    /// Waits until no job is under way.
    pub async fn settle(&self) {
        let db = self.db().await;
        let open = || async {
            let sql = Sql::new("SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed')");
            db.one(sql).await.unwrap().at::<i64>(0).unwrap() == 0
        };
        wait_until(open, Duration::from_secs(180)).await;
    }

    /// Fails with what `arcus audit` still finds after the duties have had time to tidy up behind a killed process.
    pub async fn audit(&self) {
        let command =
            || tokio::process::Command::new(binary()).arg("audit").arg("--data-dir").arg(self.data()).output();
        let begun = std::time::Instant::now();
        loop {
            let out = command().await.unwrap();
            if out.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&out.stdout);
            assert!(begun.elapsed() < Duration::from_secs(30), "{said}{}", String::from_utf8_lossy(&out.stderr));
        }
    }

    /// The ids that a deploy names: zone, template, offering, network.
    pub async fn ids(&self) -> [String; 4] {
        let api = self.api();
        let zone = first(&api, "listZones", "zone", &[]).await;
        let template = [("templatefilter", "featured"), ("zoneid", zone.as_str())];
        let template = first(&api, "listTemplates", "template", &template).await;
        let offering = first(&api, "listServiceOfferings", "serviceoffering", &[("name", "Small Instance")]).await;
        let network = first(&api, "listNetworks", "network", &[("zoneid", &zone)]).await;
        [zone, template, offering, network]
    }
}

/// When a process started, from the age of its /proc entry.
fn started(pid: u32) -> std::time::SystemTime {
    std::fs::metadata(format!("/proc/{pid}")).and_then(|m| m.modified()).unwrap_or(std::time::UNIX_EPOCH)
}

async fn first(api: &ApiClient, command: &str, key: &str, params: &[(&str, &str)]) -> String {
    let answer = api.call(command, params).await.unwrap();
    let id = answer.pointer(&format!("/{key}/0/id")).and_then(Value::as_str);
    id.unwrap_or_else(|| panic!("{command} answered {answer}")).to_owned()
}

/// The parameters of a deploy.
pub fn deploy_params<'a>(ids: &'a [String; 4], name: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("zoneid", &ids[0]),
        ("templateid", &ids[1]),
        ("serviceofferingid", &ids[2]),
        ("networkids", &ids[3]),
        ("name", name),
    ]
}
