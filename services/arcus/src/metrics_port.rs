//! The port of metrics and health, for operators, balancers and Kubernetes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use telemetry::Health;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Whether this process wants requests. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<State>);

#[derive(Debug, Default)]
struct State {
    ready: AtomicBool,
    /// Whether it is cut off from its equals, when it can tell.
    island: OnceLock<watch::Receiver<bool>>,
}

impl Readiness {
    /// From now on.
    pub fn set(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Release);
    }

    /// Not while this says so: a balancer would send agents here that are sent away. The first of several counts.
    pub fn unless(&self, island: watch::Receiver<bool>) {
        let _ = self.0.island.set(island); // an error means that there is one
    }

    /// What `/readyz` asks. Not whether the database answers: were all replicas taken out for that, nobody could even be
    /// told that it doesn't.
    pub fn health(&self) -> Health {
        let ready = self.0.clone();
        Arc::new(move || {
            let answer = match ready.island.get().is_some_and(|island| *island.borrow()) {
                true => Err("cut off from etcd"),
                false if !ready.ready.load(Ordering::Acquire) => Err("starting or stopping"),
                false => Ok(()),
            };
            let answer = answer.map_err(str::to_owned);
            Box::pin(async move { answer })
        })
    }
}

/// Serves until `end`.
pub fn serve(listener: TcpListener, health: Health, end: CancellationToken) {
    tokio::spawn(async move {
        let served = axum::serve(listener, telemetry::routes(health)).with_graceful_shutdown(end.cancelled_owned());
        if let Err(e) = served.await {
            tracing::error!(error = %e, "the metrics port ended");
        }
    });
}
