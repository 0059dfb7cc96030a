//! `arcus.infra.v1.Consoles`.

use crate::console;
use crate::vm::VmWorld;
use contract::ApiError;
use contract_agent::TunnelData;
use contract_infra::consoles_server::Consoles;
use contract_infra::{ConsoleAccess, ConsoleAccessRequest, ConsoleUp, console_up};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);

/// The handlers.
pub struct ConsolesApi(pub VmWorld);

#[tonic::async_trait]
impl Consoles for ConsolesApi {
    async fn access(&self, request: Request<ConsoleAccessRequest>) -> Result<Response<ConsoleAccess>, Status> {
        let (cx, _) = self.0.node.rpc.enter(request).await?;
        let (vm, _) = console::running(&self.0, cx.refs.need("vm")?).await?;
        Ok(Response::new(ConsoleAccess { name: console::title(&vm), vm_uuid: vm.uuid }))
    }

    type OpenStream = BoxStream<'static, Result<TunnelData, Status>>;

    async fn open(&self, request: Request<Streaming<ConsoleUp>>) -> Result<Response<Self::OpenStream>, Status> {
        let (metadata, extensions, mut sent) = request.into_parts();
        let first = tokio::time::timeout(FIRST, sent.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nothing was asked for"))??;
        let Some(ConsoleUp { body: Some(console_up::Body::Open(open)) }) = first else {
            return Err(ApiError::internal("a console's first message says what is to be opened").into());
        };
        let (cx, _) = self.0.node.rpc.enter(Request::from_parts(metadata, extensions, open)).await?;
        let (vm, host) = console::running(&self.0, cx.refs.need("vm")?).await?;
        let console = console::open(&self.0, &cx.caller, vm, host).await?;
        let sent = sent.map(|message| match message?.body {
            Some(console_up::Body::Data(data)) => Ok(data),
            _ => Err(Status::invalid_argument("a console is opened once")),
        });
        tokio::spawn(tunnel::relay(sent, console.to_host));
        let mut from_host = console.from_host;
        Ok(Response::new(stream::poll_fn(move |cx| from_host.poll_recv(cx)).map(Ok).boxed()))
    }
}
