//! Who is at the other end of a connection.

use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The authenticated other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Another service of this process.
    InProcess,
    /// A service that showed a certificate of the built-in CA for `arcus://service/NAME`.
    Service(String),
    /// A host that showed a certificate for `arcus://host/UUID`.
    Host(String),
    /// Nobody we know.
    Anonymous,
}

impl Peer {
    /// Who sent this request.
    pub fn of<T>(request: &tonic::Request<T>) -> Peer {
        if let Some(peer) = request.extensions().get::<Peer>() {
            return peer.clone();
        }
        let certificate = request
            .extensions()
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .and_then(TlsConnectInfo::peer_certs)
            .and_then(|chain| chain.first().map(|der| der.as_ref().to_vec()));
        // The chain was verified against our CA in the handshake: only the name is read here.
        certificate.map_or(Peer::Anonymous, |der| named_in(&der))
    }

    /// Whether it may say on whose behalf it calls.
    pub fn may_assert_caller(&self) -> bool {
        matches!(self, Peer::InProcess | Peer::Service(_))
    }
}

fn named_in(der: &[u8]) -> Peer {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Peer::Anonymous;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Peer::Anonymous;
    };
    for name in &names.value.general_names {
        if let GeneralName::URI(uri) = name {
            if let Some(service) = uri.strip_prefix("arcus://service/") {
                return Peer::Service(service.to_owned());
            }
            if let Some(host) = uri.strip_prefix("arcus://host/") {
                return Peer::Host(host.to_owned());
            }
        }
    }
    Peer::Anonymous
}
