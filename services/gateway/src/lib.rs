//! The gateway: the query API over HTTP and the same commands over gRPC.
//!
//! It knows the API by descriptors only: no command, and no message but those of authentication and consoles, has code
//! here. A request's way: `query` → `auth` → `params` → `call` → `render`; `http` and `grpc` are the two ways in. Beside
//! the API, `console` serves the consoles of VMs, and `download` what was extracted.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // a test that can't go on has failed

mod auth;
mod call;
mod catalogue;
mod console;
mod download;
mod gates;
mod gateway;
mod grpc;
mod http;
mod idempotency;
mod params;
mod query;
mod render;
mod store;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::store::Migration;
use config::keys;
use contract::ApiError;
use node::Node;
use tokio_util::sync::CancellationToken;

pub use crate::gates::Queues;
pub use crate::grpc::GrpcListener;
pub use crate::http::{Limits, Listener};

use crate::console::Consoles;
use crate::gateway::Gateway;
use crate::http::Port;

/// The signature of a raw query string, for clients within this project; none when it has too many parameters.
pub fn sign_query(raw: &str, secret: &[u8]) -> Option<String> {
    let query = query::Query::read(raw, b"").ok()?;
    Some(auth::signature::sign(&query, secret))
}

/// A moment (microseconds since 1970) as `expires` of a signed query names it, for clients within this project.
pub fn moment(micros: i64) -> String {
    let mut text = String::new();
    params::dates::write(&mut text, micros);
    text
}

/// The tables that the gateway owns.
pub const MIGRATIONS: &[Migration] = &[
    Migration { owner: "gateway", file: "0001_sessions.sql", sql: include_str!("../migrations/0001_sessions.sql") },
    Migration { owner: "gateway", file: "0002_consoles.sql", sql: include_str!("../migrations/0002_consoles.sql") },
];

/// How often idle sessions are removed.
const SWEEP: Duration = Duration::from_secs(300);

/// How the gateway is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the query API is served.
    pub http: Vec<Listener>,
    /// Where the gRPC port is; none: nowhere.
    pub grpc: Option<GrpcListener>,
    /// What is refused.
    pub limits: Limits,
    /// How long a session may be idle.
    pub session_idle: Duration,
    /// Where noVNC's files are, for the consoles of VMs.
    pub console_assets: PathBuf,
}

impl Options {
    /// The query API on one plain address.
    pub fn http(address: SocketAddr) -> Options {
        Options {
            http: vec![Listener { address, tls: None }],
            grpc: None,
            limits: Limits::default(),
            session_idle: Duration::from_secs(1800),
            console_assets: console::ASSETS.into(),
        }
    }
}

/// Where a gateway serves.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// The query API, in the order of [`Options::http`].
    pub http: Vec<SocketAddr>,
    /// The gRPC port.
    pub grpc: Option<SocketAddr>,
    /// The integration port, when the setting opens one.
    pub integration: Option<SocketAddr>,
    draining: CancellationToken,
}

impl Serving {
    /// Has clients and balancers go elsewhere, before the node stops: from now on each answer over HTTP closes its
    /// connection, while new ones are still let in. Once the node stops the ports close, requests under way are finished,
    /// and gRPC clients are told to go away.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether that was begun.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}

/// Starts serving, until the node stops; requests under way are finished within the node's patience.
///
/// # Errors
/// When an address can't be had.
pub async fn start(node: Node, options: Options) -> Result<Serving, ApiError> {
    tracing::info!(limits = ?options.limits, "the limits in force");
    let consoles = Consoles::new(&node, options.console_assets);
    let gateway = Arc::new(Gateway::new(&node, options.session_idle, &options.limits.queues, consoles)?);
    follow(&node, &gateway);
    let mut serving = Serving { draining: gateway.draining.clone(), ..Serving::default() };
    for listener in &options.http {
        let limits = options.limits.clone();
        serving.http.push(http::serve(&node, gateway.clone(), listener.clone(), Port::Client, limits).await?);
    }
    if let Some(listener) = options.grpc {
        serving.grpc = Some(grpc::serve(&node, gateway.clone(), listener, &options.limits).await?);
    }
    let port = node.settings.get(keys::INTEGRATION_API_PORT).and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
    if let (Some(port), Some(first)) = (port, options.http.first()) {
        let listener = Listener { address: SocketAddr::new(first.address.ip(), port), tls: None };
        let address = http::serve(&node, gateway, listener, Port::Integration, options.limits).await?;
        tracing::warn!(%address, "the integration port takes requests of anybody: keep it closed to strangers");
        serving.integration = Some(address);
    }
    Ok(serving)
}

/// Follows what changes elsewhere, and keeps the table of sessions small.
fn follow(node: &Node, gateway: &Arc<Gateway>) {
    // Subscribed before anything is cached, so that no change falls in between.
    let mut identity = node.coord.subscribe(auth::IDENTITY_TOPIC);
    let mut ended = node.coord.subscribe(auth::SESSIONS_TOPIC);
    let heard = gateway.clone();
    node.spawn("gateway-follow", async move {
        loop {
            tokio::select! {
                notice = identity.next() => heard.authority.notice(&notice),
                notice = ended.next() => heard.sessions.notice(notice),
            }
        }
    });
    let gateway = gateway.clone();
    node.spawn("gateway-sweep", async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            match gateway.sessions.sweep().await {
                Ok(0) => {}
                Ok(removed) => tracing::debug!(removed, "idle sessions removed"),
                Err(error) => tracing::warn!(%error, "idle sessions can't be removed"),
            }
            if let Err(error) = gateway.consoles.sweep().await {
                tracing::warn!(%error, "tokens of consoles can't be removed");
            }
        }
    });
}
