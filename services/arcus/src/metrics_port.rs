//! The port of metrics and health, for operators, balancers and Kubernetes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use telemetry::Health;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether this process wants requests. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// What `/readyz` asks. Not whether the database answers: were all replicas taken out for that, nobody could even be
    /// told that it doesn't.
    pub fn health(&self) -> Health {
        let ready = self.0.clone();
        Arc::new(move || {
            let answer = if ready.load(Ordering::Acquire) { Ok(()) } else { Err("starting or stopping".to_owned()) };
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
