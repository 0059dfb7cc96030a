//! What operators ask an installation for from its command line: enrolment tokens, the administrator's keys.

use crate::replica::Installation;
use crate::schema;
use crate::settings::CommonArgs;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use coord::Coord;
use pki::token::NewToken;
use pki::{AgentKind, Pki};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::{Db, DbConfig};
use vault::Vault;

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
    /// The folder of a running `arcus dev` instead of an installation.
    #[arg(long, conflicts_with_all = ["database", "config", "etcd", "master_key"])]
    data_dir: Option<PathBuf>,
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
    let pki = match &args.data_dir {
        Some(dir) => dev_authority(dir).await?,
        None => Installation::open(&args.common.settings()?.common).await?.pki,
    };
    let new = NewToken {
        kind: match args.kind {
            Kind::Factory => AgentKind::Factory,
            Kind::Host => AgentKind::Host,
        },
        uses: (args.uses > 0).then_some(args.uses),
        valid: Duration::from_secs(args.hours * 3600),
        created_by: "command line".into(),
    };
    let (uuid, text) = pki.new_token(&new).await?;
    println!("{}", json!({"id": uuid, "token": text.expose(), "fingerprint": pki.fingerprint()}));
    Ok(())
}

/// The certificate authority of an `arcus dev` with SQLite.
async fn dev_authority(dir: &Path) -> Result<Arc<Pki>> {
    let (file, key) = (dir.join("arcus.db"), dir.join("master.key"));
    for needed in [&file, &key] {
        // Opening them would make them.
        ensure!(needed.exists(), "{} doesn't exist: is arcus dev running with this data folder?", needed.display());
    }
    let db = Db::connect(&DbConfig::new(format!("sqlite:{}", file.display()))).await.context("the database")?;
    db.migrate(&schema::migrations()).await.context("the schema")?;
    let vault = Vault::open(&key).context("the master key")?;
    // A token is a row that nobody is told of.
    Pki::open(&db, &vault, &Coord::local()).await.context("the built-in CA")
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
