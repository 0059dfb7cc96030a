//! Open consoles: bytes both ways, limits, and what ends them.

use crate::world::{PATIENCE, World};
use futures::{SinkExt as _, StreamExt as _};
use testkit::wait_until;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_flow_until_something_ends_them() {
    if !crate::chromium::viewer_is_here() {
        return;
    }
    let world = World::new().await;
    // A protocol version, a picture, a key, and what it changes.
    let mut rfb = world.look(&world.owner, &world.vm).await;
    assert_eq!((rfb.name.as_str(), rfb.width, rfb.height), ("web1", 640, 400));
    rfb.ask(false).await.unwrap();
    let whole = rfb.update().await.unwrap();
    assert_eq!((whole.y, whole.pixels.len()), (0, 640 * 400));
    assert!(whole.pixels.contains(&0x00_ff_ff_ff), "the name is written in white");
    rfb.ask(true).await.unwrap();
    rfb.key(u32::from('q')).await.unwrap();
    let changed = rfb.update().await.unwrap();
    assert!(changed.y > 0 && changed.pixels.len() < 640 * 100);
    wait_until(|| async { world.events("VNC.CONNECT").await == 1 }, PATIENCE).await;

    // Text isn't a viewer's language.
    let mut talker = world.own_socket(&world.access(&world.owner, &world.vm).await.token()).await.unwrap();
    talker.send(Message::Text("hello".into())).await.unwrap();
    let close = async {
        loop {
            match talker.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, close).await.unwrap(), 1003);
    wait_until(|| async { world.events("VNC.DISCONNECT").await == 1 }, PATIENCE).await;

    // An account has half of what a replica serves.
    world.set("consoleproxy.session.max", "2").await;
    let token = world.access(&world.owner, &world.vm).await.token();
    wait_until(|| async { world.own_socket(&token).await.err() == Some(503) }, PATIENCE).await;
    let _admins = world.look(&world.admin, &world.vm).await;
    world.set("consoleproxy.session.max", "50").await;
    // It wasn't used up by that.
    wait_until(|| async { world.own_socket(&token).await.is_ok() }, PATIENCE).await;

    // The machine stops.
    world.owner.run("stopVirtualMachine", &[("id", &world.vm), ("forced", "true")]).await.unwrap();
    tokio::time::timeout(PATIENCE, rfb.end()).await.unwrap();
    world.owner.run("startVirtualMachine", &[("id", &world.vm)]).await.unwrap();

    // Nothing happens for too long.
    world.set("consoleproxy.session.timeout", "1000").await;
    let mut idle = world.look(&world.owner, &world.vm).await;
    tokio::time::timeout(PATIENCE, idle.end()).await.unwrap();
    world.set("consoleproxy.session.timeout", "300000").await;

    // The user may no longer look, or the system ends.
    let mut last = world.look(&world.owner, &world.vm).await;
    let World { mut dev, .. } = world;
    dev.kill();
    tokio::time::timeout(PATIENCE, last.end()).await.unwrap();
}
