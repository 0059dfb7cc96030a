//! The connection: many calls, cancelled ones, a killed daemon, a silent one.

use crate::{connect, host, running};
use futures::future::join_all;
use libvirt::{Connection, Error, EventKind, Keepalive, Lost, Options};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_the_line_and_cancelled_ones_do_no_harm() {
    let Some((_host, connection)) = host("many_calls_share_the_line_and_cancelled_ones_do_no_harm").await else {
        return;
    };
    let domain = running(&connection, "d", "").await;
    let states = join_all((0..300).map(|_| connection.state(&domain))).await;
    assert!(states.iter().all(|s| s.as_ref().is_ok_and(|s| s.running().is_some())));
    for n in 0..50 {
        let _ = tokio::time::timeout(Duration::from_micros(n * 20), connection.xml(&domain, libvirt::XmlFlags::none()))
            .await;
        let _ = tokio::time::timeout(Duration::from_micros(n * 20), connection.screenshot(&domain, 0)).await;
        let _ =
            tokio::time::timeout(Duration::from_micros(n * 20), connection.events(&[EventKind::REBOOT], None)).await;
    }
    assert!(connection.state(&domain).await.unwrap().running().is_some());
    assert_eq!(connection.screenshot(&domain, 0).await.unwrap().mime.split('/').next(), Some("image"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_is_noticed_and_the_guest_outlives_it() {
    let Some((mut host, connection)) = host("a_killed_daemon_is_noticed_and_the_guest_outlives_it").await else {
        return;
    };
    let domain = running(&connection, "d", "").await;
    let mut events = connection.events(&[EventKind::LIFECYCLE], None).await.unwrap();
    host.pause_daemon();
    let waiting = tokio::spawn({
        let (connection, domain) = (connection.clone(), domain.clone());
        async move { connection.info(&domain).await }
    });
    host.kill_daemon().await;
    assert_eq!(connection.lost().await, Lost::Ended);
    assert!(waiting.await.unwrap().unwrap_err().is_lost());
    assert_eq!(futures::StreamExt::next(&mut events).await, None);
    assert!(connection.state(&domain).await.unwrap_err().is_lost());
    let refused = Connection::open(host.socket(), Options::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Connect { .. }), "{refused}");

    host.start_daemon().await;
    let again = connect(&host).await;
    assert!(again.state(&domain).await.unwrap().running().is_some());
    assert_eq!(again.domain_by_uuid(domain.uuid).await.unwrap().id, domain.id, "the same run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_daemon_is_given_up() {
    let Some((host, _)) = host("a_silent_daemon_is_given_up").await else { return };
    let keepalive = Keepalive { interval: Duration::from_millis(300), count: 2 };
    let options = Options { keepalive, ..Options::default() };
    let connection = Connection::open(host.socket(), options).await.unwrap();
    // As long as it answers PINGs, silence otherwise is no loss.
    let idle = tokio::time::timeout(Duration::from_secs(3), connection.lost()).await;
    assert!(idle.is_err(), "{idle:?}");
    host.pause_daemon();
    assert!(matches!(connection.lost().await, Lost::Silent(_)));
    let impatient = Options { open_within: Duration::from_millis(300), ..Options::default() };
    assert!(Connection::open(host.socket(), impatient).await.unwrap_err().is_lost());
    host.resume_daemon();
    assert!(Connection::open(host.socket(), Options::default()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_host_leaves_nothing_behind() {
    let Some((mut host, connection)) = host("a_dead_host_leaves_nothing_behind").await else { return };
    running(&connection, "d", "").await;
    let socket = host.socket().display().to_string();
    let dir = socket.trim_end_matches("/run/libvirt-sock").to_owned();
    // QEMU's command line names files in /var/lib/libvirt, which is a mount of our folder: it is found by that mount.
    let inside = move || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|p| std::fs::read_to_string(p.path().join("mountinfo")).is_ok_and(|m| m.contains(&dir)))
            .count()
    };
    assert!(inside() >= 3, "process 1, libvirtd and QEMU");
    host.kill().await;
    assert_eq!(connection.lost().await, Lost::Ended);
    testkit::wait_until(|| async { inside() == 0 }, Duration::from_secs(30)).await;
}
