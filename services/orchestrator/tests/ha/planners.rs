//! Deployment planners: where VMs go, also when many are started at the same moment.

use crate::common::*;
use crate::fakes::{self, Plugged};
use crate::site::{LARGE, SMALL, Site, uuid};
use contract::ApiError;
use contract::api::DetailParam;
use contract_compute::StartVirtualMachineRequest;
use contract_infra::{
    AddHostRequest, CreateServiceOfferingRequest, DeploymentPlanner, ListDeploymentPlannersRequest, PickHostRequest,
    UpdateConfigurationRequest, UpdateHostRequest,
};
use rpc::cx::request;
use std::collections::{BTreeMap, BTreeSet};
use store::Sql;

const STRICT: Option<&str> = Some("Strict");

impl Site {
    /// As many hosts in another cluster, in the same pod or a new one.
    async fn another_cluster(&mut self, new_pod: bool, hosts: usize, size: &str) {
        let zone = self.place.zone.id().to_owned();
        let pod = match new_pod {
            true => {
                ok(self.cloud.pods().create(request(&root(), crate::common::new_pod("POD1", &zone, 17))).await).unwrap()
            }
            false => self.place.pod.clone(),
        };
        let cluster = self.cloud.add_cluster(&zone, pod.id(), "C1").await.unwrap();
        let place = Place { zone: self.place.zone.clone(), pod, cluster };
        for _ in 0..hosts {
            let n = self.hosts.len();
            let url = format!("http://sim/c1/h{n}/{size}");
            let add = || async {
                let r = AddHostRequest { url: Some(url.clone()), ..new_host(&place, n) };
                ok(self.cloud.hosts().add(request(&root(), r)).await).ok()
            };
            let added = testkit::eventually(add).await;
            self.hosts.push(added.host[0].id().to_owned());
        }
    }

    /// Placement knows all hosts, and no VM was ever there.
    async fn ready(&self) {
        self.known(self.hosts.len()).await;
        store::tx!(self.cloud.db, "forget", |tx| {
            tx.exec("UPDATE vms SET removed = 1, last_host_id = NULL WHERE id >= 900").await
        })
        .await
        .unwrap();
    }

    /// An offering with that planner; its number.
    async fn offering_of(&self, planner: &str, mode: Option<&str>) -> i64 {
        let made = ok(self.cloud.offerings().create(request(&root(), offering(planner, mode))).await).unwrap();
        assert_eq!(made.deployment_planner(), planner);
        self.cloud.number("service_offerings", made.id()).await
    }

    /// A stopped VM of an account, with that offering (none: the first there is).
    async fn vm_of(&self, vm: i64, account: i64, offering: Option<i64>) {
        self.vm(vm, false).await;
        let sql = Sql::new("UPDATE vms SET account_id = ? WHERE id = ?").bind(account).bind(vm);
        store::tx!(self.cloud.db, "owner", |tx| tx.exec(sql.clone()).await).await.unwrap();
        if let Some(offering) = offering {
            let sql = Sql::new("UPDATE vms SET service_offering_id = ? WHERE id = ?").bind(offering).bind(vm);
            store::tx!(self.cloud.db, "offering", |tx| tx.exec(sql.clone()).await).await.unwrap();
        }
    }

    async fn start_by(&self, vm: i64, planner: &str) -> Result<(), ApiError> {
        let r = StartVirtualMachineRequest {
            id: Some(uuid(vm)),
            deployment_planner: Some(planner.into()),
            ..StartVirtualMachineRequest::default()
        };
        let job = ok(self.cloud.vms().start(request(&root(), r)).await)?;
        self.done(&job.job_id).await
    }

    /// The number of running VMs by cluster, pod or host.
    async fn spread(&self, column: &str) -> Vec<i64> {
        let sql = format!("SELECT COUNT(*) FROM vms WHERE state = 'Running' GROUP BY {column} ORDER BY 1");
        self.cloud.db.all(Sql::new(&sql)).await.unwrap().iter().map(|r| r.at(0).unwrap()).collect()
    }

    /// No account shares a host with one that has strict VMs there.
    async fn nobody_shares(&self, strict: i64) {
        let sql = Sql::new("SELECT host_id, account_id, service_offering_id FROM vms WHERE state = 'Running'");
        let mut hosts: BTreeMap<i64, (bool, BTreeSet<i64>)> = BTreeMap::new();
        for r in self.cloud.db.all(sql).await.unwrap() {
            let host = hosts.entry(r.at(0).unwrap()).or_default();
            host.0 |= r.at::<i64>(2).unwrap() == strict;
            host.1.insert(r.at(1).unwrap());
        }
        assert!(hosts.values().all(|(strict, accounts)| !strict || accounts.len() == 1), "{hosts:?}");
    }
}

fn offering(planner: &str, mode: Option<&str>) -> CreateServiceOfferingRequest {
    CreateServiceOfferingRequest {
        name: Some(planner.into()),
        display_text: Some(planner.into()),
        cpu_number: Some(1),
        cpu_speed: Some(500),
        memory: Some(512),
        deployment_planner: Some(planner.into()),
        service_offering_details: mode
            .map(|mode| DetailParam { key: Some("ImplicitDedicationMode".into()), value: Some(mode.into()) })
            .into_iter()
            .collect(),
        ..CreateServiceOfferingRequest::default()
    }
}

async fn many(site: &Site, vms: std::ops::RangeInclusive<i64>) -> Vec<Result<(), ApiError>> {
    futures::future::join_all(vms.map(|vm| site.start(vm, None))).await
}

testkit::databases! {
    async fn planners_have_names(db: testkit::TestDb) {
        let site = Site::open(&db, 1).await;
        let list = async |r: ListDeploymentPlannersRequest| {
            let found = ok(site.cloud.configurations().list_planners(request(&root(), r)).await).unwrap();
            let name = |p: &DeploymentPlanner| p.name().to_owned();
            (found.count(), found.deployment_planner.iter().map(name).collect::<Vec<_>>())
        };
        let (count, names) = list(ListDeploymentPlannersRequest::default()).await;
        assert_eq!(count, 5);
        assert_eq!(names[..2], ["FirstFitPlanner", "UserDispersingPlanner"]);
        let page = ListDeploymentPlannersRequest {
            keyword: Some("user".into()), page: Some(2), page_size: Some(1),
        };
        assert_eq!(list(page).await, (2, vec!["UserConcentratedPodPlanner".to_owned()]));
        // Each may be named, and nothing else.
        for planner in &names {
            site.offering_of(planner, None).await;
        }
        for (planner, mode) in [("BareMetalPlanner", None), ("firstfitplanner", None), ("ImplicitDedicationPlanner", Some("Sometimes"))] {
            let (code, text) = refused(site.cloud.offerings().create(request(&root(), offering(planner, mode))).await);
            assert_eq!(code, 431, "{planner}: {text}");
        }
        site.vm(1, false).await;
        let refusal = site.start_by(1, "BareMetalPlanner").await.unwrap_err();
        assert!(refusal.code == 431 && refusal.full_text().contains("Can't find a planner by name"), "{refusal:?}");
        assert_eq!(site.standing(1).await.0, "Stopped");
        testkit::eventually(|| async { site.start_by(1, "SkipHeuristicsPlanner").await.ok() }).await;
        site.end().await;
    }

    async fn an_account_is_spread_over_clusters(db: testkit::TestDb) {
        let mut site = Site::open(&db, 2).await;
        site.another_cluster(false, 2, LARGE).await;
        site.ready().await;
        let dispersing = site.offering_of("UserDispersingPlanner", None).await;
        // Other accounts don't count.
        for vm in 50..=52 {
            site.vm_of(vm, 3, None).await;
            site.start(vm, Some(0)).await.unwrap();
        }
        for vm in 1..=6 {
            site.vm_of(vm, 2, Some(dispersing)).await;
        }
        for started in many(&site, 1..=6).await {
            started.unwrap();
        }
        let sql = "SELECT COUNT(*) FROM vms WHERE id <= 6 AND cluster_id = (SELECT MIN(id) FROM clusters)";
        assert_eq!(site.cloud.count(sql).await, 3, "six at the same moment: three in each cluster");
        // Hosts of a cluster, too, when that is asked for.
        site.set("vm.allocation.algorithm", "userdispersing").await;
        for vm in 7..=8 {
            site.vm_of(vm, 4, Some(dispersing)).await;
            site.vm_of(vm + 2, 4, Some(dispersing)).await;
        }
        for started in many(&site, 7..=10).await {
            started.unwrap();
        }
        let sql = "SELECT COUNT(DISTINCT host_id) FROM vms WHERE account_id = 4";
        assert_eq!(site.cloud.count(sql).await, 4);
        site.books_are_right().await;
        site.end().await;
    }

    async fn an_account_is_kept_in_one_pod(db: testkit::TestDb) {
        let mut site = Site::open(&db, 2).await;
        site.another_cluster(true, 2, LARGE).await;
        site.ready().await;
        let concentrated = site.offering_of("UserConcentratedPodPlanner", None).await;
        for vm in 1..=6 {
            site.vm_of(vm, 2, Some(concentrated)).await;
        }
        for started in many(&site, 1..=6).await {
            started.unwrap();
        }
        assert_eq!(site.spread("pod_id").await, [6], "six at the same moment: one pod");
        site.books_are_right().await;
        site.end().await;
    }

    // covers: INST-202, INST-203
    async fn clusters_are_left_alone_beyond_their_threshold(db: testkit::TestDb) {
        let cloud = Cloud::start(&db).await;
        let network = fakes::serve(&cloud.node, &cloud.net, &Plugged::default());
        let mut site = Site::on(cloud, network, 1, SMALL).await;
        site.another_cluster(false, 1, SMALL).await;
        site.ready().await;
        for vm in 1..=6 {
            site.vm(vm, false).await;
        }
        // Room for three each; 85 % of that are two.
        for vm in 1..=4 {
            site.start(vm, None).await.unwrap();
        }
        assert_eq!(site.spread("cluster_id").await, [2, 2]);
        let text = site.start(5, None).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("533") && text.contains("2 in a cluster that would pass its disable threshold"), "{text}");
        assert_eq!(site.standing(5).await.0, "Stopped");
        // By memory, too, and for one cluster.
        let tight = UpdateConfigurationRequest {
            name: Some("cluster.memory.allocated.capacity.disablethreshold".into()),
            value: Some("0.0001".into()),
            cluster_id: Some(site.place.cluster.id().into()),
            ..Default::default()
        };
        let set = ok(site.cloud.configurations().update(request(&root(), tight)).await).unwrap();
        assert!(set.description().contains("the first should be lower"), "{}", set.description());
        site.set("cluster.cpu.allocated.capacity.disablethreshold", "1").await;
        site.vm(7, false).await;
        site.start(7, None).await.unwrap();
        assert_eq!(site.spread("cluster_id").await, [2, 3]);
        let text = site.start(5, None).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("1 short of CPU") && text.contains("1 in a cluster that would pass"), "{text}");
        site.stop_vm(7).await;
        site.set("cluster.cpu.allocated.capacity.disablethreshold", "0.85").await;
        // An administrator gets past it by planner, and it can be switched off.
        site.start_by(5, "SkipHeuristicsPlanner").await.unwrap();
        site.set("cluster.threshold.enabled", "false").await;
        site.start(6, None).await.unwrap();
        assert_eq!(site.spread("cluster_id").await, [3, 3]);
        site.books_are_right().await;
        site.end().await;
    }

    // covers: IAM-070, IAM-071, IAM-072
    async fn strict_dedication_shares_no_host(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.ready().await;
        let strict = site.offering_of("ImplicitDedicationPlanner", STRICT).await;
        let preferred = site.offering_of("ImplicitDedicationPlanner", Some("Preferred")).await;
        // An ordinary VM is on host 2.
        site.vm_of(1, 2, None).await;
        site.start(1, Some(2)).await.unwrap();
        // Eight of two accounts at the same moment: each has a host of its own.
        for vm in 10..=17 {
            site.vm_of(vm, 3 + vm % 2, Some(strict)).await;
        }
        for started in many(&site, 10..=17).await {
            started.unwrap();
        }
        site.nobody_shares(strict).await;
        let shared = site.host(2).await;
        assert_eq!(site.cloud.count(&format!("SELECT COUNT(*) FROM vms WHERE host_id = {shared}")).await, 1);
        assert_eq!(site.spread("host_id").await, [1, 4, 4]);
        // A third account has none, though there is room.
        site.vm_of(20, 5, Some(strict)).await;
        let text = site.start(20, None).await.unwrap_err().full_text().to_owned();
        assert!(text.contains("533") && text.contains("2 kept for one account by strict implicit dedication"), "{text}");
        assert!(text.contains("1 not this account's alone"), "{text}");
        // Preferred: on the shared one. Ordinary ones go there, too, whosever they are.
        site.vm_of(21, 5, Some(preferred)).await;
        site.vm_of(22, 3, None).await;
        for started in many(&site, 21..=22).await {
            started.unwrap();
        }
        for vm in [21, 22] {
            assert_eq!(site.standing(vm).await.1, Some(shared));
        }
        // Routers are put elsewhere while they can be.
        let zone_id = site.cloud.number("zones", site.place.zone.id()).await;
        let r = PickHostRequest { zone_id, ..PickHostRequest::default() };
        let picked = ok(site.cloud.placement().pick_host(request(&rpc::cx::system_caller(), r)).await).unwrap();
        assert_eq!(picked.host_id, shared);
        // The host stays with the account for a while after its last VM stopped.
        for vm in [10, 12, 14, 16] {
            site.stop_vm(vm).await;
        }
        assert!(site.start(20, None).await.unwrap_err().full_text().contains("533"));
        site.set("capacity.skipcounting.hours", "0").await;
        site.start(20, None).await.unwrap();
        site.nobody_shares(strict).await;
        // Whoever had it finds no other now.
        assert!(site.start(10, None).await.unwrap_err().full_text().contains("533"));
        site.books_are_right().await;
        site.end().await;
    }

    // covers: IAM-079
    async fn a_host_with_a_router_is_nobodys_alone(db: testkit::TestDb) {
        let site = Site::open(&db, 1).await;
        site.ready().await;
        let zone = site.cloud.number("zones", site.place.zone.id()).await;
        let n = |n: i64| store::Value::from(n);
        let row = [
            ("id", n(1)), ("uuid", "router-1".into()), ("name", "r-1-VM".into()), ("name_lower", "r-1-vm".into()), ("network_id", n(1)),
            ("zone_id", n(zone)), ("host_id", n(site.host(0).await)), ("state", "Running".into()), ("role", "VIRTUAL_ROUTER".into()),
            ("generation", n(1)), ("spec_generation", n(1)), ("applied", n(1)), ("epoch", n(1)), ("touched", n(0)), ("account_id", n(1)),
            ("domain_id", n(1)), ("domain_path", "/1/".into()), ("created", n(0)),
        ];
        site.cloud.insert("routers", &row).await;
        let strict = site.offering_of("ImplicitDedicationPlanner", STRICT).await;
        let preferred = site.offering_of("ImplicitDedicationPlanner", Some("Preferred")).await;
        site.vm_of(1, 3, Some(strict)).await;
        assert!(site.start(1, None).await.unwrap_err().full_text().contains("533"));
        site.vm_of(2, 3, Some(preferred)).await;
        site.start(2, None).await.unwrap();
        site.end().await;
    }

    // covers: VM-189
    async fn hosts_of_a_cluster_are_chosen_by_the_algorithm(db: testkit::TestDb) {
        let site = Site::open(&db, 3).await;
        site.ready().await;
        let mut vm = 0;
        for (algorithm, planner, spread) in [
            ("firstfit", "FirstFitPlanner", Some(vec![6])),
            ("userconcentratedpod_firstfit", "UserConcentratedPodPlanner", Some(vec![6])),
            ("userdispersing", "UserDispersingPlanner", Some(vec![2, 2, 2])),
            ("firstfitleastconsumed", "FirstFitPlanner", Some(vec![2, 2, 2])),
            ("random", "FirstFitPlanner", None),
            ("userconcentratedpod_random", "UserConcentratedPodPlanner", None),
        ] {
            site.set("vm.allocation.algorithm", algorithm).await;
            site.set("vm.deployment.planner", planner).await;
            let first = vm + 1;
            // One after the other; none of them ever ran before.
            for _ in 0..6 {
                vm += 1;
                site.vm(vm, false).await;
                site.start(vm, None).await.unwrap();
            }
            let found = site.spread("host_id").await;
            if let Some(spread) = spread {
                assert_eq!(found, spread, "{algorithm}");
            }
            assert_eq!(found.iter().sum::<i64>(), 6, "{algorithm}");
            for vm in first..=vm {
                site.stop_vm(vm).await;
            }
        }
        site.books_are_right().await;
        site.end().await;
    }

    async fn hosts_with_an_implicit_tag_are_spared(db: testkit::TestDb) {
        let site = Site::open(&db, 2).await;
        site.ready().await;
        let r = UpdateHostRequest { id: Some(site.hosts[0].clone()), host_tags: vec!["GPU".into()], ..Default::default() };
        ok(site.cloud.hosts().update(request(&root(), r)).await).unwrap();
        site.set("vm.allocation.algorithm", "firstfit").await;
        // News of the tag may be on its way: it is known at last.
        let mut vm = 0;
        let mut spared = false;
        while !spared && vm < 200 {
            vm += 1;
            site.vm(vm, false).await;
            site.start(vm, None).await.unwrap();
            spared = site.standing(vm).await.1 == Some(site.host(1).await);
        }
        assert!(spared);
        site.end().await;
    }
}
