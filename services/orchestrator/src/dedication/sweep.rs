//! What belonged to accounts and domains that are gone: dedications end (IAM-076), and so do affinity and instance groups and key pairs.

use crate::store::{affinity, dedications as rows, instance_groups, key_pairs};
use crate::vm::VmWorld;
use contract::ApiError;
use coord::{Notice, Term};
use std::time::Duration;
use store::Tx;

/// Between looks when nobody tells of anything.
const PAUSE: Duration = Duration::from_secs(60);

/// Ends what belonged to the gone, for as long as this replica leads.
pub fn start(world: &VmWorld) {
    let world = world.clone();
    world.node.clone().duty("gone-owners", move |term| {
        let world = world.clone();
        async move {
            let mut news = world.node.coord.subscribe("identity");
            loop {
                if let Err(error) = once(&world, &term).await {
                    tracing::warn!(%error, "what belonged to removed accounts and domains can't be ended");
                }
                tokio::select! {
                    () = term.lost() => return,
                    () = told(&mut news) => {}
                }
            }
        }
    });
}

/// Until an account or a domain has changed, or long enough.
async fn told(news: &mut coord::Subscription) {
    let changed = async {
        loop {
            match news.next().await {
                Notice::Missed => return,
                Notice::Message(text) if text.starts_with("account/") || text.starts_with("domain/") => return,
                Notice::Message(_) => {}
            }
        }
    };
    let _ = tokio::time::timeout(PAUSE, changed).await;
}

async fn once(world: &VmWorld, term: &Term) -> Result<(), ApiError> {
    let db = &world.node.db;
    let groups = instance_groups::orphaned(db).await?;
    let keys = key_pairs::orphaned(db).await?;
    if !groups.is_empty() || !keys.is_empty() {
        ::store::tx!(db, "groups-of-the-gone", |tx| {
            term.fence(tx).await?;
            for group in &groups {
                instance_groups::delete(tx, *group).await?;
            }
            for key in &keys {
                key_pairs::remove(tx, *key).await?;
            }
            Ok::<_, ApiError>(())
        })
        .await?;
    }
    if rows::orphans(db).await?.is_empty() && rows::orphaned_groups(db).await?.is_empty() {
        return Ok(());
    }
    ::store::tx!(db, "end-of-the-gone", |tx| {
        term.fence(tx).await?;
        if release_orphans(tx).await? {
            super::told(&world.node, tx);
        }
        for group in rows::orphaned_groups(&mut *tx).await? {
            affinity::remove(tx, group).await?;
        }
        Ok::<_, ApiError>(())
    })
    .await
}

/// Releases what is kept for accounts and domains that are gone. Gives whether there was any.
pub(super) async fn release_orphans(tx: &mut Tx) -> Result<bool, ApiError> {
    let orphans = rows::orphans(&mut *tx).await?;
    for orphan in &orphans {
        rows::release(tx, orphan.kind, orphan.resource).await?;
    }
    Ok(!orphans.is_empty())
}
