//! VMs that stay apart or together, and hosts that are kept for some: at starts, restarts after failures, and moves.

use crate::VM;
use crate::common::*;
use crate::fleet::Fleet;
use crate::site::{LARGE, SMALL, Site, uuid};
use contract::ApiError;
use contract::api::Caller;
use contract_compute::affinity_groups_client::AffinityGroupsClient;
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use contract_compute::{
    AffinityGroup, CreateAffinityGroupRequest, DeleteAffinityGroupRequest, ListAffinityGroupsRequest,
    ListVirtualMachinesRequest, StartVirtualMachineRequest, StopVirtualMachineRequest, UpdateVmAffinityGroupRequest,
};
use contract_infra::dedications_client::DedicationsClient;
use contract_infra::{DedicateHostRequest, ListDedicatedHostsRequest, ReleaseDedicatedHostRequest};
use rpc::cx::request;
use std::collections::BTreeSet;
use store::Sql;
use tonic::transport::Channel;

pub const APART: &str = "host anti-affinity";
pub const TOGETHER: &str = "host affinity";

impl Site {
    pub fn groups(&self) -> AffinityGroupsClient<Channel> {
        AffinityGroupsClient::new(self.cloud.channel())
    }

    pub fn dedications(&self) -> DedicationsClient<Channel> {
        DedicationsClient::new(self.cloud.channel())
    }

    /// The end of a job.
    pub async fn done(&self, job: &str) -> Result<(), ApiError> {
        let ended = self.cloud.ended(&root(), job).await;
        match ended.job_status {
            Some(1) => Ok(()),
            _ => Err(ApiError::failed(format!("{:?}", ended.job_result))),
        }
    }

    /// A group of the admin's account; its UUID.
    pub async fn group(&self, name: &str, kind: &str) -> String {
        let job = ok(self.groups().create(request(&root(), new_group(name, kind))).await).unwrap();
        self.done(&job.job_id).await.unwrap();
        job.id().to_owned()
    }

    /// A stopped VM gets these groups.
    pub async fn join(&self, vm: i64, groups: &[&str]) -> Result<(), ApiError> {
        let r = UpdateVmAffinityGroupRequest {
            id: Some(uuid(vm)),
            affinity_group_ids: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..Default::default()
        };
        let job = ok(self.groups().update_virtual_machine(request(&root(), r)).await)?;
        self.done(&job.job_id).await
    }

    /// Stopped VMs in a group.
    pub async fn members(&self, vms: std::ops::RangeInclusive<i64>, ha: bool, group: &str) {
        for vm in vms {
            self.vm(vm, ha).await;
            self.join(vm, &[group]).await.unwrap();
        }
    }

    pub async fn listed(&self, who: &Caller, r: ListAffinityGroupsRequest) -> Vec<AffinityGroup> {
        ok(self.groups().list(request(who, r)).await).unwrap().affinity_group
    }

    pub async fn stop_vm(&self, vm: i64) {
        let r = StopVirtualMachineRequest { id: Some(uuid(vm)), ..Default::default() };
        let job = ok(self.cloud.vms().stop(request(&root(), r)).await).unwrap();
        self.done(&job.job_id).await.unwrap();
    }

    pub async fn known(&self, hosts: usize) {
        // News of hosts that were just added may still be on their way to the placement: each takes a VM once.
        for host in 0..hosts {
            let vm = 900 + i64::try_from(host).unwrap();
            self.running(vm, false, host).await;
            self.stop_vm(vm).await;
        }
    }

    async fn place_of(&self, vm: i64) -> i64 {
        let (state, host, _) = self.standing(vm).await;
        assert_eq!(state, "Running");
        host.unwrap()
    }

    /// Both kinds of groups keep their promise, as the books say.
    pub async fn groups_are_right(&self) {
        let sql = "SELECT COUNT(*) FROM (SELECT m.group_id, c.host_id FROM affinity_groups g JOIN affinity_group_vms m \
                   ON m.group_id = g.id JOIN vm_capacity c ON c.vm_id = m.vm_id WHERE g.type = 'host anti-affinity' \
                   GROUP BY m.group_id, c.host_id HAVING COUNT(*) > 1) twice";
        assert_eq!(self.cloud.count(sql).await, 0, "two VMs that stay apart are on one host");
        let sql = "SELECT COUNT(*) FROM (SELECT m.group_id FROM affinity_groups g JOIN affinity_group_vms m ON m.group_id = g.id \
                   JOIN vm_capacity c ON c.vm_id = m.vm_id WHERE g.type = 'host affinity' GROUP BY m.group_id \
                   HAVING COUNT(DISTINCT c.host_id) > 1) parted";
        assert_eq!(self.cloud.count(sql).await, 0, "VMs that stay together are on two hosts");
    }
}

pub fn new_group(name: &str, kind: &str) -> CreateAffinityGroupRequest {
    CreateAffinityGroupRequest { name: Some(name.into()), r#type: Some(kind.into()), ..Default::default() }
}

fn by_id(id: &str) -> ListAffinityGroupsRequest {
    ListAffinityGroupsRequest { id: Some(id.to_owned()), ..Default::default() }
}

testkit::databases! {
    // covers: VM-200, VM-201, VM-202
    async fn members_that_stay_apart(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.known(3).await;
        let group = site.group("web", APART).await;
        site.members(1..=4, false, &group).await;
        for vm in 1..=3 {
            site.start(vm, None).await.unwrap();
        }
        let places: BTreeSet<i64> = [site.place_of(1).await, site.place_of(2).await, site.place_of(3).await].into();
        assert_eq!(places.len(), 3, "three VMs on three hosts");
        let text = site.start(4, None).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("533") && text.contains("web"), "{text}");
        assert!(text.contains("3 with another machine of its affinity group"), "{text}");
        assert_eq!(site.standing(4).await.0, "Stopped");
        // Its members are listed, in both directions.
        let shown = site.listed(&root(), by_id(&group)).await;
        assert_eq!(shown[0].virtual_machine_ids, (1..=4).map(uuid).collect::<Vec<_>>());
        let r = ListVirtualMachinesRequest { affinity_group_id: Some(group.clone()), ..Default::default() };
        let vms = ok(site.cloud.vms().list(request(&root(), r)).await).unwrap().virtual_machine;
        assert_eq!(vms.iter().map(|v| v.id().to_owned()).collect::<Vec<_>>(), (1..=4).map(uuid).collect::<Vec<_>>());
        assert_eq!(vms[0].affinity_group[0].name(), "web");
        // Only stopped VMs change their groups.
        let (code, text) = {
            let r = UpdateVmAffinityGroupRequest {
                id: Some(uuid(1)),
                affinity_group_names: vec!["web".into()],
                ..Default::default()
            };
            refused(site.groups().update_virtual_machine(request(&root(), r)).await)
        };
        assert!(code == 431 && text.contains("make sure the virtual machine is stopped"), "{code} {text}");
        // A group that goes lets its VMs run on, and binds them no more.
        let r = DeleteAffinityGroupRequest { name: Some("WEB".into()), ..Default::default() };
        let job = ok(site.groups().delete(request(&root(), r)).await).unwrap();
        site.done(&job.job_id).await.unwrap();
        assert!(site.listed(&root(), by_id(&group)).await.is_empty());
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM affinity_group_vms").await, 0);
        site.start(4, None).await.unwrap();
        site.books_are_right().await;
        site.end().await;
    }

    // covers: REL-152
    async fn members_that_stay_together(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let network = crate::fakes::serve(&cloud.node, &cloud.net, &Default::default());
        let site = Site::on(cloud, network, 3, SMALL).await;
        site.known(3).await;
        let group = site.group("near", TOGETHER).await;
        site.members(1..=4, false, &group).await;
        for vm in 1..=3 {
            site.start(vm, None).await.unwrap();
        }
        let first = site.place_of(1).await;
        assert_eq!([site.place_of(2).await, site.place_of(3).await], [first, first]);
        let text = site.start(4, None).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("near") && text.contains("1 short of CPU"), "{text}");
        assert!(text.contains("2 without the other machines of its affinity group"), "{text}");
        // None of them can leave the others.
        let target = if first == site.host(0).await { 1 } else { 0 };
        assert!(site.candidates(1).await.iter().all(|h| h.suitable_for_migration == Some(false)));
        let text = site.stays(1, target).await;
        assert!(text.contains("431") && text.contains("near"), "{text}");
        site.groups_are_right().await;
        site.books_are_right().await;
        site.end().await;
    }

    // covers: REL-144
    async fn moves_obey_groups(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.known(3).await;
        let group = site.group("db", APART).await;
        site.members(1..=2, false, &group).await;
        site.start(1, Some(0)).await.unwrap();
        site.start(2, Some(1)).await.unwrap();
        // Where its peer is, it isn't started even by an administrator who says so.
        site.stop_vm(2).await;
        let text = site.start(2, Some(0)).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("with another machine of its affinity group"), "{text}");
        site.start(2, Some(1)).await.unwrap();
        let suitable: BTreeSet<String> = site
            .candidates(1)
            .await
            .into_iter()
            .filter(|h| h.suitable_for_migration == Some(true))
            .map(|h| h.id().to_owned())
            .collect();
        assert_eq!(suitable, [site.hosts[2].clone()].into());
        let text = site.stays(1, 1).await;
        assert!(text.contains("431") && text.contains("db"), "{text}");
        assert_eq!(site.place_of(1).await, site.host(0).await);
        site.moved(1, 2).await;
        assert_eq!(site.place_of(1).await, site.host(2).await);
        site.groups_are_right().await;
        site.nothing_is_left().await;
        site.end().await;
    }

    async fn restarts_after_failures_obey_groups(db: testkit::TestDb) {
        let mut site = Site::open(&db, 2).await;
        site.known(2).await;
        let group = site.group("ha", APART).await;
        site.members(1..=2, true, &group).await;
        site.start(1, Some(0)).await.unwrap();
        site.start(2, Some(1)).await.unwrap();
        assert!(site.factory.simulator.kill_host(&site.hosts[0]));
        // Its peer's host has room, and doesn't get it.
        site.await_told(VM, &uuid(1), "with another machine of its affinity group").await;
        assert_eq!(site.standing(1).await.0, "Stopped");
        site.add_host(2, LARGE).await;
        let (_, host, _) = site.await_restart(1).await;
        assert_eq!(host, Some(site.host(2).await));
        site.groups_are_right().await;
        site.books_are_right().await;
        site.end().await;
    }

    // covers: REL-072
    async fn groups_and_their_names(db: testkit::TestDb) {
        let site = Site::open(&db, 1).await;
        let group = site.group("own", APART).await;
        let refused_as = |who: Caller, r: CreateAffinityGroupRequest| {
            let mut client = site.groups();
            async move { refused(client.create(request(&who, r)).await) }
        };
        for (r, code, word) in [
            (new_group("OWN", APART), 431, "already exists"),
            (new_group("x", "cluster affinity"), 431, "invalid affinity group type"),
            (new_group(" ", APART), 431, ""),
            (new_group("x", "ExplicitDedication"), 531, "Cannot create"),
            (CreateAffinityGroupRequest { domain_id: Some("domain-2".into()), ..new_group("x", APART) }, 431, "account name"),
        ] {
            let (found, text) = refused_as(root(), r.clone()).await;
            assert!(found == code && text.contains(word), "{r:?}: {found} {text}");
        }
        // Another account has the name free, and neither sees nor uses the first one's.
        let job = ok(site.groups().create(request(&alice(), new_group("own", TOGETHER))).await).unwrap();
        site.done(&job.job_id).await.unwrap();
        let all = ListAffinityGroupsRequest { list_all: Some(true), ..Default::default() };
        let seen = |groups: Vec<AffinityGroup>| groups.iter().map(|g| g.id().to_owned()).collect::<Vec<_>>();
        assert_eq!(seen(site.listed(&alice(), all.clone()).await), [job.id()]);
        assert_eq!(seen(site.listed(&alice(), by_id(&group)).await), Vec::<String>::new());
        assert_eq!(seen(site.listed(&dora(), all.clone()).await), [job.id()], "the domain's administrator sees it");
        assert_eq!(seen(site.listed(&bob(), all.clone()).await), Vec::<String>::new());
        assert_eq!(site.listed(&root(), all).await.len(), 2);
        let delete = DeleteAffinityGroupRequest { id: Some(group.clone()), ..Default::default() };
        assert_eq!(refused(site.groups().delete(request(&alice(), delete)).await).0, 531);
        site.vm(1, false).await;
        let update = |ids: Vec<String>, names: Vec<String>| UpdateVmAffinityGroupRequest {
            id: Some(uuid(1)),
            affinity_group_ids: ids,
            affinity_group_names: names,
            ..Default::default()
        };
        for (r, code) in [
            (update(vec![], vec![]), 431),
            (update(vec![group.clone()], vec!["own".into()]), 431),
            (update(vec![], vec!["nowhere".into()]), 431),
            (update(vec!["nonsense".into()], vec![]), 431),
            // A root admin has access to both, but the VM isn't the group's account's.
            (update(vec![job.id().to_owned()], vec![]), 531),
        ] {
            let (found, text) = refused(site.groups().update_virtual_machine(request(&root(), r.clone())).await);
            assert_eq!(found, code, "{r:?}: {text}");
        }
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM affinity_group_vms").await, 0);
        site.join(1, &[&group]).await.unwrap();
        // A name is as good as an id.
        let r = update(vec![], vec!["Own".into()]);
        let job = ok(site.groups().update_virtual_machine(request(&root(), r)).await).unwrap();
        site.done(&job.job_id).await.unwrap();
        assert_eq!(site.listed(&root(), by_id(&group)).await[0].virtual_machine_ids, [uuid(1)]);
        site.end().await;
    }

    // covers: IAM-067, IAM-068, IAM-074, IAM-076, IAM-077
    async fn hosts_that_are_kept_for_somebody(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.known(3).await;
        let dedicate = |host: usize, domain: &str, account: Option<&str>| {
            let r = DedicateHostRequest {
                host_id: Some(site.hosts[host].clone()),
                domain_id: Some(domain.into()),
                account: account.map(str::to_owned),
                ..Default::default()
            };
            let mut client = site.dedications();
            async move { ok(client.dedicate_host(request(&root(), r)).await) }
        };
        let listed = || async {
            let r = ListDedicatedHostsRequest::default();
            ok(site.dedications().list_hosts(request(&root(), r)).await).unwrap().dedicated_host
        };
        let job = dedicate(0, "domain-1", Some("admin")).await.unwrap();
        site.done(&job.job_id).await.unwrap();
        let kept = listed().await;
        assert_eq!((kept[0].host_id(), kept[0].domain_id(), kept[0].account_id()), (site.hosts[0].as_str(), "domain-1", "account-2"));
        let group = kept[0].affinity_group_id().to_owned();
        let shown = site.listed(&root(), by_id(&group)).await;
        assert_eq!((shown[0].name(), shown[0].r#type(), shown[0].account()), ("DedicatedGrp-admin", "ExplicitDedication", "admin"));
        // Without the group nobody goes there, its owner neither; with it there is nowhere else to go.
        for vm in 1..=3 {
            site.vm(vm, false).await;
            site.start(vm, None).await.unwrap();
            assert_ne!(site.place_of(vm).await, site.host(0).await);
        }
        site.vm(4, false).await;
        site.join(4, &[&group]).await.unwrap();
        site.start(4, None).await.unwrap();
        assert_eq!(site.place_of(4).await, site.host(0).await);
        let text = site.start(1, None).await.unwrap_err();
        assert!(text.full_text().contains("already running"), "{text:?}");
        let text = { site.stop_vm(1).await; site.start(1, Some(0)).await.unwrap_err().full_text().to_owned() };
        assert!(text.contains("533") && text.contains("1 dedicated to others"), "{text}");
        let text = { site.stop_vm(4).await; site.start(4, Some(1)).await.unwrap_err().full_text().to_owned() };
        assert!(text.contains("not dedicated to its affinity group"), "{text}");
        site.start(4, None).await.unwrap();
        // Refusals of another dedication.
        let again = dedicate(0, "domain-1", Some("admin")).await.unwrap();
        let text = site.done(&again.job_id).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("530") && text.contains("already dedicated"), "{text}");
        let strangers = if site.place_of(2).await == site.host(1).await { 1 } else { 2 };
        let job = dedicate(strangers, "domain-2", None).await.unwrap();
        let text = site.done(&job.job_id).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("530") && text.contains("running instances of another domain"), "{text}");
        assert_eq!(refused_code(dedicate(1, "domain-2", Some("nobody")).await), 431);
        assert_eq!(refused_code(dedicate(1, "nowhere", None).await), 431);
        assert_eq!(listed().await.len(), 1);
        // An administrator may move a VM there, or away, and people are told.
        site.moved(2, 0).await;
        assert_eq!(site.told(VM, &uuid(2)).await.iter().filter(|t| t.contains("dedicated to account admin")).count(), 1);
        site.moved(2, 1).await;
        assert_eq!(site.told(VM, &uuid(2)).await.len(), 2);
        site.moved(2, 2).await;
        assert_eq!(site.told(VM, &uuid(2)).await.len(), 2, "between two hosts that are for all there is nothing to tell");
        // Released, it is everybody's; the group goes, and its VM stays.
        let release = || async {
            let r = ReleaseDedicatedHostRequest { host_id: Some(site.hosts[0].clone()), ..Default::default() };
            ok(site.dedications().release_host(request(&root(), r)).await).unwrap().job_id
        };
        site.done(&release().await).await.unwrap();
        let text = site.done(&release().await).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("431"), "{text}");
        assert!(site.listed(&root(), by_id(&group)).await.is_empty());
        assert_eq!(site.place_of(4).await, site.host(0).await);
        testkit::eventually(|| async { site.start(1, Some(0)).await.ok() }).await;
        // What is kept for an account or a domain that goes is everybody's, too.
        site.stop_vm(1).await;
        site.stop_vm(4).await;
        let job = dedicate(0, "domain-2", Some("alice")).await.unwrap();
        site.done(&job.job_id).await.unwrap();
        let gone = || Sql::new("UPDATE accounts SET removed = 1 WHERE id = 3");
        store::tx!(site.cloud.db, "remove", |tx| tx.exec(gone()).await).await.unwrap();
        assert!(listed().await.is_empty());
        site.cloud.node.coord.publish("identity", "account/3");
        testkit::eventually(|| async { site.start(1, Some(0)).await.ok() }).await;
        assert_eq!(site.cloud.count("SELECT COUNT(*) FROM dedications").await, 0);
        let job = dedicate(0, "domain-1", None).await.unwrap();
        site.done(&job.job_id).await.unwrap();
        site.books_are_right().await;
        site.end().await;
    }
}

fn refused_code<T: std::fmt::Debug>(answer: Result<T, ApiError>) -> u16 {
    answer.unwrap_err().code
}

/// Two replicas place VMs of one group at the same moment, again and again: the database lets no two of them on one host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_place_one_group() {
    let fleet = Fleet::open(3).await;
    let site = &fleet.site;
    site.known(3).await;
    let group = site.group("race", APART).await;
    site.members(1..=6, false, &group).await;
    let channels = fleet.channels();
    for round in 0..3 {
        let starts = (1..=6).map(|vm| {
            let channel = channels[usize::try_from(vm).unwrap() % 2].clone();
            async move {
                let r = StartVirtualMachineRequest { id: Some(uuid(vm)), ..Default::default() };
                let job = ok(VirtualMachinesClient::new(channel).start(request(&root(), r)).await).unwrap();
                site.done(&job.job_id).await.is_ok()
            }
        });
        let started = futures::future::join_all(starts).await.into_iter().filter(|s| *s).count();
        assert_eq!(started, 3, "round {round}: as many as there are hosts");
        site.groups_are_right().await;
        let running = "SELECT COUNT(*) FROM vms WHERE state = 'Running'";
        assert_eq!(site.cloud.count(running).await, 3);
        for vm in 1..=6 {
            if site.standing(vm).await.0 == "Running" {
                site.stop_vm(vm).await;
            }
        }
    }
    fleet.end().await;
}
