//! Asking for a certificate.

use crate::internal;
use contract::ApiError;
use contract::secret::Secret;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

/// A private key and the request for a certificate on it. The name is the authority's to give.
pub struct CertificateRequest {
    /// The private key, PKCS#8.
    pub key_pem: Secret<String>,
    /// PKCS#10.
    pub csr_pem: String,
}

impl CertificateRequest {
    /// With a new key (ECDSA P-256).
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new() -> Result<CertificateRequest, ApiError> {
        Self::with(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(internal("making a key"))?)
    }

    /// With a key made earlier: asking again with it gives the same agent.
    ///
    /// # Errors
    /// When the key can't be read.
    pub fn with_key(key_pem: &str) -> Result<CertificateRequest, ApiError> {
        Self::with(KeyPair::from_pem(key_pem).map_err(internal("reading a key"))?)
    }

    fn with(key: KeyPair) -> Result<CertificateRequest, ApiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).map_err(internal("asking for a certificate"))?;
        let csr_pem = csr.pem().map_err(internal("asking for a certificate"))?;
        Ok(CertificateRequest { key_pem: Secret::new(key.serialize_pem()), csr_pem })
    }
}
