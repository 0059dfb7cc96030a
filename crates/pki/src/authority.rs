//! The authority: issuing and revoking.

use crate::request::CertificateRequest;
use crate::store::{self, RootRow};
use crate::subject::{San, Subject, hex, ia5};
use crate::{Identity, internal};
use ::store::{Db, Tx, now_micros};
use contract::ApiError;
use coord::{Coord, Notice};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vault::Vault;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long a certificate is good for that nobody can revoke.
const PASSING: Duration = Duration::from_secs(3_600);
/// Topic of "a certificate was revoked".
const TOPIC: &str = "pki";
/// How often the revocation list is read again, should a notice have been lost.
const REREAD: Duration = Duration::from_secs(30);
/// How far a peer's clock may be behind.
pub(crate) const SKEW: Duration = Duration::from_secs(300);
const SEALED_AS: &str = "ca_certificates.key_sealed:1";

/// How long certificates are valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// Of the root.
    pub root: Duration,
    /// Of an agent's certificate.
    pub host: Duration,
    /// Of a service's; services keep theirs in memory and get a new one at every start.
    pub service: Duration,
}

impl Default for Validity {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        let days = |n| Duration::from_secs(n * DAY);
        Validity { root: days(20 * 365), host: days(365), service: days(7) }
    }
}

/// A certificate that was just made.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Whom it names.
    pub subject: Subject,
    /// The leaf, then the root: the root goes along so that enrolling agents can check its fingerprint.
    pub chain_pem: String,
    /// The root.
    pub ca_pem: String,
    /// Its number.
    pub serial: String,
    /// Its end, UTC microseconds.
    pub not_after: i64,
}

/// What was revoked, as of the last reading.
#[derive(Debug)]
pub struct Revoked {
    /// The signed list.
    pub crl: CertificateRevocationListDer<'static>,
    serials: HashSet<String>,
}

impl Revoked {
    /// Whether the certificate with this number was revoked.
    pub fn has(&self, serial: &str) -> bool {
        self.serials.contains(serial)
    }
}

/// The built-in certificate authority of an installation.
pub struct Pki {
    pub(crate) db: Db,
    coord: Coord,
    root_pem: String,
    root_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
    revoked: watch::Sender<Arc<Revoked>>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("root", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Pki {
    /// Opens the authority, and makes its root when there is none yet.
    ///
    /// # Errors
    /// When the database doesn't answer or the root's key was sealed with another master key.
    pub async fn open(db: &Db, vault: &Vault, coord: &Coord) -> Result<Arc<Pki>, ApiError> {
        Self::open_with(db, vault, coord, Validity::default()).await
    }

    /// Opens the authority with other validities than the usual ones.
    ///
    /// # Errors
    /// As [`Pki::open`].
    pub async fn open_with(db: &Db, vault: &Vault, coord: &Coord, validity: Validity) -> Result<Arc<Pki>, ApiError> {
        let row = match store::root(db).await? {
            Some(row) => row,
            None => make_root(db, vault, validity).await?,
        };
        let key = vault.open_sealed(SEALED_AS, &row.key_sealed)?;
        let key = KeyPair::try_from(key.as_slice()).map_err(internal("reading the root's key"))?;
        let root_der = CertificateDer::from_pem_slice(row.certificate_pem.as_bytes())
            .map_err(|e| ApiError::internal(format!("reading the root certificate: {e}")))?;
        let issuer = Issuer::from_ca_cert_der(&root_der, key).map_err(internal("reading the root certificate"))?;
        let listed = store::revoked(db).await?;
        let revoked = watch::Sender::new(Arc::new(sign_list(&issuer, &listed)?));
        Ok(Arc::new(Pki {
            db: db.clone(),
            coord: coord.clone(),
            root_pem: row.certificate_pem,
            root_der,
            issuer,
            validity,
            revoked,
        }))
    }

    /// The root certificate.
    pub fn ca_pem(&self) -> &str {
        &self.root_pem
    }

    /// The root certificate, DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.root_der
    }

    /// SHA-256 of the root certificate, hexadecimal: what enrolment tokens carry.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.root_der)
    }

    /// What is revoked, now and whenever it changes.
    pub fn revoked(&self) -> watch::Receiver<Arc<Revoked>> {
        self.revoked.subscribe()
    }

    /// Keeps the revocation list fresh until `stop`, and drops what has expired.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut notices = self.coord.subscribe(TOPIC);
        let mut since_purge = 0u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                notice = notices.next() => match notice { Notice::Message(_) | Notice::Missed => {} },
                () = tokio::time::sleep(REREAD) => since_purge += 1,
            }
            if let Err(error) = self.reread().await {
                tracing::warn!(%error, "the revocation list can't be read; the last one stays in use");
            }
            // Hourly is plenty: expired rows harm nobody.
            if since_purge >= 120 {
                since_purge = 0;
                if let Err(error) = store::purge(&self.db).await {
                    tracing::warn!(%error, "expired certificates can't be dropped");
                }
            }
        }
    }

    /// Reads the revocation list again.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn reread(&self) -> Result<(), ApiError> {
        let listed = store::revoked(&self.db).await?;
        let known = self.revoked.borrow().clone();
        if listed.len() == known.serials.len() && listed.iter().all(|(serial, _)| known.has(serial)) {
            return Ok(());
        }
        self.revoked.send_replace(Arc::new(sign_list(&self.issuer, &listed)?));
        Ok(())
    }

    /// Signs a request. Nothing of it but the public key is taken over. The caller records the answer.
    pub(crate) fn sign(&self, csr_pem: &str, subject: Subject, sans: &[San]) -> Result<Issued, ApiError> {
        let validity = match subject {
            Subject::Service(_) => self.validity.service,
            Subject::Host(_) => self.validity.host,
        };
        self.sign_for(validity, csr_pem, subject, sans)
    }

    fn sign_for(&self, validity: Duration, csr_pem: &str, subject: Subject, sans: &[San]) -> Result<Issued, ApiError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| ApiError::param(format!("the certificate request can't be used: {e}")))?;
        let serial = new_serial()?;
        let (params, not_after) = leaf(&subject, sans, validity, &serial)?;
        request.params = params;
        let leaf = request.signed_by(&self.issuer).map_err(internal("signing a certificate"))?;
        Ok(Issued {
            subject,
            chain_pem: format!("{}{}", leaf.pem(), self.root_pem),
            ca_pem: self.root_pem.clone(),
            serial: hex(&serial),
            not_after,
        })
    }

    /// Issues a certificate on the key of `csr_pem`.
    ///
    /// # Errors
    /// 431 for a request that can't be read or whose signature is wrong.
    pub async fn issue(&self, csr_pem: &str, subject: Subject, sans: &[San]) -> Result<Issued, ApiError> {
        let issued = self.sign(csr_pem, subject, sans)?;
        ::store::tx!(self.db, "record-certificate", |tx| {
            store::record(tx, &issued).await?;
            Ok::<_, ApiError>(())
        })
        .await?;
        Ok(issued)
    }

    /// A fresh key and certificate for a service of this process.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn service_identity(&self, service: &str, sans: &[San]) -> Result<Identity, ApiError> {
        let request = CertificateRequest::new()?;
        let issued = self.issue(&request.csr_pem, Subject::Service(service.to_owned()), sans).await?;
        Identity::from_pem(&issued.chain_pem, request.key_pem.expose())
    }

    /// The same for a tool that may not write to the database: it isn't recorded, so nobody can revoke it, and it ends
    /// after an hour. It is for dialling only.
    ///
    /// # Errors
    /// When it can't be signed.
    pub fn passing_identity(&self, service: &str) -> Result<Identity, ApiError> {
        let (request, subject) = (CertificateRequest::new()?, Subject::Service(service.to_owned()));
        let issued = self.sign_for(PASSING.min(self.validity.service), &request.csr_pem, subject, &[])?;
        Identity::from_pem(&issued.chain_pem, request.key_pem.expose())
    }

    /// Revokes one certificate. Whether it was there and valid.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn revoke_certificate(&self, serial: &str, reason: &str) -> Result<bool, ApiError> {
        let found = ::store::tx!(self.db, "revoke-certificate", |tx| {
            Ok::<_, ApiError>(store::revoke_serial(tx, serial, reason).await?)
        })
        .await?;
        self.announce().await?;
        Ok(found > 0)
    }

    /// What signs.
    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// When the root ends: nothing that it signs may be good for longer.
    pub(crate) fn root_end(&self) -> Result<OffsetDateTime, ApiError> {
        let (_, root) = X509Certificate::from_der(&self.root_der)
            .map_err(|e| ApiError::internal(format!("the root certificate can't be read: {e}")))?;
        Ok(root.validity().not_after.to_datetime())
    }

    /// Revokes one certificate as part of `tx`; whether it was there and valid. Call [`Pki::announce`] once it is committed.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn revoke_in(&self, tx: &mut Tx, serial: &str, reason: &str) -> Result<bool, ApiError> {
        Ok(store::revoke_serial(tx, serial, reason).await? > 0)
    }

    /// Takes the list as it is now, and lets the other replicas do so.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn announce(&self) -> Result<(), ApiError> {
        self.coord.publish(TOPIC, "revoked");
        self.reread().await
    }
}

/// SHA-256 of a certificate, hexadecimal.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate).as_ref())
}

async fn make_root(db: &Db, vault: &Vault, validity: Validity) -> Result<RootRow, ApiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(internal("making the root's key"))?;
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + validity.root;
    params.serial_number = Some(SerialNumber::from(new_serial()?.to_vec()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Arcus");
    params.distinguished_name.push(DnType::CommonName, format!("Arcus root {}", uuid::Uuid::new_v4()));
    let certificate = params.self_signed(&key).map_err(internal("making the root"))?;
    let row = RootRow { certificate_pem: certificate.pem(), key_sealed: vault.seal(SEALED_AS, key.serialized_der()) };
    match store::insert_root(db, &row, micros(params.not_after)).await {
        Ok(()) => Ok(row),
        // Another replica was faster: its root counts.
        Err(::store::Error::Unique { .. }) => {
            store::root(db).await?.ok_or_else(|| ApiError::internal("the root certificate has vanished"))
        }
        Err(e) => Err(e.into()),
    }
}

fn leaf(
    subject: &Subject,
    sans: &[San],
    validity: Duration,
    serial: &[u8],
) -> Result<(CertificateParams, i64), ApiError> {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + validity;
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match subject {
        // An agent can't pose as a server, not even to clients that aren't ours.
        Subject::Host(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Subject::Service(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.distinguished_name = DistinguishedName::new();
    let (Subject::Service(name) | Subject::Host(name)) = subject;
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.subject_alt_names = vec![SanType::URI(ia5(&subject.uri())?)];
    for san in sans {
        params.subject_alt_names.push(san.to_rcgen()?);
    }
    let end = micros(params.not_after);
    Ok((params, end))
}

fn sign_list(issuer: &Issuer<'_, KeyPair>, revoked: &[(String, i64)]) -> Result<Revoked, ApiError> {
    let now = OffsetDateTime::now_utc();
    let revoked_certs = revoked
        .iter()
        .map(|(serial, at)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(unhex(serial)?),
                revocation_time: OffsetDateTime::from_unix_timestamp(at / 1_000_000)
                    .map_err(|e| ApiError::internal(format!("time of a revocation: {e}")))?,
                reason_code: None,
                invalidity_date: None,
            })
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    let list = CertificateRevocationListParams {
        this_update: now - SKEW,
        next_update: now + Duration::from_secs(24 * 3600),
        crl_number: SerialNumber::from(u64::try_from(now_micros()).unwrap_or_default()),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = list.signed_by(issuer).map_err(internal("signing the revocation list"))?;
    Ok(Revoked { crl: signed.into(), serials: revoked.iter().map(|(serial, _)| serial.clone()).collect() })
}

/// 128 random bits, positive and of full length, so that the text form is the same everywhere.
pub(crate) fn new_serial() -> Result<[u8; 16], ApiError> {
    let mut serial = [0u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| ApiError::internal("the system gives no randomness"))?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn unhex(text: &str) -> Result<Vec<u8>, ApiError> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2).unwrap_or("?"), 16))
        .collect::<Result<_, _>>()
        .map_err(|_| ApiError::internal(format!("{text:?} is no serial number")))
}

pub(crate) fn micros(time: OffsetDateTime) -> i64 {
    time.unix_timestamp().saturating_mul(1_000_000)
}
