//! What the balancer and the services' stopping in order promise to clients.

use crate::{alone, call, deploy, few_hosts, state};
use cluster::{Api, Cluster};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Calls until told to end; counts calls, gives those that failed.
async fn ask(api: Arc<Api>, worker: usize, end: Arc<AtomicBool>, calls: Arc<AtomicU64>) -> Vec<(String, String)> {
    let mut failed = Vec::new();
    let mut n = 0;
    while !end.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("key-{worker}-{n}");
        let steps: [(&str, &[(&str, &str)]); 4] = [
            ("listVirtualMachines", &[]),
            ("createSSHKeyPair", &[("name", &name)]),
            ("listSSHKeyPairs", &[("name", &name)]),
            ("deleteSSHKeyPair", &[("name", &name)]),
        ];
        for (command, params) in steps {
            calls.fetch_add(1, Ordering::Relaxed);
            if let Err(e) = call(&api, command, params).await {
                failed.push((command.to_owned(), format!("{e:#}")));
            }
        }
    }
    failed
}

struct Load {
    end: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    workers: Vec<tokio::task::JoinHandle<Vec<(String, String)>>>,
}

impl Load {
    fn start(cluster: &Cluster) -> Load {
        let (end, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let api = || Arc::new(cluster.api().at(cluster.api().endpoint.clone()));
        let workers = (0..4).map(|w| tokio::spawn(ask(api(), w, end.clone(), calls.clone()))).collect();
        Load { end, calls, workers }
    }

    /// Waits for more calls, so that something is under way before and after.
    async fn more(&self, n: u64) {
        let from = self.calls.load(Ordering::Relaxed);
        let enough = || async { self.calls.load(Ordering::Relaxed) >= from + n };
        testkit::wait_until(enough, Duration::from_secs(60)).await;
    }

    async fn end(self) -> (u64, Vec<(String, String)>) {
        self.end.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for worker in self.workers {
            failed.extend(worker.await.unwrap());
        }
        (self.calls.load(Ordering::Relaxed), failed)
    }
}

// covers: OPS-096, OPS-097
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn nothing_is_lost_but_what_was_under_way() {
    let _alone = alone().await;
    let dir = testkit::temp_dir();
    let cluster = Cluster::start(few_hosts(dir.path())).await.unwrap();
    println!("{:?}, {}", cluster.start_time(), cluster.memory());

    // Any gateway serves any request.
    let gateways: Vec<Api> = cluster.endpoints().into_iter().map(|e| cluster.api().at(e)).collect();
    let vm = deploy(&gateways[0], "anywhere").await;
    assert_eq!(state(&gateways[1], &vm).await.as_deref(), Some("Running"));

    // One after the other in order: no call fails.
    let load = Load::start(&cluster);
    load.more(40).await;
    for name in ["gateway-1", "gateway-2"] {
        cluster.restart(name).await.unwrap();
        load.more(40).await;
    }
    let (calls, failed) = load.end().await;
    println!("restart in order: {} of {calls} calls failed", failed.len());
    assert!(failed.is_empty(), "{failed:?}");

    // Killed: at most what was under way there, and of that nothing that only reads.
    let load = Load::start(&cluster);
    load.more(40).await;
    cluster.kill("gateway-1").await;
    load.more(40).await;
    let (calls, failed) = load.end().await;
    println!("kill: {} of {calls} calls failed: {failed:?}", failed.len());
    // A creation whose answer was lost may have been done; then deleting succeeds. One that wasn't done makes it fail.
    let of = |command: &str| failed.iter().filter(|(c, _)| c.starts_with(command)).count();
    assert_eq!(of("list"), 0, "{failed:?}");
    assert!(of("create") <= 4 && of("delete") <= 4 + of("create"), "{failed:?}");
    assert!(!cluster.ready("gateway-1").await && cluster.ready("gateway-2").await);
    cluster.restart("gateway-1").await.unwrap();
    assert!(cluster.ready("gateway-1").await);

    // Hanging: found out, cut, and left alone until it answers again.
    cluster.pause("gateway-2");
    let load = Load::start(&cluster);
    load.more(80).await;
    let (calls, failed) = load.end().await;
    println!("pause: {} of {calls} calls failed", failed.len());
    assert!(failed.len() <= 12, "{failed:?}");
    cluster.resume("gateway-2");
    testkit::wait_until(|| cluster.ready("gateway-2"), Duration::from_secs(20)).await;
    cluster.shut_down().await;
    assert_eq!(crate::processes(dir.path()), Vec::<String>::new());
}
