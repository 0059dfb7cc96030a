//! The built-in certificate authority, enrolment of agents, and TLS between the parts of an installation.
//!
//! * [`Pki`]: the authority. Its root key lies sealed in the database, so every replica can issue.
//! * [`Subject`]: whom a certificate names, `arcus://service/NAME` or `arcus://host/UUID`. Peers are known by this name
//!   and never by address: DNS and IP names are in service certificates only for clients that aren't ours.
//! * [`Named`]: certificates for what isn't ours, which open no door here.
//! * [`token`]: what lets an unknown agent in once. It carries the root's fingerprint, so the agent knows the hub too.
//! * [`ServerTls`], [`TlsIncoming`], [`ClientTls`], [`channel`]: both ends of a connection. Certificates and the
//!   revocation list are taken anew for every handshake, so nothing needs a restart.

mod agents;
mod authority;
mod client;
mod credentials;
mod incoming;
mod named;
mod request;
mod server;
mod store;
mod subject;
pub mod token;

pub use agents::{Agent, AgentKind, Enrolled};
pub use authority::{Issued, Pki, Revoked, Validity};
pub use client::{ClientTls, Trust, channel};
pub use credentials::{Credentials, Identity};
pub use incoming::TlsIncoming;
pub use named::{Named, Wanted};
pub use request::CertificateRequest;
pub use server::{ClientAuth, ServerTls, public_server};
pub use subject::{San, Subject, serial_of};

/// The tables of the authority.
pub const MIGRATIONS: &[::store::Migration] =
    &[::store::Migration { owner: "pki", file: "0001_pki.sql", sql: include_str!("../migrations/0001_pki.sql") }];

/// Makes aws-lc-rs the process's crypto library. Call it first in `main` and in tests; calling it again does nothing.
pub fn install_default() {
    // An error means that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The crypto library that every configuration of this crate uses, whatever the process's default is.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn internal(what: &'static str) -> impl Fn(rcgen::Error) -> contract::ApiError {
    move |e| contract::ApiError::internal(format!("{what}: {e}"))
}
