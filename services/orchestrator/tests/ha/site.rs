//! A zone with hosts that die when told to, and VMs on them.

use crate::VM;
use crate::common::*;
use crate::fakes::{self, Network, POOL, Plugged, volume};
use contract::ApiError;
use contract_agent::{Command, InspectHost, Mock, SetMocks, command, outcome};
use contract_compute::StartVirtualMachineRequest;
use contract_infra::{AddHostRequest, Configuration, Host, ListHostsRequest, UpdateConfigurationRequest};
use model::HostId;
use rpc::cx::request;
use std::sync::Arc;
use store::{Sql, Value};

pub struct Site {
    pub cloud: Cloud,
    pub factory: Factory,
    pub place: Place,
    pub network: Arc<Network>,
    /// UUIDs.
    pub hosts: Vec<String>,
}

const QUICK: [(&str, &str); 4] = [
    ("ping.interval", "2"),
    ("ping.timeout", "1"),
    ("investigate.retry.interval", "1"),
    ("restart.retry.interval", "1"),
];

async fn set(cloud: &Cloud, name: &str, value: &str) -> Configuration {
    let r = UpdateConfigurationRequest {
        name: Some(name.into()),
        value: Some(value.into()),
        ..UpdateConfigurationRequest::default()
    };
    ok(cloud.configurations().update(request(&root(), r)).await).unwrap()
}

/// Room for all VMs of a test.
pub const LARGE: &str = "cpucore=64&cpuspeed=8000&memory=274877906944";
/// Room for three.
pub const SMALL: &str = "cpucore=3&cpuspeed=500&memory=274877906944";

/// How a VM stands: state, host, generation.
pub type Standing = (String, Option<i64>, i64);

impl Site {
    /// Two seconds of silence are too long, and everything is tried again after a second.
    pub async fn open(db: &testkit::TestDb, hosts: usize) -> Site {
        let cloud = Cloud::start(db).await;
        let network = fakes::serve(&cloud.node, &cloud.net, &Plugged::default());
        Site::on(cloud, network, hosts, LARGE).await
    }

    /// The same on a cloud that runs already, with hosts of a certain size.
    pub async fn on(cloud: Cloud, network: Arc<Network>, hosts: usize, size: &str) -> Site {
        for (name, value) in QUICK {
            set(&cloud, name, value).await;
        }
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        let mut site = Site { cloud, factory, place, network, hosts: Vec::new() };
        for n in 0..hosts {
            site.add_host(n, size).await;
        }
        site.add_pool(1, POOL, "ZONE").await;
        site
    }

    /// The row of a pool.
    pub async fn add_pool(&self, id: i64, uuid: &str, scope: &str) {
        let row = [
            ("id", Value::from(id)),
            ("uuid", uuid.into()),
            ("name", uuid.into()),
            ("name_lower", uuid.into()),
            ("pool_type", "NetworkFilesystem".into()),
            ("host_address", "10.0.0.1".into()),
            ("path", "/primary".into()),
            ("zone_id", self.cloud.number("zones", self.place.zone.id()).await.into()),
            ("scope", scope.into()),
            ("provider", "DefaultPrimary".into()),
            ("state", "Up".into()),
            ("capacity_bytes", Value::from(1i64 << 40)),
            ("used_bytes", Value::from(0i64)),
            ("allocated_bytes", Value::from(0i64)),
            ("overcommit", Value::from(1.0)),
            ("tags", "".into()),
            ("created", Value::from(0i64)),
        ];
        self.cloud.insert("storage_pools", &row).await;
    }

    /// A host that runs no VM gets the pool.
    pub async fn mount(&self, n: usize) {
        let host = self.host(n).await;
        let order = fakes::pool("NetworkFilesystem".into());
        self.cloud.hub.execute(HostId(host), None, false, order, 10 * SECOND).await.unwrap();
        fakes::mounted(&self.cloud.db, host).await;
    }

    /// Waits until one host sees the heartbeat of another on the pool.
    pub async fn await_heartbeat(&self, witness: usize, of: usize) {
        let order = InspectHost { host_uuid: self.hosts[of].clone(), pool_uuid: POOL.into(), observe_millis: 0 };
        let order = Command { body: Some(command::Body::InspectHost(order)) };
        let witness = HostId(self.host(witness).await);
        let seen = || async {
            let answer = self.cloud.hub.execute(witness, None, false, order.clone(), 10 * SECOND).await;
            matches!(answer.unwrap().body, Some(outcome::Body::Heartbeat(state)) if state.seen)
        };
        testkit::wait_until(seen, 30 * SECOND).await;
    }

    /// Waits until hosts that are away were looked at so many times.
    pub async fn await_looks(&self, looks: i64) {
        let sql = "SELECT COALESCE(MAX(looks), 0) FROM host_absences";
        testkit::wait_until(|| async { self.cloud.count(sql).await >= looks }, 60 * SECOND).await;
    }

    pub async fn add_host(&mut self, n: usize, size: &str) {
        let url = format!("http://sim/c0/h{n}/{size}");
        let add = || async {
            let r = AddHostRequest { url: Some(url.clone()), ..new_host(&self.place, n) };
            ok(self.cloud.hosts().add(request(&root(), r)).await).ok()
        };
        let added = testkit::eventually(add).await;
        self.hosts.push(added.host[0].id().to_owned());
    }

    pub async fn set(&self, name: &str, value: &str) -> Configuration {
        set(&self.cloud, name, value).await
    }

    pub async fn host(&self, n: usize) -> i64 {
        self.cloud.number("hosts", &self.hosts[n]).await
    }

    /// A stopped VM with a root disk on the pool.
    pub async fn vm(&self, vm: i64, ha: bool) {
        let n = |n: i64| Value::from(n);
        let zone = self.cloud.number("zones", self.place.zone.id()).await;
        let row = [
            ("id", n(vm)),
            ("uuid", uuid(vm).into()),
            ("name", name(vm).into()),
            ("name_lower", name(vm).into()),
            ("display_name", name(vm).into()),
            ("display_lower", name(vm).into()),
            ("instance_name", format!("i-2-{vm}-VM").into()),
            ("state", "Stopped".into()),
            ("account_id", n(2)),
            ("domain_id", n(1)),
            ("domain_path", "/1/".into()),
            ("user_id", n(2)),
            ("zone_id", n(zone)),
            ("template_id", n(1)),
            ("hypervisor", "Simulator".into()),
            ("service_offering_id", n(self.offering().await)),
            ("cpu", n(1)),
            ("cpu_mhz", n(500)),
            ("memory_mb", n(512)),
            ("details", "{}".into()),
            ("display_vm", n(1)),
            ("ha_enabled", n(i64::from(ha))),
            ("dynamic_scaling", n(0)),
            ("password_enabled", n(0)),
            ("generation", n(0)),
            ("limits_key", "".into()),
            ("created", n(0)),
            ("changed", n(0)),
        ];
        self.cloud.insert("vms", &row).await;
        let row = [
            ("id", n(vm)),
            ("uuid", volume(vm).into()),
            ("name", volume(vm).into()),
            ("name_lower", volume(vm).into()),
            ("kind", "ROOT".into()),
            ("state", "Ready".into()),
            ("account_id", n(2)),
            ("domain_id", n(1)),
            ("domain_path", "/1/".into()),
            ("zone_id", n(zone)),
            ("vm_id", n(vm)),
            ("device_id", n(0)),
            ("pool_id", n(1)),
            ("size", n(1 << 30)),
            ("provisioning_type", "thin".into()),
            ("tags", "".into()),
            ("local_storage", n(0)),
            ("display_volume", n(1)),
            ("created", n(0)),
            ("changed", n(0)),
        ];
        self.cloud.insert("volumes", &row).await;
    }

    async fn offering(&self) -> i64 {
        let row = self.cloud.db.one(Sql::new("SELECT MIN(id) FROM service_offerings WHERE is_system = 0")).await;
        row.unwrap().at(0).unwrap()
    }

    /// Starts a VM, on a certain host if one is given.
    pub async fn start(&self, vm: i64, host: Option<usize>) -> Result<(), ApiError> {
        let r = StartVirtualMachineRequest {
            id: Some(uuid(vm)),
            host_id: host.map(|n| self.hosts[n].clone()),
            ..StartVirtualMachineRequest::default()
        };
        let job = ok(self.cloud.vms().start(request(&root(), r)).await)?;
        let ended = self.cloud.ended(&root(), &job.job_id).await;
        match ended.job_status {
            Some(1) => Ok(()),
            _ => Err(ApiError::failed(format!("{:?}", ended.job_result))),
        }
    }

    /// A VM that runs on a host.
    pub async fn running(&self, vm: i64, ha: bool, host: usize) {
        self.vm(vm, ha).await;
        // The news of a host that was just added may still be on its way to the placement.
        testkit::eventually(|| async { self.start(vm, Some(host)).await.ok() }).await;
    }

    pub async fn standing(&self, vm: i64) -> Standing {
        let sql = Sql::new("SELECT state, host_id, generation FROM vms WHERE id = ?").bind(vm);
        let row = self.cloud.db.one(sql).await.unwrap();
        (row.at(0).unwrap(), row.at(1).unwrap(), row.at(2).unwrap())
    }

    pub async fn await_state(&self, vm: i64, state: &str) {
        let there = || async { if self.standing(vm).await.0 == state { Ok(()) } else { Err(self.picture(vm).await) } };
        testkit::until_ok(there, 90 * SECOND).await;
    }

    /// Waits until the VM runs with another generation than its first.
    pub async fn await_restart(&self, vm: i64) -> Standing {
        self.await_generation(vm, 2).await
    }

    /// Waits until the VM runs with this generation or a later one.
    pub async fn await_generation(&self, vm: i64, generation: i64) -> Standing {
        let again = || async {
            let standing = self.standing(vm).await;
            match standing.0 == "Running" && standing.2 >= generation {
                true => Ok(standing),
                false => Err(self.picture(vm).await),
            }
        };
        testkit::until_ok(again, 90 * SECOND).await
    }

    /// What there is to know of a VM that isn't as it should be.
    async fn picture(&self, vm: i64) -> String {
        let rows = async |sql: &str| -> Vec<String> {
            let rows = self.cloud.db.all(Sql::new(sql)).await.unwrap();
            rows.iter().map(|row| row.at(0).unwrap()).collect()
        };
        let hosts = rows("SELECT status FROM hosts ORDER BY id").await;
        let jobs = rows("SELECT kind FROM jobs WHERE state NOT IN ('Done', 'Failed')").await;
        let wishes = rows("SELECT COALESCE(last_error, 'untried') FROM vm_restarts").await;
        let told = self.told(VM, &uuid(vm)).await;
        let standing = self.standing(vm).await;
        format!("{standing:?}, hosts {hosts:?}, open jobs {jobs:?}, restarts {wishes:?}, told {told:?}")
    }

    pub async fn shown(&self, filter: ListHostsRequest) -> Vec<Host> {
        ok(self.cloud.hosts().list(request(&root(), filter)).await).unwrap().host
    }

    /// A host stands still, its guests too; or goes on where it was.
    pub async fn freeze(&self, n: usize, frozen: bool) {
        self.freeze_and(n, frozen, None).await;
    }

    /// The same; orders of this name take that many milliseconds longer on all hosts.
    pub async fn freeze_and(&self, n: usize, frozen: bool, slow: Option<(&str, u32)>) {
        let mock = Mock { id: 1, host_uuid: Some(self.hosts[n].clone()), frozen: true, ..Mock::default() };
        let mut mocks = if frozen { vec![mock] } else { Vec::new() };
        let slow =
            slow.map(|(order, millis)| Mock { id: 2, command: order.into(), wait_millis: millis, ..Mock::default() });
        mocks.extend(slow);
        self.mocks(mocks).await;
    }

    /// Replaces the faults of hosts.
    pub async fn mocks(&self, mocks: Vec<Mock>) {
        let command = Command { body: Some(command::Body::SetMocks(SetMocks { mocks })) };
        self.cloud.hub.on_factories(command, 10 * SECOND).await.unwrap();
    }

    pub async fn status(&self, n: usize) -> String {
        let filter = ListHostsRequest { id: Some(self.hosts[n].clone()), ..ListHostsRequest::default() };
        self.shown(filter).await[0].state().to_owned()
    }

    pub async fn await_status(&self, n: usize, status: &str) {
        testkit::wait_until(|| async { self.status(n).await == status }, 60 * SECOND).await;
    }

    /// Texts of alerts and events of a kind about an entity.
    pub async fn told(&self, kind: &str, about: &str) -> Vec<String> {
        let sql = Sql::new("SELECT payload FROM outbox WHERE kind = ? ORDER BY id").bind(kind);
        let rows = self.cloud.db.all(sql).await.unwrap();
        let texts = rows.iter().map(|r| String::from_utf8(r.at::<Vec<u8>>(0).unwrap()).unwrap());
        texts.filter(|t| t.contains(about)).collect()
    }

    pub async fn await_told(&self, kind: &str, about: &str, text: &str) {
        let told = || async {
            let told = self.told(kind, about).await;
            if told.iter().any(|t| t.contains(text)) { Ok(()) } else { Err(format!("{text:?} isn't in {told:?}")) }
        };
        testkit::until_ok(told, 90 * SECOND).await;
    }

    /// What is given away is what is held, and every running VM runs once and where the database says, with its NICs.
    pub async fn books_are_right(&self) {
        let sql = "SELECT COUNT(*) FROM host_capacity k WHERE k.vms <> (SELECT COUNT(*) FROM vm_capacity c WHERE c.host_id = k.host_id) \
                   OR k.mem_used <> (SELECT COALESCE(SUM(c.memory), 0) FROM vm_capacity c WHERE c.host_id = k.host_id)";
        assert_eq!(self.cloud.count(sql).await, 0, "capacity that nobody holds");
        let sql = "SELECT COUNT(*) FROM vm_capacity c JOIN vms v ON v.id = c.vm_id WHERE v.host_id IS NULL OR v.host_id <> c.host_id";
        assert_eq!(self.cloud.count(sql).await, 0, "a VM holds capacity where it isn't");
        // Read anew at each look: what is restarted meanwhile counts, too.
        let wanted = async || -> Vec<(String, String)> {
            let sql = "SELECT v.uuid, h.uuid FROM vms v JOIN hosts h ON h.id = v.host_id WHERE v.state = 'Running' ORDER BY v.uuid";
            let rows = self.cloud.db.all(Sql::new(sql)).await;
            rows.unwrap().iter().map(|r| (r.at(0).unwrap(), r.at(1).unwrap())).collect()
        };
        let real = || {
            let mut real: Vec<(String, String)> =
                self.factory.simulator.vms().into_iter().map(|v| (v.spec.uuid, v.host)).collect();
            real.sort();
            real
        };
        let same = || async {
            let (real, wanted) = (real(), wanted().await);
            if real == wanted { Ok(()) } else { Err(format!("hosts run {real:?}, the database says {wanted:?}")) }
        };
        testkit::until_ok(same, 90 * SECOND).await;
        let plugged = || self.network.plugged.lock().unwrap().iter().map(|vm| uuid(*vm)).collect::<Vec<_>>();
        let same = || async {
            let (plugged, wanted) = (plugged(), wanted().await);
            if plugged.iter().eq(wanted.iter().map(|(vm, _)| vm)) {
                Ok(())
            } else {
                Err(format!("plugged {plugged:?}"))
            }
        };
        testkit::until_ok(same, 90 * SECOND).await;
    }

    pub async fn end(self) {
        self.factory.end().await;
        self.cloud.end().await;
    }
}

pub fn uuid(vm: i64) -> String {
    format!("00000000-0000-0000-0000-{vm:012}")
}

pub fn name(vm: i64) -> String {
    format!("vm{vm}")
}
