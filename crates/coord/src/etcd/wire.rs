//! Calls to etcd, each with a time limit.

#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]
pub mod pb {
    tonic::include_proto!("etcdserverpb");
}

use super::EtcdConfig;
use crate::CoordError;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Op;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// What carries calls to etcd.
#[cfg(not(feature = "simulation"))]
type Carrier = Channel;
#[cfg(feature = "simulation")]
type Carrier = crate::simulation::Carrier;

pub(crate) type Transport = InterceptedService<Carrier, Token>;

/// The token of an authenticated client, where etcd asks for one.
#[derive(Clone, Default)]
pub(crate) struct Token(Arc<RwLock<Option<AsciiMetadataValue>>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = self.0.read().unwrap_or_else(PoisonError::into_inner).clone() {
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }
}

/// A client of etcd. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Carrier,
    token: Token,
    user: Option<Arc<(String, String)>>,
    patience: Duration,
}

impl From<Status> for CoordError {
    fn from(status: Status) -> Self {
        CoordError::Unavailable(format!("{}: {}", status.code(), status.message()))
    }
}

impl Client {
    pub async fn connect(config: &EtcdConfig) -> Result<Client, CoordError> {
        let endpoints: Vec<Endpoint> =
            config.endpoints.iter().map(|url| endpoint(config, url)).collect::<Result<_, _>>()?;
        let channel = match <[Endpoint; 1]>::try_from(endpoints) {
            Ok([single]) => single.connect_lazy(),
            Err(several) if several.is_empty() => {
                return Err(CoordError::Config("no endpoint of etcd is given".into()));
            }
            Err(several) => Channel::balance_list(several.into_iter()),
        };
        let user = config.user.clone().map(Arc::new);
        #[cfg(feature = "simulation")]
        let channel = Carrier::Channel(channel);
        let client = Client { channel, token: Token::default(), user, patience: config.lease };
        client.authenticate().await?;
        Ok(client)
    }

    /// A client of a simulated etcd.
    #[cfg(feature = "simulation")]
    pub fn simulated(server: Arc<dyn crate::simulation::Server>, patience: Duration) -> Client {
        Client { channel: Carrier::Simulated(server), token: Token::default(), user: None, patience }
    }

    /// Gets a new token, where etcd asks for one.
    pub async fn authenticate(&self) -> Result<(), CoordError> {
        let Some(user) = &self.user else {
            return Ok(());
        };
        let request = pb::AuthenticateRequest { name: user.0.clone(), password: user.1.clone() };
        let mut auth = pb::auth_client::AuthClient::new(self.channel.clone());
        let answer = self.limit(auth.authenticate(request)).await?;
        let token = answer.token.parse().map_err(|_| CoordError::Config("etcd gave a token that is no text".into()))?;
        *self.token.0.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    async fn limit<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, CoordError> {
        match tokio::time::timeout(self.patience, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(CoordError::Unavailable(format!("no answer within {:?}", self.patience))),
        }
    }

    fn kv(&self) -> pb::kv_client::KvClient<Transport> {
        pb::kv_client::KvClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub fn lease_client(&self) -> pb::lease_client::LeaseClient<Transport> {
        pb::lease_client::LeaseClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub fn watch_client(&self) -> pb::watch_client::WatchClient<Transport> {
        pb::watch_client::WatchClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub async fn grant(&self, ttl: Duration) -> Result<pb::LeaseGrantResponse, CoordError> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        self.limit(self.lease_client().lease_grant(pb::LeaseGrantRequest { ttl, id: 0 })).await
    }

    pub async fn revoke(&self, id: i64) -> Result<(), CoordError> {
        self.limit(self.lease_client().lease_revoke(pb::LeaseRevokeRequest { id })).await.map(drop)
    }

    pub async fn range(&self, key: &[u8], range_end: Vec<u8>) -> Result<pb::RangeResponse, CoordError> {
        self.limit(self.kv().range(pb::RangeRequest { key: key.to_vec(), range_end })).await
    }

    pub async fn put(&self, key: &str, value: Vec<u8>, lease: i64) -> Result<(), CoordError> {
        self.limit(self.kv().put(pb::PutRequest { key: key.as_bytes().to_vec(), value, lease })).await.map(drop)
    }

    pub async fn delete(&self, key: &str) -> Result<(), CoordError> {
        let request = pb::DeleteRangeRequest { key: key.as_bytes().to_vec(), range_end: Vec::new() };
        self.limit(self.kv().delete_range(request)).await.map(drop)
    }

    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, CoordError> {
        self.limit(self.kv().txn(request)).await
    }

    /// Deletes `key` if `compare` holds.
    pub async fn delete_if(&self, key: &str, compare: pb::Compare) -> Result<(), CoordError> {
        let delete = pb::DeleteRangeRequest { key: key.as_bytes().to_vec(), range_end: Vec::new() };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp { request: Some(Op::RequestDeleteRange(delete)) }],
            failure: Vec::new(),
        };
        self.txn(txn).await.map(drop)
    }
}

fn endpoint(config: &EtcdConfig, url: &str) -> Result<Endpoint, CoordError> {
    let wrong = |e: tonic::transport::Error| CoordError::Config(format!("{url}: {e}"));
    let beat = (config.lease / 3).max(Duration::from_millis(200));
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(wrong)?
        .connect_timeout(config.lease)
        .tcp_nodelay(true)
        // A server that is gone without a word is noticed within a lease.
        .http2_keep_alive_interval(beat)
        .keep_alive_timeout(beat)
        .keep_alive_while_idle(true);
    if let Some(tls) = &config.tls {
        let mut client = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
        if let Some((certificate, key)) = &tls.identity {
            client = client.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(client).map_err(wrong)?;
    }
    Ok(endpoint)
}

/// Tells one undertaking from all others.
pub(crate) fn nonce() -> String {
    match store::chance::simulated_bits() {
        Some(bits) => uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

/// The end of the range of all keys that begin with `prefix`.
pub(crate) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0] // all keys
}

/// The key doesn't exist.
pub(crate) fn absent(key: &str) -> pb::Compare {
    compare(key, CompareTarget::Create, TargetUnion::CreateRevision(0))
}

/// The key was last written by this revision.
pub(crate) fn written_at(key: &str, revision: i64) -> pb::Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

/// The key has this value.
pub(crate) fn has_value(key: &str, value: Vec<u8>) -> pb::Compare {
    compare(key, CompareTarget::Value, TargetUnion::Value(value))
}

/// The key hangs on this lease.
pub(crate) fn leased(key: &str, lease: i64) -> pb::Compare {
    compare(key, CompareTarget::Lease, TargetUnion::Lease(lease))
}

fn compare(key: &str, target: CompareTarget, union: TargetUnion) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.as_bytes().to_vec(),
        target_union: Some(union),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(super::prefix_end("/a/"), b"/a0");
    }
}
