//! The simulated network between services: calls that are late, lost, doubled, cut off, or whose answers are.

use crate::host::Host;
use crate::sim::{Purpose, Sim, lock};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::request::Parts;
use http_body_util::BodyExt as _;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service};

/// What a service answers calls with.
pub type Handler =
    Arc<dyn Fn(http::Request<Body>) -> BoxFuture<'static, Result<http::Response<Body>, Infallible>> + Send + Sync>;

/// Who serves what.
pub struct Network {
    sim: Arc<Sim>,
    services: Mutex<BTreeMap<usize, (Arc<Host>, Handler)>>,
}

impl Network {
    /// Without services.
    pub fn new(sim: &Arc<Sim>) -> Arc<Network> {
        Arc::new(Network { sim: sim.clone(), services: Mutex::default() })
    }

    /// From now on `host` answers calls to the service `number`.
    pub fn serve(&self, number: usize, host: &Arc<Host>, handler: Handler) {
        lock(&self.services).insert(number, (host.clone(), handler));
    }

    /// A way from `from` to the service `to`.
    pub fn wire(self: &Arc<Network>, from: &Arc<Host>, to: usize) -> Wire {
        Wire { network: self.clone(), from: from.clone(), to }
    }

    /// Runs the handler as a task of the service's process.
    async fn deliver(&self, to: usize, parts: Parts, body: Bytes) -> http::Response<Body> {
        let gone = |why: &str| Status::unavailable(why).into_http();
        let Some((host, handler)) = lock(&self.services).get(&to).cloned() else {
            return gone("nobody serves that");
        };
        if host.is_dead() || !host.network.joined(self.patience()).await {
            return gone("the service can't be reached");
        }
        let (mut sender, receiver) = oneshot::channel();
        let cancels = self.sim.dice(Purpose::Network).per_mille(500);
        let call = handler(http::Request::from_parts(parts, Body::new(http_body_util::Full::new(body))));
        host.spawn(async move {
            tokio::pin!(call);
            let answer = tokio::select! {
                biased;
                // Servers drop what nobody waits for any more.
                () = sender.closed(), if cancels => return,
                answer = &mut call => answer,
            };
            let Ok(answer) = answer;
            let _ = sender.send(answer); // the caller may be gone
        });
        receiver.await.unwrap_or_else(|_| gone("the service died"))
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.sim.dice(Purpose::Network).within(100, 6_000))
    }

    async fn wait(&self, most: u64) {
        let wait = self.sim.dice(Purpose::Network).within(0, most);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    async fn hop(&self, host: &Host) -> bool {
        self.sim.hop(Purpose::Network, |r| r.network_delay).await;
        host.network.joined(self.patience()).await
    }

    async fn call(
        self: Arc<Network>,
        from: Arc<Host>,
        to: usize,
        request: http::Request<Body>,
    ) -> http::Response<Body> {
        let sim = self.sim.clone();
        let gone = |why: &str| Status::unavailable(why).into_http();
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return gone("the call broke") };
        let body = body.to_bytes();
        if !self.hop(&from).await {
            return gone("the call timed out");
        }
        if sim.happens(Purpose::Network, |r| r.call_lost) {
            self.wait(2_000).await;
            return gone("the call got lost");
        }
        if sim.happens(Purpose::Network, |r| r.belated) {
            self.again(to, &parts, &body, 10_000);
            self.wait(3_000).await;
            return gone("the call is late");
        }
        if sim.happens(Purpose::Network, |r| r.doubled) {
            self.again(to, &parts, &body, 5_000);
        }
        let answer = self.deliver(to, parts, body).await;
        if sim.happens(Purpose::Network, |r| r.answer_lost) {
            self.wait(1_000).await;
            return gone("the answer got lost");
        }
        if !self.hop(&from).await {
            return gone("the answer timed out");
        }
        answer
    }

    /// Delivers a copy later.
    fn again(self: &Arc<Network>, to: usize, parts: &Parts, body: &Bytes, most: u64) {
        let (network, parts, body) = (self.clone(), parts.clone(), body.clone());
        self.sim.spawn(async move {
            network.wait(most).await;
            network.sim.reach("a call came again, or late");
            drop(network.deliver(to, parts, body).await);
        });
    }
}

/// A caller's way to a service.
#[derive(Clone)]
pub struct Wire {
    network: Arc<Network>,
    from: Arc<Host>,
    to: usize,
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.network.clone().call(self.from.clone(), self.to, request).map(Ok).boxed()
    }
}
