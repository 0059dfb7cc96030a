//! What agents call.

use crate::Hub;
use crate::session::{self, Party};
use contract::ApiError;
use contract_agent::hub_server;
use contract_agent::{AgentKind, AgentMessage, EnrolRequest, EnrolResponse, HubMessage, RenewRequest, TunnelData};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rpc::Peer;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Response, Status, Streaming};

/// Enrolments at the same time: anybody may ask, and each costs a signature and a commit.
const ENROLMENTS: usize = 8;

/// How long the first message of a tunnel may take.
const FIRST: Duration = Duration::from_secs(10);

pub(crate) struct HubApi {
    hub: Hub,
    enrolments: Semaphore,
}

impl HubApi {
    pub fn new(hub: Hub) -> HubApi {
        HubApi { hub, enrolments: Semaphore::new(ENROLMENTS) }
    }
}

#[tonic::async_trait]
impl hub_server::Hub for HubApi {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        // Whoever has a token may call this.
        let place = self.enrolments.acquire().await.map_err(|_| Status::unavailable("this replica is ending"))?;
        let message = request.into_inner();
        let kind = match message.kind() {
            AgentKind::Host => pki::AgentKind::Host,
            AgentKind::Factory => pki::AgentKind::Factory,
            AgentKind::Unspecified => return Err(ApiError::param("the agent's kind is missing").into()),
        };
        let enrolled = self.hub.0.pki.enrol(&message.token, &message.csr_pem, kind, &message.name).await?;
        drop(place);
        tracing::info!(agent = enrolled.agent.uuid, name = enrolled.agent.name, ?kind, "an agent was enrolled");
        Ok(Response::new(EnrolResponse {
            agent_uuid: enrolled.agent.uuid,
            certificate_pem: enrolled.issued.chain_pem,
            ca_pem: enrolled.issued.ca_pem,
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolResponse>, Status> {
        let Peer::Host(agent_uuid) = Peer::of(&request) else {
            return Err(ApiError::unauthenticated("an agent renews with its own, still valid certificate").into());
        };
        let issued = self.hub.0.pki.renew(&agent_uuid, &request.into_inner().csr_pem).await?;
        Ok(Response::new(EnrolResponse { agent_uuid, certificate_pem: issued.chain_pem, ca_pem: issued.ca_pem }))
    }

    type AttachStream = UnboundedReceiverStream<Result<HubMessage, Status>>;

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let party = Party { peer: Peer::of(&request), serial: serial(&request) };
        // Unbounded for the sender: a line bounds the orders under way, and everything else is one message a host.
        let (out, messages) = mpsc::unbounded_channel();
        let hub = self.hub.clone();
        let sessions = hub.0.sessions.clone();
        // Not `Node::spawn`: a session ends by itself at the replica's end, after saying so.
        sessions.spawn(session::serve(hub, party, request.into_inner(), out));
        Ok(Response::new(UnboundedReceiverStream::new(messages)))
    }

    type TunnelStream = BoxStream<'static, Result<TunnelData, Status>>;

    async fn tunnel(&self, request: Request<Streaming<TunnelData>>) -> Result<Response<Self::TunnelStream>, Status> {
        let agent = match Peer::of(&request) {
            Peer::InProcess => None,
            Peer::Host(uuid) => Some(uuid),
            _ => return Err(ApiError::unauthenticated("an agent must show its own certificate").into()),
        };
        let mut from_host = request.into_inner();
        let first = tokio::time::timeout(FIRST, from_host.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("a tunnel begins with its id"))??;
        let id = first.ok_or_else(|| Status::invalid_argument("a tunnel begins with its id"))?.tunnel;
        let to_host = self.hub.0.tunnels.come(agent.as_deref(), &id, from_host)?;
        Ok(Response::new(ReceiverStream::new(to_host).map(Ok).boxed()))
    }
}

fn serial<T>(request: &Request<T>) -> Option<String> {
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?;
    info.peer_certs()?.first().and_then(pki::serial_of)
}
