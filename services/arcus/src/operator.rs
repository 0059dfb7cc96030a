//! What operators ask an installation for from its command line: enrolment tokens, the administrator's keys.

use crate::replica::Installation;
use crate::settings::CommonArgs;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use pki::AgentKind;
use pki::token::NewToken;
use serde_json::json;
use std::time::Duration;

/// What an agent may stand for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Simulated hosts.
    Factory,
    /// The machine it runs on.
    Host,
}

/// The flags of `arcus token`.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// What kind of agent it lets in.
    #[arg(long, value_enum, default_value = "host")]
    kind: Kind,
    /// How often it may be used; 0: any number of times.
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// For how many hours.
    #[arg(long, default_value_t = 1)]
    hours: u64,
}

/// Prints a new enrolment token as JSON.
///
/// # Errors
/// When the installation can't be reached.
pub async fn token(args: TokenArgs) -> Result<()> {
    let installation = Installation::open(&args.common.settings()?.common).await?;
    let new = NewToken {
        kind: match args.kind {
            Kind::Factory => AgentKind::Factory,
            Kind::Host => AgentKind::Host,
        },
        uses: (args.uses > 0).then_some(args.uses),
        valid: Duration::from_secs(args.hours * 3600),
        created_by: "command line".into(),
    };
    let (uuid, text) = installation.pki.new_token(&new).await?;
    println!("{}", json!({"id": uuid, "token": text.expose(), "fingerprint": installation.pki.fingerprint()}));
    Ok(())
}

/// Prints the API keys of the user admin as JSON; it gets some when it has none.
///
/// # Errors
/// When the installation can't be reached, or identity was never started on it.
pub async fn admin_keys(args: CommonArgs) -> Result<()> {
    let installation = Installation::open(&args.settings()?.common).await?;
    let node = installation.visitor().await?;
    identity::ensure_admin_keys(&node).await.context("making keys")?;
    let (api, secret) = identity::admin_keys(&node).await?;
    println!("{}", json!({"apikey": api, "secretkey": secret}));
    Ok(())
}
