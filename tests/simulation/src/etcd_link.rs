//! A process's way to the simulated etcd: calls and streams that are delayed, fail, break, or lose their answers.

use crate::etcd::Etcd;
use crate::host::Host;
use crate::sim::{Purpose, Sim};
use coord::simulation::{Server, pb};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status, Streaming};

/// Longest time without a sign of life until a connection counts as broken (HTTP/2's pings).
const SILENCE: Duration = Duration::from_secs(2);

/// A process's connection.
pub struct EtcdLink {
    line: Line,
}

/// What serves one process.
#[derive(Clone)]
struct Line {
    etcd: Arc<Etcd>,
    host: Arc<Host>,
}

impl EtcdLink {
    /// The connection of `host`.
    pub fn new(etcd: &Arc<Etcd>, host: &Arc<Host>) -> Arc<EtcdLink> {
        Arc::new(EtcdLink { line: Line { etcd: etcd.clone(), host: host.clone() } })
    }
}

impl Server for EtcdLink {
    fn call(&self, request: http::Request<Body>) -> BoxFuture<'static, http::Response<Body>> {
        let line = self.line.clone();
        async move {
            let sim = line.sim().clone();
            let failed = |text: &str| Status::unavailable(text).into_http();
            if let Err(status) = line.hop().await {
                return status.into_http();
            }
            let fails = sim.happens(Purpose::Etcd, |r| r.etcd_failed);
            if fails && sim.dice(Purpose::Etcd).per_mille(500) {
                return failed("the call didn't arrive");
            }
            // The service's errors have no values.
            let path = request.uri().path().to_owned();
            let answer = if path.contains(".KV/") {
                pb::kv_server::KvServer::new(line.clone()).call(request).await
            } else if path.contains(".Lease/") {
                pb::lease_server::LeaseServer::new(line.clone()).call(request).await
            } else {
                pb::watch_server::WatchServer::new(line.clone()).call(request).await
            };
            let Ok(answer) = answer;
            if fails {
                return failed("the answer didn't arrive");
            }
            if let Err(status) = line.hop().await {
                return status.into_http();
            }
            answer
        }
        .boxed()
    }
}

impl Line {
    fn sim(&self) -> &Arc<Sim> {
        &self.etcd.sim
    }

    async fn hop(&self) -> Result<(), Status> {
        self.sim().hop(Purpose::Etcd, |r| r.etcd_delay).await;
        if self.host.etcd.is_cut() && !self.host.etcd.joined(SILENCE).await {
            return Err(Status::unavailable("the connection timed out"));
        }
        Ok(())
    }

    /// Hands messages on, late, until the connection breaks.
    fn pipe<T: Send + 'static>(
        &self,
        mut from: mpsc::UnboundedReceiver<T>,
    ) -> UnboundedReceiverStream<Result<T, Status>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let line = self.clone();
        self.sim().spawn(async move {
            loop {
                let message = tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    () = line.host.etcd.lost(SILENCE) => None,
                    message = from.recv() => match message {
                        Some(message) => Some(message),
                        None => return,
                    },
                };
                let breaks = line.sim().happens(Purpose::Etcd, |r| r.etcd_broken);
                let Some(message) = message.filter(|_| !breaks) else {
                    let _ = sender.send(Err(Status::unavailable("the connection broke")));
                    return;
                };
                if let Err(status) = line.hop().await {
                    let _ = sender.send(Err(status));
                    return;
                }
                if sender.send(Ok(message)).is_err() {
                    return;
                }
            }
        });
        UnboundedReceiverStream::new(receiver)
    }
}

#[async_trait::async_trait]
impl pb::kv_server::Kv for Line {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        Ok(Response::new(self.etcd.range(request.get_ref())))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let put = pb::request_op::Request::RequestPut(request.into_inner());
        let header = self.etcd.txn(&one(put))?.header;
        Ok(Response::new(pb::PutResponse { header }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let delete = pb::request_op::Request::RequestDeleteRange(request.into_inner());
        let header = self.etcd.txn(&one(delete))?.header;
        Ok(Response::new(pb::DeleteRangeResponse { header, deleted: 0 }))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        Ok(Response::new(self.etcd.txn(request.get_ref())?))
    }
}

fn one(request: pb::request_op::Request) -> pb::TxnRequest {
    pb::TxnRequest { success: vec![pb::RequestOp { request: Some(request) }], ..Default::default() }
}

#[async_trait::async_trait]
impl pb::lease_server::Lease for Line {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        Ok(Response::new(self.etcd.grant(request.get_ref().ttl)))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        if self.etcd.revoke(request.get_ref().id) {
            Ok(Response::new(pb::LeaseRevokeResponse { header: None }))
        } else {
            Err(Status::not_found("etcdserver: requested lease not found"))
        }
    }

    type LeaseKeepAliveStream = UnboundedReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::unbounded_channel();
        let line = self.clone();
        self.sim().spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if line.hop().await.is_err() || sender.send(line.etcd.keep_alive(request.id)).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(self.pipe(receiver)))
    }
}

#[async_trait::async_trait]
impl pb::watch_server::Watch for Line {
    type WatchStream = UnboundedReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut requests = request.into_inner();
        let Some(pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) }) =
            requests.message().await?
        else {
            return Err(Status::invalid_argument("a watch begins with its creation"));
        };
        Ok(Response::new(self.pipe(self.etcd.watch(&create))))
    }
}
