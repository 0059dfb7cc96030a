//! All parts of the test, and what its steps ask them.

use crate::control::Control;
use crate::machine::Machine;
use crate::network::Network;
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;
use testkit::guest::{self, talk};
use testkit::{Libvirtd, Place, until_ok, wait_until};

/// Control plane, hosts and their networks.
pub struct World {
    // In this order: hosts end before their networks go.
    pub machines: Vec<Machine>,
    pub control: Control,
    pub api: ApiClient,
    pub network: Network,
    dir: tempfile::TempDir,
    /// What the hosts are in the API.
    pub hypervisor: &'static str,
    /// Ids of what steps made, by their own names.
    pub ids: BTreeMap<&'static str, String>,
}

/// A string of an answer.
#[track_caller]
pub fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

/// A VM as an answer shows it.
#[derive(Clone, Debug)]
pub struct Vm {
    pub id: String,
    pub ip: String,
    pub instance: String,
}

impl World {
    /// `None` where the machine can't, after saying so.
    pub async fn new(test: &str) -> Option<World> {
        World::of(test, "KVM").await
    }

    /// The same with hosts whose guests are containers.
    pub async fn containers(test: &str) -> Option<World> {
        if let Some(why) = Libvirtd::missing_for_containers().or_else(testkit::container::missing) {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("\n!!! SKIPPED: {test}: {why}\n").as_bytes());
            return None;
        }
        World::of(test, "LXC").await
    }

    async fn of(test: &str, hypervisor: &'static str) -> Option<World> {
        let tools = ["nft", "dnsmasq", "haproxy", "busybox"];
        let path = std::env::var("PATH").unwrap_or_default();
        let there =
            |tool: &str| path.split(':').chain(["/usr/sbin", "/sbin"]).any(|d| PathBuf::from(d).join(tool).exists());
        let tool = tools.into_iter().find(|tool| !there(tool)).map(|t| format!("needs {t}: run deploy/setup-dev test"));
        if let Some(why) = Libvirtd::missing().or_else(guest::missing).or(tool) {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("\n!!! SKIPPED: {test}: {why}\n").as_bytes());
            return None;
        }
        // Routers' daemons, which don't stay root, must be able to pass it, and it must be short.
        let dir = tempfile::Builder::new().prefix("ht").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let network = Network::new();
        let control = Control::start(&dir.path().join("data"), network.control()).await;
        let api = control.api();
        let mut world = World { machines: Vec::new(), control, api, network, dir, hypervisor, ids: BTreeMap::new() };
        for folder in ["primary", "secondary", "images"] {
            std::fs::create_dir_all(world.folder(folder)).unwrap();
        }
        world.add_machine().await;
        Some(world)
    }

    /// A folder of the test, the same on all hosts.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One more machine, whose agent waits to be added.
    pub async fn add_machine(&mut self) {
        let place = self.network.add_host();
        let dir = self.folder(&format!("h{}", self.machines.len() + 1));
        let token = self.control.token();
        self.machines.push(Machine::start(&dir, place, &self.control.agents, &token, self.hypervisor).await);
    }

    /// The power of a machine is cut, and its network is gone. They are counted from 0.
    pub async fn kill_host(&mut self, n: usize) {
        self.machines[n].die().await;
        self.network.cut(u8::try_from(n + 1).unwrap());
    }

    /// The machine starts again.
    pub async fn boot_host(&mut self, n: usize) {
        self.network.wire(u8::try_from(n + 1).unwrap());
        self.machines[n].boot().await;
    }

    /// The first host.
    pub fn host(&self) -> &Machine {
        &self.machines[0]
    }

    /// What is on each host: see [`Machine::remains`].
    pub fn remains(&self) -> Vec<Vec<String>> {
        self.machines.iter().map(Machine::remains).collect()
    }

    /// The id of what a step made.
    #[track_caller]
    pub fn id(&self, name: &str) -> &str {
        self.ids.get(name).unwrap_or_else(|| panic!("no {name} was made"))
    }

    /// Calls a command, which must be answered well; waits for its job.
    #[track_caller]
    pub fn run<'a>(&'a self, command: &'a str, params: &'a [(&'a str, &'a str)]) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.api.run(command, params).await;
            answer.unwrap_or_else(|error| {
                panic!(
                    "{caller}: {error:#}\n{params:?}\n--- agent\n{}\n--- control plane\n{}",
                    self.host().log_tail(),
                    self.control.log_tail()
                )
            })
        }
    }

    /// The first of a list.
    #[track_caller]
    pub fn first<'a>(
        &'a self,
        command: &'a str,
        key: &'a str,
        params: &'a [(&'a str, &'a str)],
    ) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.api.call(command, params).await.unwrap_or_else(|e| panic!("{caller}: {e:#}"));
            let first = answer.pointer(&format!("/{key}/0")).cloned();
            first.unwrap_or_else(|| panic!("{caller}: {command} {params:?} lists nothing: {answer}"))
        }
    }

    /// A VM's state.
    pub async fn state(&self, vm: &Vm) -> String {
        let listed =
            self.api.call("listVirtualMachines", &[("id", vm.id.as_str()), ("listall", "true")]).await.unwrap();
        listed.pointer("/virtualmachine/0/state").and_then(Value::as_str).unwrap_or("none").to_owned()
    }

    /// Deploys a VM into the network `net`; `more` parameters may follow.
    pub async fn deploy(&self, name: &str, more: &[(&str, &str)]) -> (Vm, Value) {
        let mut params = self.deploy_params(name);
        params.retain(|(key, _)| more.iter().all(|(instead, _)| instead != key));
        params.extend(more);
        let answer = self.run("deployVirtualMachine", &params).await;
        let vm = Vm {
            id: text(&answer, "/virtualmachine/id"),
            ip: text(&answer, "/virtualmachine/nic/0/ipaddress"),
            instance: text(&answer, "/virtualmachine/instancename"),
        };
        assert_eq!(text(&answer, "/virtualmachine/state"), "Running");
        (vm, answer["virtualmachine"].clone())
    }

    /// The parameters of a deploy.
    pub fn deploy_params<'a>(&'a self, name: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("zoneid", self.id("zone")),
            ("templateid", self.id("template")),
            ("serviceofferingid", self.id("offering")),
            ("networkids", self.id("net")),
            ("name", name),
        ]
    }

    /// Waits for a line of a guest's serial console.
    #[track_caller]
    pub fn told<'a>(&'a self, vm: &'a Vm, what: &'a str) -> impl Future<Output = BTreeMap<String, String>> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let look = || async {
                let console: String = self.machines.iter().map(|m| m.console(&vm.instance)).collect();
                let tail =
                    || console.chars().rev().take(1500).collect::<Vec<_>>().into_iter().rev().collect::<String>();
                guest::told(&console, what)
                    .ok_or_else(|| format!("{caller}: {} doesn't say {what}:\n{}", vm.instance, tail()))
            };
            until_ok(look, Duration::from_secs(240)).await
        }
    }

    /// How often a guest has booted.
    pub fn boots(&self, vm: &Vm) -> usize {
        self.machines.iter().map(|m| m.console(&vm.instance).matches("GUEST up ").count()).sum()
    }

    /// Waits until a guest has booted so often and is configured.
    pub async fn booted(&self, vm: &Vm, boots: usize) {
        let configured = || {
            self.machines.iter().map(|m| m.console(&vm.instance).matches("GUEST configured ").count()).sum::<usize>()
        };
        wait_until(|| async { self.boots(vm) >= boots && configured() >= boots }, Duration::from_secs(420)).await;
    }

    /// Whether somebody outside who calls this address gets an echo.
    pub async fn echoes(&self, address: &str) -> bool {
        self.answers(&self.network.outside(), address).await
    }

    /// Waits until somebody outside who calls this address gets an echo.
    #[track_caller]
    pub fn reached<'a>(&'a self, address: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        let look = move || async move {
            let found = self.echoes(address).await;
            if found { Ok(()) } else { Err(format!("{caller}: {address} isn't reached")) }
        };
        until_ok(look, Duration::from_secs(120))
    }

    async fn answers(&self, from: &Place, address: &str) -> bool {
        let address = address.parse().expect("an address and a port");
        let answer = talk(from, address, b"is anybody there\n", Duration::from_secs(3)).await;
        answer.is_some_and(|answer| answer == b"is anybody there\n")
    }
}
