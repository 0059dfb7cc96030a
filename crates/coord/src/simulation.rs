//! What tests/simulation needs: a simulated etcd in the place of a real one. Everything else is what runs in production.

use crate::etcd::wire::Client;
pub use crate::etcd::wire::pb;
use crate::etcd::{Etcd, EtcdConfig};
use crate::{Coord, CoordError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, StdError, http};
use tonic::transport::Channel;

/// A simulated etcd, as one process reaches it.
pub trait Server: Send + Sync {
    /// Answers a call.
    fn call(&self, request: http::Request<Body>) -> BoxFuture<'static, http::Response<Body>>;
}

impl Coord {
    /// Coordination by a simulated etcd.
    ///
    /// # Errors
    /// When it doesn't answer within the lease's time.
    pub async fn simulated(server: Arc<dyn Server>, config: EtcdConfig) -> Result<Coord, CoordError> {
        let client = Client::simulated(server, config.lease);
        Ok(Coord { backend: Arc::new(Etcd::over(client, config).await?) })
    }
}

/// What carries calls to etcd, real or simulated.
#[derive(Clone)]
pub(crate) enum Carrier {
    Channel(Channel),
    Simulated(Arc<dyn Server>),
}

impl Service<http::Request<Body>> for Carrier {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<http::Response<Body>, StdError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Carrier::Channel(channel) => channel.poll_ready(cx).map_err(Into::into),
            Carrier::Simulated(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Carrier::Channel(channel) => {
                let call = channel.call(request);
                async move { call.await.map_err(Into::into) }.boxed()
            }
            Carrier::Simulated(server) => server.call(request).map(Ok).boxed(),
        }
    }
}
