//! Orders that begin at one replica and end at a host of another.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use contract_infra::ExecuteRequest;
use contract_infra::host_commands_client::HostCommandsClient;
use hub::{Dial, HubOptions};
use rpc::LocalNet;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

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

testkit::databases! {
    async fn any_replica_reaches_any_host(db: testkit::TestDb) {
        let nets = Nets::default();
        let a = Replica::start(&db, nets.options()).await;
        let b = a.another(LocalNet::new(), nets.options()).await;
        nets.add(&a);
        nets.add(&b);
        let dir = testkit::temp_dir();
        let agent = Running::start(dir.path(), &a.net);
        testkit::wait_until(|| async { a.hub.factories() == 1 }, 30 * SECOND).await;
        // The factory is with a; b makes a host on it and commands it.
        let host = b.add_row(1, "Simulator").await;
        b.hub.spawn_on_factory(host, 20 * SECOND).await.unwrap();
        assert!(a.hub.is_connected(model::HostId(1)) && !b.hub.is_connected(model::HostId(1)));
        let key = key(5, "start");
        let first = b.execute(1, Some(&key), start("x", 1)).await.unwrap();
        assert!(is_on(&agent.simulator, "x"));
        // The key travels: asked by way of a, the same effect.
        assert_eq!(a.execute(1, Some(&key), start("x", 1)).await.unwrap(), first);
        b.execute(1, Some(&key.undoing()), stop("x", 1)).await.unwrap();
        assert_eq!(a.execute(1, Some(&key), start("x", 1)).await.unwrap_err().code, 530);
        // So do errors, and mocks reach factories everywhere.
        assert_eq!(b.execute(1, None, reboot("x")).await.unwrap_err().code, 530);
        b.set_mocks(vec![contract_agent::Mock { id: 1, command: "StartVm".into(), fault: true, ..Default::default() }]).await;
        assert!(a.execute(1, None, start("y", 1)).await.is_err());
        b.set_mocks(Vec::new()).await;
        // Services come in over gRPC.
        let mut client = HostCommandsClient::new(b.net.channel("orchestrator"));
        let mut request = tonic::Request::new(ExecuteRequest {
            host_id: 1,
            command: Some(start("z", 1)),
            ..ExecuteRequest::default()
        });
        jobs::StepKey::new(6, "s", 1, false).attach(&mut request);
        client.execute(request).await.unwrap();
        assert!(is_on(&agent.simulator, "z"));
        // The replica that holds the line ends: the agent finds the other one when its network is the same.
        a.end().await;
        b.await_status(1, "Disconnected").await;
        assert_eq!(b.execute(1, None, start("w", 1)).await.unwrap_err().code, 534);
        agent.end().await.unwrap();
        b.end().await;
    }
}
