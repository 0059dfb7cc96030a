//! What all ways in share: who may call what, the call itself, and the commands that the gateway answers itself.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use config::{Settings, keys};
use contract::ApiError;
use contract_identity::ListApisRequest;
use node::Node;
use prost::Message as _;
use rpc::Peers;
use store::Db;
use tokio_util::sync::CancellationToken;

use crate::auth::{Authority, Decision, Principal, Sessions, Throttle};
use crate::call::{self, OnBehalf};
use crate::catalogue::{Catalogue, Docs, Entry};
use crate::console::Consoles;
use crate::download::Downloads;
use crate::gates::{Gates, Queues};
use crate::render::Writers;
use crate::store::answers;
use crate::wire::{put_bytes_field, put_varint_field};

/// The owner of the commands that the gateway answers itself.
pub const SELF: &str = "gateway";

/// One replica of the gateway.
pub struct Gateway {
    /// The contract.
    pub catalogue: Arc<Catalogue>,
    /// Users and roles.
    pub authority: Authority,
    /// Login sessions.
    pub sessions: Sessions,
    /// The settings in force.
    pub settings: Settings,
    /// The built-in system account.
    pub system: Arc<Principal>,
    /// Who is at work, and who waits.
    pub gates: Arc<Gates>,
    /// Fires when this replica is to end soon, and clients are to go elsewhere.
    pub draining: CancellationToken,
    /// The consoles of VMs.
    pub consoles: Consoles,
    /// What was extracted.
    pub downloads: Downloads,
    /// Who writes answers.
    pub writers: Writers,
    db: Db,
    peers: Peers,
    throttle: Throttle,
    docs: OnceLock<Docs>,
}

/// Why a command is kept from a caller.
#[derive(Debug)]
pub enum Kept {
    /// A rule or the source address: 401, and the end of a session.
    Denied,
    /// No rule allows it: 432 within a session.
    Unavailable,
    /// The rate limit, or identity doesn't answer.
    Failed(ApiError),
}

impl From<ApiError> for Kept {
    fn from(error: ApiError) -> Self {
        Kept::Failed(error)
    }
}

impl Gateway {
    /// Assembles a replica. Sessions end after `idle` without a request; requests wait in these queues.
    ///
    /// # Errors
    /// When the embedded contract can't be served.
    pub fn new(node: &Node, idle: Duration, queues: &Queues, consoles: Consoles) -> Result<Gateway, ApiError> {
        let catalogue = Arc::new(Catalogue::embedded()?);
        let gates = Arc::new(Gates::new(&catalogue, queues));
        Ok(Gateway {
            authority: Authority::new(node.peers.identity(), catalogue.clone(), gates.clone()),
            sessions: Sessions::new(node.db.clone(), node.coord.clone(), idle, gates.clone()),
            gates,
            draining: CancellationToken::new(),
            consoles,
            downloads: Downloads::new(node),
            settings: node.settings.clone(),
            system: Arc::new(Principal::system()),
            db: node.db.clone(),
            peers: node.peers.clone(),
            throttle: Throttle::default(),
            writers: Writers::new(catalogue.clone()),
            docs: OnceLock::new(),
            catalogue,
        })
    }

    /// Whether this user's requests are taken from this address.
    pub fn may_come_from(&self, principal: &Principal, from: IpAddr) -> bool {
        !self.settings.get(keys::API_SOURCE_CIDR_CHECKS_ENABLED) || principal.is_allowed_from(from)
    }

    /// Whether this user may call the command from there, now. Counts as a request.
    ///
    /// # Errors
    /// Why not.
    pub async fn admit(&self, principal: &Principal, entry: &Entry, from: IpAddr) -> Result<(), Kept> {
        if !self.may_come_from(principal, from) {
            return Err(Kept::Denied);
        }
        match self.authority.decide(principal, entry, self.settings.get(keys::DYNAMIC_APICHECKER_ENABLED)).await? {
            Decision::Allowed => {}
            Decision::Denied => return Err(Kept::Denied),
            Decision::Unavailable => return Err(Kept::Unavailable),
        }
        if self.settings.get(keys::API_THROTTLING_ENABLED) && !principal.is_root_admin() {
            let most = self.settings.get(keys::API_THROTTLING_MAX);
            let seconds = self.settings.get(keys::API_THROTTLING_INTERVAL);
            let interval = Duration::from_secs(seconds.max(1).unsigned_abs());
            self.throttle.count(principal.credentials().account_id, most, interval, Instant::now())?;
        }
        Ok(())
    }

    /// Calls the RPC of a command.
    ///
    /// # Errors
    /// What its service says.
    pub async fn call(
        &self,
        principal: &Principal,
        entry: &Entry,
        behalf: OnBehalf,
        message: Bytes,
    ) -> Result<Bytes, ApiError> {
        if entry.info.owner == SELF {
            return self.answer_itself(principal, entry, &message).await;
        }
        let request_id = behalf.request_id.clone();
        let key = behalf.idempotency_key.clone().map(|key| (key, behalf.request_hash.clone()));
        let repeatable = key.is_some() || entry.only_reads();
        let caller = call::caller(principal, behalf, &entry.info.name);
        let called = async {
            call::unary(self.channel(entry)?, entry.path.clone(), &caller, &request_id, message, repeatable).await
        };
        match (called.await, key) {
            (Err(error), Some((key, hash))) => self.answered(principal, &key, &hash).await.ok_or(error),
            (called, _) => called,
        }
    }

    /// What the same request was answered before. A repeat may be refused for what the first one did (the volume is
    /// attached, the machine is gone): then the first answer is the right one.
    async fn answered(&self, principal: &Principal, key: &str, request_hash: &[u8]) -> Option<Bytes> {
        let account = principal.credentials().account_id;
        match answers::find(&self.db, account, key, request_hash).await {
            Ok(answer) => answer.map(Bytes::from),
            Err(error) => {
                // The request's own error is told.
                tracing::debug!(%error, "the answers to keyed requests can't be read");
                None
            }
        }
    }

    /// Calls the RPC that says what a command would do.
    ///
    /// # Errors
    /// 431 for commands that have none: asking never does the work.
    pub async fn plan(
        &self,
        principal: &Principal,
        entry: &Entry,
        behalf: OnBehalf,
        message: Bytes,
    ) -> Result<Bytes, ApiError> {
        let Some(plan) = &entry.plan else { return Err(no_plan(entry)) };
        // Whoever sees a plan may try another: a plan never takes part in idempotency.
        let behalf = OnBehalf { idempotency_key: None, request_hash: Vec::new(), ..behalf };
        let request_id = behalf.request_id.clone();
        let caller = call::caller(principal, behalf, &entry.info.name);
        call::unary(self.channel(entry)?, plan.path.clone(), &caller, &request_id, message, true).await
    }

    fn channel(&self, entry: &Entry) -> Result<rpc::PeerChannel, ApiError> {
        let owner = &entry.info.owner;
        self.peers.find(owner).ok_or_else(|| ApiError::unavailable(format!("there is no service {owner}")))
    }

    async fn answer_itself(&self, principal: &Principal, entry: &Entry, message: &[u8]) -> Result<Bytes, ApiError> {
        if entry.info.request == "arcus.identity.v1.ListApisRequest" {
            return self.list_apis(principal, ListApisRequest::decode(message)?).await;
        }
        Err(ApiError::internal(format!("{} is declared to be answered by the gateway, but isn't", entry.info.name)))
    }

    /// The commands that the caller may call, described.
    async fn list_apis(&self, principal: &Principal, request: ListApisRequest) -> Result<Bytes, ApiError> {
        let mut entries =
            self.authority.commands(principal, self.settings.get(keys::DYNAMIC_APICHECKER_ENABLED)).await?;
        if let Some(name) = request.name.filter(|n| !n.is_empty()) {
            entries.retain(|e| e.info.name == name);
            if entries.is_empty() {
                return Err(ApiError::failed(
                    "Api Discovery plugin was unable to find an api by that name or process any apis",
                ));
            }
        }
        let docs = self.docs.get_or_init(|| self.catalogue.docs());
        let mut out = Vec::new();
        // The message is a count and repeated apis: fields 1 and 2 of ListApisResponse.
        put_varint_field(&mut out, 1, entries.len() as u64);
        for api in entries.iter().filter_map(|e| docs.api(e.index)) {
            put_bytes_field(&mut out, 2, api);
        }
        Ok(out.into())
    }
}

/// 431: the command can't say what it would do.
pub fn no_plan(entry: &Entry) -> ApiError {
    ApiError::param(format!("Command {} can't be planned: call it to find out.", entry.info.name))
}
