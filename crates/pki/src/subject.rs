//! Whom a certificate names.

use contract::ApiError;
use rcgen::{SanType, string::Ia5String};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The bearer of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A service, by its name in `option (owner)`.
    Service(String),
    /// An agent, by its UUID.
    Host(String),
}

impl Subject {
    /// The URI name.
    pub fn uri(&self) -> String {
        match self {
            Subject::Service(name) => format!("arcus://service/{name}"),
            Subject::Host(uuid) => format!("arcus://host/{uuid}"),
        }
    }

    /// Reads a URI name.
    pub fn parse(uri: &str) -> Option<Subject> {
        if let Some(name) = uri.strip_prefix("arcus://service/") {
            return Some(Subject::Service(name.to_owned()));
        }
        uri.strip_prefix("arcus://host/").map(|uuid| Subject::Host(uuid.to_owned()))
    }

    /// Whom a certificate names. The caller has verified its chain.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Subject> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => Subject::parse(uri),
            _ => None,
        })
    }
}

/// A certificate's serial number as the table of issued ones writes it.
pub fn serial_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(hex(certificate.raw_serial()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A name under which clients that aren't ours find a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl San {
    /// Reads a host part: an address or a DNS name.
    pub fn parse(host: &str) -> San {
        host.parse().map_or_else(|_| San::Dns(host.to_owned()), San::Ip)
    }

    pub(crate) fn to_rcgen(&self) -> Result<SanType, ApiError> {
        Ok(match self {
            San::Dns(name) => SanType::DnsName(ia5(name)?),
            San::Ip(ip) => SanType::IpAddress(*ip),
        })
    }
}

pub(crate) fn ia5(text: &str) -> Result<Ia5String, ApiError> {
    Ia5String::try_from(text).map_err(|_| ApiError::param(format!("{text:?} can't be a certificate's name")))
}
