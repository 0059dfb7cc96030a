//! The control plane: `arcus dev` without a zone, at an address that hosts reach.

use arcus::api_client::ApiClient;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use testkit::{Process, free_ports, until_ok, wait_until};
use vault::Vault;

/// A running control plane.
pub struct Control {
    process: Process,
    data: PathBuf,
    /// What agents dial.
    pub agents: String,
}

/// The binary of this build.
pub fn binary() -> String {
    std::env::var("ARCUS_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_arcus").to_owned())
}

impl Control {
    /// Starts it in the folder `data`; agents reach it at `address`. With its end, also by the kill of the test, the folder around goes.
    pub async fn start(data: &Path, address: Ipv4Addr) -> Control {
        let ports = free_ports(4);
        let agents = format!("{address}:{}", ports[3]);
        let mut command = vec![
            binary(),
            "dev".into(),
            format!("--data-dir={}", data.display()),
            format!("--agent-listen={agents}"),
            "--log=info".into(),
        ];
        let flags = ["--listen", "--grpc-listen", "--metrics-listen"];
        command.extend(flags.iter().zip(ports).map(|(flag, port)| format!("{flag}=127.0.0.1:{port}")));
        std::fs::create_dir_all(data).expect("the control plane's folder");
        let process = Process::start(&command, &data.join("log"), data.parent());
        let control = Control { process, data: data.to_owned(), agents };
        wait_until(
            || async {
                assert!(control.process.alive(), "arcus dev ended:\n{}", control.process.log_tail());
                data.join("dev.json").exists()
            },
            Duration::from_secs(60),
        )
        .await;
        control
    }

    fn told(&self, key: &str) -> String {
        let dev = std::fs::read(self.data.join("dev.json")).expect("dev.json");
        let dev: Value = serde_json::from_slice(&dev).expect("JSON");
        dev.get(key).and_then(Value::as_str).expect("an entry of dev.json").to_owned()
    }

    /// A client with the administrator's keys.
    pub fn api(&self) -> ApiClient {
        ApiClient::new(&self.told("endpoint"), &self.told("apikey"), &self.told("secretkey"))
    }

    /// Where the API and the consoles are: `127.0.0.1:8080`.
    pub fn address(&self) -> String {
        let endpoint = self.told("endpoint");
        endpoint.trim_start_matches("http://").split('/').next().expect("an address").to_owned()
    }

    /// The address of a machine's console as 4.11's UI makes it, signed by this user.
    pub fn console_url(&self, who: &ApiClient, vm: &str) -> String {
        let query = who.signed("console", &[("cmd", "access"), ("vm", vm)]).expect("a query");
        format!("http://{}/client/console?{query}", self.address())
    }

    /// The installation's key.
    pub fn vault(&self) -> Vault {
        Vault::open(&self.data.join("master.key")).expect("the master key")
    }

    /// What `arcus token` prints: good for one host.
    pub fn token(&self) -> String {
        let command = &mut Command::new(binary());
        let output =
            command.args(["token", "--kind=host", "--data-dir"]).arg(&self.data).output().expect("arcus token");
        assert!(output.status.success(), "arcus token: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Its database, to look.
    pub async fn db(&self) -> Db {
        let url = format!("sqlite:{}", self.data.join("arcus.db").display());
        Db::connect(&DbConfig::new(url)).await.expect("the database")
    }

    /// What a VM's deployment came to, step by step: milliseconds since the command came.
    pub async fn deploy_steps(&self, vm: &str) -> Vec<(String, i64)> {
        let sql = Sql::new("SELECT id, created, started, ended FROM jobs WHERE instance_uuid = ? ORDER BY id").bind(vm);
        let job = self.db().await.one(sql).await.expect("the job");
        let at = |n: usize| job.at::<Option<i64>>(n).expect("a time").unwrap_or_default();
        let created = at(1);
        let sql = Sql::new("SELECT step, created FROM effects WHERE job_id = ? ORDER BY created").bind(at(0));
        let effects = self.db().await.all(sql).await.expect("effects");
        let effects = effects.iter().map(|e| (e.at::<String>(0).expect("a name"), e.at::<i64>(1).expect("a time")));
        let mut steps: Vec<(String, i64)> = effects.collect();
        steps.push(("started".into(), at(2)));
        steps.push(("ended".into(), at(3)));
        steps.sort_by_key(|(_, when)| *when);
        steps.into_iter().map(|(name, when)| (name, (when - created) / 1000)).collect()
    }

    /// How many jobs are under way.
    pub async fn jobs(db: &Db) -> i64 {
        let sql = Sql::new("SELECT COUNT(*) FROM jobs WHERE state NOT IN ('Done', 'Failed')");
        db.one(sql).await.expect("a count").at(0).expect("a number")
    }

    /// Waits until no job is under way.
    pub async fn settle(&self) {
        let db = self.db().await;
        wait_until(|| async { Control::jobs(&db).await == 0 }, Duration::from_secs(180)).await;
    }

    /// Fails with what `arcus audit` still finds after the duties have had time to tidy up.
    pub async fn audit(&self) {
        let look = || async {
            let mut command = tokio::process::Command::new(binary());
            let out = command.arg("audit").arg("--data-dir").arg(&self.data).output().await.expect("arcus audit");
            let said = || format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            if out.status.success() { Ok(()) } else { Err(said()) }
        };
        until_ok(look, Duration::from_secs(120)).await;
    }

    /// The end of what it wrote.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}
