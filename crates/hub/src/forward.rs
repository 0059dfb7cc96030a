//! The way to hosts whose line another replica holds.

use crate::MESSAGE_LIMIT;
use crate::store::Route;
use crate::tunnels::{self, Console};
use contract::ApiError;
use contract_agent::{Command, Outcome};
use contract_infra::ExecuteRequest;
use contract_infra::host_commands_client::HostCommandsClient;
use contract_infra::host_consoles_client::HostConsolesClient;
use contract_infra::{HostConsole, HostConsoleUp, host_console_up};
use coord::{Coord, Member};
use futures::{StreamExt as _, stream};
use jobs::StepKey;
use model::HostId;
use pki::{ClientTls, Credentials, Pki};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

/// The service that hubs belong to.
pub(crate) const SERVICE: &str = "orchestrator";
/// Marks a call that has been forwarded once: the receiver doesn't pass it on.
pub(crate) const FORWARDED: &str = "arcus-forwarded";
/// How much longer than the order itself the call may take.
const GRACE: Duration = Duration::from_secs(2);

/// Makes a channel to another replica.
pub type Dial = Arc<dyn Fn(&Member) -> Result<Channel, ApiError> + Send + Sync>;

/// Reaches other replicas by TLS at their members' addresses.
pub fn tls_dial(pki: &Arc<Pki>, credentials: Credentials) -> Dial {
    let pki = pki.clone();
    Arc::new(move |member| {
        let address = member
            .address
            .as_deref()
            .ok_or_else(|| ApiError::unavailable(format!("replica {} has no address", member.id)))?;
        pki::channel(address, ClientTls::between_services(&pki, SERVICE, credentials.clone()))
    })
}

pub(crate) struct Replicas {
    coord: Coord,
    dial: Option<Dial>,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Replicas {
    pub fn new(coord: Coord, dial: Option<Dial>) -> Replicas {
        Replicas { coord, dial, channels: Mutex::default() }
    }

    /// The other living replicas that have hubs.
    pub fn others(&self, me: &str) -> Vec<Member> {
        let members = self.coord.members();
        let members = members.borrow();
        if self.dial.is_none() {
            return Vec::new();
        }
        members.iter().filter(|m| m.service == SERVICE && m.id != me).cloned().collect()
    }

    #[allow(clippy::too_many_arguments)] // an order, and where it goes
    pub async fn execute(
        &self,
        replica: &str,
        host_uuid: &str,
        host: HostId,
        key: Option<&StepKey>,
        undo: bool,
        command: Command,
        deadline: Duration,
    ) -> Result<Outcome, ApiError> {
        let member = self.member(replica, host_uuid)?;
        let message =
            ExecuteRequest { host_id: host.0, command: Some(command), undo, deadline_millis: millis(deadline) };
        self.send(&member, message, key, deadline)
            .await?
            .ok_or_else(|| ApiError::internal("a replica answered with nothing"))
    }

    /// The console of a VM on a host that is connected with another replica.
    pub async fn console(&self, replica: &str, host: &Route, id: HostId, vm_uuid: &str) -> Result<Console, ApiError> {
        let member = self.member(replica, &host.uuid)?;
        let mut client = HostConsolesClient::new(self.channel(&member)?);
        let (to_host, messages) = mpsc::channel(tunnel::QUEUE);
        let open = HostConsole { host_id: id.0, vm_uuid: vm_uuid.to_owned() };
        let up = |body| HostConsoleUp { body: Some(body) };
        let first = stream::iter([up(host_console_up::Body::Open(open))]);
        let rest = ReceiverStream::new(messages).map(move |data| up(host_console_up::Body::Data(data)));
        let opened = client.open(first.chain(rest));
        // The other replica waits for the host, and for its stream.
        match tokio::time::timeout(tunnels::PATIENCE * 2 + GRACE, opened).await {
            Ok(opened) => Ok(tunnels::joined(opened?.into_inner(), to_host)),
            Err(_) => Err(ApiError::unavailable(format!("replica {} doesn't answer", member.id))),
        }
    }

    fn member(&self, replica: &str, host_uuid: &str) -> Result<Member, ApiError> {
        let member = self.coord.members().borrow().iter().find(|m| m.id == replica).cloned();
        member.ok_or_else(|| {
            ApiError::unavailable(format!("host {host_uuid} was connected with replica {replica}, which has ended"))
        })
    }

    /// Has factories of another replica obey; none when it has none.
    pub async fn to_factories(
        &self,
        replica: &Member,
        command: Command,
        deadline: Duration,
    ) -> Result<Option<Outcome>, ApiError> {
        let message =
            ExecuteRequest { host_id: 0, command: Some(command), undo: false, deadline_millis: millis(deadline) };
        self.send(replica, message, None, deadline).await
    }

    async fn send(
        &self,
        member: &Member,
        message: ExecuteRequest,
        key: Option<&StepKey>,
        deadline: Duration,
    ) -> Result<Option<Outcome>, ApiError> {
        let mut client = HostCommandsClient::new(self.channel(member)?)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let mut request = tonic::Request::new(message);
        if let Some(key) = key {
            key.attach(&mut request);
        }
        request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
        request.set_timeout(deadline + GRACE);
        match tokio::time::timeout(deadline + GRACE, client.execute(request)).await {
            Ok(answer) => Ok(answer?.into_inner().outcome),
            Err(_) => Err(ApiError::unavailable(format!("replica {} doesn't answer", member.id))),
        }
    }

    fn channel(&self, member: &Member) -> Result<Channel, ApiError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&member.id) {
            return Ok(channel.clone());
        }
        let Some(dial) = &self.dial else {
            return Err(ApiError::unavailable(format!("this replica has no way to replica {}", member.id)));
        };
        let members = self.coord.members();
        channels.retain(|id, _| members.borrow().iter().any(|m| m.id == *id));
        let channel = dial(member)?;
        channels.insert(member.id.clone(), channel.clone());
        Ok(channel)
    }
}

fn millis(deadline: Duration) -> u32 {
    u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).max(1)
}
