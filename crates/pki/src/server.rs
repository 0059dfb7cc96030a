//! The server's end: which certificate it shows, and whom it lets in.

use crate::authority::{Pki, Revoked};
use crate::credentials::{Credentials, Identity};
use crate::provider;
use contract::ApiError;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::sync::{Arc, Mutex, PoisonError};

/// Whether a client must show a certificate of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It must.
    Required,
    /// It may come without one: for the agents' port, where the unknown enrol. One that it shows must be valid.
    Optional,
}

/// TLS of a listening port. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    pki: Arc<Pki>,
    credentials: Credentials,
    auth: ClientAuth,
    built: Mutex<Option<Built>>,
}

/// A configuration, with what it was made of.
struct Built {
    identity: Arc<Identity>,
    revoked: Arc<Revoked>,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Shows the certificate of `credentials`, and checks clients against the authority and its revocation list.
    pub fn new(pki: Arc<Pki>, credentials: Credentials, auth: ClientAuth) -> ServerTls {
        ServerTls(Arc::new(Inner { pki, credentials, auth, built: Mutex::new(None) }))
    }

    /// The configuration for a handshake now. A change of certificate or revocation list makes a new one, which also
    /// forgets all sessions: a revoked client can't resume.
    ///
    /// # Errors
    /// When the certificate and the key don't fit.
    pub fn config(&self) -> Result<Arc<ServerConfig>, ApiError> {
        let identity = self.0.credentials.current();
        let revoked = self.0.pki.revoked().borrow().clone();
        let mut built = self.0.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(b) = &*built
            && Arc::ptr_eq(&b.identity, &identity)
            && Arc::ptr_eq(&b.revoked, &revoked)
        {
            return Ok(b.config.clone());
        }
        let config = Arc::new(self.build(&identity, &revoked)?);
        *built = Some(Built { identity, revoked, config: config.clone() });
        Ok(config)
    }

    fn build(&self, identity: &Identity, revoked: &Revoked) -> Result<ServerConfig, ApiError> {
        let broken = |e: &dyn std::fmt::Display| ApiError::internal(format!("TLS can't be set up: {e}"));
        let mut roots = RootCertStore::empty();
        roots.add(self.0.pki.ca_der().clone()).map_err(|e| broken(&e))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .with_crls([revoked.crl.clone()])
            .only_check_end_entity_revocation();
        let verifier = match self.0.auth {
            ClientAuth::Required => verifier,
            ClientAuth::Optional => verifier.allow_unauthenticated(),
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| broken(&e))?
            .with_client_cert_verifier(verifier.build().map_err(|e| broken(&e))?)
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|e| broken(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// TLS of a port for anybody, with a certificate that the operator brings (PEM texts). HTTP/1.1 only, as the query API.
///
/// # Errors
/// 431 when the certificate and the key can't be read or don't fit.
pub fn public_server(certificate_pem: &str, key_pem: &str) -> Result<Arc<ServerConfig>, ApiError> {
    let identity = Identity::from_pem(certificate_pem, key_pem)?;
    let broken = |e: rustls::Error| ApiError::param(format!("the certificate and the key can't be used: {e}"));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(broken)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
