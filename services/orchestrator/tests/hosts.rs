//! Hosts, with a real agent that simulates them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use contract_compute::ListVirtualMachinesMetricsRequest;
use contract_compute::virtual_machine_metrics_client::VirtualMachineMetricsClient;
use contract_infra::alert_generation_client::AlertGenerationClient;
use contract_infra::annotations_client::AnnotationsClient;
use contract_infra::infrastructure_metrics_client::InfrastructureMetricsClient;
use contract_infra::{
    AddAnnotationRequest, GenerateAlertRequest, ListAnnotationsRequest, ListClustersMetricsRequest,
    ListHostTagsRequest, ListHostsMetricsRequest, ListInfrastructureRequest, ListZonesMetricsRequest,
    RemoveAnnotationRequest,
};
use contract_infra::{
    AddHostRequest, Certificate, CleanupSimulatorMockRequest, ConfigureSimulatorRequest, DeleteHostRequest, Host,
    IssueCertificateRequest, ListCaCertificateRequest, ListCaProvidersRequest, ListCapacityRequest, ListHostsRequest,
    ListHostsResponse, PickHostRequest, ProvisionCertificateRequest, QuerySimulatorMockRequest, ReconnectHostRequest,
    RevokeCertificateRequest, UpdateClusterRequest, UpdateConfigurationRequest, UpdateHostRequest,
};
use prost::Message as _;
use rpc::cx::request;
use store::{Sql, Value};

fn first(added: &ListHostsResponse) -> &Host {
    added.host.first().unwrap()
}

testkit::databases! {
    // covers: TOPO-052, TOPO-053
    async fn hosts_are_added_and_shown(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let place = cloud.zone("Z", 16).await;
        // No agent that simulates: nothing is left behind.
        let error = cloud.add_host(&place, 0).await.unwrap_err();
        assert_eq!((error.code, error.text.contains("arcus agent --factory")), (530, true));
        assert_eq!(cloud.count("SELECT COUNT(*) FROM hosts WHERE removed IS NULL").await, 0);
        assert_eq!(cloud.count("SELECT COUNT(*) FROM host_capacity").await + cloud.count("SELECT COUNT(*) FROM pod_ips").await, 0);

        let factory = cloud.factory().await;
        let host = testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        assert_eq!((host.state(), host.resource_state(), host.r#type(), host.hypervisor()), ("Up", "Enabled", "Routing", "Simulator"));
        assert!(host.name().starts_with("SimulatedAgent."));
        assert_eq!((host.ip_address(), host.zone_name(), host.pod_name(), host.cluster_name()), ("172.16.0.2", "Z", "POD0", "C0"));
        assert_eq!((host.cpu_number(), host.cpu_speed(), host.memory_total()), (64, 8000, 274_877_906_944));
        assert_eq!((host.cpu_with_over_provisioning(), host.memory_with_over_provisioning()), ("512000", "274877906944"));
        assert_eq!((host.cpu_allocated(), host.memory_allocated(), host.cpu_used()), ("0%", 0, "0%"));
        assert_eq!(cloud.add_host(&place, 1).await.unwrap().ip_address(), "172.16.0.3");

        let min = ListHostsRequest { details: vec!["min".into()], page: Some(1), page_size: Some(1), r#type: Some("Routing".into()), ..Default::default() };
        let listed = ok(cloud.hosts().list(request(&root, min)).await).unwrap();
        assert_eq!((listed.count(), listed.host.len()), (2, 1));
        let shown = &listed.host[0];
        assert_eq!((shown.id(), shown.zone_name.is_none(), shown.cpu_allocated.is_none()), (host.id(), true, true));
        assert!(shown.last_pinged.is_some() && shown.management_server_id.is_some());
        let none = ListHostsRequest { r#type: Some("SecondaryStorageVM".into()), ..Default::default() };
        assert_eq!(ok(cloud.hosts().list(request(&root, none)).await).unwrap().count(), 0);
        factory.end().await;
        cloud.end().await;
    }

    // covers: TOPO-045, INST-112
    async fn wrong_hosts_are_refused(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let place = cloud.zone("Z", 16).await;
        let add = async |r: AddHostRequest| refused(cloud.hosts().add(request(&root, r)).await);
        assert!(add(AddHostRequest { cluster_id: None, ..new_host(&place, 0) }).await.1.contains("Must specify cluster"));
        assert!(add(AddHostRequest { cluster_name: Some("x".into()), ..new_host(&place, 0) }).await.1.contains("both id and name"));
        assert_eq!(add(AddHostRequest { url: Some("http://10.0.0.1".into()), ..new_host(&place, 0) }).await.0, 431);
        assert_eq!(add(AddHostRequest { hypervisor: Some("KVM".into()), ..new_host(&place, 0) }).await.0, 431);
        let other = cloud.zone("Y", 16).await;
        assert_eq!(add(AddHostRequest { cluster_id: other.cluster.id.clone(), ..new_host(&place, 0) }).await.0, 431);
        let kvm = UpdateClusterRequest { id: place.cluster.id.clone(), hypervisor: Some("KVM".into()), ..Default::default() };
        ok(cloud.clusters().update(request(&root, kvm)).await).unwrap();
        assert!(add(new_host(&place, 0)).await.1.contains("its hosts run KVM"));
        assert_eq!(cloud.count("SELECT COUNT(*) FROM hosts").await, 0);
        // With a name the cluster is made on the fly.
        let factory = cloud.factory().await;
        let named = AddHostRequest { cluster_id: None, cluster_name: Some("C7".into()), ..new_host(&place, 0) };
        let host = testkit::eventually(|| async { ok(cloud.hosts().add(request(&root, named.clone())).await).ok() }).await;
        assert_eq!(first(&host).cluster_name(), "C7");
        factory.end().await;
        cloud.end().await;
    }

    // covers: HOST-040, HOST-043
    async fn hosts_are_changed_and_deleted(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        let host = testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        let update = async |r: UpdateHostRequest| cloud.hosts().update(request(&root, UpdateHostRequest { id: host.id.clone(), ..r })).await;
        let state = |s: &str| UpdateHostRequest { allocation_state: Some(s.into()), ..Default::default() };
        assert_eq!(ok(update(state("Enable")).await).unwrap().resource_state(), "Enabled");
        assert_eq!(refused(update(state("Maintenance")).await).0, 530);
        let tagged = UpdateHostRequest { host_tags: vec!["gpu".into(), "ssd".into()], annotation: Some("noisy".into()), ..Default::default() };
        let tagged = ok(update(tagged).await).unwrap();
        assert_eq!((tagged.host_tags(), tagged.annotation(), tagged.username()), ("gpu,ssd", "noisy", "admin"));

        let pick = async || {
            let zone_id = cloud.number("zones", place.zone.id()).await;
            cloud.placement().pick_host(request(&root, PickHostRequest { zone_id, ..Default::default() })).await
        };
        assert_eq!(ok(pick().await).unwrap().host_uuid, host.id());
        let delete = async |forced| cloud.hosts().delete(request(&root, DeleteHostRequest { id: host.id.clone(), forced, ..Default::default() })).await;
        assert!(refused(delete(None).await).1.contains("not in maintenance mode"));
        assert_eq!(ok(update(state("Disable")).await).unwrap().resource_state(), "Disabled");
        assert_eq!(refused(pick().await).0, 533);
        let id = cloud.number("hosts", host.id()).await;
        // Something is placed there.
        store::tx!(cloud.db, "t", |tx| tx.exec(Sql::new("UPDATE host_capacity SET vms = 1 WHERE host_id = ?").bind(id)).await).await.unwrap();
        assert!(refused(delete(None).await).1.contains("1 virtual machines are on it"));
        store::tx!(cloud.db, "t", |tx| tx.exec(Sql::new("UPDATE host_capacity SET vms = 0 WHERE host_id = ?").bind(id)).await).await.unwrap();
        assert!(ok(delete(None).await).unwrap().success);
        assert_eq!(cloud.count("SELECT COUNT(*) FROM host_capacity").await + cloud.count("SELECT COUNT(*) FROM pod_ips").await, 0);
        assert_eq!(refused(delete(None).await).0, 431);
        // Its address can be had again.
        assert_eq!(cloud.add_host(&place, 1).await.unwrap().ip_address(), "172.16.0.2");
        factory.end().await;
        cloud.end().await;
    }

    async fn a_host_is_deleted_by_force_with_what_runs_there(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        let host = testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        let id = cloud.number("hosts", host.id()).await;
        running_vm(&cloud, 5, id).await;
        let delete = async |forced| cloud.hosts().delete(request(&root, DeleteHostRequest { id: host.id.clone(), forced, ..Default::default() })).await;
        assert_eq!(refused(delete(None).await).0, 530);
        assert!(ok(delete(Some(true)).await).unwrap().success);
        let vm = cloud.db.one(Sql::new("SELECT state, host_id, last_host_id FROM vms WHERE id = 5")).await.unwrap();
        assert_eq!((vm.at::<String>(0).unwrap().as_str(), vm.at::<Option<i64>>(1).unwrap(), vm.at::<i64>(2).unwrap()), ("Stopped", None, id));
        assert_eq!(cloud.count("SELECT COUNT(*) FROM vm_capacity").await + cloud.count("SELECT COUNT(*) FROM host_capacity").await, 0);
        assert_eq!(cloud.count("SELECT COUNT(*) FROM outbox WHERE kind = 'VM.STOP'").await, 2);
        assert_eq!(ok(cloud.hosts().list(request(&root, ListHostsRequest::default())).await).unwrap().count(), 0);
        factory.end().await;
        cloud.end().await;
    }

    async fn hosts_added_at_once_get_different_addresses(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        let added = futures::future::join_all((1..=20).map(|n| cloud.add_host(&place, n))).await;
        let mut addresses: Vec<String> = added.into_iter().map(|h| h.unwrap().ip_address().to_owned()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 20);
        assert_eq!(cloud.count("SELECT COUNT(*) FROM host_capacity WHERE accepting = 1").await, 21);
        factory.end().await;
        cloud.end().await;
    }

    // covers: HOST-002, HOST-072, HOST-073
    async fn overcommitment_is_the_clusters_own(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let set = async |value: &str, cluster: Option<String>| {
            let r = UpdateConfigurationRequest { name: Some("mem.overprovisioning.factor".into()), value: Some(value.into()), cluster_id: cluster, ..Default::default() };
            ok(cloud.configurations().update(request(&root, r)).await)
        };
        set("3", None).await.unwrap();
        let place = cloud.zone("Z", 16).await;
        assert_eq!((place.cluster.memory_overcommit_ratio(), place.cluster.cpu_overcommit_ratio()), ("3.0", "1.0"));
        set("1", None).await.unwrap();
        let total = async || {
            let r = ListCapacityRequest { cluster_id: place.cluster.id.clone(), r#type: Some(0), ..Default::default() };
            let listed = ok(cloud.capacities().list(request(&root, r)).await).unwrap();
            listed.capacity.first().map(|c| (c.capacity_total(), c.cluster_name().to_owned(), c.percent_used().to_owned()))
        };
        assert_eq!(total().await, None);
        testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        assert_eq!(total().await, Some((3 * 274_877_906_944, "C0".into(), "0".into())));
        set("2", place.cluster.id.clone()).await.unwrap();
        assert_eq!(total().await.unwrap().0, 2 * 274_877_906_944);
        assert_eq!(set("0.5", place.cluster.id.clone()).await.unwrap_err().code, 431);
        factory.end().await;
        cloud.end().await;
    }

    async fn capacity_is_summed_by_zone(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        for n in 0..2 {
            testkit::eventually(|| async { cloud.add_host(&place, n).await.ok() }).await;
        }
        store::tx!(cloud.db, "t", |tx| tx.exec("UPDATE host_capacity SET cpu_used_mhz = 256000").await).await.unwrap();
        let list = async |r| ok(cloud.capacities().list(request(&root, r)).await).unwrap();
        let all = list(ListCapacityRequest::default()).await;
        assert_eq!(all.capacity.iter().map(|c| c.r#type()).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        let cpu = &all.capacity[1];
        assert_eq!((cpu.name(), cpu.capacity_used(), cpu.capacity_total(), cpu.percent_used()), ("CPU", 512_000, 1_024_000, "50"));
        assert_eq!((cpu.zone_name(), cpu.pod_id.is_none()), ("Z", true));
        let private = &all.capacity[5];
        assert_eq!((private.capacity_used(), private.capacity_total()), (2, 4093));
        let top = list(ListCapacityRequest { sort_by: Some("usage".into()), page: Some(1), page_size: Some(1), ..Default::default() }).await;
        assert_eq!((top.count(), top.capacity[0].r#type()), (10, 1));
        let pod = list(ListCapacityRequest { pod_id: place.pod.id.clone(), r#type: Some(5), ..Default::default() }).await;
        assert_eq!((pod.capacity[0].pod_name(), pod.capacity[0].capacity_used()), ("POD0", 2));
        factory.end().await;
        cloud.end().await;
    }

    async fn a_host_is_reconnected(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        let host = testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        let job = ok(cloud.hosts().reconnect(request(&root, ReconnectHostRequest { id: host.id.clone(), ..Default::default() })).await).unwrap();
        let ended = cloud.ended(&root, &job.job_id).await;
        assert_eq!((ended.job_status(), ended.job_instance_type(), ended.job_instance_id()), (1, "Host", host.id()));
        let shown = Host::decode(ended.job_result.unwrap().output.as_slice()).unwrap();
        assert_eq!((shown.id(), shown.state()), (host.id(), "Up"));
        factory.end().await;
        cloud.end().await;
    }

    async fn certificates_are_issued_and_revoked(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let (root, mut ca) = (root(), cloud.certificates());
        let providers = ok(ca.list_providers(request(&root, ListCaProvidersRequest::default())).await).unwrap();
        assert_eq!((providers.count(), providers.caprovider[0].name()), (1, "root"));
        let shown = ok(ca.show(request(&alice(), ListCaCertificateRequest::default())).await).unwrap();
        assert!(shown.certificate().contains("BEGIN CERTIFICATE") && shown.private_key.is_none());
        let other = ListCaCertificateRequest { provider: Some("vault".into()) };
        assert_eq!(refused(ca.show(request(&root, other)).await).0, 431);

        let wanted = IssueCertificateRequest { domain: Some("db.example, *.web.example".into()), ip_address: Some("10.0.0.7".into()), duration: Some(10), ..Default::default() };
        for (r, why) in [
            (IssueCertificateRequest::default(), "none of them are provided"),
            (IssueCertificateRequest { duration: Some(0), ..wanted.clone() }, "not 0"),
            (IssueCertificateRequest { ip_address: Some("10.0.0".into()), ..wanted.clone() }, "isn't an IP address"),
            (IssueCertificateRequest { domain: Some("a b".into()), ..wanted.clone() }, "isn't a domain name"),
            (IssueCertificateRequest { csr: Some("none".into()), ..wanted.clone() }, "certificate request"),
        ] {
            let (code, text) = refused(ca.issue(request(&root, r)).await);
            assert!(code == 431 && text.contains(why), "{code} {text}");
        }
        assert_eq!(cloud.count("SELECT COUNT(*) FROM jobs").await, 0);
        let job = ok(ca.issue(request(&root, wanted)).await).unwrap();
        let ended = cloud.ended(&root, &job.job_id).await;
        let issued = Certificate::decode(ended.job_result.unwrap().output.as_slice()).unwrap();
        assert_eq!(issued.ca_certificates(), shown.certificate());
        let identity = pki::Identity::from_pem(issued.certificate(), issued.private_key()).unwrap();
        assert_eq!(identity.subject(), None, "it is nobody here");
        // The key lies sealed.
        let holding = async |what: &str| cloud.count(&format!("SELECT COUNT(*) FROM jobs WHERE result LIKE '%{what}%'")).await;
        assert_eq!((holding("BEGIN CERTIFICATE").await, holding("PRIVATE KEY").await), (1, 0));

        let revoke = |serial: &str| RevokeCertificateRequest { serial: Some(serial.to_owned()), ..Default::default() };
        assert_eq!(refused(ca.revoke(request(&root, revoke("no"))).await).0, 431);
        let serial = identity.serial().unwrap();
        for (attempt, status) in [(&serial, 1), (&serial, 2)] {
            let job = ok(ca.revoke(request(&root, revoke(&attempt.to_uppercase()))).await).unwrap();
            let ended = cloud.ended(&root, &job.job_id).await;
            assert_eq!(ended.job_status(), status, "{:?}", ended.job_result);
        }
        // An agent in this process has no certificate, and says so.
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        let host = testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        let provision = ProvisionCertificateRequest { host_id: host.id.clone(), ..Default::default() };
        let job = ok(ca.provision(request(&root, provision)).await).unwrap();
        let ended = cloud.ended(&root, &job.job_id).await;
        let why = ended.job_result.as_ref().unwrap().error.as_ref().unwrap();
        assert!(ended.job_status() == 2 && why.text.contains("has no certificate"), "{why:?}");
        assert_eq!(ended.job_instance_id(), host.id());
        factory.end().await;
        cloud.end().await;
    }

    async fn simulated_faults_are_set_and_taken_back(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        let configure = ConfigureSimulatorRequest {
            zone_id: place.zone.id.clone(),
            name: Some("StartCommand".into()),
            value: Some("result:fail".into()),
            count: Some(1),
            ..Default::default()
        };
        let mock = ok(cloud.mocks().configure(request(&root, configure.clone())).await).unwrap();
        assert_eq!((mock.name(), mock.count(), mock.zone_id.is_some(), mock.pod_id), ("StartCommand", 1, true, None));
        let shown = ok(cloud.mocks().query(request(&root, QuerySimulatorMockRequest { id: mock.id })).await).unwrap();
        assert_eq!(shown.count(), 1);
        let replaced = ConfigureSimulatorRequest { json_response: Some("{}".into()), ..configure.clone() };
        assert_eq!(refused(cloud.mocks().configure(request(&root, replaced)).await).0, 431);
        let wrong = ConfigureSimulatorRequest { value: Some("explode".into()), ..configure };
        assert_eq!(refused(cloud.mocks().configure(request(&root, wrong)).await).0, 431);
        let cleanup = CleanupSimulatorMockRequest { id: mock.id };
        assert!(ok(cloud.mocks().cleanup(request(&root, cleanup)).await).unwrap().success);
        assert_eq!(refused(cloud.mocks().cleanup(request(&root, cleanup)).await).0, 431);
        factory.end().await;
        cloud.end().await;
    }

    async fn what_a_cut_off_addition_left_is_removed(db: testkit::TestDb) {
        let number = |n: i64| Value::from(n);
        let tables = database(&db).await;
        let mut row: Vec<(&str, Value)> = ["uuid", "name", "name_lower", "live_key", "guid", "url", "capabilities", "tags"]
            .map(|c| (c, "half".into()))
            .to_vec();
        row.extend(["id", "cluster_id", "pod_id", "zone_id", "cpu_cores", "cpu_mhz", "memory"].map(|c| (c, number(9))));
        row.extend([("hypervisor", "Simulator".into()), ("status", "Up".into()), ("resource_state", "Enabled".into())]);
        row.extend([("conn_epoch", number(1)), ("created", number(1))]);
        insert(&tables, "hosts", &row).await;
        let mut row: Vec<(&str, Value)> = ["host_id", "cluster_id", "pod_id", "zone_id"].map(|c| (c, number(9))).to_vec();
        row.extend(["accepting", "cpu_used_mhz", "cpu_reserved", "mem_used", "mem_reserved", "vms"].map(|c| (c, number(0))));
        row.extend(["cpu_total_mhz", "cpu_overcommit", "mem_total", "mem_overcommit"].map(|c| (c, number(1))));
        insert(&tables, "host_capacity", &row).await;
        let ip = [("pod_id", number(9)), ("ip_number", number(1)), ("ip", "0.0.0.1".into()), ("zone_id", number(9)), ("holder", "host/half".into()), ("taken", number(0))];
        insert(&tables, "pod_ips", &ip).await;
        let cloud = Cloud::start(&db).await;
        let left = async || {
            cloud.count("SELECT COUNT(*) FROM hosts WHERE removed IS NULL").await
                + cloud.count("SELECT COUNT(*) FROM host_capacity").await
                + cloud.count("SELECT COUNT(*) FROM pod_ips").await
        };
        testkit::wait_until(|| async { left().await == 0 }, 20 * SECOND).await;
        cloud.end().await;
    }

    async fn a_repeated_addition_adds_once(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        let caller = keyed(root(), "host-1");
        let add = async || ok(cloud.hosts().add(request(&caller, new_host(&place, 1))).await).unwrap();
        let (one, two) = (add().await, add().await);
        assert_eq!(first(&one).id(), first(&two).id());
        assert_eq!(cloud.count("SELECT COUNT(*) FROM hosts").await, 2);
        factory.end().await;
        cloud.end().await;
    }
}

/// A row that says that a VM runs on a host, with what it holds of it.
async fn running_vm(cloud: &Cloud, vm: i64, host: i64) {
    let number = |n: i64| Value::from(n);
    let row = [
        ("id", number(vm)),
        ("uuid", format!("vm-{vm}").into()),
        ("name", "v".into()),
        ("name_lower", "v".into()),
        ("display_name", "v".into()),
        ("display_lower", "v".into()),
        ("instance_name", format!("i-2-{vm}-VM").into()),
        ("state", "Running".into()),
        ("account_id", number(2)),
        ("domain_id", number(1)),
        ("domain_path", "/1/".into()),
        ("user_id", number(2)),
        ("zone_id", number(1)),
        ("host_id", number(host)),
        ("template_id", number(1)),
        ("hypervisor", "Simulator".into()),
        ("service_offering_id", number(1)),
        ("cpu", number(1)),
        ("cpu_mhz", number(500)),
        ("memory_mb", number(512)),
        ("details", "{}".into()),
        ("display_vm", number(1)),
        ("ha_enabled", number(0)),
        ("dynamic_scaling", number(0)),
        ("password_enabled", number(0)),
        ("generation", number(1)),
        ("limits_key", "".into()),
        ("created", number(0)),
        ("changed", number(0)),
    ];
    cloud.insert("vms", &row).await;
    let held = [("vm_id", vm), ("host_id", host), ("cpu_mhz", 500), ("memory", 512 << 20), ("taken", 0)];
    cloud.insert("vm_capacity", &held.map(|(c, n)| (c, number(n)))).await;
    let sql = Sql::new("UPDATE host_capacity SET vms = 1, cpu_used_mhz = 500, mem_used = ? WHERE host_id = ?");
    store::tx!(cloud.db, "t", |tx| tx.exec(sql.clone().bind(512i64 << 20).bind(host)).await).await.unwrap();
}

testkit::databases! {
    async fn tags_of_hosts_are_listed(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        let mut numbers = Vec::new();
        for (n, tags) in [(0, vec!["gpu", "ssd"]), (1, vec!["ssd"]), (2, vec![])] {
            let host = testkit::eventually(|| async { cloud.add_host(&place, n).await.ok() }).await;
            let host_tags = tags.iter().map(|t| (*t).to_owned()).collect();
            let r = UpdateHostRequest { id: host.id.clone(), host_tags, ..Default::default() };
            ok(cloud.hosts().update(request(&root, r)).await).unwrap();
            numbers.push(cloud.number("hosts", host.id()).await);
        }
        let list = async |r: ListHostTagsRequest| {
            let listed = ok(cloud.hosts().list_tags(request(&root, r)).await).unwrap();
            let tags: Vec<(i64, String)> = listed.host_tag.iter().map(|t| (t.host_id(), t.name().to_owned())).collect();
            (listed.count(), tags)
        };
        let all = [(numbers[0], "gpu".to_owned()), (numbers[0], "ssd".to_owned()), (numbers[1], "ssd".to_owned())];
        assert_eq!(list(ListHostTagsRequest::default()).await, (3, all.to_vec()));
        let ssd = ListHostTagsRequest { keyword: Some("SS".into()), page: Some(2), page_size: Some(1) };
        assert_eq!(list(ssd).await, (2, vec![all[2].clone()]));
        // Out-of-band management: no host has it.
        let shown = async |enabled: Option<bool>, state: Option<&str>| {
            let r = ListHostsRequest {
                out_of_band_management_enabled: enabled,
                out_of_band_management_power_state: state.map(str::to_owned),
                ..Default::default()
            };
            ok(cloud.hosts().list(request(&root, r)).await).map(|l| l.count())
        };
        assert_eq!(shown(Some(false), Some("disabled")).await.unwrap(), 3);
        assert_eq!((shown(Some(true), None).await.unwrap(), shown(None, Some("On")).await.unwrap()), (0, 0));
        assert_eq!(shown(None, Some("asleep")).await.unwrap_err().code, 431);
        factory.end().await;
        cloud.end().await;
    }

    async fn notes_are_made_on_hosts(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        let host = testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        let notes = || AnnotationsClient::new(cloud.channel());
        let on_host = |text: &str| AddAnnotationRequest {
            annotation: Some(text.into()),
            entity_type: Some("host".into()),
            entity_id: host.id.clone(),
        };
        for (r, what) in [
            (AddAnnotationRequest { annotation: None, ..on_host("") }, "needs a text"),
            (AddAnnotationRequest { entity_type: Some("VM".into()), ..on_host("x") }, "type HOST"),
            (AddAnnotationRequest { entity_type: None, ..on_host("x") }, "needs the type"),
            (AddAnnotationRequest { entity_id: None, ..on_host("x") }, "I have to have an entity"),
            (AddAnnotationRequest { entity_id: place.zone.id.clone(), ..on_host("x") }, "Unable to find the host"),
        ] {
            let (code, text) = refused(notes().add(request(&root, r)).await);
            assert!(code == 431 && text.contains(what), "{code} {text}");
        }
        let shown = async || {
            let r = ListHostsRequest { id: host.id.clone(), ..Default::default() };
            let host = ok(cloud.hosts().list(request(&root, r)).await).unwrap().host.remove(0);
            (host.annotation.clone(), host.username.clone(), host.last_annotated.is_some())
        };
        assert_eq!(shown().await, (None, None, false));
        let first = ok(notes().add(request(&root, on_host("noisy"))).await).unwrap();
        assert_eq!((first.entity_type(), first.entity_id(), first.annotation()), ("HOST", host.id(), "noisy"));
        assert_eq!((first.user_id(), first.removed), ("user-2", None));
        let admin = || Some("admin".to_owned());
        assert_eq!(shown().await, (Some("noisy".into()), admin(), true));
        // updateHost makes one, too.
        let update = UpdateHostRequest { id: host.id.clone(), annotation: Some("repaired".into()), ..Default::default() };
        assert_eq!(ok(cloud.hosts().update(request(&root, update)).await).unwrap().annotation(), "repaired");
        let list = async |r: ListAnnotationsRequest| {
            let listed = ok(notes().list(request(&root, r)).await).unwrap();
            let texts: Vec<String> = listed.annotation.iter().map(|a| a.annotation().to_owned()).collect();
            (listed.count(), texts)
        };
        let of_host =
            || ListAnnotationsRequest { entity_type: Some("HOST".into()), entity_id: host.id.clone(), ..Default::default() };
        assert_eq!(list(of_host()).await, (2, vec!["noisy".into(), "repaired".into()]));
        assert_eq!(list(ListAnnotationsRequest { id: first.id.clone(), ..Default::default() }).await.0, 1);
        assert_eq!(list(ListAnnotationsRequest { keyword: Some("REPAIR".into()), ..Default::default() }).await.0, 1);
        let without = ListAnnotationsRequest { entity_id: host.id.clone(), ..Default::default() };
        assert_eq!(refused(notes().list(request(&root, without)).await).0, 431);
        let newest = ok(notes().list(request(&root, of_host())).await).unwrap().annotation.remove(1);
        let remove = |id: Option<String>| RemoveAnnotationRequest { id };
        let removed = ok(notes().remove(request(&root, remove(newest.id.clone()))).await).unwrap();
        assert!(removed.removed.is_some());
        assert_eq!(refused(notes().remove(request(&root, remove(newest.id))).await).0, 431);
        assert_eq!(shown().await, (Some("noisy".into()), admin(), true), "the one before is the newest again");
        ok(notes().remove(request(&root, remove(first.id))).await).unwrap();
        assert_eq!(shown().await, (None, None, false));
        assert_eq!(list(of_host()).await.0, 0);
        let told = |kind: &str| format!("SELECT COUNT(*) FROM outbox WHERE kind = '{kind}'");
        let (made, taken) = (told("ANNOTATION.CREATE"), told("ANNOTATION.REMOVE"));
        assert_eq!((cloud.count(&made).await, cloud.count(&taken).await), (2, 2));
        factory.end().await;
        cloud.end().await;
    }
}

testkit::databases! {
    async fn figures_of_the_infrastructure_are_the_books(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let factory = cloud.factory().await;
        let place = cloud.zone("Z", 16).await;
        let mut ids = Vec::new();
        for n in 0..2 {
            ids.push(testkit::eventually(|| async { cloud.add_host(&place, n).await.ok() }).await.id().to_owned());
        }
        let first = cloud.number("hosts", &ids[0]).await;
        // Nobody reports of one that is Starting.
        running_vm(&cloud, 5, 999).await;
        let starts = Sql::new("UPDATE vms SET state = 'Starting', host_id = ? WHERE id = 5").bind(first);
        store::tx!(cloud.db, "t", |tx| tx.exec(starts.clone()).await).await.unwrap();
        let given = Sql::new("UPDATE host_capacity SET cpu_used_mhz = 450000, mem_used = 68719476736 WHERE host_id = ?");
        store::tx!(cloud.db, "t", |tx| tx.exec(given.clone().bind(first)).await).await.unwrap();
        let figures = || InfrastructureMetricsClient::new(cloud.channel());
        let all = ok(figures().infrastructure(request(&root, ListInfrastructureRequest {})).await).unwrap();
        assert_eq!((all.zones(), all.pods(), all.clusters(), all.hosts(), all.routers()), (1, 1, 1, 2, 0));
        assert_eq!((all.storage_pools(), all.image_stores(), all.system_vms()), (0, 0, 0));

        let r = ListHostsMetricsRequest { id: Some(ids[0].clone()), ..Default::default() };
        let hosts = ok(figures().hosts(request(&root, r)).await).unwrap();
        let host = &hosts.host[0];
        assert_eq!((hosts.count(), host.id(), host.state(), host.cluster_name()), (1, ids[0].as_str(), "Up", "C0"));
        assert_eq!((host.power_state(), host.instances()), ("Disabled", "0/1"));
        assert_eq!((host.cpu_total_ghz(), host.cpu_allocated_ghz()), ("512.00 Ghz (x1.0)", "450.00 Ghz"));
        assert_eq!((host.memory_total_gb(), host.memory_allocated_gb()), ("256.00 GB (x1.0)", "64.00 GB"));
        assert_eq!((host.cpu_allocated_threshold, host.cpu_allocated_disable_threshold), (Some(true), Some(true)));
        assert_eq!((host.memory_allocated_threshold, host.memory_allocated_disable_threshold), (Some(false), Some(false)));
        let clusters = ok(figures().clusters(request(&root, ListClustersMetricsRequest::default())).await).unwrap();
        let cluster = &clusters.cluster[0];
        assert_eq!((clusters.count(), cluster.name(), cluster.state(), cluster.hosts()), (1, "C0", "Enabled", "2/2"));
        assert_eq!((cluster.cpu_total(), cluster.cpu_allocated()), ("1024.00 Ghz", "43.95%"));
        assert_eq!((cluster.memory_total(), cluster.memory_allocated()), ("512.00 GB", "12.50%"));
        let zones = ok(figures().zones(request(&root, ListZonesMetricsRequest::default())).await).unwrap();
        let zone = &zones.zone[0];
        assert_eq!((zone.name(), zone.clusters(), zone.cpu_allocated()), ("Z", "1/1", "43.95%"));
        assert_eq!(zone.state, zone.allocation_state);
        // Filters and refusals are those of the plain lists.
        let other = ListHostsMetricsRequest { r#type: Some("SecondaryStorageVM".into()), ..Default::default() };
        assert_eq!(ok(figures().hosts(request(&root, other)).await).unwrap().count(), 0);
        let wrong = ListHostsMetricsRequest { id: Some("none".into()), ..Default::default() };
        assert_eq!(refused(figures().hosts(request(&root, wrong)).await).0, 431);
        let vms = ListVirtualMachinesMetricsRequest { list_all: Some(true), ..Default::default() };
        let vms = ok(VirtualMachineMetricsClient::new(cloud.channel()).list(request(&root, vms)).await).unwrap();
        let vm = &vms.virtual_machine[0];
        assert_eq!((vms.count(), vm.state()), (1, "Starting"));
        assert!(vm.cpu_total().ends_with(" Ghz") && vm.memory_total().ends_with(" GB"), "{vm:?}");
        factory.end().await;
        cloud.end().await;
    }

    async fn an_administrator_raises_an_alert(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let place = cloud.zone("Z", 16).await;
        let alerts = || AlertGenerationClient::new(cloud.channel());
        let alert = |kind: i32, name: &str| GenerateAlertRequest {
            r#type: Some(kind),
            name: Some(name.into()),
            description: Some("the room is warm".into()),
            zone_id: place.zone.id.clone(),
            ..Default::default()
        };
        for (r, what) in [
            (alert(7, "ALERT.USERVM"), "default alert having type 7"),
            (alert(99, "ALERT.USERVM"), "default alert having type 8"),
            (alert(99, "ALERT.OWN"), "no type of alerts"),
            (alert(-1, "ALERT.OWN"), "no type of alerts"),
            (GenerateAlertRequest { description: None, ..alert(8, "ALERT.USERVM") }, "description"),
        ] {
            let (code, text) = refused(alerts().generate(request(&root, r)).await);
            assert!(code == 431 && text.contains(what), "{code} {text}");
        }
        assert_eq!(cloud.count("SELECT COUNT(*) FROM jobs").await, 0);
        let job = ok(alerts().generate(request(&root, alert(8, "alert.uservm"))).await).unwrap();
        assert_eq!(cloud.ended(&root, &job.job_id).await.job_status(), 1);
        assert_eq!(cloud.count("SELECT COUNT(*) FROM outbox WHERE kind = 'ALERT.USERVM'").await, 1);
        assert!(cloud.count("SELECT COUNT(*) FROM outbox WHERE kind = 'ALERT.GENERATE'").await >= 2);
        cloud.end().await;
    }
}
