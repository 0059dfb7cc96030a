//! The tables of all crates and services: every replica carries them all, and the first to start makes what is missing.

use anyhow::{Context, Result, ensure};
use store::{Db, DbConfig, Migration, Schema};

/// All tables, in the order in which they are made.
pub fn migrations() -> Vec<Migration> {
    [
        coord::MIGRATIONS,
        config::MIGRATIONS,
        jobs::MIGRATIONS,
        events::MIGRATIONS,
        model::tags::MIGRATIONS,
        pki::MIGRATIONS,
        identity::MIGRATIONS,
        orchestrator::MIGRATIONS,
        network::MIGRATIONS,
        storage::MIGRATIONS,
        usage::MIGRATIONS,
        gateway::MIGRATIONS,
    ]
    .concat()
}

/// Opens a database to read it, and changes nothing there: no tables are made, and the database refuses writes.
///
/// # Errors
/// When it can't be reached, or its tables aren't those of this version.
pub async fn look(url: &str, connections: u32) -> Result<Db> {
    let config = DbConfig { connections, read_only: true, ..DbConfig::new(url) };
    let db = Db::connect(&config).await.context("database")?;
    let schema = db.schema(&migrations()).await.context("the schema")?;
    ensure!(schema == Schema::Same, "{schema}; this is arcus {}: use the version that runs", env!("CARGO_PKG_VERSION"));
    Ok(db)
}
