//! Certificates for machines and programs of the operator's own: they name hosts and addresses, and open no door of ours,
//! because they carry no [`Subject`](crate::Subject).

use crate::authority::{Pki, micros, new_serial};
use crate::internal;
use crate::request::CertificateRequest;
use crate::store;
use crate::subject::{San, hex};
use ::store::Tx;
use contract::ApiError;
use contract::secret::Secret;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose,
    IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use std::time::Duration;
use time::OffsetDateTime;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// A request made elsewhere (PKCS#10, PEM); without one, a key is made along.
    pub csr_pem: Option<String>,
    /// What the certificate names; empty: what the request names.
    pub names: Vec<San>,
    /// How long it is good for; never longer than the root.
    pub validity: Duration,
}

/// A certificate that was just made.
pub struct Named {
    /// The certificate alone.
    pub certificate_pem: String,
    /// Its key (PKCS#8), unless it was asked for with a request.
    pub key_pem: Option<Secret<String>>,
    /// Its number.
    pub serial: String,
    /// Its end, UTC microseconds.
    pub not_after: i64,
    /// Its common name.
    pub common_name: String,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may hold a key.
        write!(f, "Named({}, {})", self.serial, self.common_name)
    }
}

impl Pki {
    /// Signs such a certificate, for servers and clients. It counts when [`Pki::record_named`] is committed.
    ///
    /// # Errors
    /// 431 for a request that can't be read or whose signature is wrong, and when there is nothing to name.
    pub fn sign_named(&self, wanted: &Wanted) -> Result<Named, ApiError> {
        let own = wanted.csr_pem.is_none().then(CertificateRequest::new).transpose()?;
        let csr_pem = own.as_ref().map(|r| &r.csr_pem).or(wanted.csr_pem.as_ref());
        let csr_pem = csr_pem.ok_or_else(|| ApiError::internal("there is no certificate request"))?;
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| ApiError::param(format!("the certificate request can't be used: {e}")))?;
        let names = match wanted.names.is_empty() {
            true => names_of(&request.params),
            false => wanted.names.iter().map(San::to_rcgen).collect::<Result<_, _>>()?,
        };
        let common_name = common_name(&request.params, &names, wanted.names.is_empty())
            .ok_or_else(|| ApiError::param("The certificate would name nothing: give a domain or an address"))?;
        let (serial, now) = (new_serial()?, OffsetDateTime::now_utc());
        let mut params = CertificateParams::default();
        params.not_before = now - crate::authority::SKEW;
        params.not_after = (now + wanted.validity).min(self.root_end()?);
        params.serial_number = Some(SerialNumber::from(serial.to_vec()));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name.as_str());
        params.subject_alt_names = names;
        let not_after = micros(params.not_after);
        request.params = params;
        let certificate = request.signed_by(self.issuer()).map_err(internal("signing a certificate"))?;
        Ok(Named {
            certificate_pem: certificate.pem(),
            key_pem: own.map(|r| r.key_pem),
            serial: hex(&serial),
            not_after,
            common_name,
        })
    }

    /// Records it as part of `tx`, so that it can be revoked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_named(&self, tx: &mut Tx, named: &Named) -> Result<(), ApiError> {
        let subject: String = named.common_name.chars().take(200).collect();
        Ok(store::record_as(tx, &named.serial, &format!("named:{subject}"), named.not_after).await?)
    }
}

/// What a request asks to name, as far as it can be checked by whoever relies on it: hosts and addresses.
fn names_of(params: &CertificateParams) -> Vec<SanType> {
    let ours = |name: &&SanType| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_));
    params.subject_alt_names.iter().filter(ours).cloned().collect()
}

fn common_name(params: &CertificateParams, names: &[SanType], own: bool) -> Option<String> {
    let asked = params.distinguished_name.get(&DnType::CommonName).filter(|_| own).and_then(|name| match name {
        DnValue::Utf8String(text) => Some(text.clone()),
        DnValue::PrintableString(text) => Some(text.as_str().to_owned()),
        _ => None,
    });
    asked.filter(|name| !name.is_empty()).or_else(|| {
        names.iter().find_map(|name| match name {
            SanType::DnsName(name) => Some(name.as_str().to_owned()),
            SanType::IpAddress(ip) => Some(ip.to_string()),
            _ => None,
        })
    })
}
