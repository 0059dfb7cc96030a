//! The line itself, against a daemon played by the test.

use super::*;
use crate::events::{Event, EventKind, LifecycleChange};
use crate::wire::Encoder;
use futures::FutureExt;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;

/// A connection and the daemon's end of it.
fn pair() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::over(ours, 2), theirs)
}

async fn next(daemon: &mut UnixStream) -> Message {
    message::read(daemon).await.unwrap().unwrap()
}

async fn answer(daemon: &mut UnixStream, call: &Message, status: Status, payload: impl Encode) {
    let header = Header { kind: Kind::Reply, status, ..call.header };
    daemon.write_all(&message::encode(header, payload).unwrap()).await.unwrap();
}

fn bytes(value: impl Encode) -> Vec<u8> {
    let mut to = Encoder::new();
    value.encode(&mut to);
    to.finish().unwrap()
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order() {
    let (connection, mut daemon) = pair();
    let (one, two) = (connection.domain_by_name("one"), connection.hostname());
    let serve = async {
        let (first, second) = (next(&mut daemon).await, next(&mut daemon).await);
        assert_eq!(first.header.serial + 1, second.header.serial);
        answer(&mut daemon, &second, Status::Ok, "host").await;
        let error =
            (42_i32, 10_i32, Some("Domain not found"), 2_i32, None::<&str>, None::<&str>, None::<&str>, None::<&str>);
        answer(&mut daemon, &first, Status::Error, (error, 0_i32, 0_i32, None::<&str>)).await;
    };
    let (one, two, ()) = tokio::join!(one, two, serve);
    assert!(one.unwrap_err().is_no_domain());
    assert_eq!(two.unwrap(), "host");
}

#[tokio::test]
async fn a_cancelled_call_occupies_the_daemon_until_it_answers() {
    let (connection, mut daemon) = pair();
    for _ in 0..2 {
        assert!(connection.hostname().now_or_never().is_none());
    }
    let (slow, also) = (next(&mut daemon).await, next(&mut daemon).await);
    let third = connection.uri();
    tokio::pin!(third);
    assert!(third.as_mut().now_or_never().is_none());
    assert!(tokio::time::timeout(Duration::from_millis(20), daemon.read_u8()).await.is_err(), "sent a third call");
    answer(&mut daemon, &slow, Status::Ok, "nobody waits for this").await;
    let serve = async {
        let call = next(&mut daemon).await;
        answer(&mut daemon, &also, Status::Ok, "nor for this").await;
        answer(&mut daemon, &call, Status::Ok, "qemu:///system").await;
    };
    let (uri, ()) = tokio::join!(third, serve);
    assert_eq!(uri.unwrap(), "qemu:///system");
}

#[tokio::test]
async fn pings_are_answered() {
    let (_connection, mut daemon) = pair();
    let ping = Header {
        program: Program::KEEPALIVE,
        procedure: p::KEEPALIVE_PING,
        kind: Kind::Event,
        serial: 0,
        status: Status::Ok,
    };
    daemon.write_all(&message::encode(ping, ()).unwrap()).await.unwrap();
    assert_eq!(next(&mut daemon).await.header, Header { procedure: p::KEEPALIVE_PONG, ..ping });
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_answers_pings_is_alive_and_a_silent_one_is_lost() {
    let (connection, mut daemon) = pair();
    connection.keep_alive(Keepalive { interval: Duration::from_secs(5), count: 3 });
    let start = Instant::now();
    for _ in 0..10 {
        let ping = next(&mut daemon).await.header;
        assert_eq!((ping.program, ping.procedure), (Program::KEEPALIVE, p::KEEPALIVE_PING));
        let pong = Header { procedure: p::KEEPALIVE_PONG, ..ping };
        daemon.write_all(&message::encode(pong, ()).unwrap()).await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_secs(50));
    let silent = Instant::now();
    assert!(matches!(connection.lost().await, Lost::Silent(_)));
    assert_eq!(silent.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn losing_the_line_fails_calls_and_ends_streams() {
    let (connection, mut daemon) = pair();
    let subscribe = connection.events(&[EventKind::LIFECYCLE], None);
    let serve = async {
        let call = next(&mut daemon).await;
        answer(&mut daemon, &call, Status::Ok, 5_i32).await;
    };
    let (events, ()) = tokio::join!(subscribe, serve);
    let mut events = events.unwrap();
    let domain = crate::DomainRef { name: "a".into(), uuid: uuid::Uuid::nil(), id: 1 };
    let header = Header {
        program: Program::REMOTE,
        procedure: p::DOMAIN_EVENT_CALLBACK_LIFECYCLE,
        kind: Kind::Event,
        serial: 0,
        status: Status::Ok,
    };
    let started = message::encode(header, (5_i32, &domain, LifecycleChange::STARTED, 0_i32)).unwrap();
    daemon.write_all(&started).await.unwrap();
    assert_eq!(events.next().await, Some(Event::Lifecycle { domain, change: LifecycleChange::STARTED, detail: 0 }));
    let serve = async {
        next(&mut daemon).await;
        drop(daemon);
    };
    let (call, ()) = tokio::join!(connection.hostname(), serve);
    assert!(matches!(call, Err(Error::Lost(Lost::Ended))), "{call:?}");
    assert_eq!(events.next().await, None);
    assert_eq!(connection.lost().await, Lost::Ended);
    assert!(connection.uri().await.unwrap_err().is_lost());
}

#[tokio::test]
async fn dropping_a_subscription_tells_the_daemon() {
    let (connection, mut daemon) = pair();
    let serve = async {
        let call = next(&mut daemon).await;
        answer(&mut daemon, &call, Status::Ok, 5_i32).await;
        // The second is cancelled before its answer comes.
        let call = next(&mut daemon).await;
        answer(&mut daemon, &call, Status::Ok, 6_i32).await;
        [next(&mut daemon).await, next(&mut daemon).await]
    };
    let subscribe = async {
        let events = connection.events(&[EventKind::LIFECYCLE], None).await.unwrap();
        assert!(connection.events(&[EventKind::REBOOT], None).now_or_never().is_none());
        drop(events);
    };
    let (calls, ()) = tokio::join!(serve, subscribe);
    let mut ended: Vec<Vec<u8>> = calls.iter().map(|c| c.payload.clone()).collect();
    ended.sort();
    assert_eq!(ended, [bytes(5_i32), bytes(6_i32)]);
    assert!(calls.iter().all(|c| c.header.procedure == p::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY));
}

#[tokio::test]
async fn a_full_queue_counts_what_it_drops() {
    let (connection, mut daemon) = pair();
    let subscribe = connection.events(&[EventKind::REBOOT], None);
    let serve = async {
        let call = next(&mut daemon).await;
        answer(&mut daemon, &call, Status::Ok, 5_i32).await;
        let domain = crate::DomainRef { name: "a".into(), uuid: uuid::Uuid::nil(), id: 1 };
        let procedure = p::DOMAIN_EVENT_CALLBACK_REBOOT;
        let header = Header { program: Program::REMOTE, procedure, kind: Kind::Event, serial: 0, status: Status::Ok };
        let reboot = message::encode(header, (5_i32, &domain)).unwrap();
        daemon.write_all(&reboot.repeat(events::QUEUE + 3)).await.unwrap();
        // Behind them, so that all have arrived when it is answered.
        let call = next(&mut daemon).await;
        answer(&mut daemon, &call, Status::Ok, "host").await;
    };
    let listen = async {
        let mut events = subscribe.await.unwrap();
        connection.hostname().await.unwrap();
        assert_eq!(events.next().await, Some(Event::Missed(3)));
        assert!(matches!(events.next().await, Some(Event::Reboot { .. })));
    };
    tokio::join!(serve, listen);
}

#[tokio::test]
async fn closing_the_last_handle_closes_the_socket() {
    let (connection, mut daemon) = pair();
    let clone = connection.clone();
    drop(connection);
    assert!(clone.is_lost().is_none());
    drop(clone);
    assert_eq!(daemon.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_aborted() {
    let (connection, mut daemon) = pair();
    let domain = crate::DomainRef { name: "a".into(), uuid: uuid::Uuid::nil(), id: 1 };
    let open = connection.console(&domain, None, crate::ConsoleFlags::none());
    let serve = async {
        let call = next(&mut daemon).await;
        answer(&mut daemon, &call, Status::Ok, ()).await;
        let header = streams::header(call.header.procedure, call.header.serial, Status::Continue);
        let piece = message::encode_chunk(header, &vec![7; 1 << 20]).unwrap();
        for _ in 0..=streams::BUFFER_MAX >> 20 {
            daemon.write_all(&piece).await.unwrap();
        }
        next(&mut daemon).await
    };
    let (console, abort) = tokio::join!(open, serve);
    assert_eq!((abort.header.kind, abort.header.status), (Kind::Stream, Status::Error));
    let mut console = console.unwrap();
    let mut read = 0;
    let error = loop {
        match console.read().await {
            Ok(piece) => read += piece.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!(read, streams::BUFFER_MAX);
    assert!(matches!(error, Error::TooMuch(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever the daemon sends, nobody panics or waits for ever: the line goes on or is lost.
    #[test]
    fn any_bytes_leave_the_line_alive_or_lost(
        program in prop_oneof![Just(0x2000_8086_u32), Just(0x6b65_6570), any::<u32>()],
        procedure in prop_oneof![0..400_i32, any::<i32>()],
        kind in 0..8_u32, serial in 0..3_u32, status in 0..4_u32,
        length in prop_oneof![4 => Just(None), 1 => any::<u32>().prop_map(Some)],
        payload in prop::collection::vec(prop_oneof![Just(0_u8), 0..8_u8, any::<u8>()], 0..100)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (connection, mut daemon) = pair();
            let serve = async move {
                next(&mut daemon).await;
                let size = u32::try_from(payload.len()).unwrap() + 28;
                daemon.write_all(&length.unwrap_or(size).to_be_bytes()).await.unwrap();
                daemon.write_all(&bytes(((program, 1_u32, procedure), (kind, serial, status)))).await.unwrap();
                daemon.write_all(&payload).await.unwrap();
            };
            let (call, ()) = tokio::join!(connection.node_info(), serve);
            prop_assert!(call.is_err());
            Ok(())
        })?;
    }
}
