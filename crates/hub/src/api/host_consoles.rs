//! Consoles for other replicas.

use crate::Hub;
use contract::ApiError;
use contract_agent::TunnelData;
use contract_infra::{HostConsoleUp, host_console_up, host_consoles_server};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::HostId;
use rpc::Peer;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);

pub(crate) struct HostConsolesApi(pub Hub);

#[tonic::async_trait]
impl host_consoles_server::HostConsoles for HostConsolesApi {
    type OpenStream = BoxStream<'static, Result<TunnelData, Status>>;

    async fn open(&self, request: Request<Streaming<HostConsoleUp>>) -> Result<Response<Self::OpenStream>, Status> {
        // Whoever may look is checked by the replica that asks.
        let from_replica = match Peer::of(&request) {
            Peer::InProcess => true,
            Peer::Service(name) => name == crate::forward::SERVICE,
            _ => false,
        };
        if !from_replica {
            return Err(Status::unauthenticated("only replicas of the orchestrator may ask for a host's consoles"));
        }
        let mut sent = request.into_inner();
        let first = tokio::time::timeout(FIRST, sent.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nothing was asked for"))??;
        let Some(HostConsoleUp { body: Some(host_console_up::Body::Open(open)) }) = first else {
            return Err(ApiError::internal("a console's first message says what is to be opened").into());
        };
        let console = self.0.console_here(HostId(open.host_id), &open.vm_uuid).await?;
        let sent = sent.map(|message| match message?.body {
            Some(host_console_up::Body::Data(data)) => Ok(data),
            _ => Err(Status::invalid_argument("a console is opened once")),
        });
        tokio::spawn(tunnel::relay(sent, console.to_host));
        Ok(Response::new(ReceiverStream::new(console.from_host).map(Ok).boxed()))
    }
}
