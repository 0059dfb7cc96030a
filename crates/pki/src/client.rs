//! The client's end: a channel to a service that proves its name.

use crate::authority::{Pki, Revoked, fingerprint};
use crate::credentials::Credentials;
use crate::provider;
use crate::subject::{Subject, serial_of};
use contract::ApiError;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// How long connecting and shaking hands may take together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which root is ours.
#[derive(Clone, Debug)]
pub enum Trust {
    /// This one.
    Root(CertificateDer<'static>),
    /// The one with this SHA-256, hexadecimal, which the server must send along: all that an enrolling agent knows.
    Fingerprint(String),
}

impl Trust {
    /// The root in a PEM text.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn from_pem(ca_pem: &str) -> Result<Trust, ApiError> {
        CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map(Trust::Root)
            .map_err(|_| ApiError::internal("the root certificate can't be read"))
    }
}

/// TLS to a service, known by its name and not by its address.
#[derive(Clone)]
pub struct ClientTls {
    service: String,
    trust: Trust,
    credentials: Option<Credentials>,
    revoked: Option<watch::Receiver<Arc<Revoked>>>,
}

impl ClientTls {
    /// To `service`; anonymous unless [`ClientTls::with`] gives credentials.
    pub fn new(service: impl Into<String>, trust: Trust) -> ClientTls {
        ClientTls { service: service.into(), trust, credentials: None, revoked: None }
    }

    /// Between services: the root and the revocation list are the authority's.
    pub fn between_services(pki: &Pki, service: impl Into<String>, credentials: Credentials) -> ClientTls {
        ClientTls {
            service: service.into(),
            trust: Trust::Root(pki.ca_der().clone()),
            credentials: Some(credentials),
            revoked: Some(pki.revoked()),
        }
    }

    /// Shows a certificate.
    #[must_use]
    pub fn with(mut self, credentials: Credentials) -> ClientTls {
        self.credentials = Some(credentials);
        self
    }

    /// The configuration for a handshake now.
    ///
    /// # Errors
    /// When the certificate and the key don't fit.
    pub fn config(&self) -> Result<Arc<ClientConfig>, ApiError> {
        let broken = |e: Error| ApiError::internal(format!("TLS can't be set up: {e}"));
        let verifier = ServiceVerifier {
            expected: Subject::Service(self.service.clone()),
            trust: self.trust.clone(),
            revoked: self.revoked.as_ref().map(|r| r.borrow().clone()),
            provider: provider(),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(broken)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.credentials {
            None => builder.with_no_client_auth(),
            Some(credentials) => {
                let identity = credentials.current();
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).map_err(broken)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A channel to `address` (`host:port`). Connects when first used, and again whenever the connection was lost, each time
/// with the credentials of that moment.
///
/// # Errors
/// When the address can't be one.
pub fn channel(address: &str, tls: ClientTls) -> Result<Channel, ApiError> {
    // TLS is done by the connector: to tonic the line is plain.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| ApiError::param(format!("{address:?} is no address: {e}")))?
        .initial_connection_window_size(8 * 1024 * 1024)
        .initial_stream_window_size(1024 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let address = address.to_owned();
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let (address, tls) = (address.clone(), tls.clone());
        async move {
            tokio::time::timeout(PATIENCE, dial(&address, &tls))
                .await
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} doesn't answer"))))
                .map(TokioIo::new)
        }
    })))
}

async fn dial(address: &str, tls: &ClientTls) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = tls.config().map_err(|e| io::Error::other(e.to_string()))?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Accepts a server that proves to be the expected service of our installation, wherever it runs.
#[derive(Debug)]
struct ServiceVerifier {
    expected: Subject,
    trust: Trust,
    revoked: Option<Arc<Revoked>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServiceVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = match &self.trust {
            Trust::Root(root) => root.clone(),
            Trust::Fingerprint(wanted) => intermediates
                .iter()
                .find(|c| fingerprint(c) == *wanted)
                .map(|c| c.clone().into_owned())
                .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?,
        };
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)?;
        if Subject::of(end_entity).as_ref() != Some(&self.expected) {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        if let (Some(revoked), Some(serial)) = (&self.revoked, serial_of(end_entity))
            && revoked.has(&serial)
        {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
