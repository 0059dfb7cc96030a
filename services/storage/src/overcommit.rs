//! How often a pool's bytes may be promised: the column `overcommit` follows `storage.overprovisioning.factor`, so that the
//! condition of every promise, capacity lists and audits read one number.

use crate::store::pools;
use crate::target::PoolKind;
use config::{Scope, Settings, keys};
use contract::ApiError;
use node::Node;
use std::time::Duration;

/// How often it looks without being told: what another replica wrote to a new pool meanwhile.
const INTERVAL: Duration = Duration::from_secs(30);

/// The factor of a pool; 0 is a pool that has no number yet, which only the global value is for.
pub fn factor(settings: &Settings, pool: i64, kind: &str) -> f64 {
    if !PoolKind::parse(kind).is_some_and(PoolKind::overcommits) {
        return 1.0;
    }
    let factor = settings.get_in(keys::STORAGE_OVERPROVISIONING_FACTOR, Scope::Pool(pool));
    if factor.is_finite() && factor >= 1.0 { factor } else { 1.0 }
}

/// Follows the setting on this replica.
pub fn start(node: &Node) {
    let (n, mut changes) = (node.clone(), node.settings.changes());
    node.spawn("storage-overcommit", async move {
        loop {
            if let Err(error) = apply(&n).await {
                tracing::warn!(%error, "pools don't follow storage.overprovisioning.factor");
            }
            // An error means that the settings are gone, and this replica with them.
            if let Ok(Err(_)) = tokio::time::timeout(INTERVAL, changes.changed()).await {
                return;
            }
        }
    });
}

/// Writes the factors that differ.
///
/// # Errors
/// Those of the database.
pub async fn apply(node: &Node) -> Result<(), ApiError> {
    for (pool, kind, current) in pools::factors(&node.db).await? {
        let wanted = factor(&node.settings, pool, &kind);
        if (wanted - current).abs() > f64::EPSILON {
            store::tx!(node.db, "pool-factor", |tx| {
                pools::set_factor(tx, pool, wanted).await?;
                Ok::<_, ApiError>(())
            })
            .await?;
            tracing::info!(pool, wanted, "over-provisioning factor");
        }
    }
    Ok(())
}
