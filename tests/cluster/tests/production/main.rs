//! Arcus in its production form: `arcus-cluster`, and what tests of failures build on.
//!
//! They need a binary: `cargo build --bin arcus` first (or ARCUS_BIN).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that panics has failed

mod audit;
mod command;
mod consoles;
mod database;
mod partition;
mod rolling;

use cluster::{Api, Options};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// Clusters are large: one at a time.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// A small cluster with few hosts in `dir`.
pub fn few_hosts(dir: &Path) -> Options {
    Options { hosts: 4, ..Options::small(dir).unwrap() }
}

/// A call with a limit, because an answer may never come.
pub async fn call(api: &Api, command: &str, params: &[(&str, &str)]) -> anyhow::Result<Value> {
    tokio::time::timeout(Duration::from_secs(15), api.call(command, params)).await?
}

/// Deploys a VM in the cluster's zone; gives its id.
pub async fn deploy(api: &Api, name: &str) -> String {
    let first = async |command: &str, key: &str, params: &[(&str, &str)]| {
        let answer = call(api, command, params).await.unwrap();
        let id = answer.pointer(&format!("/{key}/0/id")).and_then(Value::as_str);
        id.unwrap_or_else(|| panic!("{command} answered {answer}")).to_owned()
    };
    let zone = first("listZones", "zone", &[]).await;
    let template = first("listTemplates", "template", &[("templatefilter", "featured"), ("zoneid", &zone)]).await;
    let offering = first("listServiceOfferings", "serviceoffering", &[("name", "Small Instance")]).await;
    let network = first("listNetworks", "network", &[("zoneid", &zone)]).await;
    let params = [
        ("zoneid", zone.as_str()),
        ("templateid", &template),
        ("serviceofferingid", &offering),
        ("networkids", &network),
        ("name", name),
    ];
    let done = api.run("deployVirtualMachine", &params).await.unwrap();
    assert_eq!(done.pointer("/virtualmachine/state").and_then(Value::as_str), Some("Running"), "{done}");
    done.pointer("/virtualmachine/id").and_then(Value::as_str).unwrap().to_owned()
}

/// The state of a VM; none when there is no such VM.
pub async fn state(api: &Api, id: &str) -> Option<String> {
    let answer = call(api, "listVirtualMachines", &[("id", id)]).await.unwrap();
    answer.pointer("/virtualmachine/0/state").and_then(Value::as_str).map(str::to_owned)
}

/// Processes of this machine whose command names `dir`.
pub fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let is_process = entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
        let line =
            if is_process { std::fs::read(entry.path().join("cmdline")).unwrap_or_default() } else { Vec::new() };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&dir) {
            found.push(line);
        }
    }
    found
}

/// Network namespaces whose names begin so.
pub fn namespaces(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with(prefix)).collect()
}

/// Whether this process may make network namespaces.
pub fn am_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
