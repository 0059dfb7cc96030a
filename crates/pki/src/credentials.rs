//! A key with its certificate, and the place where the current one is found.

use crate::authority::{Pki, SKEW};
use crate::subject::{San, Subject, serial_of};
use contract::ApiError;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A private key and its certificate chain.
#[derive(Debug)]
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    not_before: i64,
    not_after: i64,
}

impl Identity {
    /// Reads PEM texts.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Identity, ApiError> {
        let broken = |what: &str| ApiError::internal(format!("{what} can't be read"));
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| broken("the certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| broken("the private key"))?;
        let leaf = chain.first().ok_or_else(|| broken("the certificate"))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| broken("the certificate"))?;
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        Ok(Identity { chain, key, not_before, not_after })
    }

    /// Whom the certificate names.
    pub fn subject(&self) -> Option<Subject> {
        self.chain.first().and_then(Subject::of)
    }

    /// The certificate's serial number, as the table of issued ones writes it.
    pub fn serial(&self) -> Option<String> {
        self.chain.first().and_then(serial_of)
    }

    /// How long until two thirds of the certificate's life are over.
    pub fn renew_in(&self) -> Duration {
        let now = ::store::now_micros() / 1_000_000;
        // Certificates are dated back, for peers whose clocks are behind.
        let issued = self.not_before + i64::try_from(SKEW.as_secs()).unwrap_or(0);
        let due = issued + (self.not_after - issued) * 2 / 3;
        Duration::from_secs(u64::try_from(due - now).unwrap_or(0))
    }

    /// Whether the certificate's life is over.
    pub fn is_expired(&self) -> bool {
        self.not_after <= ::store::now_micros() / 1_000_000
    }
}

/// Where connections find the current identity. Cheap to clone; clones see the same.
#[derive(Clone, Debug)]
pub struct Credentials(Arc<watch::Sender<Arc<Identity>>>);

impl Credentials {
    /// Starts with `identity`.
    pub fn new(identity: Identity) -> Credentials {
        Credentials(Arc::new(watch::Sender::new(Arc::new(identity))))
    }

    /// The identity now.
    pub fn current(&self) -> Arc<Identity> {
        self.0.borrow().clone()
    }

    /// Handshakes from now on use `identity`.
    pub fn replace(&self, identity: Identity) {
        self.0.send_replace(Arc::new(identity));
    }
}

impl Pki {
    /// Keeps a service's certificate valid until `stop`.
    pub async fn keep(
        self: Arc<Self>,
        service: String,
        sans: Vec<San>,
        credentials: Credentials,
        stop: CancellationToken,
    ) {
        loop {
            // Looked at now and then, because a sleeping machine's monotonic clock may stand still.
            let pause = credentials.current().renew_in().clamp(Duration::from_secs(1), Duration::from_secs(3600));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if !credentials.current().renew_in().is_zero() {
                continue;
            }
            match self.service_identity(&service, &sans).await {
                Ok(identity) => credentials.replace(identity),
                Err(error) => tracing::warn!(service, %error, "the certificate can't be renewed; trying again"),
            }
        }
    }
}
