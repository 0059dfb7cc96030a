//! Two hosts, and a guest that moves between them while it runs.

use crate::{connect, event, host, lifecycle, running};
use libvirt::events::{LifecycleChange, StartedDetail, StoppedDetail};
use libvirt::migration::{Cookie, JobKind, migrate};
use libvirt::{Event, EventKind, JobStatsFlags, ListFlags, MigrateFlags, Params};
use std::process::Command;
use testkit::{HostOptions, Libvirtd, Place};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_moves_there_peer_to_peer_and_back_step_by_step() {
    let Some((_near, here)) = host("a_guest_moves_there_peer_to_peer_and_back_step_by_step").await else { return };
    let far = Libvirtd::start().await;
    let there = connect(&far).await;
    let kinds = [EventKind::LIFECYCLE, EventKind::JOB_COMPLETED];
    let mut left = here.events(&kinds, None).await.unwrap();
    let mut came = there.events(&kinds, None).await.unwrap();
    let domain = running(&here, "d", "").await;
    assert!(here.abort_job(&domain).await.unwrap_err().is_wrong_state());
    assert_eq!(here.job_info(&domain).await.unwrap().kind, JobKind::NONE);

    let flags = MigrateFlags::LIVE | MigrateFlags::PERSIST_DESTINATION | MigrateFlags::UNDEFINE_SOURCE;
    let params = Params::new().with(migrate::URI, "tcp://127.0.0.1").with(migrate::BANDWIDTH, 1000_u64);
    here.set_max_downtime(&domain, 2000).await.unwrap();
    here.migrate_to(&domain, &far.uri(), &params, flags).await.unwrap();
    assert_eq!(StartedDetail(lifecycle(&mut came, LifecycleChange::STARTED).await), StartedDetail::MIGRATED);
    let (mut stopped, mut stats) = (None, None);
    let both = |e| {
        match e {
            Event::Lifecycle { change: LifecycleChange::STOPPED, detail, .. } => stopped = Some(StoppedDetail(detail)),
            Event::JobCompleted { stats: of, .. } => stats = of.number("memory_total"),
            _ => {}
        }
        stopped.zip(stats)
    };
    let (stopped, memory) = event(&mut left, both).await;
    assert_eq!(stopped, StoppedDetail::MIGRATED);
    assert!(memory > 0);
    assert_eq!(here.domains(ListFlags::none()).await.unwrap(), []);
    let moved = there.domain_by_uuid(domain.uuid).await.unwrap();
    assert!(there.state(&moved).await.unwrap().running().is_some());

    let begin = Params::new();
    let (cookie, xml) = there.migrate_begin(&moved, &begin, flags).await.unwrap();
    let to = Params::new().with(migrate::URI, "tcp://127.0.0.1").with(migrate::DESTINATION_XML, xml);
    let (cookie, uri) = here.migrate_prepare(&to, &cookie, flags).await.unwrap();
    let to = match uri {
        Some(uri) => Params::new().with(migrate::URI, uri),
        None => to,
    };
    let cookie = there.migrate_perform(&moved, None, &to, &cookie, flags).await.unwrap();
    let name = to.with(migrate::DESTINATION_NAME, "d");
    let (back, cookie) = here.migrate_finish(&name, &cookie, flags, false).await.unwrap();
    there.migrate_confirm(&moved, &Params::new(), &cookie, flags, false).await.unwrap();
    assert_eq!(back.uuid, domain.uuid);
    assert!(here.state(&back).await.unwrap().running().is_some());
    assert_eq!(there.domains(ListFlags::none()).await.unwrap(), []);
    let (kind, stats) = here.job_stats(&back, JobStatsFlags::COMPLETED).await.unwrap();
    assert_eq!(kind, JobKind::COMPLETED, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_to_nowhere_leaves_the_guest_running() {
    let Some((near, here)) = host("a_migration_to_nowhere_leaves_the_guest_running").await else { return };
    let domain = running(&here, "d", "").await;
    let nowhere = format!("qemu+unix:///system?socket={}", near.scratch().join("none").display());
    let error = here.migrate_to(&domain, &nowhere, &Params::new(), MigrateFlags::LIVE).await.unwrap_err();
    assert!(error.code().is_some(), "{error}");
    let mistake = here.migrate_confirm(&domain, &Params::new(), &Cookie::default(), MigrateFlags::LIVE, true).await;
    assert!(mistake.is_err(), "no migration is going on");
    assert!(here.state(&domain).await.unwrap().running().is_some());
}

/// Two network namespaces with a cable between them.
struct Cable(String, String);

impl Cable {
    fn lay() -> Cable {
        let id = std::process::id();
        let cable = Cable(format!("arcus-l{id}"), format!("arcus-r{id}"));
        let Cable(left, right) = &cable;
        ip(&format!("netns add {left}"));
        ip(&format!("netns add {right}"));
        ip(&format!("link add wire netns {left} type veth peer name wire netns {right}"));
        for (name, address) in [(left, "10.214.7.1"), (right, "10.214.7.2")] {
            ip(&format!("-n {name} address add {address}/24 dev wire"));
            ip(&format!("-n {name} link set wire up"));
            ip(&format!("-n {name} link set lo up"));
        }
        cable
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in [&self.0, &self.1] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|s| s.success()), "ip {arguments}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_may_have_networks_of_their_own() {
    if !Libvirtd::available("hosts_may_have_networks_of_their_own") {
        return;
    }
    let cable = Cable::lay();
    let place = |name: &str, address| HostOptions { place: Place::namespace(name, address), ..HostOptions::default() };
    let left = Libvirtd::start_with(&place(&cable.0, "10.214.7.1")).await;
    let right = Libvirtd::start_with(&place(&cable.1, "10.214.7.2")).await;
    let (here, there) = (connect(&left).await, connect(&right).await);
    let own = right.command("getent").args(["hosts", right.name()]).output().unwrap();
    assert!(String::from_utf8_lossy(&own.stdout).starts_with("10.214.7.2 "), "{own:?}");
    let domain = running(&here, "d", "").await;
    let params = Params::new().with(migrate::URI, "tcp://10.214.7.2");
    here.migrate_to(&domain, &right.uri(), &params, MigrateFlags::LIVE).await.unwrap();
    assert!(there.state(&domain).await.unwrap().running().is_some());
    // The source keeps its definition, as no flag said otherwise; the destination's copy is transient.
    assert!(here.state(&domain).await.unwrap().shut_off().is_some());
    assert_eq!(there.domains(ListFlags::TRANSIENT).await.unwrap().len(), 1);
}
