//! Offerings, pools, image stores and templates through their gRPC services.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, POD, World, ZONE, admin, error, user, uuid};
use contract_storage::disk_offerings_client::DiskOfferingsClient;
use contract_storage::image_stores_client::ImageStoresClient;
use contract_storage::storage_metrics_client::StorageMetricsClient;
use contract_storage::storage_pools_client::StoragePoolsClient;
use contract_storage::templates_client::TemplatesClient;
use contract_storage::*;
use rpc::cx::request;

testkit::databases! {
    // covers: VM-043, VM-044, VM-051
    async fn disk_offerings_live_and_die(db: testkit::TestDb) {
        let w = World::new(db).await;
        let mut api = DiskOfferingsClient::new(w.node.peers.storage());
        let seeded = api.list(request(&user(), ListDiskOfferingsRequest::default())).await.unwrap().into_inner();
        let names: Vec<_> = seeded.disk_offering.iter().map(|o| o.name.clone().unwrap()).collect();
        assert_eq!((seeded.count, names.join(",").as_str()), (Some(4), "Small,Medium,Large,Custom"));
        assert_eq!(seeded.disk_offering[0].disk_size, Some(5));
        assert_eq!(seeded.disk_offering[3].is_customized, Some(true));

        let new = CreateDiskOfferingRequest {
            name: Some("g2dbe8".into()),
            display_text: Some("d".into()),
            disk_size: Some(1),
            tags: Some("ssd".into()),
            domain_id: Some(uuid("domain", 5)),
            ..Default::default()
        };
        let made = api.create(request(&admin(), new)).await.unwrap().into_inner();
        assert_eq!((made.disk_size, made.storage_type.as_deref(), made.provisioning_type.as_deref()), (Some(1), Some("shared"), Some("thin")));
        assert_eq!((made.is_customized, made.display_offering, made.is_customized_iops), (Some(false), Some(true), None));
        assert_eq!(made.domain.as_deref(), Some("sub"));
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE kind = 'DISK.OFFERING.CREATE'").await, 1);

        // Seen in its domain and below, not above or beside.
        let mine = api.list(request(&user(), ListDiskOfferingsRequest::default())).await.unwrap().into_inner();
        assert_eq!(mine.count, Some(5));
        let root_user = contract::api::Caller { domain_id: 1, domain_path: "/1/".into(), ..user() };
        let theirs = api.list(request(&root_user, ListDiskOfferingsRequest::default())).await.unwrap().into_inner();
        assert_eq!(theirs.count, Some(4));
        let paged = ListDiskOfferingsRequest { page: Some(2), page_size: Some(2), ..Default::default() };
        let paged = api.list(request(&user(), paged)).await.unwrap().into_inner();
        assert_eq!((paged.count, paged.disk_offering.len()), (Some(5), 2));

        let change = UpdateDiskOfferingRequest { id: made.id.clone(), name: Some("renamed".into()), ..Default::default() };
        let changed = api.update(request(&admin(), change)).await.unwrap().into_inner();
        assert_eq!((changed.name.as_deref(), changed.display_text.as_deref()), (Some("renamed"), Some("d")));
        let once = contract::api::Caller { idempotency_key: Some("k1".into()), ..admin() };
        for _ in 0..2 {
            let gone = api.delete(request(&once, DeleteDiskOfferingRequest { id: made.id.clone() })).await.unwrap();
            assert!(gone.into_inner().success);
        }
        let e = error(api.delete(request(&admin(), DeleteDiskOfferingRequest { id: made.id.clone() })).await.unwrap_err());
        assert_eq!(e.code, 431);
        let left = api.list(request(&admin(), ListDiskOfferingsRequest { name: Some("renamed".into()), ..Default::default() })).await;
        assert_eq!(left.unwrap().into_inner().count, Some(0));
        let bad = CreateDiskOfferingRequest { name: Some("x".into()), display_text: Some("x".into()), ..Default::default() };
        assert_eq!(error(api.create(request(&admin(), bad)).await.unwrap_err()).code, 431);
    }

    async fn storage_pools_as_the_simulator_set_up_makes_them(db: testkit::TestDb) {
        let w = World::new(db).await;
        let mut api = StoragePoolsClient::new(w.node.peers.storage());
        let new = |name: &str, cluster: i64| CreateStoragePoolRequest {
            name: Some(name.into()),
            zone_id: Some(ZONE.into()),
            pod_id: Some(POD.into()),
            cluster_id: Some(uuid("cluster", cluster)),
            url: Some(format!("nfs://10.147.28.6:/export/home/sandbox/{name}")),
            ..Default::default()
        };
        for (name, cluster) in [("PS0", 1), ("PS1", 1), ("PS2", 2), ("PS3", 2)] {
            api.create(request(&admin(), new(name, cluster))).await.unwrap();
        }
        let all = api.list(request(&admin(), ListStoragePoolsRequest::default())).await.unwrap().into_inner();
        assert_eq!(all.count, Some(4));
        let first = &all.storage_pool[0];
        assert_eq!((first.ip_address.as_deref(), first.path.as_deref()), (Some("10.147.28.6"), Some("/export/home/sandbox/PS0")));
        assert_eq!((first.disk_size_total, first.disk_size_allocated, first.disk_size_used), (Some(1 << 40), Some(0), Some(0)));
        assert_eq!((first.r#type.as_deref(), first.state.as_deref(), first.scope.as_deref()), (Some("NetworkFilesystem"), Some("Up"), Some("CLUSTER")));
        assert_eq!((first.overprovision_factor.as_deref(), first.hypervisor.as_deref()), (Some("2.0"), Some("Simulator")));
        assert_eq!((first.zone_name.as_deref(), first.pod_name.as_deref(), first.cluster_name.as_deref()), (Some("Z"), Some("POD0"), Some("C1")));
        assert_eq!((first.provider.as_deref(), first.tags.as_deref()), (Some("DefaultPrimary"), None));
        assert_eq!(first.storage_capabilities.get("VOLUME_SNAPSHOT_QUIESCEVM").map(String::as_str), Some("false"));

        let e = error(api.create(request(&admin(), new("PS0", 2))).await.unwrap_err());
        assert_eq!((e.code, e.text.contains("PS0")), (530, true), "{}", e.text);
        let e = error(api.create(request(&admin(), CreateStoragePoolRequest { url: Some("ftp://x/y".into()), ..new("x", 1) })).await.unwrap_err());
        assert_eq!(e.code, 431);
        let zone_wide = CreateStoragePoolRequest {
            cluster_id: None, pod_id: None, scope: Some("zone".into()), hypervisor: Some("Simulator".into()), ..new("zw", 1)
        };
        let wide = api.create(request(&admin(), zone_wide)).await.unwrap().into_inner();
        assert_eq!((wide.scope.as_deref(), wide.cluster_id), (Some("ZONE"), None));
        let in_c1 = ListStoragePoolsRequest { cluster_id: Some(uuid("cluster", 1)), ..Default::default() };
        assert_eq!(api.list(request(&admin(), in_c1)).await.unwrap().into_inner().count, Some(2));
        let word = ListStoragePoolsRequest { keyword: Some("ps3".into()), ..Default::default() };
        assert_eq!(api.list(request(&admin(), word)).await.unwrap().into_inner().count, Some(1));

        let id = first.id.clone();
        let off = UpdateStoragePoolRequest { id: id.clone(), enabled: Some(false), tags: vec!["ssd".into(), "blue".into()], ..Default::default() };
        let off = api.update(request(&admin(), off)).await.unwrap().into_inner();
        assert_eq!((off.state.as_deref(), off.tags.as_deref()), (Some("Disabled"), Some("ssd,blue")));
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE kind = 'DISABLE.PS'").await, 1);
        let on = UpdateStoragePoolRequest { id: id.clone(), enabled: Some(true), ..Default::default() };
        assert_eq!(api.update(request(&admin(), on)).await.unwrap().into_inner().state.as_deref(), Some("Up"));

        // A pool that a volume has a promise of stays, whatever is forced.
        common::exec(w.db(), "UPDATE storage_pools SET allocated_bytes = 5 WHERE name = 'PS0'").await;
        let delete = DeleteStoragePoolRequest { id: id.clone(), forced: Some(true) };
        let e = error(api.delete(request(&admin(), delete.clone())).await.unwrap_err());
        assert!(e.text.starts_with("Cannot delete pool PS0"), "{}", e.text);
        common::exec(w.db(), "UPDATE storage_pools SET allocated_bytes = 1759218604442, used_bytes = 0 WHERE name = 'PS0'").await;
        let figures = ListStoragePoolsMetricsRequest { id: id.clone(), ..Default::default() };
        let mut metrics = StorageMetricsClient::new(w.node.peers.storage());
        let figures = metrics.pools(request(&admin(), figures)).await.unwrap().into_inner();
        let pool = &figures.storage_pool[0];
        assert_eq!((figures.count(), pool.name(), pool.disk_size_total_gb()), (1, "PS0", "1024.00 GB (x2.0)"));
        assert_eq!((pool.disk_size_allocated_gb(), pool.disk_size_unallocated_gb()), ("1638.40 GB", "409.60 GB"));
        assert_eq!((pool.storage_allocated_threshold, pool.storage_allocated_disable_threshold), (Some(true), Some(false)));
        assert_eq!((pool.storage_usage_threshold, pool.storage_usage_disable_threshold), (Some(false), Some(false)));
        common::exec(w.db(), "UPDATE storage_pools SET allocated_bytes = 0 WHERE name = 'PS0'").await;
        assert!(api.delete(request(&admin(), delete)).await.unwrap().into_inner().success);
        assert_eq!(api.list(request(&admin(), ListStoragePoolsRequest::default())).await.unwrap().into_inner().count, Some(4));
        // Its place is free again.
        api.create(request(&admin(), new("PS0", 2))).await.unwrap();

        for host in 1..=4 {
            w.hosts.away(host, true);
        }
        let e = error(api.create(request(&admin(), new("far", 1))).await.unwrap_err());
        assert_eq!(e.code, 530);
        assert!(e.text.starts_with("no host can reach"), "{}", e.text);
    }

    // covers: TPL-002
    async fn the_built_in_template_is_ready_with_an_image_store(db: testkit::TestDb) {
        let w = World::new(db).await;
        let mut api = TemplatesClient::new(w.node.peers.storage());
        let ask = |filter: &str| ListTemplatesRequest { template_filter: Some(filter.into()), ..Default::default() };
        let e = error(api.list(request(&admin(), ListTemplatesRequest::default())).await.unwrap_err());
        assert_eq!(e.text, "Unable to execute API command listtemplates due to missing parameter templatefilter");
        assert_eq!(api.list(request(&admin(), ask("featured"))).await.unwrap().into_inner().count, Some(0));

        let store = w.image_store().await;
        let featured = ListTemplatesRequest { zone_id: Some(ZONE.into()), ..ask("featured") };
        let found = api.list(request(&user(), featured)).await.unwrap().into_inner();
        assert_eq!(found.count, Some(1));
        let t = &found.template[0];
        assert_eq!(t.name.as_deref(), Some("CentOS 5.6 (64-bit) no GUI (Simulator)"));
        assert_eq!((t.is_ready, t.is_featured, t.is_public, t.cross_zones), (Some(true), Some(true), Some(true), Some(true)));
        assert_eq!((t.format.as_deref(), t.hypervisor.as_deref(), t.template_type.as_deref()), (Some("VHD"), Some("Simulator"), Some("BUILTIN")));
        assert_eq!((t.size, t.os_type_name.as_deref(), t.account.as_deref()), (Some(2 * GIB), Some("CentOS 5.6 (64-bit)"), Some("system")));
        assert_eq!((t.zone_name.as_deref(), t.status.as_deref()), (Some("Z"), None), "only its owner and administrators see the status");
        let id = t.id.clone();

        let counting = api.clone();
        let count = |caller: contract::api::Caller, filter: &'static str| {
            let mut api = counting.clone();
            let ask = ask(filter);
            async move { api.list(request(&caller, ask)).await.unwrap().into_inner().count.unwrap() }
        };
        let mine = [count(user(), "self").await, count(user(), "selfexecutable").await, count(user(), "sharedexecutable").await];
        assert_eq!(mine, [0, 0, 0]);
        assert_eq!([count(user(), "executable").await, count(user(), "community").await], [1, 0]);
        assert_eq!(count(admin(), "all").await, 1);
        let e = error(api.list(request(&user(), ask("all"))).await.unwrap_err());
        assert_eq!((e.code, e.text.as_str()), (431, "Filter all can be specified by admin only"));
        assert_eq!(error(api.list(request(&user(), ask("nice"))).await.unwrap_err()).code, 431);
        // With an id the filter doesn't matter.
        let by_id = ListTemplatesRequest { id: id.clone(), ..ask("self") };
        let by_id = api.list(request(&admin(), by_id)).await.unwrap().into_inner();
        assert_eq!((by_id.count, by_id.template[0].status.as_deref()), (Some(1), Some("Download Complete")));
        let isos = api.list_isos(request(&user(), ListIsosRequest { iso_filter: Some("executable".into()), ..Default::default() }));
        assert_eq!(isos.await.unwrap().into_inner().count, Some(0));

        let mut stores = ImageStoresClient::new(w.node.peers.storage());
        let listed = stores.list(request(&admin(), ListImageStoresRequest::default())).await.unwrap().into_inner();
        let s = &listed.image_store[0];
        assert_eq!((listed.count, s.protocol.as_deref(), s.provider_name.as_deref(), s.scope.as_deref()), (Some(1), Some("nfs"), Some("NFS"), Some("ZONE")));
        assert_eq!((s.zone_name.as_deref(), s.url.as_deref()), (Some("Z"), Some("nfs://10.147.28.6:/export/home/sandbox/secondary")));
        let again = AddImageStoreRequest { url: s.url.clone(), zone_id: Some(ZONE.into()), provider: Some("NFS".into()), ..Default::default() };
        assert_eq!(error(stores.add(request(&admin(), again.clone())).await.unwrap_err()).code, 431);
        let s3 = AddImageStoreRequest { provider: Some("S3".into()), ..again.clone() };
        assert_eq!(error(stores.add(request(&admin(), s3)).await.unwrap_err()).code, 431);
        let gone = stores.delete(request(&admin(), DeleteImageStoreRequest { id: Some(store) })).await.unwrap();
        assert!(gone.into_inner().success);
        assert_eq!(count(user(), "featured").await, 0);
        stores.add(request(&admin(), again)).await.unwrap();
        assert_eq!(count(user(), "featured").await, 1);
        // A zone without simulated clusters has no use for it (TPL-011).
        common::exec(w.db(), "UPDATE clusters SET hypervisor = 'KVM'").await;
        assert_eq!(count(user(), "featured").await, 0);
    }

    async fn seeding_twice_and_after_a_deletion_adds_nothing(db: testkit::TestDb) {
        let w = World::new(db).await;
        let mut api = DiskOfferingsClient::new(w.node.peers.storage());
        let all = api.list(request(&admin(), ListDiskOfferingsRequest::default())).await.unwrap().into_inner();
        api.delete(request(&admin(), DeleteDiskOfferingRequest { id: all.disk_offering[0].id.clone() })).await.unwrap();
        let _routes = arcus_storage::start(w.node.clone()).await.unwrap();
        assert_eq!(w.count("SELECT COUNT(*) FROM disk_offerings").await, 4);
        assert_eq!(w.count("SELECT COUNT(*) FROM templates").await, 1);
        assert_eq!(api.list(request(&admin(), ListDiskOfferingsRequest::default())).await.unwrap().into_inner().count, Some(3));
    }
}
