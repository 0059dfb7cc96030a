//! Events from the transaction that makes them to `listEvents`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod world;

use contract::api::{Caller, RoleType};
use contract_usage::{
    ArchiveAlertsRequest, ArchiveEventsRequest, DeleteAlertsRequest, DeleteEventsRequest, ListAlertsRequest,
    ListEventTypesRequest, ListEventsRequest,
};
use events::{EventRecord, EventState, Record, UsageRecord};
use model::Owner;
use std::time::Duration;
use store::{Sql, now_micros};
use world::{World, caller};

fn event(caller: &Caller, kind: &str, state: EventState, text: &str, ago: Duration) -> EventRecord {
    let created = now_micros() - ago.as_micros() as i64;
    EventRecord { created, ..EventRecord::new(caller, kind, state, text) }
}

testkit::databases! {
    // covers: REL-091
    async fn events_are_listed_by_scope_and_filter(db: testkit::TestDb) {
        let world = World::new(&db).await;
        let admin = caller(2, "admin", RoleType::Admin);
        let ann = caller(10, "ann", RoleType::User);
        let bob = caller(11, "bob", RoleType::DomainAdmin);
        let minute = Duration::from_secs(60);
        let scheduled = event(&ann, "VM.CREATE", EventState::Scheduled, "starting Vm", minute * 5);
        let chained = |state, text: &str, ago| EventRecord {
            start: Some(scheduled.uuid.clone()),
            ..event(&ann, "VM.CREATE", state, text, ago)
        };
        let started = chained(EventState::Started, "Starting job for 100%", minute * 4);
        let completed = chained(EventState::Completed, "Successfully completed starting Vm", minute * 3).failed();
        let pending = event(&bob, "VOLUME.CREATE", EventState::Started, "creating volume: DATA", minute * 2);
        let login = event(&admin, "USER.LOGIN", EventState::Completed, "user has logged in", Duration::ZERO);
        let all = [&scheduled, &started, &completed, &pending, &login];
        world.record(&all.map(|e| Record::Event(e.clone()))).await;
        world.archived(5).await;

        // By scope.
        let everything = || ListEventsRequest { list_all: Some(true), ..Default::default() };
        let texts = |events: &[&EventRecord]| events.iter().map(|e| e.description.clone()).collect::<Vec<_>>();
        let newest_first = texts(&[&login, &pending, &completed, &started, &scheduled]);
        assert_eq!(world.descriptions(&admin, everything()).await, newest_first);
        assert_eq!(world.descriptions(&admin, ListEventsRequest::default()).await, texts(&[&login]));
        assert_eq!(world.descriptions(&ann, everything()).await, texts(&[&completed, &started, &scheduled]));
        assert_eq!(world.descriptions(&bob, everything()).await, newest_first[1..]);
        let of_ann = ListEventsRequest { account: Some("ann".into()), domain_id: Some("d-5".into()), ..Default::default() };
        assert_eq!(world.descriptions(&bob, of_ann).await.len(), 3);

        // By filter.
        let find = |request: ListEventsRequest| world.descriptions(&admin, ListEventsRequest { list_all: Some(true), ..request });
        let level = ListEventsRequest { level: Some("error".into()), ..Default::default() };
        assert_eq!(find(level).await, texts(&[&completed]));
        let kind = ListEventsRequest { r#type: Some("VOLUME.CREATE".into()), ..Default::default() };
        assert_eq!(find(kind).await, texts(&[&pending]));
        let keyword = |word: &str| ListEventsRequest { keyword: Some(word.into()), ..Default::default() };
        assert_eq!(find(keyword("data")).await, texts(&[&pending]));
        assert_eq!(find(keyword("100%")).await, texts(&[&started]));
        assert_eq!(find(keyword("user.log")).await, texts(&[&login]));
        let chain = ListEventsRequest { start_id: Some(scheduled.uuid.clone()), ..Default::default() };
        assert_eq!(find(chain).await, texts(&[&completed, &started, &scheduled]));
        let from = ListEventsRequest { start_date: Some(now_micros() - 150_000_000), ..Default::default() };
        assert_eq!(find(from).await, texts(&[&login, &pending]));
        let until = ListEventsRequest { end_date: Some(now_micros() - 270_000_000), ..Default::default() };
        assert_eq!(find(until).await, texts(&[&scheduled]));
        // What began within ten minutes, more than a minute ago, and hasn't ended.
        let hanging = ListEventsRequest { entry_time: Some(600), duration: Some(60), ..Default::default() };
        assert_eq!(find(hanging).await, texts(&[&pending]));

        // One, with all its fields.
        let by_id = ListEventsRequest { id: Some(started.uuid.clone()), ..Default::default() };
        let one = world.list(&ann, by_id.clone()).await.unwrap().event.remove(0);
        assert_eq!(one.id.as_deref(), Some(started.uuid.as_str()));
        assert_eq!((one.username.as_deref(), one.account.as_deref()), (Some("ann"), Some("ann")));
        assert_eq!((one.domain_id.as_deref(), one.domain.as_deref()), (Some("d-5"), Some("sub")));
        assert_eq!((one.level.as_deref(), one.state.as_deref()), (Some("INFO"), Some("Started")));
        assert_eq!(one.parent_id, Some(scheduled.uuid.clone()));
        assert_eq!(one.created, Some(started.created));
        let stranger = Caller { role_type: RoleType::User.into(), ..bob.clone() };
        assert!(world.descriptions(&stranger, by_id).await.is_empty());
        let unknown = ListEventsRequest { id: Some(model::new_uuid()), ..Default::default() };
        assert_eq!(world.list(&admin, unknown).await.unwrap_err().code, 431);

        // Pages.
        let page = |n| ListEventsRequest { list_all: Some(true), page: Some(n), page_size: Some(2), ..Default::default() };
        let mut paged = Vec::new();
        for n in 1..=3 {
            let listed = world.list(&admin, page(n)).await.unwrap();
            assert_eq!(listed.count, Some(5));
            paged.extend(listed.event.into_iter().map(|e| e.description.unwrap()));
        }
        assert_eq!(paged, newest_first);
        world.node.shut_down(Duration::from_secs(5)).await;
    }

    async fn a_list_costs_a_constant_number_of_queries(db: testkit::TestDb) {
        let world = World::new(&db).await;
        let admin = caller(2, "admin", RoleType::Admin);
        let mut records = Vec::new();
        for n in 0..100i64 {
            let who = caller(10 + n % 2, "x", RoleType::User);
            records.push(Record::Event(event(&who, "VM.STOP", EventState::Completed, "stopping Vm", Duration::ZERO)));
        }
        world.record(&records).await;
        world.archived(100).await;
        world.node.shut_down(Duration::from_secs(5)).await; // nothing else asks the database now
        let cost = |size: i32| {
            let (world, admin) = (&world, &admin);
            async move {
                let before = world.node.db.stats().statements;
                let request = ListEventsRequest { list_all: Some(true), page: Some(1), page_size: Some(size), ..Default::default() };
                assert_eq!(world.list(admin, request).await.unwrap().count, Some(100));
                world.node.db.stats().statements - before
            }
        };
        let (small, large) = (cost(2).await, cost(90).await);
        assert!(large <= small && small <= 6, "{small} {large}");
    }

    async fn usage_records_are_kept_and_old_events_purged(db: testkit::TestDb) {
        let world = World::new(&db).await;
        let ann = caller(10, "ann", RoleType::User);
        let usage = UsageRecord {
            kind: "VM.START".into(),
            owner: Owner::caller(&ann),
            zone_id: 1,
            resource_id: 17,
            resource_uuid: "v-17".into(),
            resource_name: "i-10-17-VM".into(),
            offering_id: Some(3),
            template_id: None,
            size: Some(8 << 30),
            resource_type: Some("Simulator".into()),
            created: now_micros(),
        };
        let old = event(&ann, "VM.START", EventState::Completed, "old", Duration::from_secs(3 * 86_400));
        let young = event(&ann, "VM.START", EventState::Completed, "young", Duration::ZERO);
        world.record(&[Record::Usage(usage.clone()), Record::Event(old), Record::Event(young)]).await;
        world.archived(2).await;
        let row = testkit::eventually(|| async {
            world.node.db.optional(Sql::new("SELECT * FROM usage_events WHERE resource_id = 17")).await.unwrap()
        })
        .await;
        assert_eq!(row.get::<String>("type").unwrap(), "VM.START");
        assert_eq!(row.get::<Option<i64>>("size").unwrap(), usage.size);
        assert_eq!(row.get::<Option<i64>>("template_id").unwrap(), None);
        let settings = &world.node.settings;
        store::tx!(world.node.db, "keep two days", |tx| {
            settings.set(tx, "event.purge.delay", "2", config::Scope::Global).await
        })
        .await
        .unwrap();
        world.archived(1).await;
        assert_eq!(world.descriptions(&ann, ListEventsRequest::default()).await, ["young"]);
        world.node.shut_down(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_types_are_those_of_the_contract() {
    let test = testkit::TestDb::sqlite();
    let world = World::new(&test).await;
    let user = caller(10, "ann", RoleType::User);
    let answer =
        world.client.clone().list_types(rpc::cx::request(&user, ListEventTypesRequest {})).await.unwrap().into_inner();
    assert_eq!(answer.count, Some(364));
    assert_eq!(answer.event_type.len(), 364);
    assert_eq!(answer.event_type[0].name.as_deref(), Some("VM.CREATE"));
    world.node.shut_down(Duration::from_secs(5)).await;
}

testkit::databases! {
    async fn alerts_are_listed_by_type(db: testkit::TestDb) {
        let world = World::new(&db).await;
        let admin = caller(2, "admin", RoleType::Admin);
        let minute = Duration::from_secs(60);
        let host = event(&admin, "ALERT.COMPUTE.HOST", EventState::Completed, "Host h1 is down", minute * 2).failed();
        let vm = event(&admin, "ALERT.USERVM", EventState::Completed, "VM v1 stopped", minute).failed();
        let other = event(&admin, "VM.STOP", EventState::Completed, "VM v1 stopped", Duration::ZERO);
        world.record(&[&host, &vm, &other].map(|e| Record::Event(e.clone()))).await;
        world.archived(3).await;
        let list = async |r: ListAlertsRequest| world.list_alerts(&admin, r).await;
        let all = list(ListAlertsRequest::default()).await.unwrap();
        assert_eq!((all.count, all.alert.len()), (Some(2), 2));
        assert_eq!((all.alert[0].r#type, all.alert[0].name(), all.alert[0].description()), (Some(8), "ALERT.USERVM", "VM v1 stopped"));
        assert_eq!((all.alert[1].r#type, all.alert[1].id(), all.alert[1].sent), (Some(7), host.uuid.as_str(), Some(host.created)));
        let count = async |r: ListAlertsRequest| list(r).await.unwrap().count();
        assert_eq!(count(ListAlertsRequest { r#type: Some("7".into()), ..Default::default() }).await, 1);
        assert_eq!(count(ListAlertsRequest { r#type: Some("9".into()), ..Default::default() }).await, 0);
        assert_eq!(count(ListAlertsRequest { name: Some("alert.uservm".into()), ..Default::default() }).await, 1);
        assert_eq!(count(ListAlertsRequest { keyword: Some("H1".into()), ..Default::default() }).await, 1);
        assert_eq!(count(ListAlertsRequest { id: Some(vm.uuid.clone()), ..Default::default() }).await, 1);
        let second = list(ListAlertsRequest { page: Some(2), page_size: Some(1), ..Default::default() }).await.unwrap();
        assert_eq!((second.count, second.alert[0].id()), (Some(2), host.uuid.as_str()));
        assert_eq!(list(ListAlertsRequest { r#type: Some("host".into()), ..Default::default() }).await.unwrap_err().code, 431);
    }
}

testkit::databases! {
    async fn events_are_archived_and_deleted_by_those_who_see_them(db: testkit::TestDb) {
        let world = World::new(&db).await;
        let (admin, ann, bob) =
            (caller(2, "admin", RoleType::Admin), caller(10, "ann", RoleType::User), caller(11, "bob", RoleType::DomainAdmin));
        let minute = Duration::from_secs(60);
        let done = EventState::Completed;
        let events = [
            event(&ann, "VM.CREATE", done, "a1", minute * 9),
            event(&ann, "VM.STOP", done, "a2", minute * 7),
            event(&ann, "VM.STOP", done, "a3", minute * 5),
            event(&bob, "VM.STOP", done, "b1", minute * 3),
            event(&admin, "USER.LOGIN", done, "r1", minute * 8),
            event(&admin, "ALERT.USERVM", done, "alert", minute * 8),
        ];
        world.record(&events.iter().map(|e| Record::Event(e.clone())).collect::<Vec<_>>()).await;
        world.archived(6).await;
        let everything = ListEventsRequest { list_all: Some(true), ..Default::default() };
        let left = async || {
            let mut texts = world.descriptions(&admin, everything.clone()).await;
            texts.sort();
            texts.join(" ")
        };
        let archive = async |who: &Caller, r: ArchiveEventsRequest| world.archive(who, r).await;
        let ids = |which: &[usize]| which.iter().map(|n| events[*n].uuid.clone()).collect::<Vec<_>>();
        let by_ids = |which: &[usize]| ArchiveEventsRequest { ids: ids(which), ..Default::default() };

        // What says nothing, what doesn't exist, and what isn't the caller's: nothing changes.
        for (r, code) in [
            (ArchiveEventsRequest::default(), 431),
            (ArchiveEventsRequest { start_date: Some(1), r#type: Some("VM.STOP".into()), ..Default::default() }, 431),
            (ArchiveEventsRequest { ids: vec![model::new_uuid()], ..Default::default() }, 431),
            (by_ids(&[0, 3]), 530),
            (by_ids(&[4]), 530),
            (ArchiveEventsRequest { r#type: Some("VM.START".into()), ..by_ids(&[0]) }, 530),
        ] {
            assert_eq!(archive(&ann, r.clone()).await.unwrap_err().code, code, "{r:?}");
        }
        assert_eq!(left().await, "a1 a2 a3 alert b1 r1");
        // By ids, twice the same one counted once; by type and dates, each within the caller's reach.
        assert!(archive(&ann, by_ids(&[0, 0])).await.unwrap().success);
        assert_eq!(left().await, "a2 a3 alert b1 r1");
        assert_eq!(archive(&ann, by_ids(&[0])).await.unwrap_err().code, 530, "archived ones can't be archived again");
        let old = ArchiveEventsRequest { end_date: Some(now_micros() - 6 * 60_000_000), ..Default::default() };
        assert!(archive(&ann, old.clone()).await.unwrap().success);
        assert_eq!(left().await, "a3 alert b1 r1");
        let stops = ArchiveEventsRequest { r#type: Some("vm.stop".into()), ..Default::default() };
        assert!(archive(&ann, stops).await.unwrap().success);
        assert_eq!(left().await, "alert b1 r1", "others' events of that type stay");
        // Alerts have commands of their own.
        assert!(archive(&admin, old).await.unwrap().success);
        assert_eq!(left().await, "alert b1");
        let gone = DeleteEventsRequest { ids: ids(&[3]), ..Default::default() };
        assert_eq!(world.delete(&ann, gone.clone()).await.unwrap_err().code, 530);
        assert!(world.delete(&bob, gone).await.unwrap().success);
        assert_eq!(left().await, "alert");
        world.archived(5).await;
        world.node.shut_down(Duration::from_secs(5)).await;
    }

    async fn alerts_are_archived_and_deleted(db: testkit::TestDb) {
        let world = World::new(&db).await;
        let admin = caller(2, "admin", RoleType::Admin);
        let minute = Duration::from_secs(60);
        let done = EventState::Completed;
        let events = [
            event(&admin, "ALERT.COMPUTE.HOST", done, "h1", minute * 9),
            event(&admin, "ALERT.COMPUTE.HOST", done, "h2", minute * 5),
            event(&admin, "ALERT.USERVM", done, "v1", minute * 5),
            event(&admin, "ALERT.USERVM", done, "v2", minute),
            event(&admin, "VM.STOP", done, "stop", minute * 9),
        ];
        world.record(&events.iter().map(|e| Record::Event(e.clone())).collect::<Vec<_>>()).await;
        world.archived(5).await;
        let left = async || {
            let listed = world.list_alerts(&admin, ListAlertsRequest::default()).await.unwrap();
            let mut texts: Vec<String> = listed.alert.into_iter().map(|a| a.description.unwrap()).collect();
            texts.sort();
            texts.join(" ")
        };
        let archive = async |r: ArchiveAlertsRequest| world.archive_alerts(&admin, r).await;
        let ids = |n: usize| vec![events[n].uuid.clone()];
        for (r, code) in [
            (ArchiveAlertsRequest::default(), 431),
            (ArchiveAlertsRequest { start_date: Some(1), ..Default::default() }, 431),
            (ArchiveAlertsRequest { r#type: Some("99".into()), ..Default::default() }, 431),
            (ArchiveAlertsRequest { ids: ids(4), ..Default::default() }, 530),
            (ArchiveAlertsRequest { ids: ids(0), r#type: Some("8".into()), ..Default::default() }, 530),
        ] {
            assert_eq!(archive(r.clone()).await.unwrap_err().code, code, "{r:?}");
        }
        assert_eq!(left().await, "h1 h2 v1 v2");
        let range = ArchiveAlertsRequest {
            start_date: Some(now_micros() - 6 * 60_000_000),
            end_date: Some(now_micros() - 4 * 60_000_000),
            r#type: Some("8".into()),
            ..Default::default()
        };
        assert!(archive(range).await.unwrap().success);
        assert_eq!(left().await, "h1 h2 v2");
        let delete = DeleteAlertsRequest { r#type: Some("alert.compute.host".into()), ..Default::default() };
        assert!(world.delete_alerts(&admin, delete).await.unwrap().success);
        assert_eq!(left().await, "v2");
        world.archived(3).await;
        assert!(archive(ArchiveAlertsRequest { ids: ids(3), ..Default::default() }).await.unwrap().success);
        assert_eq!(left().await, "");
        world.node.shut_down(Duration::from_secs(5)).await;
    }
}
