//! Templates and ISOs that users register: they come in, are shared, copied and deleted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, SECOND_ZONE, Say, World, ZONE, admin, error, user, uuid};
use contract::ApiError;
use contract::api::{Caller, JobRef, RoleType, Success};
use contract_storage::disks_client::DisksClient;
use contract_storage::image_stores_client::ImageStoresClient;
use contract_storage::templates_client::TemplatesClient;
use contract_storage::*;
use rpc::PeerChannel;
use rpc::cx::request;

const URL: &str = "http://images.example/a.qcow2";

fn api(w: &World) -> TemplatesClient<PeerChannel> {
    TemplatesClient::new(w.node.peers.storage())
}

fn bob() -> Caller {
    Caller { user_id: 4, account_id: 4, account_name: "bob".into(), ..user() }
}

fn order(name: &str) -> RegisterTemplateRequest {
    RegisterTemplateRequest {
        name: Some(name.into()),
        display_text: Some("text".into()),
        format: Some("QCOW2".into()),
        hypervisor: Some("Simulator".into()),
        os_type_id: Some(uuid("os", 142)),
        url: Some(URL.into()),
        zone_id: Some(ZONE.into()),
        ..Default::default()
    }
}

async fn register(w: &World, caller: &Caller, order: RegisterTemplateRequest) -> Result<Template, ApiError> {
    let mut made = api(w).register(request(caller, order)).await.map_err(error)?.into_inner();
    Ok(made.template.remove(0))
}

async fn find(w: &World, id: &Option<String>, zone: &str) -> Option<Template> {
    let ask = ListTemplatesRequest {
        template_filter: Some("all".into()),
        id: id.clone(),
        zone_id: Some(zone.into()),
        ..Default::default()
    };
    api(w).list(request(&admin(), ask)).await.unwrap().into_inner().template.pop()
}

/// Waits until a template's status in the zone is as told.
async fn until(w: &World, id: &Option<String>, wanted: &str) -> Template {
    testkit::eventually(|| async {
        find(w, id, ZONE).await.filter(|t| t.status.as_deref().is_some_and(|s| s.starts_with(wanted)))
    })
    .await
}

async fn listed(w: &World, caller: &Caller, filter: &str) -> Vec<String> {
    let ask = ListTemplatesRequest { template_filter: Some(filter.into()), ..Default::default() };
    let found = api(w).list(request(caller, ask)).await.unwrap().into_inner().template;
    found.into_iter().filter_map(|t| t.name).filter(|n| !n.starts_with("CentOS")).collect()
}

async fn ended<M: prost::Message + Default>(w: &World, job: tonic::Response<JobRef>) -> Result<M, ApiError> {
    w.output(&job.into_inner().job_id).await
}

async fn delete(w: &World, order: DeleteTemplateRequest) -> Result<Success, ApiError> {
    let job = api(w).delete(request(&admin(), order)).await.map_err(error)?;
    ended(w, job).await
}

async fn add_store(w: &World, url: &str, zone: &str) -> String {
    let order = AddSecondaryStorageRequest { url: Some(url.into()), zone_id: Some(zone.into()) };
    let mut stores = ImageStoresClient::new(w.node.peers.storage());
    stores.add_secondary_storage(request(&admin(), order)).await.unwrap().into_inner().id.unwrap()
}

testkit::databases! {
    // covers: TPL-018
    async fn a_template_comes_in_and_is_its_owners(db: testkit::TestDb) {
        let w = World::new(db).await;
        let store = w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        w.hosts.plan(URL, &[Say::Bytes(10, 1000), Say::Bytes(500, 1000)]);
        let made = register(&w, &user(), RegisterTemplateRequest {
            is_featured: Some(true),
            password_enabled: Some(true),
            bits: Some(32),
            requires_hvm: Some(false),
            details: [("rootDiskController".to_owned(), "virtio".to_owned())].into(),
            ..order("mine")
        }).await.unwrap();
        assert_eq!((made.is_ready, made.is_public, made.is_featured, made.is_extractable), (Some(false), Some(false), Some(false), Some(false)));
        assert_eq!((made.password_enabled, made.bits, made.template_type.as_deref()), (Some(true), Some(32), Some("USER")));
        assert_eq!((made.size, made.account.as_deref(), made.zone_name.as_deref()), (None, Some("ann"), Some("Z")));
        assert_eq!(made.details.get("rootDiskController").map(String::as_str), Some("virtio"));
        until(&w, &made.id, "50% Downloaded").await;
        assert_eq!(w.limits.held(&format!("template:{}", made.id.clone().unwrap()), 11), Some(1000), "counted before it is there");

        // Not before it is there: neither deployed nor deleted.
        let number = w.count("SELECT id FROM templates WHERE name = 'mine'").await;
        let deploy = AllocateDisksRequest {
            vm_id: 7, vm_uuid: uuid("vm", 7), account_id: 3, domain_id: 5, domain_path: "/1/5/".into(), zone_id: 1,
            template_id: number, root: Some(NewDisk { uuid: uuid("root", 7), ..NewDisk::default() }), host_id: Some(1),
            cluster_id: Some(1), hypervisor: "Simulator".into(), ..AllocateDisksRequest::default()
        };
        common::job(w.db(), 900, "Running").await;
        let key = jobs::StepKey::new(900, "disks", 1, false);
        let mut disks = DisksClient::new(w.node.peers.storage());
        let e = error(disks.allocate(common::keyed(&key, deploy.clone())).await.unwrap_err());
        assert_eq!((e.code, e.text.as_str()), (431, "template mine is not ready in this zone"));
        let e = delete(&w, DeleteTemplateRequest { id: made.id.clone(), ..Default::default() }).await.unwrap_err();
        assert_eq!((e.code, e.text.as_str()), (431, "Please specify a template that is not currently being downloaded."));

        w.hosts.plan(URL, &[Say::Installing, Say::Installing, Say::Installing, Say::Installing, Say::Ready(900, 3 << 30, "{SHA-256}ab")]);
        let ready = until(&w, &made.id, "Download Complete").await;
        assert_eq!((ready.is_ready, ready.size, ready.physical_size), (Some(true), Some(3 * GIB), Some(900)));
        assert_eq!(ready.checksum.as_deref(), Some("{SHA-256}ab"));
        assert_eq!(w.limits.held(&format!("template:{}", made.id.clone().unwrap()), 4), Some(1));
        assert_eq!(w.limits.held(&format!("template:{}", made.id.clone().unwrap()), 11), Some(900));
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'TEMPLATE.CREATE'").await, 1);
        for kind in ["TEMPLATE.CREATE", "TEMPLATE.DOWNLOAD.START", "TEMPLATE.DOWNLOAD.SUCCESS"] {
            let sql = format!("SELECT COUNT(*) FROM outbox WHERE topic = 'event' AND kind = '{kind}'");
            assert_eq!(w.count(&sql).await, 1, "{kind}");
        }
        // Always the same host, and only hosts of the zone.
        let asked: std::collections::HashSet<i64> = w.hosts.who("FetchImage").into_iter().collect();
        assert_eq!(asked.len(), 1);
        let (path, image) = w.hosts.images(Some(&store)).pop().unwrap();
        assert_eq!((image.url.as_str(), image.order.format.as_str(), image.order.max_bytes), (URL, "qcow2", 50 << 30));
        assert!(path.starts_with(&format!("template/tmpl/3/{number}/")) && path.ends_with(".qcow2"), "{path}");

        let made_disks = disks.allocate(common::keyed(&key, deploy)).await.unwrap().into_inner();
        let root = &w.hosts.disks_of(&made_disks.disks[0].uuid)[0];
        assert_eq!((root.size, root.from.clone()), (3 << 30, Some((store.clone(), path))));

        // Its owner's alone.
        assert_eq!(listed(&w, &user(), "self").await, ["mine"]);
        assert_eq!(listed(&w, &user(), "selfexecutable").await, ["mine"]);
        for filter in ["featured", "community", "executable", "sharedexecutable", "self"] {
            assert_eq!(listed(&w, &bob(), filter).await, [] as [&str; 0], "{filter}");
        }
        let by_id = ListTemplatesRequest { template_filter: Some("executable".into()), id: made.id.clone(), ..Default::default() };
        assert_eq!(error(api(&w).list(request(&bob(), by_id)).await.unwrap_err()).code, 531);
    }

    async fn what_can_not_be_downloaded_says_why(db: testkit::TestDb) {
        let w = World::new(db).await;
        let store = w.image_store().await;
        for (name, says, why) in [
            ("refused", &[Say::Bytes(1, 2), Say::Refuse("the checksum is another")][..], "the checksum is another"),
            ("broken", &[Say::Broke], "the line broke too often"),
            ("empty", &[Say::Ready(0, 0, "")], "host "),
        ] {
            let url = format!("http://images.example/{name}.qcow2");
            w.hosts.plan(&url, says);
            let t = register(&w, &user(), RegisterTemplateRequest { url: Some(url), ..order(name) }).await.unwrap();
            let failed = until(&w, &t.id, why).await;
            assert_eq!((failed.is_ready, failed.size), (Some(false), None));
            let key = format!("template:{}", t.id.clone().unwrap());
            testkit::eventually(|| async { (w.limits.held(&key, 11) == Some(0)).then_some(()) }).await;
            // What failed can be deleted, and is forgotten whole.
            delete(&w, DeleteTemplateRequest { id: t.id.clone(), ..Default::default() }).await.unwrap();
            testkit::eventually(|| async { w.limits.held(&key, 4).is_none().then_some(()) }).await;
        }
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'event' AND kind = 'TEMPLATE.DOWNLOAD.FAILED'").await, 3);
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'TEMPLATE.CREATE'").await, 0);

        // Over the limit of secondary storage, as soon as the length is known: it stops, and leaves nothing.
        w.limits.most_secondary(1 << 20);
        w.hosts.plan(URL, &[Say::Bytes(1, 2 << 20)]);
        let t = register(&w, &user(), order("large")).await.unwrap();
        until(&w, &t.id, "Maximum number of resources of type 'secondary_storage'").await;
        common::due(&w).await;
        testkit::eventually(|| async { w.hosts.images(Some(&store)).is_empty().then_some(()) }).await;
    }

    // covers: TPL-051
    async fn a_lost_host_and_a_lost_replica_change_nothing(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        w.hosts.plan(URL, &[Say::Bytes(100, 1000)]);
        let t = register(&w, &user(), order("t")).await.unwrap();
        until(&w, &t.id, "10% Downloaded").await;
        let first = *w.hosts.who("FetchImage").last().unwrap();
        w.hosts.away(first, true);
        common::exec(w.db(), &format!("UPDATE hosts SET status = 'Disconnected' WHERE id = {first}")).await;
        testkit::eventually(|| async { w.hosts.who("FetchImage").last().filter(|h| **h != first).map(drop) }).await;
        // Another replica takes the duty over: the same copy goes on, at the same place.
        let (node, _) = node::Node::for_tests(w.db().clone()).await;
        assert_eq!(w.hosts.images(None).len(), 1);
        w.node.coord.depose("storage/images").await.unwrap();
        drop(node);
        w.hosts.plan(URL, &[Say::Ready(1000, 1 << 30, "")]);
        until(&w, &t.id, "Download Complete").await;
        assert_eq!(w.hosts.images(None).len(), 1);
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'TEMPLATE.CREATE'").await, 1);
    }

    // covers: TPL-037, TPL-039
    async fn bad_input_changes_nothing(db: testkit::TestDb) {
        let w = World::new(db).await;
        let e = register(&w, &user(), order("no store")).await.unwrap_err();
        assert_eq!(e.code, 530);
        assert!(e.text.contains("has no secondary storage"), "{}", e.text);
        w.image_store().await;
        let with = |change: &dyn Fn(&mut RegisterTemplateRequest)| {
            let mut order = order("bad");
            change(&mut order);
            order
        };
        let set = |s: &str| Some(s.to_owned());
        let mut bad: Vec<(u16, RegisterTemplateRequest)> = Vec::new();
        bad.push((431, with(&|o| o.hypervisor = set("Foo"))));
        bad.push((431, with(&|o| o.format = set("FLOPPY"))));
        bad.push((431, with(&|o| o.format = set("ISO"))));
        bad.push((431, with(&|o| { o.hypervisor = set("KVM"); o.format = set("OVA"); })));
        bad.push((431, with(&|o| o.url = set("http://images.example/a.vhd"))));
        bad.push((431, with(&|o| o.url = set("http://10.1.1.1/a.qcow2"))));
        bad.push((431, with(&|o| o.url = set("http://images.example:81/a.qcow2"))));
        bad.push((431, with(&|o| o.url = set("file:///a.qcow2"))));
        bad.push((431, with(&|o| o.checksum = set("abc"))));
        bad.push((431, with(&|o| o.bits = Some(16))));
        bad.push((431, with(&|o| o.zone_id = None)));
        bad.push((431, with(&|o| o.zone_id = set("-1"))));
        bad.push((431, with(&|o| o.zone_ids = vec![ZONE.into()])));
        bad.push((431, with(&|o| o.os_type_id = set(&uuid("os", 1)))));
        bad.push((431, with(&|o| o.display_text = None)));
        bad.push((431, with(&|o| o.name = None)));
        bad.push((431, with(&|o| o.os_type_id = None)));
        bad.push((431, with(&|o| o.direct_download = Some(true))));
        bad.push((431, with(&|o| o.is_routing = Some(true))));
        bad.push((531, with(&|o| o.template_tag = set("ssd"))));
        bad.push((531, with(&|o| o.account = set("bob"))));
        for (code, order) in bad {
            let e = register(&w, &user(), order.clone()).await.unwrap_err();
            assert_eq!(e.code, code, "{} {:?}", e.text, order.name);
        }
        let iso = RegisterIsoRequest {
            name: set("i"), display_text: set("i"), url: set("http://images.example/a.iso"), zone_id: set(ZONE), ..Default::default()
        };
        for bad in [
            iso.clone(), // bootable, and of no OS
            RegisterIsoRequest { url: set("http://images.example/a.img"), os_type_id: set(&uuid("os", 142)), ..iso.clone() },
            RegisterIsoRequest { image_store_uuid: set("x"), os_type_id: set(&uuid("os", 142)), ..iso.clone() },
        ] {
            assert_eq!(error(api(&w).register_iso(request(&user(), bad)).await.unwrap_err()).code, 431);
        }
        assert_eq!(w.count("SELECT COUNT(*) FROM templates").await, 1, "only what ships with the system");
        assert_eq!(w.count("SELECT COUNT(*) FROM template_store_refs").await, 1);
        assert_eq!(w.limits.look(), "{}");
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE kind LIKE 'TEMPLATE%'").await, 0);
    }

    // covers: TPL-022, TPL-023, TPL-016, TPL-045
    async fn owners_share_what_is_theirs(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let t = register(&w, &user(), order("t")).await.unwrap();
        until(&w, &t.id, "Download Complete").await;
        let base = UpdateTemplatePermissionsRequest { id: t.id.clone(), ..Default::default() };
        let set = |order: UpdateTemplatePermissionsRequest, caller: Caller| {
            let mut api = api(&w);
            async move { api.update_permissions(request(&caller, order)).await.map_err(error) }
        };
        let add = UpdateTemplatePermissionsRequest { accounts: vec!["bob".into(), "ann".into()], op: Some("add".into()), ..base.clone() };
        assert_eq!(set(add.clone(), bob()).await.unwrap_err().code, 531);
        let unknown = UpdateTemplatePermissionsRequest { accounts: vec!["bob".into(), "eve".into()], ..add.clone() };
        let e = set(unknown, user()).await.unwrap_err();
        assert!(e.code == 431 && e.text.contains("account not found"), "{}", e.text);
        for bad in [
            UpdateTemplatePermissionsRequest { op: Some("give".into()), ..add.clone() },
            UpdateTemplatePermissionsRequest { op: None, ..add.clone() },
            UpdateTemplatePermissionsRequest { op: Some("reset".into()), ..add.clone() },
            UpdateTemplatePermissionsRequest { is_extractable: Some(true), ..base.clone() },
        ] {
            assert_eq!(set(bad, user()).await.unwrap_err().code, 431);
        }
        assert_eq!(w.count("SELECT COUNT(*) FROM template_shares").await, 0);
        set(add.clone(), user()).await.unwrap();
        set(add, user()).await.unwrap();
        let asked = api(&w).list_permissions(request(&user(), ListTemplatePermissionsRequest { id: t.id.clone() })).await.unwrap().into_inner();
        assert_eq!((asked.account, asked.is_public, asked.domain_id), (vec!["bob".to_owned()], Some(false), None));
        assert_eq!(listed(&w, &bob(), "sharedexecutable").await, ["t"]);
        assert_eq!(listed(&w, &user(), "sharedexecutable").await, [] as [&str; 0]);
        let by_id = ListTemplatesRequest { template_filter: Some("executable".into()), id: t.id.clone(), ..Default::default() };
        assert_eq!(api(&w).list(request(&bob(), by_id)).await.unwrap().into_inner().count, Some(1));
        let remove = UpdateTemplatePermissionsRequest { accounts: vec!["bob".into()], op: Some("remove".into()), ..base.clone() };
        set(remove, user()).await.unwrap();
        assert_eq!(listed(&w, &bob(), "sharedexecutable").await, [] as [&str; 0]);

        // Public and featured: only administrators feature.
        let public = UpdateTemplatePermissionsRequest { is_public: Some(true), is_featured: Some(true), ..base.clone() };
        set(public.clone(), user()).await.unwrap();
        assert_eq!((listed(&w, &bob(), "community").await, listed(&w, &bob(), "featured").await), (vec!["t".to_owned()], vec![]));
        assert_eq!(listed(&w, &bob(), "executable").await, ["t"]);
        set(public, admin()).await.unwrap();
        assert_eq!((listed(&w, &bob(), "community").await, listed(&w, &bob(), "featured").await), (vec![], vec!["t".to_owned()]));
        set(UpdateTemplatePermissionsRequest { op: Some("reset".into()), ..base.clone() }, user()).await.unwrap();
        assert_eq!(listed(&w, &bob(), "executable").await, [] as [&str; 0]);
        let settings = w.node.settings.clone();
        store::tx!(w.db(), "set", |tx| {
            settings.set(tx, "allow.public.user.templates", "false", config::Scope::Global).await
        })
        .await
        .unwrap();
        let e = set(UpdateTemplatePermissionsRequest { is_public: Some(true), ..base }, user()).await.unwrap_err();
        assert_eq!((e.code, e.text.as_str()), (431, "Only private templates can be created."));
        let e = register(&w, &user(), RegisterTemplateRequest { is_public: Some(true), ..order("p") }).await.unwrap_err();
        assert_eq!((e.code, e.text.as_str()), (431, "Only private templates/ISO can be created."));

        let change = UpdateTemplateRequest {
            id: t.id.clone(), name: Some("renamed".into()), password_enabled: Some(true), sort_key: Some(-3),
            details: [("a".to_owned(), "b".to_owned())].into(), ..Default::default()
        };
        assert_eq!(error(api(&w).update(request(&bob(), change.clone())).await.unwrap_err()).code, 531);
        let after = api(&w).update(request(&user(), change.clone())).await.unwrap().into_inner();
        assert_eq!((after.name.as_deref(), after.display_text.as_deref(), after.password_enabled), (Some("renamed"), Some("text"), Some(true)));
        assert_eq!(after.details.len(), 1);
        let clean = UpdateTemplateRequest { id: t.id.clone(), cleanup_details: Some(true), format: Some("qcow2".into()), ..Default::default() };
        assert!(api(&w).update(request(&user(), clean)).await.unwrap().into_inner().details.is_empty());
        let format = UpdateTemplateRequest { id: t.id.clone(), format: Some("RAW".into()), ..Default::default() };
        assert_eq!(error(api(&w).update(request(&user(), format)).await.unwrap_err()).code, 431);
        let iso = UpdateIsoRequest { id: t.id, name: Some("x".into()), ..Default::default() };
        assert_eq!(error(api(&w).update_iso(request(&user(), iso)).await.unwrap_err()).code, 431);
    }

    // covers: TPL-038, TPL-050, TPL-080, TPL-081, TPL-082
    async fn copies_lie_where_they_should_and_go(db: testkit::TestDb) {
        let w = World::new(db).await;
        common::second_zone(w.db()).await;
        let first = w.image_store().await;
        let second = add_store(&w, "file:///srv/more", ZONE).await;
        let there = add_store(&w, "nfs://10.0.0.2/sec", SECOND_ZONE).await;
        let private = register(&w, &user(), order("private")).await.unwrap();
        let everywhere = RegisterTemplateRequest { is_public: Some(true), zone_id: Some("-1".into()), ..order("everywhere") };
        let everywhere = register(&w, &admin(), everywhere).await.unwrap();
        assert_eq!(everywhere.cross_zones, Some(true));
        until(&w, &private.id, "Download Complete").await;
        let number = w.count("SELECT id FROM templates WHERE name = 'everywhere'").await;
        let all = format!("SELECT COUNT(*) FROM template_store_refs WHERE state = 'Ready' AND template_id = {number}");
        testkit::eventually(|| async { (w.count(&all).await == 3).then_some(()) }).await;
        let of = |store: &str, number: i64| {
            w.hosts.images(Some(store)).iter().filter(|(path, _)| path.contains(&format!("/{number}/"))).count()
        };
        assert_eq!([&first, &second, &there].map(|s| of(s, number)), [1, 1, 1], "public: on every store");
        let mine = w.count("SELECT id FROM templates WHERE name = 'private'").await;
        assert_eq!([&first, &second].map(|s| of(s, mine)).iter().sum::<usize>(), 1, "private: on one");
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'TEMPLATE.CREATE'").await, 3, "once a zone");
        let key = format!("template:{}", everywhere.id.clone().unwrap());
        assert_eq!(w.limits.held(&key, 11), Some(3 * 1024));

        // A store that comes later gets what is public.
        let later = add_store(&w, "nfs://10.0.0.3/sec", SECOND_ZONE).await;
        testkit::eventually(|| async { (w.count(&all).await == 4).then_some(()) }).await;
        assert_eq!((of(&later, number), of(&later, mine)), (1, 0));
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'TEMPLATE.CREATE'").await, 3);

        // In one zone only.
        let part = DeleteTemplateRequest { id: everywhere.id.clone(), zone_id: Some(SECOND_ZONE.into()), ..Default::default() };
        delete(&w, part.clone()).await.unwrap();
        assert!(find(&w, &everywhere.id, SECOND_ZONE).await.is_none());
        assert_eq!(find(&w, &everywhere.id, ZONE).await.unwrap().is_ready, Some(true));
        testkit::eventually(|| async { (of(&there, number) + of(&later, number) == 0).then_some(()) }).await;
        assert_eq!(w.limits.held(&key, 11), Some(2 * 1024));
        assert_eq!(delete(&w, part).await.unwrap_err().code, 431, "it isn't there any more");

        // A VM uses it.
        let vm = common::vm(w.db(), 7, 3, "Running", Some(1)).await;
        common::exec(w.db(), &format!("UPDATE vms SET template_id = {number} WHERE id = 7")).await;
        let e = delete(&w, DeleteTemplateRequest { id: everywhere.id.clone(), ..Default::default() }).await.unwrap_err();
        assert!(e.code == 431 && e.text.contains(&vm), "{}", e.text);
        delete(&w, DeleteTemplateRequest { id: everywhere.id.clone(), forced: Some(true), ..Default::default() }).await.unwrap();
        assert!(find(&w, &everywhere.id, ZONE).await.is_none());
        testkit::eventually(|| async { (of(&first, number) + of(&second, number) == 0).then_some(()) }).await;
        testkit::eventually(|| async { w.limits.held(&key, 4).is_none().then_some(()) }).await;
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'TEMPLATE.DELETE'").await, 2);
        let again = register(&w, &user(), order("again")).await.unwrap();
        assert_ne!(again.id, everywhere.id);

        // What ships with the system goes from all zones, whichever is named.
        let builtin = ListTemplatesRequest { template_filter: Some("featured".into()), ..Default::default() };
        let builtin = api(&w).list(request(&admin(), builtin)).await.unwrap().into_inner();
        assert_eq!(builtin.count, Some(2));
        common::exec(w.db(), "UPDATE vms SET removed = 1").await;
        delete(&w, DeleteTemplateRequest { id: builtin.template[0].id.clone(), zone_id: Some(ZONE.into()), ..Default::default() }).await.unwrap();
        assert_eq!(w.count("SELECT COUNT(*) FROM template_zones WHERE template_id = 111 AND removed IS NULL").await, 0);
    }

    // covers: TPL-086
    async fn other_zones_get_copies_of_the_same_content(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let t = register(&w, &user(), order("t")).await.unwrap();
        common::second_zone(w.db()).await;
        let copy = CopyTemplateRequest { id: t.id.clone(), source_zone_id: Some(ZONE.into()), dest_zone_id: Some(SECOND_ZONE.into()), ..Default::default() };
        let ask = |order: CopyTemplateRequest, caller: Caller| {
            let (mut api, w) = (api(&w), &w);
            async move {
                let job = api.copy(request(&caller, order)).await.map_err(error)?;
                ended::<Template>(w, job).await
            }
        };
        until(&w, &t.id, "Download Complete").await;
        assert_eq!(ask(copy.clone(), bob()).await.unwrap_err().code, 531);
        assert_eq!(ask(copy.clone(), user()).await.unwrap_err().code, 530, "no store there");
        let there = add_store(&w, "nfs://10.0.0.2/sec", SECOND_ZONE).await;
        assert_eq!(ask(CopyTemplateRequest { dest_zone_id: None, ..copy.clone() }, user()).await.unwrap_err().code, 431);
        assert_eq!(ask(CopyTemplateRequest { dest_zone_id: Some(ZONE.into()), ..copy.clone() }, user()).await.unwrap_err().code, 431);

        // The URL gives something else by now: no copy, and no trace of one.
        w.hosts.plan(URL, &[Say::Ready(1024, 2 << 30, "{SHA-256}bb")]);
        let e = ask(copy.clone(), user()).await.unwrap_err();
        assert!(e.code == 530 && e.text.contains("another image"), "{}", e.text);
        assert!(find(&w, &t.id, SECOND_ZONE).await.is_none());
        assert_eq!(w.count("SELECT COUNT(*) FROM template_store_refs WHERE template_id >= 200").await, 1);
        assert_eq!(w.limits.held(&format!("template:{}", t.id.clone().unwrap()), 11), Some(1024));

        w.hosts.plan(URL, &[Say::Bytes(512, 1024), Say::Ready(1024, 2 << 30, "{SHA-256}aa")]);
        let made = ask(copy.clone(), user()).await.unwrap();
        assert_eq!((made.zone_name.as_deref(), made.is_ready, made.id.clone()), (Some("Y"), Some(true), t.id.clone()));
        common::due(&w).await;
        let lying = || w.hosts.images(Some(&there)).iter().filter(|(_, image)| image.ready).count();
        testkit::eventually(|| async { (lying() == 1).then_some(()) }).await;
        assert_eq!(w.limits.held(&format!("template:{}", t.id.clone().unwrap()), 11), Some(2048));
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'TEMPLATE.COPY'").await, 1);
        // Again: it is there.
        assert_eq!(ask(copy, user()).await.unwrap().id, t.id);
        assert_eq!(w.count("SELECT COUNT(*) FROM template_store_refs WHERE template_id >= 200").await, 2);
    }

    async fn image_stores_keep_their_secrets(db: testkit::TestDb) {
        let w = World::new(db).await;
        let mut stores = ImageStoresClient::new(w.node.peers.storage());
        let s3 = AddImageStoreS3Request {
            access_key: Some("AKIA".into()), secret_key: Some("very secret".into()), endpoint: Some("h:9000".into()),
            bucket: Some("images".into()), use_https: Some(true), ..Default::default()
        };
        let domain_admin = Caller { role_type: RoleType::DomainAdmin.into(), ..user() };
        assert!(!format!("{s3:?}").contains("very secret"));
        let made = stores.add_s3(request(&admin(), s3.clone())).await.unwrap().into_inner();
        assert_eq!((made.url.as_deref(), made.provider_name.as_deref(), made.scope.as_deref()), (Some("s3://images"), Some("S3"), Some("REGION")));
        assert_eq!(made.zone_id, None);
        let e = error(stores.add_s3(request(&admin(), s3)).await.unwrap_err());
        assert_eq!(e.code, 431, "the same bucket again");
        let listed = stores.list(request(&admin(), ListImageStoresRequest::default())).await.unwrap().into_inner();
        assert!(!format!("{listed:?}").contains("very secret"));
        let kept: String = w.db().one("SELECT details_sealed FROM image_stores".into()).await.unwrap().at(0).unwrap();
        assert!(kept.starts_with("v1:") && !kept.contains("secret"));
        for table in ["outbox", "idempotency"] {
            let column = if table == "outbox" { "payload" } else { "answer" };
            let rows = w.db().all(store::Sql::new(&format!("SELECT {column} FROM {table}"))).await.unwrap();
            for row in rows {
                let bytes: Vec<u8> = row.at(0).unwrap_or_default();
                assert!(!String::from_utf8_lossy(&bytes).contains("very secret"), "{table}");
            }
        }
        // Hosts are told.
        let t = register(&w, &domain_admin, order("t")).await.unwrap();
        until(&w, &t.id, "Download Complete").await;
        let told = w.hosts.images(None).pop().unwrap().1.order.store.unwrap();
        assert_eq!((told.url.as_str(), told.details["secretkey"].as_str(), told.details["endpoint"].as_str()), ("s3://images", "very secret", "h:9000"));

        let gone = DeleteImageStoreRequest { id: made.id.clone() };
        let e = error(stores.delete(request(&admin(), gone.clone())).await.unwrap_err());
        assert_eq!((e.code, e.text.as_str()), (530, "Cannot delete image store with active templates backup!"));
        delete(&w, DeleteTemplateRequest { id: t.id, ..Default::default() }).await.unwrap();
        assert!(stores.delete(request(&admin(), gone)).await.unwrap().into_inner().success);
        assert_eq!(w.count("SELECT COUNT(*) FROM image_deletions").await, 0);
        for (provider, url) in [("Directory", "file:///"), ("NFS", "ftp://x/y"), ("Swift", "http://h/x")] {
            let bad = AddImageStoreRequest { provider: Some(provider.into()), url: Some(url.into()), zone_id: Some(ZONE.into()), ..Default::default() };
            assert_eq!(error(stores.add(request(&admin(), bad)).await.unwrap_err()).code, 431);
        }
        let no_zone = AddSecondaryStorageRequest { url: Some("nfs://h/x".into()), zone_id: None };
        assert_eq!(error(stores.add_secondary_storage(request(&admin(), no_zone)).await.unwrap_err()).code, 431);
    }

    async fn an_iso_lies_beside_the_root_disk_of_the_machine_that_reads_it(db: testkit::TestDb) {
        let w = World::new(db).await;
        let store = w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        let iso = RegisterIsoRequest {
            name: Some("i".into()), display_text: Some("i".into()), url: Some("http://images.example/a.iso".into()),
            zone_id: Some(ZONE.into()), os_type_id: Some(uuid("os", 142)), ..Default::default()
        };
        let made = api(&w).register_iso(request(&user(), iso)).await.unwrap().into_inner().iso.remove(0);
        testkit::eventually(|| async {
            let ready = "SELECT COUNT(*) FROM template_store_refs r JOIN templates t ON t.id = r.template_id WHERE t.name = 'i' AND r.state = 'Ready'";
            (w.count(ready).await == 1).then_some(())
        }).await;
        let (iso, number) = (made.id.clone().unwrap(), w.count("SELECT id FROM templates WHERE name = 'i'").await);
        let small = w.count("SELECT id FROM disk_offerings WHERE name = 'Small'").await;
        for job in [900, 901, 902] {
            common::job(w.db(), job, "Running").await;
        }
        let key = |job| jobs::StepKey::new(job, "disks", 1, false);
        let mut disks = DisksClient::new(w.node.peers.storage());

        // A machine that boots from it has an empty disk as its offering says, and the ISO beside that.
        let order = AllocateDisksRequest {
            vm_id: 7, vm_uuid: uuid("vm", 7), account_id: 3, domain_id: 5, domain_path: "/1/5/".into(), zone_id: 1, template_id: number,
            root: Some(NewDisk { disk_offering_id: small, uuid: uuid("root", 7), ..NewDisk::default() }), host_id: Some(1),
            cluster_id: Some(1), hypervisor: "Simulator".into(), iso_id: Some(number), ..AllocateDisksRequest::default()
        };
        let answer = disks.allocate(common::keyed(&key(900), order.clone())).await.unwrap().into_inner();
        let root = answer.disks[0].clone();
        let there = IsoSpec { uuid: iso.clone(), pool_uuid: root.pool_uuid.clone() };
        assert_eq!((root.kind.as_str(), root.size, answer.iso.clone()), ("ROOT", 5 * GIB, Some(there.clone())));
        assert_eq!(w.hosts.disks_of(&root.uuid)[0].template, None);
        assert_eq!(w.hosts.isos(), [(root.pool_uuid.clone(), iso.clone(), Some(store))]);
        let promised = "SELECT allocated_bytes FROM storage_pools";
        assert_eq!(w.count(promised).await, 5 * GIB + 1024);
        w.check_pools().await;
        let again = disks.allocate(common::keyed(&key(900), order)).await.unwrap().into_inner();
        assert_eq!(again, answer, "a repeat answers as the first call");

        // It is copied and counted once, for all starts.
        common::vm(w.db(), 7, 3, "Running", Some(1)).await;
        common::exec(w.db(), &format!("UPDATE vms SET iso_id = {number} WHERE id = 7")).await;
        let start = VmDisksRequest { vm_id: 7, host_id: Some(2), iso_id: Some(number), ..VmDisksRequest::default() };
        let started = disks.prepare(common::keyed(&key(901), start)).await.unwrap().into_inner();
        assert_eq!((started.iso, started.disks.len(), w.count(promised).await), (Some(there), 1, 5 * GIB + 1024));

        // As long as it is in the drive, it stays everywhere.
        let look = async || arcus_storage::template_copies::look(&w.storage, None).await.unwrap();
        let lies = "SELECT COUNT(*) FROM template_pool_refs";
        let long_ago = format!("UPDATE template_pool_refs SET unused_since = {}", store::now_micros() - 3_600_000_000);
        common::set(&w, "storage.cleanup.interval", "1").await;
        common::exec(w.db(), &long_ago).await;
        look().await;
        assert_eq!(w.count(lies).await, 1);
        let delete = || request(&user(), DeleteIsoRequest { id: made.id.clone(), ..Default::default() });
        let refused = error(api(&w).delete_iso(delete()).await.unwrap_err());
        let text = format!("Unable to delete iso, as it's used by other vms: [{}]", uuid("vm", 7));
        assert_eq!((refused.code, refused.text), (431, text));

        // The disk that was installed from it doesn't need it.
        common::exec(w.db(), "UPDATE vms SET iso_id = NULL").await;
        common::exec(w.db(), &long_ago).await;
        look().await;
        assert_eq!((w.count(lies).await, w.count(promised).await), (0, 5 * GIB));
        let job = api(&w).delete_iso(delete()).await.unwrap();
        ended::<Success>(&w, job).await.unwrap();

        // One that is gone is no reason not to start.
        let started = disks.prepare(common::keyed(&key(902), start)).await.unwrap().into_inner();
        assert_eq!((started.iso, started.disks.len(), w.count(promised).await), (None, 1, 5 * GIB));
        w.check_pools().await;
    }

    async fn isos_and_templates_on_primary_storage(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let pool = w.pool("p1", 1, 100, "").await;
        let iso = RegisterIsoRequest {
            name: Some("i".into()), display_text: Some("i".into()), url: Some("http://images.example/a.iso".into()),
            zone_id: Some(ZONE.into()), os_type_id: Some(uuid("os", 142)), is_public: Some(true), ..Default::default()
        };
        let made = api(&w).register_iso(request(&user(), iso)).await.unwrap().into_inner().iso.remove(0);
        assert_eq!((made.format.as_deref(), made.bootable, made.hypervisor), (Some("ISO"), Some(true), None));
        testkit::eventually(|| async {
            let ask = ListIsosRequest { iso_filter: Some("community".into()), ..Default::default() };
            let found = api(&w).list_isos(request(&bob(), ask)).await.unwrap().into_inner();
            (found.count == Some(1)).then_some(())
        }).await;
        assert_eq!(w.count("SELECT COUNT(*) FROM outbox WHERE topic = 'usage' AND kind = 'ISO.CREATE'").await, 1);
        let job = api(&w).delete_iso(request(&user(), DeleteIsoRequest { id: made.id.clone(), ..Default::default() })).await.unwrap();
        ended::<Success>(&w, job).await.unwrap();
        assert_eq!(w.count("SELECT COUNT(*) FROM templates WHERE format = 'ISO' AND removed IS NULL").await, 0);

        let t = register(&w, &user(), order("t")).await.unwrap();
        let prepare = PrepareTemplateRequest { zone_id: Some(ZONE.into()), template_id: t.id.clone(), storage_id: None };
        until(&w, &t.id, "Download Complete").await;
        let shown = api(&w).prepare(request(&admin(), prepare.clone())).await.unwrap().into_inner();
        assert_eq!(shown.template[0].id, t.id);
        // Made once, charged once, and its helper is gone.
        testkit::eventually(|| async { (w.hosts.told("DeleteDisk") >= 1 && w.count("SELECT COUNT(*) FROM pending_deletions").await == 0).then_some(()) }).await;
        assert_eq!((w.hosts.told("EnsureDisk"), w.hosts.disks()), (1, 0));
        assert_eq!(w.count(&format!("SELECT COUNT(*) FROM template_pool_refs WHERE pool_id = {pool}")).await, 1);
        w.check_pools().await;
        let elsewhere = PrepareTemplateRequest { zone_id: Some(ZONE.into()), template_id: Some(made.id.unwrap()), storage_id: None };
        assert_eq!(error(api(&w).prepare(request(&admin(), elsewhere)).await.unwrap_err()).code, 431);
    }
}
