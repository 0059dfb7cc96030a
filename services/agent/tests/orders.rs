//! Orders over the line: at most once, whatever is lost or killed on the way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use contract_agent::{
    ApplyRouter, ChangeCd, Command, Dhcp, Lease, Mock, PowerState, RemoveHost, RouterSpec, VmCd, command, outcome,
};
use hub::HostEvent;
use jobs::StepKey;
use model::HostId;
use std::time::Duration;

/// A hub and a factory with two hosts, 1 and 2.
async fn world(db: &testkit::TestDb) -> (Replica, Running, tempfile::TempDir) {
    let replica = Replica::start(db, patient()).await;
    let dir = testkit::temp_dir();
    let agent = Running::start(dir.path(), &replica.net);
    testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
    replica.add_host(1).await;
    replica.add_host(2).await;
    (replica, agent, dir)
}

testkit::databases! {
    async fn a_host_is_made_and_obeys(db: testkit::TestDb) {
        let replica = Replica::start(&db, patient()).await;
        let spec = replica.add_row(1, "Simulator").await;
        let refused = replica.hub.spawn_on_factory(spec.clone(), SECOND).await.unwrap_err();
        assert_eq!(refused.code, 530, "{refused}");
        let dir = testkit::temp_dir();
        let mut events = replica.hub.subscribe();
        let agent = Running::start(dir.path(), &replica.net);
        testkit::wait_until(|| async { replica.hub.factories() == 1 }, 30 * SECOND).await;
        let facts = replica.hub.spawn_on_factory(spec, 20 * SECOND).await.unwrap();
        assert_eq!((facts.cpus, facts.hypervisor.as_str()), (64, "Simulator"));
        // Connected by the time the call returns.
        let (status, epoch, hub) = replica.status(1).await;
        assert_eq!((status.as_str(), epoch, hub), ("Up", 1, Some(replica.node.replica.clone())));
        let up = events.recv().await.unwrap();
        assert!(matches!(up, HostEvent::Up { host: HostId(1), .. }), "{up:?}");
        let state = vm(replica.execute(1, None, start("a", 1)).await.unwrap());
        assert_eq!(state.power(), PowerState::On);
        replica.execute(1, None, reboot("a")).await.unwrap();
        assert_eq!(agent.simulator.vm("a").unwrap().boots, 2);
        // A change shows in a report with the next beat.
        let reported = hear(&mut events, |event| match event {
                HostEvent::Report { vms, .. } if vms.len() == 1 => Some(vms),
                _ => None,
            });
        assert_eq!(reported.await[0].uuid, "a");
        assert_eq!(vm(replica.execute(1, None, stop("a", 1)).await.unwrap()).power(), PowerState::Off);
        assert!(replica.execute(1, None, reboot("a")).await.is_err());
        // A guest that ends by itself is told of at once.
        replica.execute(1, None, start("b", 1)).await.unwrap();
        assert!(agent.simulator.power_off("b"));
        let event = hear(&mut events, |event| match event {
                HostEvent::Vm { host, state } => Some((host, state)),
                _ => None,
            });
        assert_eq!(event.await.1.power(), PowerState::Off);
        agent.end().await.unwrap();
        replica.await_status(1, "Disconnected").await;
        let gone = replica.execute(1, None, start("c", 1)).await.unwrap_err();
        assert_eq!(gone.code, 534, "{gone}");
        replica.end().await;
    }

    async fn removed_hosts_are_forgotten(db: testkit::TestDb) {
        let (replica, agent, dir) = world(&db).await;
        let remove = Command { body: Some(command::Body::RemoveHost(RemoveHost {})) };
        replica.execute(1, None, remove).await.unwrap();
        replica.await_status(1, "Disconnected").await;
        assert_eq!(agent.simulator.hosts().len(), 1);
        agent.end().await.unwrap();
        // Deleted while its factory was away: it learns of it when it comes back.
        replica.await_status(2, "Disconnected").await;
        store::tx!(replica.node.db, "remove", |tx| {
            tx.exec("UPDATE hosts SET removed = 1 WHERE id = 2").await?;
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
        let agent = Running::start(dir.path(), &replica.net);
        testkit::wait_until(|| async { agent.simulator.hosts().is_empty() }, 30 * SECOND).await;
        agent.end().await.unwrap();
        replica.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_answered_as_the_first() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, dir) = world(&db).await;
    let first = replica.execute(1, Some(&key(7, "start")), start("a", 1)).await.unwrap();
    replica.execute(1, None, reboot("a")).await.unwrap();
    replica.execute(1, Some(&key(7, "stop")), stop("a", 1)).await.unwrap();
    // The VM is off, and stays so: the start took place once.
    assert_eq!(replica.execute(1, Some(&key(7, "start")), start("a", 1)).await.unwrap(), first);
    assert!(!is_on(&agent.simulator, "a"));
    // The key counts on its host: another host is another effect.
    replica.execute(2, Some(&key(7, "start")), start("a", 2)).await.unwrap();
    assert!(is_on(&agent.simulator, "a"));
    // The memory outlives the agent, and so do VMs.
    agent.end().await.unwrap();
    let agent = Running::start(dir.path(), &replica.net);
    replica.await_connected(2).await;
    assert_eq!(replica.execute(1, Some(&key(7, "start")), start("a", 1)).await.unwrap(), first);
    assert_eq!(agent.simulator.vm("a").unwrap().host, agent_host(&replica, 2).await);
    // A worker that was replaced is refused.
    replica.execute(1, Some(&StepKey::new(7, "next", 3, false)), start("b", 1)).await.unwrap();
    let late = replica.execute(1, Some(&StepKey::new(7, "late", 2, false)), start("c", 1)).await.unwrap_err();
    assert!(late.is_transient() && late.code == 530, "{late}");
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_in_a_drive_outlives_the_agent() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, dir) = world(&db).await;
    let change = |iso: &str, generation, lenient| {
        let cd = (!iso.is_empty()).then(|| VmCd { iso_uuid: iso.into(), pool_uuid: "p".into() });
        let order = ChangeCd { vm_uuid: "a".into(), generation, cd, lenient };
        Command { body: Some(command::Body::ChangeCd(order)) }
    };
    let there = |agent: &Running| agent.simulator.vm("a").unwrap().spec.cd.map(|cd| cd.iso_uuid);
    assert!(replica.execute(1, None, change("tools", 1, false)).await.is_err(), "it doesn't run yet");
    replica.execute(1, None, change("tools", 1, true)).await.unwrap();
    replica.execute(1, None, start("a", 1)).await.unwrap();
    assert_eq!(there(&agent), None);
    for _ in 0..2 {
        replica.execute(1, Some(&key(9, "drive")), change("tools", 1, false)).await.unwrap();
        assert_eq!(there(&agent).as_deref(), Some("tools"));
    }
    assert!(replica.execute(1, None, change("other", 2, false)).await.is_err(), "another run of it");
    replica.execute(1, None, change("other", 2, true)).await.unwrap();
    let mock = Mock { id: 1, command: "AttachIsoCommand".into(), fault: true, ..Mock::default() };
    replica.set_mocks(vec![mock]).await;
    assert!(replica.execute(1, None, change("other", 1, false)).await.is_err(), "the simulator was told so");
    replica.set_mocks(Vec::new()).await;
    agent.end().await.unwrap();
    let agent = Running::start(dir.path(), &replica.net);
    replica.await_connected(2).await;
    assert_eq!(there(&agent).as_deref(), Some("tools"));
    replica.execute(1, None, change("", 1, false)).await.unwrap();
    assert_eq!(there(&agent), None);
    agent.end().await.unwrap();
    replica.end().await;
}

async fn agent_host(replica: &Replica, id: i64) -> String {
    let sql = store::Sql::new("SELECT uuid FROM hosts WHERE id = ?").bind(id);
    replica.node.db.one(sql).await.unwrap().at(0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_before_its_do_refuses_the_do() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, dir) = world(&db).await;
    let key = key(8, "start");
    replica.execute(1, Some(&key.undoing()), stop("a", 1)).await.unwrap();
    let refused = replica.execute(1, Some(&key), start("a", 1)).await.unwrap_err();
    assert_eq!(refused.code, 530, "{refused}");
    agent.end().await.unwrap();
    let agent = Running::start(dir.path(), &replica.net);
    replica.await_connected(2).await;
    assert!(replica.execute(1, Some(&key), start("a", 1)).await.is_err(), "the tombstone outlives the agent");
    replica.execute(1, Some(&key.undoing()), stop("a", 1)).await.unwrap();
    assert!(agent.simulator.vms().is_empty());
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_stops_a_do_that_hasnt_begun() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, _dir) = world(&db).await;
    let slow = Mock { id: 1, command: "StartCommand".into(), wait_millis: 600_000, ..Mock::default() };
    replica.set_mocks(vec![slow]).await;
    let key = key(9, "start");
    let (hub, do_key) = (replica.hub.clone(), key.clone());
    let doing = tokio::spawn(async move {
        hub.execute(HostId(1), Some(&do_key), false, start("a", 1), Duration::from_secs(120)).await
    });
    // A query behind it on the same line: the do is under way when it is answered.
    replica.execute(1, None, stop("x", 1)).await.unwrap();
    replica.execute(1, Some(&key.undoing()), stop("a", 1)).await.unwrap();
    assert_eq!(doing.await.unwrap().unwrap_err().code, 530);
    assert!(agent.simulator.vms().is_empty());
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, _dir) = world(&db).await;
    let mute = Mock { id: 1, command: "StartCommand".into(), no_answer: true, remaining: Some(1), ..Mock::default() };
    replica.set_mocks(vec![mute]).await;
    let hub = &replica.hub;
    let lost = hub.execute(HostId(1), Some(&key(9, "s")), false, start("a", 1), Duration::from_millis(300)).await;
    assert_eq!(lost.unwrap_err().code, 534);
    assert!(is_on(&agent.simulator, "a"));
    replica.execute(1, Some(&key(9, "s")), start("a", 1)).await.unwrap();
    assert_eq!(agent.simulator.vm("a").unwrap().boots, 1);
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_mid_command_does_it_once() {
    let db = testkit::TestDb::sqlite();
    let (replica, mut agent, dir) = world(&db).await;
    let mut started = 0;
    // Killed while orders run, again and again: each VM is started once, whether or not its first answer came.
    for round in 0..6 {
        let orders: Vec<_> = (0..20)
            .map(|n| {
                let (hub, job) = (replica.hub.clone(), i64::from(100 + round));
                tokio::spawn(async move {
                    let uuid = format!("{round}-{n}");
                    let key = StepKey::new(job, format!("start/{n}"), 1, false);
                    for _ in 0..600 {
                        match hub.execute(HostId(1), Some(&key), false, start(&uuid, 1), 20 * SECOND).await {
                            Ok(_) => return,
                            Err(e) if e.code == 534 || e.is_transient() => {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                            Err(e) => panic!("{e}"),
                        }
                    }
                    panic!("{uuid} never started");
                })
            })
            .collect();
        started += 20;
        tokio::task::yield_now().await;
        agent.kill().await;
        agent = Running::start(dir.path(), &replica.net);
        for order in orders {
            order.await.unwrap();
        }
        let vms = agent.simulator.vms();
        assert_eq!(vms.len(), started);
        assert!(vms.iter().all(|vm| vm.boots == 1 && vm.power == PowerState::On), "{vms:?}");
    }
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_has_one_host() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, _dir) = world(&db).await;
    let mut events = replica.hub.subscribe();
    replica.execute(1, None, start("a", 5)).await.unwrap();
    let stale = replica.execute(2, None, start("a", 4)).await.unwrap_err();
    assert_eq!(stale.code, 530, "{stale}");
    assert!(replica.execute(2, None, start("a", 5)).await.is_err(), "the same generation on two hosts");
    assert_eq!(replica.execute(2, None, start("a", 6)).await.unwrap_err().code, 530, "held, and not to be taken");
    replica.execute(2, None, take_over("a", 6)).await.unwrap();
    let vms = agent.simulator.vms();
    assert_eq!(vms.len(), 1);
    assert_eq!(vms[0].host, agent_host(&replica, 2).await);
    let lost = hear(&mut events, |event| match event {
        HostEvent::Vm { host, state } => Some((host, state)),
        _ => None,
    });
    assert_eq!(lost.await.0, HostId(1));
    // Whoever stops an older one leaves the newer alone.
    assert_eq!(vm(replica.execute(2, None, stop("a", 5)).await.unwrap()).power(), PowerState::On);
    assert!(is_on(&agent.simulator, "a"));
    // A stop that overtakes its start wins.
    replica.execute(1, None, stop("b", 3)).await.unwrap();
    assert!(replica.execute(1, None, start("b", 2)).await.is_err());
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_take_deltas_when_they_can() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, dir) = world(&db).await;
    let lease = |n: u8| Lease {
        mac: format!("02:00:00:00:00:{n:02x}"),
        ip4: format!("10.1.1.{n}"),
        host_name: "h".into(),
        ..Lease::default()
    };
    let apply = |generation, base, leases: Vec<Lease>| {
        let changes = RouterSpec { dhcp: Some(Dhcp { leases, ..Dhcp::default() }), ..RouterSpec::default() };
        let order = ApplyRouter {
            router_uuid: "r".into(),
            generation,
            base,
            changes: Some(changes),
            removed_leases: Vec::new(),
        };
        Command { body: Some(command::Body::ApplyRouter(order)) }
    };
    let applied = |outcome: contract_agent::Outcome| match outcome.body {
        Some(outcome::Body::Router(router)) => router,
        other => panic!("{other:?}"),
    };
    assert!(applied(replica.execute(1, None, apply(2, 1, vec![])).await.unwrap()).behind);
    assert!(agent.simulator.routers().is_empty());
    assert_eq!(applied(replica.execute(1, None, apply(2, 0, vec![lease(1)])).await.unwrap()).generation, 2);
    let next = applied(replica.execute(1, None, apply(3, 2, vec![lease(2)])).await.unwrap());
    assert!(!next.behind && next.generation == 3);
    assert_eq!(agent.simulator.router("r").unwrap().spec.dhcp.unwrap().leases.len(), 2);
    let fault = Mock { id: 1, command: "DhcpEntryCommand".into(), fault: true, ..Mock::default() };
    replica.set_mocks(vec![fault]).await;
    let bad = applied(replica.execute(1, None, apply(4, 3, vec![lease(3)])).await.unwrap());
    assert_eq!((bad.generation, bad.faults.len(), bad.faults[0].section.as_str()), (4, 1, "dhcp"));
    // Routers outlive their agent.
    agent.end().await.unwrap();
    let agent = Running::start(dir.path(), &replica.net);
    replica.await_connected(2).await;
    let router = agent.simulator.router("r").unwrap();
    assert_eq!((router.generation, router.spec.dhcp.unwrap().leases.len()), (4, 2));
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_lie_on_pools_that_all_hosts_see() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, _dir) = world(&db).await;
    replica.execute(1, Some(&key(1, "d")), disk("v", "p")).await.unwrap();
    assert_eq!(agent.simulator.disks().len(), 1);
    let delete = contract_agent::DeleteDisk { volume_uuid: "v".into(), pool_uuid: "p".into(), ..Default::default() };
    let delete = Command { body: Some(command::Body::DeleteDisk(delete)) };
    replica.execute(2, None, delete.clone()).await.unwrap();
    replica.execute(2, None, delete).await.unwrap();
    assert!(agent.simulator.disks().is_empty());
    agent.end().await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_fail_and_count_down() {
    let db = testkit::TestDb::sqlite();
    let (replica, agent, _dir) = world(&db).await;
    let fault = Mock { id: 4, command: "StartVm".into(), fault: true, remaining: Some(1), ..Mock::default() };
    replica.set_mocks(vec![fault]).await;
    let failed = replica.execute(1, Some(&key(3, "s")), start("a", 1)).await.unwrap_err();
    assert_eq!(failed.code, 530);
    assert!(!failed.is_transient());
    let query = Command { body: Some(command::Body::QueryMocks(contract_agent::QueryMocks {})) };
    let answers = replica.hub.on_factories(query, SECOND * 5).await.unwrap();
    let Some(outcome::Body::Mocks(list)) = &answers[0].body else { panic!("{answers:?}") };
    assert_eq!(list.mocks[0].remaining, Some(0));
    // A failure left nothing, so the same step may try again.
    replica.execute(1, Some(&key(3, "s")), start("a", 1)).await.unwrap();
    agent.end().await.unwrap();
    replica.end().await;
}
