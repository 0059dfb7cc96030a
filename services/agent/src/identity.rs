//! Who this agent is, and its way to the hubs.

use crate::{Dial, MESSAGE_LIMIT, Options, backoff};
use contract::ApiError;
use contract_agent::hub_client::HubClient;
use contract_agent::{AgentKind, EnrolRequest, RenewRequest};
use pki::{CertificateRequest, ClientTls, Credentials, Identity, Subject, Trust};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// The service that agents dial.
const SERVICE: &str = "orchestrator";
/// The key that enrolment was asked for with.
const KEY: &str = "agent.key";
/// Certificate chain and key in one file, so that a kill never leaves a pair that doesn't fit.
const IDENTITY: &str = "agent.pem";
const CA: &str = "ca.crt";
const UUID: &str = "agent.uuid";
/// How long one question to a hub may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The ways to the hubs.
enum Hubs {
    /// In this very process.
    Given(Channel),
    At {
        addresses: Vec<String>,
        tls: ClientTls,
    },
}

/// The agent's name and its ways to the hubs.
pub(crate) struct Known {
    pub uuid: String,
    dir: PathBuf,
    hubs: Hubs,
    renewal: Option<Renewal>,
}

#[derive(Clone)]
struct Renewal {
    dir: PathBuf,
    credentials: Credentials,
}

/// Finds out who this agent is, enrolling it when need be. None when `stop` came first.
pub(crate) async fn open(
    options: &Options,
    kind: AgentKind,
    stop: &CancellationToken,
) -> Result<Option<Known>, ApiError> {
    let dir = &options.state_dir;
    let (addresses, token) = match &options.dial {
        Dial::Channel(channel) => {
            let uuid = match read(dir, UUID)? {
                Some(uuid) => uuid,
                None => {
                    let uuid = uuid::Uuid::new_v4().to_string();
                    write(dir, UUID, &uuid)?;
                    uuid
                }
            };
            return Ok(Some(Known { uuid, dir: dir.clone(), hubs: Hubs::Given(channel.clone()), renewal: None }));
        }
        Dial::Tls { addresses, token } => (addresses, token),
    };
    if addresses.is_empty() {
        return Err(ApiError::param("the agent needs the address of at least one hub"));
    }
    pki::install_default();
    if read(dir, IDENTITY)?.is_none() {
        let token = token
            .as_ref()
            .ok_or_else(|| ApiError::param("this agent has no certificate yet: start it with an enrolment token"))?;
        if !enrol(options, kind, addresses, token.expose(), stop).await? {
            return Ok(None);
        }
    }
    let lost = |name: &str| ApiError::internal(format!("{} is missing in {}", name, dir.display()));
    let pem = read(dir, IDENTITY)?.ok_or_else(|| lost(IDENTITY))?;
    let ca = read(dir, CA)?.ok_or_else(|| lost(CA))?;
    let identity = Identity::from_pem(&pem, &pem)?;
    let Some(Subject::Host(uuid)) = identity.subject() else {
        return Err(ApiError::internal(format!("{IDENTITY} in {} isn't an agent's", dir.display())));
    };
    let credentials = Credentials::new(identity);
    let tls = ClientTls::new(SERVICE, Trust::from_pem(&ca)?).with(credentials.clone());
    let hubs = Hubs::At { addresses: addresses.clone(), tls };
    // An address that is none is told of now.
    hubs.channel(0)?;
    let renewal = Some(Renewal { dir: dir.clone(), credentials });
    Ok(Some(Known { uuid, dir: dir.clone(), hubs, renewal }))
}

impl Hubs {
    /// A new connection each time: behind a balancer an old one would lead to the replica that has just hung up.
    fn channel(&self, attempt: usize) -> Result<Channel, ApiError> {
        match self {
            Hubs::Given(channel) => Ok(channel.clone()),
            Hubs::At { addresses, tls } => pki::channel(&addresses[attempt % addresses.len()], tls.clone()),
        }
    }
}

impl Known {
    /// The hub to try next.
    pub fn hub(&self, attempt: usize) -> Result<HubClient<Channel>, ApiError> {
        self.hubs.channel(attempt).map(client)
    }

    /// Drops who this agent is: it is nobody until it enrols again, and another one then.
    pub fn forget(&self) {
        // The certificate first: without it the rest means nothing.
        for name in [IDENTITY, KEY, UUID, CA] {
            if let Err(error) = std::fs::remove_file(self.dir.join(name))
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "{} can't be removed", self.dir.join(name).display());
            }
        }
    }

    /// How many hubs there are.
    pub fn hubs(&self) -> usize {
        match &self.hubs {
            Hubs::Given(_) => 1,
            Hubs::At { addresses, .. } => addresses.len(),
        }
    }

    async fn renew(&self, attempt: usize, renewal: &Renewal) -> Result<(), ApiError> {
        renew(self.hub(attempt)?, renewal).await
    }

    /// Gets a new certificate from the first hub that gives one (HOST-141).
    ///
    /// # Errors
    /// 530 when this agent has none, being in the hub's process; else what the last hub says.
    pub async fn renew_now(&self) -> Result<(), ApiError> {
        let Some(renewal) = &self.renewal else {
            return Err(ApiError::failed("this agent runs in the hub's own process, and has no certificate"));
        };
        let mut last = ApiError::unavailable("there is no hub");
        for attempt in 0..self.hubs() {
            match self.renew(attempt, renewal).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Renews the certificate in time, for ever.
    pub async fn keep_valid(&self) {
        let Some(renewal) = &self.renewal else { return std::future::pending().await };
        let mut waits = backoff::waits();
        for attempt in 0.. {
            // Looked at now and then, because a sleeping machine's monotonic clock may stand still.
            while !renewal.credentials.current().renew_in().is_zero() {
                let left = renewal.credentials.current().renew_in();
                tokio::time::sleep(left.clamp(Duration::from_secs(1), Duration::from_secs(3600))).await;
            }
            match self.renew(attempt, renewal).await {
                Ok(()) => {
                    waits = backoff::waits();
                    // However short-lived certificates are: never in a loop.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the agent's certificate can't be renewed; trying again");
                    let wait = waits.next().unwrap_or(PATIENCE).max(Duration::from_secs(1));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

fn client(channel: Channel) -> HubClient<Channel> {
    HubClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT)
}

/// Exchanges the token for a certificate. The key is kept first: when the answer gets lost, asking again with it is safe.
async fn enrol(
    options: &Options,
    kind: AgentKind,
    addresses: &[String],
    token: &str,
    stop: &CancellationToken,
) -> Result<bool, ApiError> {
    let dir = &options.state_dir;
    let fingerprint = pki::token::TokenText::parse(token)?.fingerprint;
    let request = match read(dir, KEY)? {
        Some(key) => CertificateRequest::with_key(&key)?,
        None => CertificateRequest::new()?,
    };
    write(dir, KEY, request.key_pem.expose())?;
    let tls = ClientTls::new(SERVICE, Trust::Fingerprint(fingerprint));
    let mut waits = backoff::waits();
    for attempt in 0.. {
        let mut hub = client(pki::channel(&addresses[attempt % addresses.len()], tls.clone())?);
        let message = EnrolRequest {
            token: token.to_owned(),
            csr_pem: request.csr_pem.clone(),
            kind: kind.into(),
            name: options.name.clone(),
        };
        let error = match tokio::time::timeout(PATIENCE, hub.enrol(message)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                write(dir, CA, &answer.ca_pem)?;
                write(dir, IDENTITY, &format!("{}{}", answer.certificate_pem, request.key_pem.expose()))?;
                tracing::info!(agent = answer.agent_uuid, "enrolled");
                return Ok(true);
            }
            Ok(Err(status)) => ApiError::from(status),
            Err(_) => ApiError::unavailable("the hub doesn't answer"),
        };
        if !error.is_transient() {
            return Err(error);
        }
        tracing::warn!(%error, "can't enrol; trying again");
        let wait = waits.next().unwrap_or(PATIENCE);
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(wait) => {}
        }
    }
    Ok(false)
}

async fn renew(mut hub: HubClient<Channel>, renewal: &Renewal) -> Result<(), ApiError> {
    let request = CertificateRequest::new()?;
    let message = RenewRequest { csr_pem: request.csr_pem.clone() };
    let answer = tokio::time::timeout(PATIENCE, hub.renew(message))
        .await
        .map_err(|_| ApiError::unavailable("the hub doesn't answer"))??
        .into_inner();
    let identity = Identity::from_pem(&answer.certificate_pem, request.key_pem.expose())?;
    write(&renewal.dir, IDENTITY, &format!("{}{}", answer.certificate_pem, request.key_pem.expose()))?;
    renewal.credentials.replace(identity);
    tracing::info!("the agent's certificate was renewed");
    Ok(())
}

fn read(dir: &Path, name: &str) -> Result<Option<String>, ApiError> {
    match std::fs::read_to_string(dir.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(ApiError::internal(format!("{} can't be read: {e}", dir.join(name).display()))),
    }
}

/// Written aside and renamed, for the owner only.
fn write(dir: &Path, name: &str, text: &str) -> Result<(), ApiError> {
    let aside = dir.join(format!("{name}.new"));
    let write = || {
        let _ = std::fs::remove_file(&aside); // what a killed run left
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, dir.join(name))
    };
    write().map_err(|e| ApiError::internal(format!("{} can't be written: {e}", dir.join(name).display())))
}
