//! One client at work.

use super::{Ground, PREFIX, error_of};
use crate::client::Client;
use crate::history::{Intent, Outcome};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Things of a kind that a worker has at most: its account has limits.
const MOST_VMS: usize = 3;
const MOST_VOLUMES: usize = 3;
const MOST_NETWORKS: usize = 2;

/// A VM as its owner knows it.
#[derive(Clone, Debug)]
struct Vm {
    name: String,
    id: String,
    network: String,
    tags: Vec<String>,
}

/// A volume as its owner knows it.
#[derive(Clone, Debug)]
struct Volume {
    name: String,
    id: String,
    size: i64,
}

/// A network as its owner knows it.
#[derive(Clone, Debug)]
struct Network {
    name: String,
    id: String,
}

/// A worker.
pub struct Worker {
    number: usize,
    client: Client,
    ground: Arc<Ground>,
    random: StdRng,
    think: Duration,
    made: u64,
    vms: Vec<Vm>,
    volumes: Vec<Volume>,
    networks: Vec<Network>,
    /// What is gone, for requests that must be refused.
    buried: Vec<Vm>,
}

impl Worker {
    pub fn new(number: usize, client: Client, ground: Arc<Ground>, random: StdRng, think: Duration) -> Worker {
        let (vms, volumes, networks, buried) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Worker { number, client, ground, random, think, made: 0, vms, volumes, networks, buried }
    }

    /// Works until `end`.
    pub async fn run(mut self, end: impl Fn() -> bool) {
        while !end() {
            self.step().await;
            let think = self.random.random_range(0.0..=1.0);
            tokio::time::sleep(self.think.mul_f64(think)).await;
        }
    }

    async fn step(&mut self) {
        if self.networks.is_empty() {
            return self.create_network().await;
        }
        if self.vms.is_empty() {
            return self.deploy().await;
        }
        match self.random.random_range(0..100) {
            0..18 if self.vms.len() < MOST_VMS => self.deploy().await,
            0..26 => self.change_power().await,
            26..30 => self.two_at_once().await,
            30..42 => self.destroy().await,
            42..50 if self.volumes.len() < MOST_VOLUMES => self.create_volume().await,
            42..58 => self.attach_or_detach().await,
            58..63 => self.resize().await,
            63..67 => self.delete_volume().await,
            67..71 if self.networks.len() < MOST_NETWORKS => self.create_network().await,
            67..73 => self.delete_network().await,
            73..79 => self.tag().await,
            79..83 => self.disturb_the_dead().await,
            83..90 => self.list().await,
            _ => self.look().await,
        }
    }

    fn name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{PREFIX}{kind}-{}-{}", self.number, self.made)
    }

    fn pick<T: Clone>(&mut self, of: impl Fn(&Worker) -> &Vec<T>) -> Option<T> {
        let n = of(self).len();
        (n > 0).then(|| self.random.random_range(0..n)).map(|i| of(self)[i].clone())
    }

    /// Any gateway, for requests that follow a change: they must see it.
    fn elsewhere(&mut self) -> Option<usize> {
        Some(self.random.random_range(0..self.client.endpoints()))
    }

    async fn deploy(&mut self) {
        let Some(network) = self.pick(|w| &w.networks) else { return };
        let name = self.name("vm");
        let ground = self.ground.clone();
        let params = [
            ("zoneid", ground.zone.as_str()),
            ("templateid", ground.template.as_str()),
            ("serviceofferingid", ground.offering.as_str()),
            ("networkids", network.id.as_str()),
            ("name", name.as_str()),
            ("displayname", name.as_str()),
        ];
        let intent = Intent::Deploy { vm: name.clone(), network: network.name.clone() };
        let outcome = self.client.perform(intent, "deployVirtualMachine", &params).await;
        let id = match &outcome {
            Outcome::Ok { value, .. } => text(value, "/virtualmachine/id"),
            // What failed may be there as an Error, and what is unknown as anything: both are to be cleared up.
            Outcome::Failed { .. } | Outcome::Unknown { .. } => self.find_vm(&name).await,
            Outcome::Refused { .. } => None,
        };
        if let Some(id) = id {
            self.vms.push(Vm { name: name.clone(), id, network: network.name, tags: Vec::new() });
            if self.random.random_bool(0.5)
                && let Some(vm) = self.vms.last().cloned()
            {
                self.look_at(&vm).await;
            }
        }
    }

    async fn find_vm(&mut self, name: &str) -> Option<String> {
        let outcome =
            self.client.perform(Intent::ListVms, "listVirtualMachines", &[("pagesize", "500"), ("page", "1")]).await;
        let Outcome::Ok { value, .. } = outcome else { return None };
        let items = value.get("virtualmachine").and_then(Value::as_array)?;
        items.iter().find(|v| v.get("name").and_then(Value::as_str) == Some(name)).and_then(|v| text(v, "/id"))
    }

    async fn look_at(&mut self, vm: &Vm) {
        let at = self.elsewhere();
        let params = [("id", vm.id.as_str())];
        self.client.perform_at(at, Intent::SeeVm { vm: vm.name.clone() }, "listVirtualMachines", &params).await;
    }

    async fn change_power(&mut self) {
        let Some(vm) = self.pick(|w| &w.vms) else { return };
        let kind = self.random.random_range(0..3);
        power(&self.client, &vm, kind).await;
        if self.random.random_bool(0.3) {
            self.look_at(&vm).await;
        }
    }

    /// Two changes of one VM that know nothing of each other.
    async fn two_at_once(&mut self) {
        let Some(vm) = self.pick(|w| &w.vms) else { return };
        let (a, b) = (self.random.random_range(0..3), self.random.random_range(0..3));
        futures::join!(power(&self.client, &vm, a), power(&self.client, &vm, b));
        self.look_at(&vm).await;
    }

    async fn destroy(&mut self) {
        let Some(vm) = self.pick(|w| &w.vms) else { return };
        let expunge = self.random.random_bool(0.85);
        let params = [("id", vm.id.as_str()), ("expunge", if expunge { "true" } else { "false" })];
        let intent = Intent::Destroy { vm: vm.name.clone(), expunge };
        let outcome = self.client.perform(intent, "destroyVirtualMachine", &params).await;
        // Gone, or refused because it is gone: no business of this worker any more.
        let over = matches!(outcome, Outcome::Ok { .. }) || error_of(&outcome).is_some_and(|e| e.code == 431);
        if over && expunge {
            self.vms.retain(|v| v.name != vm.name);
            if matches!(outcome, Outcome::Ok { .. }) {
                self.buried.push(vm.clone());
            }
        }
        if self.random.random_bool(0.5) {
            self.look_at(&vm).await;
        }
    }

    async fn disturb_the_dead(&mut self) {
        let Some(vm) = self.pick(|w| &w.buried) else { return };
        let kind = self.random.random_range(0..3);
        power(&self.client, &vm, kind).await;
    }

    async fn create_volume(&mut self) {
        let name = self.name("volume");
        let size = self.random.random_range(1..4);
        let (ground, gib) = (self.ground.clone(), size.to_string());
        let params = [
            ("zoneid", ground.zone.as_str()),
            ("diskofferingid", ground.disk_offering.as_str()),
            ("size", gib.as_str()),
            ("name", name.as_str()),
        ];
        let intent = Intent::CreateVolume { volume: name.clone(), size };
        let outcome = self.client.perform(intent, "createVolume", &params).await;
        if let Outcome::Ok { value, .. } = outcome
            && let Some(id) = text(&value, "/volume/id")
        {
            self.volumes.push(Volume { name, id, size });
        }
    }

    async fn attach_or_detach(&mut self) {
        let (Some(volume), Some(vm)) = (self.pick(|w| &w.volumes), self.pick(|w| &w.vms)) else { return };
        if self.random.random_bool(0.5) {
            let params = [("id", volume.id.as_str()), ("virtualmachineid", vm.id.as_str())];
            let intent = Intent::Attach { volume: volume.name.clone(), vm: vm.name };
            self.client.perform(intent, "attachVolume", &params).await;
        } else {
            let intent = Intent::Detach { volume: volume.name.clone() };
            self.client.perform(intent, "detachVolume", &[("id", volume.id.as_str())]).await;
        }
        self.look_at_volume(&volume).await;
    }

    async fn look_at_volume(&mut self, volume: &Volume) {
        let at = self.elsewhere();
        let intent = Intent::SeeVolume { volume: volume.name.clone() };
        self.client.perform_at(at, intent, "listVolumes", &[("id", volume.id.as_str())]).await;
    }

    async fn resize(&mut self) {
        let Some(volume) = self.pick(|w| &w.volumes) else { return };
        let (size, name) = (volume.size + 1, volume.name.clone());
        let gib = size.to_string();
        let intent = Intent::Resize { volume: name.clone(), size };
        let outcome =
            self.client.perform(intent, "resizeVolume", &[("id", volume.id.as_str()), ("size", gib.as_str())]).await;
        // Whatever came of it, the next one is larger than this one.
        if !matches!(outcome, Outcome::Refused { .. })
            && let Some(volume) = self.volumes.iter_mut().find(|v| v.name == name)
        {
            volume.size = size;
        }
        self.look_at_volume(&volume).await;
    }

    async fn delete_volume(&mut self) {
        let Some(volume) = self.pick(|w| &w.volumes) else { return };
        let intent = Intent::DeleteVolume { volume: volume.name.clone() };
        let outcome = self.client.perform(intent, "deleteVolume", &[("id", volume.id.as_str())]).await;
        if matches!(outcome, Outcome::Ok { .. }) {
            self.volumes.retain(|v| v.name != volume.name);
        }
        if self.random.random_bool(0.5) {
            self.look_at_volume(&volume).await;
        }
    }

    async fn create_network(&mut self) {
        let name = self.name("network");
        let ground = self.ground.clone();
        let params = [
            ("zoneid", ground.zone.as_str()),
            ("networkofferingid", ground.network_offering.as_str()),
            ("name", name.as_str()),
            ("displaytext", name.as_str()),
        ];
        let intent = Intent::CreateNetwork { network: name.clone() };
        let outcome = self.client.perform(intent, "createNetwork", &params).await;
        if let Outcome::Ok { value, .. } = outcome
            && let Some(id) = text(&value, "/network/id")
        {
            self.networks.push(Network { name: name.clone(), id: id.clone() });
            let at = self.elsewhere();
            let intent = Intent::SeeNetwork { network: name };
            self.client.perform_at(at, intent, "listNetworks", &[("id", id.as_str())]).await;
        }
    }

    async fn delete_network(&mut self) {
        let Some(network) = self.pick(|w| &w.networks) else { return };
        let intent = Intent::DeleteNetwork { network: network.name.clone() };
        let outcome = self.client.perform(intent, "deleteNetwork", &[("id", network.id.as_str())]).await;
        if matches!(outcome, Outcome::Ok { .. }) {
            self.networks.retain(|n| n.name != network.name);
            self.vms.retain(|v| v.network != network.name);
        }
    }

    async fn tag(&mut self) {
        let Some(vm) = self.pick(|w| &w.vms) else { return };
        let known = vm.tags.choose(&mut self.random).cloned();
        match known.filter(|_| self.random.random_bool(0.5)) {
            Some(key) => {
                let params =
                    [("resourcetype", "UserVm"), ("resourceids", vm.id.as_str()), ("tags[0].key", key.as_str())];
                let intent = Intent::Untag { vm: vm.name.clone(), key: key.clone() };
                if let Outcome::Ok { .. } = self.client.perform(intent, "deleteTags", &params).await {
                    self.with_vm(&vm.name, |vm| vm.tags.retain(|k| *k != key));
                }
            }
            None => {
                let (key, value) = (self.name("key"), self.name("value"));
                let params = [
                    ("resourcetype", "UserVm"),
                    ("resourceids", vm.id.as_str()),
                    ("tags[0].key", key.as_str()),
                    ("tags[0].value", value.as_str()),
                ];
                let intent = Intent::Tag { vm: vm.name.clone(), key: key.clone(), value: value.clone() };
                if let Outcome::Ok { .. } = self.client.perform(intent, "createTags", &params).await {
                    self.with_vm(&vm.name, |vm| vm.tags.push(key));
                }
            }
        }
        let at = self.elsewhere();
        let params = [("resourcetype", "UserVm"), ("resourceid", vm.id.as_str()), ("pagesize", "500"), ("page", "1")];
        self.client.perform_at(at, Intent::SeeTags { vm: vm.name }, "listTags", &params).await;
    }

    fn with_vm(&mut self, name: &str, change: impl FnOnce(&mut Vm)) {
        if let Some(vm) = self.vms.iter_mut().find(|v| v.name == name) {
            change(vm);
        }
    }

    async fn list(&mut self) {
        let at = self.elsewhere();
        let page = [("pagesize", "500"), ("page", "1")];
        if self.random.random_bool(0.5) {
            self.client.perform_at(at, Intent::ListVms, "listVirtualMachines", &page).await;
        } else {
            self.client.perform_at(at, Intent::ListVolumes, "listVolumes", &page).await;
        }
    }

    async fn look(&mut self) {
        if self.random.random_bool(0.5)
            && let Some(volume) = self.pick(|w| &w.volumes)
        {
            return self.look_at_volume(&volume).await;
        }
        if let Some(vm) = self.pick(|w| &w.vms) {
            self.look_at(&vm).await;
        }
    }
}

/// Stops, starts or reboots.
async fn power(client: &Client, vm: &Vm, kind: u32) -> Outcome {
    let name = vm.name.clone();
    let (intent, command) = match kind {
        0 => (Intent::Stop { vm: name }, "stopVirtualMachine"),
        1 => (Intent::Start { vm: name }, "startVirtualMachine"),
        _ => (Intent::Reboot { vm: name }, "rebootVirtualMachine"),
    };
    client.perform(intent, command, &[("id", vm.id.as_str())]).await
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}
