//! Offerings, operating systems, hypervisors, SSH keys, tags, settings, jobs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use contract::api::{Caller, TagParam};
use contract_compute::{
    CreateInstanceGroupRequest, CreateSshKeyPairRequest, DeleteInstanceGroupRequest, DeleteSshKeyPairRequest,
    ListInstanceGroupsRequest, ListSshKeyPairsRequest, RegisterSshKeyPairRequest, UpdateInstanceGroupRequest,
};
use contract_infra::{
    CreateServiceOfferingRequest, CreateTagsRequest, DeleteServiceOfferingRequest, DeleteTagsRequest,
    ListAsyncJobsRequest, ListCapabilitiesRequest, ListConfigurationsRequest, ListHypervisorCapabilitiesRequest,
    ListHypervisorsRequest, ListOsCategoriesRequest, ListOsTypesRequest, ListServiceOfferingsRequest, ListTagsRequest,
    QueryAsyncJobResultRequest, UpdateConfigurationRequest, UpdateServiceOfferingRequest,
};
use rpc::cx::request;
use store::Value;

fn tiny(name: &str) -> CreateServiceOfferingRequest {
    CreateServiceOfferingRequest {
        name: Some(name.into()),
        display_text: Some("1 x 100 MHz, 128 MiB".into()),
        cpu_number: Some(1),
        cpu_speed: Some(100),
        memory: Some(128),
        ..CreateServiceOfferingRequest::default()
    }
}

testkit::databases! {
    // covers: VM-003, VM-050, VM-051, VM-053, VM-054
    async fn offerings_live(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let names = async |caller: &Caller, r| -> Vec<String> {
            let listed = ok(cloud.offerings().list(request(caller, r)).await).unwrap();
            assert_eq!(listed.count(), listed.service_offering.len() as i64);
            listed.service_offering.iter().map(|o| o.name().to_owned()).collect()
        };
        let all = ListServiceOfferingsRequest::default;
        assert_eq!(names(&root, all()).await, ["Small Instance", "Medium Instance"]);
        let system = || ListServiceOfferingsRequest { is_system: Some(true), ..Default::default() };
        assert_eq!(names(&root, system()).await.len(), 10);
        assert_eq!(refused(cloud.offerings().list(request(&alice(), system())).await).0, 431);

        let made = ok(cloud.offerings().create(request(&root, tiny("bench.tiny"))).await).unwrap();
        assert_eq!((made.name(), made.cpu_number(), made.cpu_speed(), made.memory()), ("bench.tiny", 1, 100, 128));
        assert_eq!((made.storage_type(), made.provisioning_type(), made.is_customized(), made.default_use()), ("shared", "thin", false, false));
        assert_eq!((made.offer_ha(), made.limit_cpu_use(), made.is_volatile(), made.is_system()), (false, false, false, false));
        assert_eq!((&made.tags, &made.network_rate, made.created.is_some()), (&None, &None, true));

        let private = CreateServiceOfferingRequest { domain_id: Some("domain-2".into()), ..tiny("for a") };
        assert_eq!(ok(cloud.offerings().create(request(&root, private)).await).unwrap().domain(), "a");
        assert_eq!(names(&alice(), all()).await, ["Small Instance", "Medium Instance", "bench.tiny", "for a"]);
        assert_eq!(names(&bob(), all()).await, ["Small Instance", "Medium Instance", "bench.tiny"]);
        assert_eq!(refused(cloud.offerings().create(request(&dora(), tiny("x"))).await).0, 431);

        let update = UpdateServiceOfferingRequest { id: made.id.clone(), name: Some("renamed".into()), sort_key: Some(-1), ..Default::default() };
        assert_eq!(ok(cloud.offerings().update(request(&root, update)).await).unwrap().name(), "renamed");
        assert_eq!(names(&root, all()).await[0], "renamed");
        let delete = async |id: Option<String>| cloud.offerings().delete(request(&root, DeleteServiceOfferingRequest { id })).await;
        let small = ok(cloud.offerings().list(request(&root, ListServiceOfferingsRequest { name: Some("Small Instance".into()), ..Default::default() })).await).unwrap();
        assert_eq!(refused(delete(small.service_offering[0].id.clone()).await).0, 431);
        assert!(ok(delete(made.id.clone()).await).unwrap().success);
        assert!(!names(&root, all()).await.contains(&"renamed".to_owned()));
        assert_eq!(cloud.count("SELECT COUNT(*) FROM outbox WHERE kind LIKE 'SERVICE.OFFERING.%'").await, 4);
        cloud.end().await;
    }

    async fn a_fresh_installation_has_its_catalogue(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        // Another replica that starts finds it there.
        arcus_orchestrator::install::run(&cloud.node).await.unwrap();
        let types = ok(cloud.os_types().list(request(&alice(), ListOsTypesRequest::default())).await).unwrap();
        assert_eq!((types.count(), types.os_type[0].description()), (272, "CentOS 4.5 (32-bit)"));
        let categories = ok(cloud.os_types().list_categories(request(&root, ListOsCategoriesRequest::default())).await).unwrap();
        assert_eq!((categories.count(), categories.os_category[0].name()), (11, "CentOS"));
        assert_eq!(types.os_type[0].os_category_id(), categories.os_category[0].id());
        let one = ListOsTypesRequest { id: types.os_type[5].id.clone(), ..Default::default() };
        assert_eq!(ok(cloud.os_types().list(request(&root, one)).await).unwrap().os_type, types.os_type[5..6]);
        let centos = ListOsTypesRequest { keyword: Some("centos 7".into()), ..Default::default() };
        assert!(ok(cloud.os_types().list(request(&root, centos)).await).unwrap().count() >= 1);

        let caps = ok(cloud.hypervisors().list_capabilities(request(&root, ListHypervisorCapabilitiesRequest::default())).await).unwrap();
        assert_eq!(caps.count(), 31);
        let kvm = ListHypervisorCapabilitiesRequest { hypervisor: Some("kvm".into()), ..Default::default() };
        let kvm = ok(cloud.hypervisors().list_capabilities(request(&root, kvm)).await).unwrap();
        assert_eq!((kvm.count(), kvm.hypervisor_capabilities[0].max_guests_limit()), (1, 50));
        let by_id = ListHypervisorCapabilitiesRequest { id: kvm.hypervisor_capabilities[0].id.clone(), ..Default::default() };
        assert_eq!(ok(cloud.hypervisors().list_capabilities(request(&root, by_id)).await).unwrap(), kvm);
        let names = async |zone_id: Option<String>| -> Vec<String> {
            let listed = ok(cloud.hypervisors().list(request(&alice(), ListHypervisorsRequest { zone_id })).await).unwrap();
            listed.hypervisor.iter().map(|h| h.name().to_owned()).collect()
        };
        assert!(!names(None).await.contains(&"Simulator".to_owned()));
        let place = cloud.zone("Z", 16).await;
        assert!(names(None).await.contains(&"Simulator".to_owned()));
        assert_eq!(names(place.zone.id.clone()).await, ["Simulator"]);
        cloud.end().await;
    }

    // covers: VM-150
    async fn instance_groups_belong_to_accounts(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let create = |name: &str| CreateInstanceGroupRequest { name: Some(name.into()), ..Default::default() };
        let made = ok(cloud.groups().create(request(&alice(), create("Wéb ☃"))).await).unwrap();
        assert_eq!((made.name(), made.account(), made.created.is_some()), ("Wéb ☃", "alice", true));
        assert_eq!(refused(cloud.groups().create(request(&alice(), create("Wéb ☃"))).await).0, 431);
        assert_eq!(refused(cloud.groups().create(request(&alice(), create(" "))).await).0, 431);
        ok(cloud.groups().create(request(&bob(), create("Wéb ☃"))).await).unwrap();
        let update = |name: &str| UpdateInstanceGroupRequest { id: made.id.clone(), name: Some(name.into()) };
        assert_eq!(refused(cloud.groups().update(request(&bob(), update("mine"))).await).0, 531);
        assert_eq!(ok(cloud.groups().update(request(&alice(), update("front"))).await).unwrap().name(), "front");
        ok(cloud.groups().create(request(&alice(), create("back"))).await).unwrap();
        assert_eq!(refused(cloud.groups().update(request(&alice(), update("back"))).await).0, 431);
        let list = async |caller: &Caller, r: ListInstanceGroupsRequest| {
            let listed = ok(cloud.groups().list(request(caller, r)).await).unwrap();
            assert_eq!(listed.count(), listed.instance_group.len() as i64);
            listed.instance_group.iter().map(|g| g.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(list(&alice(), Default::default()).await, ["front", "back"]);
        assert_eq!(list(&bob(), Default::default()).await, ["Wéb ☃"]);
        let all = ListInstanceGroupsRequest { list_all: Some(true), keyword: Some("RON".into()), ..Default::default() };
        assert_eq!(list(&root(), all).await, ["front"]);
        let delete = || DeleteInstanceGroupRequest { id: made.id.clone() };
        assert_eq!(refused(cloud.groups().delete(request(&bob(), delete())).await).0, 531);
        assert!(ok(cloud.groups().delete(request(&alice(), delete())).await).unwrap().success);
        assert_eq!(refused(cloud.groups().delete(request(&alice(), delete())).await).0, 431);
        cloud.end().await;
    }

    // covers: VM-275, VM-276, VM-277
    async fn key_pairs_belong_to_accounts(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let alice = alice();
        let create = |name: &str| CreateSshKeyPairRequest { name: Some(name.into()), ..Default::default() };
        let made = ok(cloud.key_pairs().create(request(&alice, create("k"))).await).unwrap();
        assert!(made.private_key().starts_with("-----BEGIN RSA PRIVATE KEY-----"));
        assert_eq!((made.name(), made.account(), made.domain_id(), made.fingerprint().len()), ("k", "alice", "domain-2", 47));
        assert_eq!(refused(cloud.key_pairs().create(request(&alice, create("k"))).await), (431, "A key pair with name 'k' already exists.".into()));
        // Nowhere does the private key stay.
        for table in ["idempotency", "outbox"] {
            let column = if table == "outbox" { "payload" } else { "answer" };
            for row in cloud.db.all(store::Sql::new(&format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL"))).await.unwrap() {
                let bytes: Vec<u8> = row.at(0).unwrap();
                assert!(!String::from_utf8_lossy(&bytes).contains("PRIVATE KEY"));
            }
        }
        // A repeat of a request is answered the same, private key included.
        let caller = keyed(alice.clone(), "key");
        let once = ok(cloud.key_pairs().create(request(&caller, create("k2"))).await).unwrap();
        assert_eq!(ok(cloud.key_pairs().create(request(&caller, create("k2"))).await).unwrap(), once);

        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl user@host";
        let register = |name: &str, key: &str| RegisterSshKeyPairRequest { name: Some(name.into()), public_key: Some(key.into()), ..Default::default() };
        let registered = ok(cloud.key_pairs().register(request(&alice, register("mine", key))).await).unwrap();
        assert_eq!(refused(cloud.key_pairs().register(request(&alice, register("mine", key))).await).0, 431);
        assert!(refused(cloud.key_pairs().register(request(&alice, register("again", key))).await).1.contains("fingerprint"));
        assert_eq!(refused(cloud.key_pairs().register(request(&alice, register("bad", "no key"))).await).0, 431);
        ok(cloud.key_pairs().register(request(&bob(), register("mine", key))).await).unwrap();
        let list = async |caller: &Caller, all| {
            let r = ListSshKeyPairsRequest { list_all: Some(all), ..Default::default() };
            ok(cloud.key_pairs().list(request(caller, r)).await).unwrap()
        };
        let own = list(&alice, false).await;
        assert_eq!((own.count(), own.ssh_key_pair.contains(&registered)), (3, true));
        assert_eq!((list(&root(), true).await.count(), list(&root(), false).await.count(), list(&dora(), true).await.count()), (4, 0, 3));
        let delete = |name: &str| DeleteSshKeyPairRequest { name: Some(name.into()), ..Default::default() };
        assert!(ok(cloud.key_pairs().delete(request(&bob(), delete("mine"))).await).unwrap().success);
        assert!(refused(cloud.key_pairs().delete(request(&bob(), delete("mine"))).await).1.contains("does not exist for account bob"));
        let for_alice = DeleteSshKeyPairRequest { account: Some("alice".into()), domain_id: Some("domain-2".into()), ..delete("k") };
        assert_eq!(refused(cloud.key_pairs().delete(request(&bob(), for_alice.clone())).await).0, 531);
        assert!(ok(cloud.key_pairs().delete(request(&root(), for_alice)).await).unwrap().success);
        cloud.end().await;
    }

    async fn tags_are_put_on_and_taken_off(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        network(&cloud, 7, &alice()).await;
        network(&cloud, 8, &bob()).await;
        let alice = alice();
        let tag = |k: &str, v: &str| TagParam { key: Some(k.into()), value: Some(v.into()) };
        let put = |ids: &[&str], tags: Vec<TagParam>| CreateTagsRequest {
            resource_type: Some("network".into()),
            resource_ids: ids.iter().map(|i| (*i).to_owned()).collect(),
            tags,
            ..Default::default()
        };
        let job = ok(cloud.tags().create(request(&alice, put(&["net-7"], vec![tag("color", "red"), tag("size", "0")]))).await).unwrap();
        let ended = cloud.ended(&alice, &job.job_id).await;
        assert_eq!((ended.job_status(), ended.job_result_code(), ended.job_proc_status(), ended.job_result_type()), (1, 0, 0, "object"));
        assert_eq!((ended.cmd(), ended.job_result.as_ref().unwrap().command.as_str()), ("org.apache.cloudstack.api.command.user.tag.CreateTagsCmd", "createTags"));
        // Others' resources can't be tagged, others' jobs not seen.
        assert_eq!(refused(cloud.tags().create(request(&alice, put(&["net-8"], vec![tag("a", "b")]))).await).0, 531);
        assert_eq!(refused(cloud.jobs().query(request(&bob(), QueryAsyncJobResultRequest { job_id: Some(job.job_id.clone()) })).await).0, 531);
        assert_eq!(refused(cloud.tags().create(request(&alice, put(&["nothing"], vec![tag("a", "b")]))).await).0, 431);
        assert_eq!(refused(cloud.tags().create(request(&alice, put(&["net-7"], vec![tag("a", &"x".repeat(256))]))).await).0, 431);
        let long = ok(cloud.tags().create(request(&alice, put(&["net-7"], vec![tag(&"k".repeat(255), &"v".repeat(255))]))).await).unwrap();
        assert_eq!(cloud.ended(&alice, &long.job_id).await.job_status(), 1);
        // A key is there once.
        let twice = ok(cloud.tags().create(request(&alice, put(&["net-7"], vec![tag("color", "blue"), tag("new", "n")]))).await).unwrap();
        let failed = cloud.ended(&alice, &twice.job_id).await;
        assert_eq!((failed.job_status(), failed.job_result_code()), (2, 530));
        assert_eq!(failed.job_result.unwrap().error.unwrap().code, 431);

        let list = async |caller: &Caller, r: ListTagsRequest| ok(cloud.tags().list(request(caller, r)).await).unwrap();
        let own = list(&alice, ListTagsRequest { resource_type: Some("Network".into()), ..Default::default() }).await;
        assert_eq!(own.count(), 3);
        let one = list(&alice, ListTagsRequest { key: Some("color".into()), resource_id: Some("net-7".into()), ..Default::default() }).await;
        let t = &one.tag[0];
        assert_eq!((t.key(), t.value(), t.resource_type(), t.resource_id(), t.account(), t.domain()), ("color", "red", "Network", "net-7", "alice", "a"));
        assert_eq!(list(&bob(), ListTagsRequest::default()).await.count(), 0);
        let zero = ListTagsRequest { value: Some("0".into()), list_all: Some(true), ..Default::default() };
        assert_eq!(list(&root(), zero).await.count(), 1);

        let take = |tags| DeleteTagsRequest { resource_type: Some("Network".into()), resource_ids: vec!["net-7".into()], tags, ..Default::default() };
        let gone = ok(cloud.tags().delete(request(&alice, take(vec![TagParam { key: Some("color".into()), value: None }]))).await).unwrap();
        assert_eq!(cloud.ended(&alice, &gone.job_id).await.job_status(), 1);
        let nothing = ok(cloud.tags().delete(request(&alice, take(vec![tag("size", "1")]))).await).unwrap();
        assert_eq!(cloud.ended(&alice, &nothing.job_id).await.job_status(), 2);
        let all = ok(cloud.tags().delete(request(&alice, take(vec![]))).await).unwrap();
        assert_eq!(cloud.ended(&alice, &all.job_id).await.job_status(), 1);
        assert_eq!(cloud.count("SELECT COUNT(*) FROM tags").await, 0);
        let jobs = ok(cloud.jobs().list(request(&alice, ListAsyncJobsRequest::default())).await).unwrap();
        assert_eq!(jobs.count(), 6);
        assert_eq!(ok(cloud.jobs().list(request(&root(), ListAsyncJobsRequest::default())).await).unwrap().count(), 0);
        assert_eq!(ok(cloud.jobs().list(request(&root(), ListAsyncJobsRequest { list_all: Some(true), keyword: Some("deletetags".into()), ..Default::default() })).await).unwrap().count(), 3);
        cloud.end().await;
    }

    // covers: INST-176, INST-177, INST-178
    async fn settings_are_listed_and_changed(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let list = async |r: ListConfigurationsRequest| ok(cloud.configurations().list(request(&root, r)).await).unwrap();
        let one = list(ListConfigurationsRequest { name: Some("expunge.delay".into()), ..Default::default() }).await;
        assert_eq!((one.count(), one.configuration[0].category(), one.configuration[0].value()), (1, "Advanced", "86400"));
        let update = async |name: &str, value: &str, r: UpdateConfigurationRequest| {
            let r = UpdateConfigurationRequest { name: Some(name.into()), value: Some(value.into()), ..r };
            cloud.configurations().update(request(&root, r)).await
        };
        let global = UpdateConfigurationRequest::default;
        assert_eq!(ok(update("alert.wait", "120", global()).await).unwrap().value(), "120");
        assert_eq!(refused(update("no.such.setting", "1", global()).await), (431, "Config parameter with name no.such.setting doesn't exist".into()));
        assert_eq!(refused(update("expunge.delay", "soon", global()).await).0, 431);
        let place = cloud.zone("Z", 16).await;
        let zone = || UpdateConfigurationRequest { zone_id: place.zone.id.clone(), ..Default::default() };
        let scoped = ok(update("guest.domain.suffix", "zone.internal", zone()).await).unwrap();
        assert_eq!((scoped.value(), scoped.scope()), ("zone.internal", "zone"));
        assert!(refused(update("expunge.delay", "5", zone()).await).1.contains("Invalid scope id"));
        let both = UpdateConfigurationRequest { cluster_id: place.cluster.id.clone(), ..zone() };
        assert!(refused(update("guest.domain.suffix", "x", both).await).1.contains("cannot handle multiple IDs"));
        let of_zone = list(ListConfigurationsRequest { zone_id: place.zone.id.clone(), keyword: Some("guest.domain".into()), ..Default::default() }).await;
        assert_eq!((of_zone.count(), of_zone.configuration[0].value()), (1, "zone.internal"));
        let everywhere = list(ListConfigurationsRequest { name: Some("guest.domain.suffix".into()), ..Default::default() }).await;
        assert_eq!(everywhere.configuration[0].value(), "cloud.internal");
        let page = list(ListConfigurationsRequest { page: Some(2), page_size: Some(10), ..Default::default() }).await;
        assert_eq!(page.configuration.len(), 10);
        assert!(page.count() > 400);

        let can = ok(cloud.configurations().list_capabilities(request(&alice(), ListCapabilitiesRequest {})).await).unwrap();
        assert_eq!((can.cloudstack_version(), can.support_elb(), can.dynamic_roles_enabled()), ("4.11.1.0", "false", true));
        assert_eq!((can.allow_user_view_destroyed_vm(), can.api_limit_max), (false, None));
        cloud.end().await;
    }
}

async fn network(cloud: &Cloud, id: i64, owner: &Caller) {
    let row = [
        ("id", Value::from(id)),
        ("uuid", format!("net-{id}").into()),
        ("name", "n".into()),
        ("name_lower", "n".into()),
        ("zone_id", Value::from(1i64)),
        ("offering_id", Value::from(1i64)),
        ("traffic_type", "Guest".into()),
        ("broadcast_type", "Vlan".into()),
        ("specified_vlan", Value::from(0i64)),
        ("state", "Allocated".into()),
        ("subdomain_access", Value::from(0i64)),
        ("is_public", Value::from(0i64)),
        ("is_system", Value::from(0i64)),
        ("is_default", Value::from(0i64)),
        ("display_network", Value::from(1i64)),
        ("restart_required", Value::from(0i64)),
        ("account_id", Value::from(owner.account_id)),
        ("domain_id", Value::from(owner.domain_id)),
        ("domain_path", (&owner.domain_path).into()),
        ("generation", Value::from(0i64)),
        ("touched", Value::from(0i64)),
        ("created", Value::from(0i64)),
    ];
    cloud.insert("networks", &row).await;
}
