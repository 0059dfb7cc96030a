//! Zones, pods, clusters: made, changed, refused, deleted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use contract::api::Caller;
use contract_infra::{
    AddRegionRequest, CreateZoneRequest, DeleteClusterRequest, DeletePodRequest, DeleteZoneRequest,
    ListClustersRequest, ListPodsRequest, ListRegionsRequest, ListZonesRequest, RemoveRegionRequest,
    UpdateClusterRequest, UpdatePodRequest, UpdateRegionRequest, UpdateZoneRequest,
};
use rpc::cx::request;
use store::Value;

testkit::databases! {
    // covers: HOST-034
    async fn a_zone_is_built_and_shown(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let place = cloud.zone("Sandbox", 16).await;
        let zone = &place.zone;
        assert_eq!((zone.name(), zone.network_type(), zone.allocation_state()), ("Sandbox", "Advanced", "Disabled"));
        assert_eq!((zone.dns1(), zone.internal_dns1(), zone.guest_cidr_address()), ("10.147.28.6", "10.147.28.6", "10.1.1.0/24"));
        assert_eq!((zone.dhcp_provider(), zone.security_groups_enabled(), zone.local_storage_enabled()), ("VirtualRouter", false, false));
        assert_eq!(zone.zone_token().len(), 36);
        let pod = &place.pod;
        assert_eq!((pod.zone_name(), pod.gateway(), pod.netmask(), pod.allocation_state()), ("Sandbox", "172.16.0.1", "255.255.0.0", "Enabled"));
        assert_eq!((pod.start_ip.as_slice(), pod.end_ip.as_slice()), (["172.16.0.2".to_owned()].as_slice(), ["172.16.15.254".to_owned()].as_slice()));
        assert_eq!((pod.for_system_vms[0].as_str(), pod.vlan_id[0].as_str()), ("0", "vlan://untagged"));
        let cluster = &place.cluster;
        assert_eq!((cluster.name(), cluster.pod_name(), cluster.zone_name()), ("C0", "POD0", "Sandbox"));
        assert_eq!((cluster.hypervisor_type(), cluster.cluster_type(), cluster.managed_state()), ("Simulator", "CloudManaged", "Managed"));
        assert_eq!((cluster.cpu_overcommit_ratio(), cluster.resource_details["memoryOvercommitRatio"].as_str()), ("1.0", "1.0"));

        let root = root();
        let listed = ok(cloud.zones().list(request(&root, ListZonesRequest { name: Some("sandbox".into()), ..Default::default() })).await).unwrap();
        assert_eq!((listed.count(), &listed.zone[0]), (1, zone));
        let none = ok(cloud.zones().list(request(&root, ListZonesRequest { keyword: Some("nosuchzone".into()), ..Default::default() })).await).unwrap();
        assert_eq!((none.count(), none.zone.len()), (0, 0));
        let pods = ok(cloud.pods().list(request(&root, ListPodsRequest { zone_id: zone.id.clone(), ..Default::default() })).await).unwrap();
        assert_eq!((pods.count(), &pods.pod[0]), (1, pod));
        let clusters = ok(cloud.clusters().list(request(&root, ListClustersRequest { hypervisor: Some("simulator".into()), ..Default::default() })).await).unwrap();
        assert_eq!((clusters.count(), &clusters.cluster[0]), (1, cluster));
        // Numbers are taken as ids where 4.11 takes them.
        let number = cloud.number("zones", zone.id()).await.to_string();
        let by_number = ok(cloud.zones().list(request(&root, ListZonesRequest { id: Some(number), ..Default::default() })).await).unwrap();
        assert_eq!(by_number.count(), 1);
        assert_eq!(cloud.count("SELECT COUNT(*) FROM outbox WHERE kind IN ('ZONE.CREATE', 'POD.CREATE')").await, 2);
        cloud.end().await;
    }

    // covers: INST-105
    async fn what_makes_no_sense_is_refused(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let place = cloud.zone("Z", 16).await;
        let create = async |r: CreateZoneRequest| refused(cloud.zones().create(request(&root, r)).await);
        assert_eq!(create(new_zone("z")).await, (431, "A zone with that name already exists. Please specify a unique zone name.".into()));
        assert_eq!(create(CreateZoneRequest { network_type: Some("Flat".into()), ..new_zone("a") }).await.0, 431);
        assert_eq!(create(CreateZoneRequest { guest_cidr_address: Some("8.8.8.0/24".into()), ..new_zone("a") }).await, (431, "Please enter a valid guest cidr".into()));
        assert!(create(CreateZoneRequest { network_type: Some("Basic".into()), ..new_zone("a") }).await.1.contains("not supported for Basic"));
        assert!(create(CreateZoneRequest { dns1: Some("x".into()), ..new_zone("a") }).await.1.contains("DNS1"));
        assert!(create(CreateZoneRequest { allocation_state: Some("On".into()), ..new_zone("a") }).await.1.contains("'On'"));
        assert_eq!(cloud.count("SELECT COUNT(*) FROM zones").await, 1);

        let zone = place.zone.id().to_owned();
        let pod = async |r| refused(cloud.pods().create(request(&root, r)).await);
        assert!(pod(new_pod("pod0", &zone, 17)).await.1.starts_with("A pod with name: pod0 already exists in zone"));
        assert!(pod(new_pod("POD1", &zone, 16)).await.1.contains("conflicts with the subnet of pod POD0"));
        let mut guests = new_pod("POD1", &zone, 17);
        (guests.gateway, guests.netmask) = (Some("10.1.1.1".into()), Some("255.255.255.0".into()));
        (guests.start_ip, guests.end_ip) = (Some("10.1.1.10".into()), None);
        assert!(pod(guests).await.1.contains("Guest IP Network"));
        let id = cloud.number("zones", &zone).await;
        public_range(&cloud, id).await;
        let mut public = new_pod("POD1", &zone, 17);
        (public.gateway, public.start_ip, public.end_ip) = (Some("192.168.0.1".into()), Some("192.168.9.200".into()), Some("192.168.10.1".into()));
        assert!(pod(public).await.1.contains("overlap with Public IP"));
        // The same subnet in another zone is fine.
        cloud.zone("Other", 16).await;
        // A cluster has its name once in its pod.
        assert_eq!(cloud.add_cluster(&zone, place.pod.id(), "c0").await.unwrap_err().code, 431);
        // A pod of another zone is no place for a cluster.
        let elsewhere = cloud.zone("Third", 16).await;
        assert_eq!(cloud.add_cluster(&zone, elsewhere.pod.id(), "C9").await.unwrap_err().code, 431);
        cloud.end().await;
    }

    async fn places_are_changed(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let place = cloud.zone("Z", 16).await;
        let zone = async |r: UpdateZoneRequest| {
            let r = UpdateZoneRequest { id: place.zone.id.clone(), ..r };
            cloud.zones().update(request(&root, r)).await
        };
        let enable = || UpdateZoneRequest { allocation_state: Some("Enabled".into()), ..Default::default() };
        assert!(refused(zone(enable()).await).1.contains("traffic=Management"));
        let id = cloud.number("zones", place.zone.id()).await;
        traffic(&cloud, id, 1, "Management").await;
        traffic(&cloud, id, 2, "Public").await;
        assert_eq!(ok(zone(enable()).await).unwrap().allocation_state(), "Enabled");
        let details = [("k".to_owned(), "v".to_owned())].into();
        let renamed = UpdateZoneRequest { name: Some("Y".into()), dns2: Some("10.0.0.2".into()), details, ..Default::default() };
        let renamed = ok(zone(renamed).await).unwrap();
        assert_eq!((renamed.name(), renamed.dns2(), renamed.dns1()), ("Y", "10.0.0.2", "10.147.28.6"));
        assert_eq!(renamed.resource_details["k"], "v");
        assert_eq!(ok(zone(UpdateZoneRequest { dns2: Some(String::new()), ..Default::default() }).await).unwrap().dns2, None);

        let pod = async |r: UpdatePodRequest| {
            let r = UpdatePodRequest { id: place.pod.id.clone(), ..r };
            cloud.pods().update(request(&root, r)).await
        };
        let wider = UpdatePodRequest { end_ip: Some("172.16.20.254".into()), name: Some("P".into()), ..Default::default() };
        let wider = ok(pod(wider).await).unwrap();
        assert_eq!((wider.name(), wider.end_ip[0].as_str(), wider.start_ip[0].as_str()), ("P", "172.16.20.254", "172.16.0.2"));
        let off = UpdatePodRequest { allocation_state: Some("disabled".into()), ..Default::default() };
        assert_eq!(ok(pod(off).await).unwrap().allocation_state(), "Disabled");

        let cluster = async |r: UpdateClusterRequest| {
            let r = UpdateClusterRequest { id: place.cluster.id.clone(), ..r };
            cloud.clusters().update(request(&root, r)).await
        };
        let off = UpdateClusterRequest { allocation_state: Some("Disabled".into()), managed_state: Some("Unmanaged".into()), ..Default::default() };
        let off = ok(cluster(off).await).unwrap();
        assert_eq!((off.allocation_state(), off.managed_state()), ("Disabled", "Unmanaged"));
        let again = UpdateClusterRequest { managed_state: Some("Unmanaged".into()), ..Default::default() };
        assert_eq!(refused(cluster(again).await).0, 431);
        cloud.end().await;
    }

    async fn only_what_is_empty_is_deleted(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let place = cloud.zone("Z", 16).await;
        let (zone, pod, cluster) = (place.zone.id.clone(), place.pod.id.clone(), place.cluster.id.clone());
        let delete_zone = async || cloud.zones().delete(request(&root, DeleteZoneRequest { id: zone.clone() })).await;
        let delete_pod = async || cloud.pods().delete(request(&root, DeletePodRequest { id: pod.clone() })).await;
        let delete_cluster = async || cloud.clusters().delete(request(&root, DeleteClusterRequest { id: cluster.clone() })).await;
        assert_eq!(refused(delete_zone().await), (530, "The zone cannot be deleted because there are pods in this zone.".into()));
        assert_eq!(refused(delete_pod().await), (530, "The pod cannot be deleted because there are clusters in this pod.".into()));
        let factory = cloud.factory().await;
        let host = testkit::eventually(|| async { cloud.add_host(&place, 0).await.ok() }).await;
        assert!(refused(delete_cluster().await).1.contains("still has hosts"));
        let forced = contract_infra::DeleteHostRequest { id: host.id.clone(), forced: Some(true), ..Default::default() };
        assert!(ok(cloud.hosts().delete(request(&root, forced)).await).unwrap().success);
        assert!(ok(delete_cluster().await).unwrap().success);
        assert!(ok(delete_pod().await).unwrap().success);
        assert!(ok(delete_zone().await).unwrap().success);
        // Gone, and its name is free.
        assert_eq!(refused(delete_zone().await).0, 431);
        cloud.zone("Z", 16).await;
        factory.end().await;
        cloud.end().await;
    }

    async fn users_see_what_they_may_use(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let open = cloud.zone("open", 16).await;
        let private = CreateZoneRequest { domain_id: Some("domain-2".into()), allocation_state: Some("Enabled".into()), ..new_zone("private") };
        let private = ok(cloud.zones().create(request(&root, private)).await).unwrap();
        assert_eq!((private.domain_id(), private.domain_name()), ("domain-2", "a"));
        let names = async |caller| {
            let listed = ok(cloud.zones().list(request(&caller, ListZonesRequest::default())).await).unwrap();
            (listed.zone.iter().map(|z| z.name().to_owned()).collect::<Vec<_>>(), listed.zone.iter().any(|z| z.dns1.is_some()))
        };
        assert_eq!(names(root.clone()).await, (vec!["open".into(), "private".into()], true));
        // A disabled zone is not for users, a private one for its domain.
        assert_eq!(names(alice()).await, (vec!["private".into()], false));
        assert_eq!(names(dora()).await.0, ["private"]);
        assert!(names(bob()).await.0.is_empty());
        let id = cloud.number("zones", open.zone.id()).await;
        traffic(&cloud, id, 1, "Management").await;
        traffic(&cloud, id, 2, "Public").await;
        let enable = UpdateZoneRequest { id: open.zone.id.clone(), allocation_state: Some("Enabled".into()), ..Default::default() };
        ok(cloud.zones().update(request(&root, enable)).await).unwrap();
        assert_eq!(names(bob()).await.0, ["open"]);
        let public = UpdateZoneRequest { id: private.id.clone(), is_public: Some(true), ..Default::default() };
        assert_eq!(ok(cloud.zones().update(request(&root, public)).await).unwrap().domain_id, None);
        assert_eq!(names(bob()).await.0, ["open", "private"]);
        cloud.end().await;
    }

    async fn a_request_with_a_key_is_done_once(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let caller = keyed(root(), "k1");
        let first = ok(cloud.zones().create(request(&caller, new_zone("Z"))).await).unwrap();
        let again = ok(cloud.zones().create(request(&caller, new_zone("Z"))).await).unwrap();
        assert_eq!(first, again);
        assert_eq!(cloud.count("SELECT COUNT(*) FROM zones").await, 1);
        cloud.end().await;
    }

    async fn lists_cost_the_same_whatever_they_show(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let root = root();
        let place = cloud.zone("Z", 16).await;
        let cost = async || {
            let before = cloud.db.stats().statements;
            ok(cloud.clusters().list(request(&root, ListClustersRequest { show_capacities: Some(true), ..Default::default() })).await).unwrap();
            ok(cloud.pods().list(request(&root, ListPodsRequest { show_capacities: Some(true), ..Default::default() })).await).unwrap();
            ok(cloud.zones().list(request(&root, ListZonesRequest { show_capacities: Some(true), ..Default::default() })).await).unwrap();
            cloud.db.stats().statements - before
        };
        let few = testkit::least(&cost).await;
        for n in 1..12 {
            cloud.add_cluster(place.zone.id(), place.pod.id(), &format!("C{n}")).await.unwrap();
        }
        let many = testkit::least(&cost).await;
        assert!(many <= few, "{few} statements became {many}");
        cloud.end().await;
    }

    // covers: INST-043
    async fn an_installation_is_the_region_that_it_is_told(db: testkit::TestDb) {
        let base = common::database(&db).await;
        let (node, _net) = node::Node::for_tests(base).await;
        let own = async |id| arcus_orchestrator::install::own_region(&node, id).await;
        assert_eq!(own(0).await.unwrap_err().code, 431);
        own(7).await.unwrap();
        let cloud = Cloud::start(&db).await;
        let listed = ok(cloud.regions().list(request(&root(), ListRegionsRequest::default())).await).unwrap();
        assert_eq!(listed.region.iter().map(|r| (r.id(), r.name())).collect::<Vec<_>>(), [(7, "Local")]);
        own(7).await.unwrap();
        let error = own(8).await.unwrap_err();
        assert!(error.code == 431 && error.text.contains("is region 7"), "{error}");
        cloud.end().await;
    }

    // covers: INST-068, INST-070
    async fn regions_know_of_each_other(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let (root, mut regions) = (root(), cloud.regions());
        let named = async |caller: &Caller, r: ListRegionsRequest| {
            let listed = ok(cloud.regions().list(request(caller, r)).await).unwrap();
            assert_eq!(listed.count(), i64::try_from(listed.region.len()).unwrap());
            listed.region.iter().map(|r| (r.id(), r.name().to_owned(), r.endpoint().to_owned())).collect::<Vec<_>>()
        };
        let local = (1, "Local".to_owned(), "http://localhost:8080/client/".to_owned());
        assert_eq!(named(&alice(), ListRegionsRequest::default()).await, [local]);

        let second = AddRegionRequest {
            id: Some(2),
            name: Some("North".into()),
            endpoint: Some("https://north.example.com:8080/client".into()),
        };
        let north = ok(regions.add(request(&root, second.clone())).await).unwrap();
        assert_eq!((north.id(), north.name(), north.gslb_service_enabled()), (2, "North", true));
        for (r, why) in [
            (second.clone(), "Region with id: 2 already exists"),
            (AddRegionRequest { id: Some(3), name: Some("north".into()), ..second.clone() }, "Region with name: north already exists"),
            (AddRegionRequest { id: Some(3), name: Some("South".into()), endpoint: Some("south".into()) }, "isn't the address"),
            (AddRegionRequest { id: Some(0), name: Some("South".into()), ..second.clone() }, "begin at 1"),
        ] {
            let (code, text) = refused(regions.add(request(&root, r)).await);
            assert!(code == 431 && text.contains(why), "{code} {text}");
        }
        let here = UpdateRegionRequest { id: Some(1), name: Some("South".into()), endpoint: Some("http://south.example.com/client".into()) };
        let south = ok(regions.update(request(&root, here.clone())).await).unwrap();
        assert_eq!((south.name(), south.endpoint()), ("South", "http://south.example.com/client"));
        let taken = UpdateRegionRequest { name: Some("North".into()), endpoint: Some("http://elsewhere/".into()), ..here.clone() };
        assert_eq!(refused(regions.update(request(&root, taken)).await), (431, "Region with name: North already exists".into()));
        let unknown = UpdateRegionRequest { id: Some(9), ..here };
        assert_eq!(refused(regions.update(request(&root, UpdateRegionRequest { name: None, ..unknown })).await).0, 431);
        let south = (1, "South".to_owned(), "http://south.example.com/client".to_owned());
        let by_keyword = ListRegionsRequest { keyword: Some("OUT".into()), ..Default::default() };
        assert_eq!(named(&alice(), by_keyword).await, std::slice::from_ref(&south), "nothing of the refused change is left");
        assert_eq!(named(&alice(), ListRegionsRequest { id: Some(2), ..Default::default() }).await[0].1, "North");

        let remove = |id| request(&root, RemoveRegionRequest { id: Some(id) });
        assert!(refused(regions.remove(remove(1)).await).1.contains("itself"));
        assert_eq!(refused(regions.remove(remove(9)).await).0, 431);
        assert!(ok(regions.remove(remove(2)).await).unwrap().success);
        assert_eq!(named(&root, ListRegionsRequest::default()).await, [south]);
        cloud.end().await;
    }
}

async fn traffic(cloud: &Cloud, zone: i64, id: i64, kind: &str) {
    let row = [
        ("id", Value::from(zone * 10 + id)),
        ("uuid", format!("traffic-{zone}-{id}").into()),
        ("physical_network_id", Value::from(1i64)),
        ("zone_id", Value::from(zone)),
        ("traffic_type", kind.into()),
        ("created", Value::from(0i64)),
    ];
    cloud.insert("traffic_types", &row).await;
}

async fn public_range(cloud: &Cloud, zone: i64) {
    let number = |ip: &str| arcus_orchestrator::subnet::number(ip.parse().unwrap());
    let row = [
        ("id", Value::from(1i64)),
        ("uuid", "range".into()),
        ("zone_id", Value::from(zone)),
        ("physical_network_id", Value::from(1i64)),
        ("network_id", Value::from(1i64)),
        ("kind", "VirtualNetwork".into()),
        ("vlan", "50".into()),
        ("gateway", "192.168.0.1".into()),
        ("netmask", "255.255.240.0".into()),
        ("start_ip", "192.168.0.2".into()),
        ("end_ip", "192.168.9.254".into()),
        ("start_number", Value::from(number("192.168.0.2"))),
        ("end_number", Value::from(number("192.168.9.254"))),
        ("for_system_vms", Value::from(0i64)),
        ("created", Value::from(0i64)),
    ];
    cloud.insert("vlan_ranges", &row).await;
}
