//! Consoles from a replica of the control plane to a host's VMs, whichever replica the host is connected with.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/rfb.rs"]
mod rfb;

use common::*;
use contract_agent::hub_client::HubClient;
use contract_agent::{OpenConsole, TunnelData, command};
use futures::{StreamExt as _, stream};
use hub::{Console, Dial, HubOptions};
use model::HostId;
use rfb::Rfb;
use rpc::LocalNet;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::io::DuplexStream;

/// Replicas find each other's networks by member id.
#[derive(Clone, Default)]
struct Nets(Arc<Mutex<HashMap<String, Arc<LocalNet>>>>);

impl Nets {
    fn options(&self) -> HubOptions {
        let nets = self.clone();
        let dial: Dial = Arc::new(move |member| Ok(nets.0.lock().unwrap()[&member.id].channel("orchestrator")));
        HubOptions { dial: Some(dial), ..patient() }
    }
    fn add(&self, replica: &Replica) {
        self.0.lock().unwrap().insert(replica.node.replica.clone(), replica.net.clone());
    }
}

/// A viewer of this console.
fn view(console: Console) -> DuplexStream {
    let (viewer, near) = tokio::io::duplex(4096);
    let mut from_host = console.from_host;
    let far = stream::poll_fn(move |cx| from_host.poll_recv(cx)).map(Ok);
    tokio::spawn(tunnel::carry(near, far, console.to_host));
    viewer
}

async fn connect(replica: &Replica, vm: &str) -> Rfb<DuplexStream> {
    Rfb::connect(view(replica.hub.console(HostId(1), vm).await.unwrap())).await.unwrap()
}

testkit::databases! {
    async fn any_replica_shows_the_console_of_any_host(db: testkit::TestDb) {
        let nets = Nets::default();
        let a = Replica::start(&db, nets.options()).await;
        let b = a.another(LocalNet::new(), nets.options()).await;
        nets.add(&a);
        nets.add(&b);
        let dir = testkit::temp_dir();
        let agent = Running::start(dir.path(), &a.net);
        testkit::wait_until(|| async { a.hub.factories() == 1 }, 30 * SECOND).await;
        a.add_host(1).await;
        assert!(a.hub.is_connected(HostId(1)) && !b.hub.is_connected(HostId(1)));
        a.execute(1, None, start("x", 1)).await.unwrap();
        a.execute(1, None, start("y", 1)).await.unwrap();
        for replica in [&a, &b] {
            let mut rfb = connect(replica, "x").await;
            assert_eq!(rfb.name, "i-2-x-VM");
            rfb.ask(false).await.unwrap();
            let whole = rfb.update().await.unwrap();
            assert_eq!(whole.pixels.len(), usize::from(rfb.width) * usize::from(rfb.height));
            // What one types, all see; the machine beside it doesn't.
            let (mut other, mut neighbour) = (connect(&a, "x").await, connect(&b, "y").await);
            for seen in [&mut rfb, &mut other, &mut neighbour] {
                seen.ask(false).await.unwrap();
                seen.update().await.unwrap();
                seen.ask(true).await.unwrap();
            }
            other.key(u32::from('a')).await.unwrap();
            assert!(rfb.update().await.unwrap().y > 0 && other.update().await.unwrap().y > 0);
            let unseen = tokio::time::timeout(SECOND / 5, neighbour.update()).await;
            assert!(unseen.is_err(), "the neighbour's screen stays as it is");
        }
        // What isn't there has no console.
        for replica in [&a, &b] {
            assert_eq!(replica.hub.console(HostId(1), "none").await.err().unwrap().code, 530);
            assert_eq!(replica.hub.console(HostId(9), "x").await.err().unwrap().code, 534);
        }
        // It ends with the VM's run, through the other replica too; a new one comes with the next.
        let (mut near, mut far) = (connect(&a, "x").await, connect(&b, "x").await);
        a.execute(1, None, stop("x", 1)).await.unwrap();
        tokio::time::timeout(30 * SECOND, async { near.end().await; far.end().await }).await.unwrap();
        assert_eq!(b.hub.console(HostId(1), "x").await.err().unwrap().code, 530);
        a.execute(1, None, start("x", 2)).await.unwrap();
        // And with the agent that carries it.
        let (mut near, mut far) = (connect(&a, "x").await, connect(&b, "x").await);
        agent.kill().await;
        tokio::time::timeout(30 * SECOND, async { near.end().await; far.end().await }).await.unwrap();
        assert_eq!(b.hub.console(HostId(1), "x").await.err().unwrap().code, 534);
        a.end().await;
        b.end().await;
    }

    async fn a_console_is_only_for_whom_it_was_ordered(db: testkit::TestDb) {
        let a = Replica::start(&db, patient()).await;
        let dir = testkit::temp_dir();
        let agent = Running::start(dir.path(), &a.net);
        testkit::wait_until(|| async { a.hub.factories() == 1 }, 30 * SECOND).await;
        a.add_host(1).await;
        a.execute(1, None, start("x", 1)).await.unwrap();
        // Nobody waits for tunnels that weren't ordered, and an order of one can't be smuggled in.
        let mut hub = HubClient::new(a.net.channel("orchestrator"));
        for tunnel in ["", "guess"] {
            let first = TunnelData { tunnel: tunnel.into(), ..TunnelData::default() };
            let refused = hub.tunnel(stream::iter([first]).chain(stream::pending())).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        }
        let smuggled = OpenConsole { vm_uuid: "x".into(), tunnel: "guess".into() };
        let smuggled = contract_agent::Command { body: Some(command::Body::OpenConsole(smuggled)) };
        assert!(a.execute(1, None, smuggled).await.is_err());
        // A VM has so many and no more; one that ends makes room.
        let mut open = Vec::new();
        let refused = loop {
            match a.hub.console(HostId(1), "x").await {
                Ok(console) => open.push(console),
                Err(error) => break error,
            }
        };
        assert_eq!((refused.code, open.len()), (530, 8), "{}", refused.text);
        open.pop();
        testkit::wait_until(|| async { a.hub.console(HostId(1), "x").await.is_ok() }, 30 * SECOND).await;
        // Those that are dropped end.
        drop(open);
        testkit::wait_until(|| async { a.hub.console(HostId(1), "x").await.is_ok() }, 30 * SECOND).await;
        let mut rfb = connect(&a, "x").await;
        rfb.ask(false).await.unwrap();
        rfb.update().await.unwrap();
        agent.end().await.unwrap();
        a.end().await;
    }
}
