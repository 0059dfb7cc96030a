//! Snapshots as answers show them.

use crate::store::snapshots::{self, SnapshotRow};
use crate::view::resource_tags;
use contract::ApiError;
use contract_storage::Snapshot;
use model::names::{self, Table};
use model::tags;
use store::Db;

/// Snapshots: a constant number of queries a page.
///
/// # Errors
/// Those of the database.
pub async fn snapshots(db: &Db, rows: Vec<SnapshotRow>) -> Result<Vec<Snapshot>, ApiError> {
    let volumes = snapshots::volumes(db, rows.iter().map(|s| s.volume_id)).await?;
    let zones = names::named(db, Table::Zones, rows.iter().map(|s| s.zone_id)).await?;
    let accounts = names::named(db, Table::Accounts, rows.iter().map(|s| s.owner.account_id)).await?;
    let os_types = names::named(db, Table::OsTypes, volumes.values().filter_map(|v| v.os_type_id)).await?;
    let tagged = tags::of(db, "Snapshot", rows.iter().map(|s| s.id)).await?;
    let domain_ids: Vec<i64> =
        rows.iter().map(|s| s.owner.domain_id).chain(tagged.values().flatten().map(|t| t.domain_id)).collect();
    let domains = names::domains(db, domain_ids).await?;
    let uuids: Vec<String> = rows.iter().map(|s| s.uuid.clone()).collect();
    let jobs = jobs::view::pending(db, &uuids).await?;
    let shown = rows.into_iter().map(|s| {
        let volume = volumes.get(&s.volume_id);
        let there = s.is_there();
        let account = accounts.get(&s.owner.account_id);
        let domain = domains.get(&s.owner.domain_id);
        let os_type = volume.and_then(|v| v.os_type_id).and_then(|id| os_types.get(&id));
        let job = jobs.get(&s.uuid);
        Snapshot {
            tags: resource_tags(tagged.get(&s.id), account, &domains),
            job_id: job.map(|(uuid, _)| uuid.clone()),
            job_status: job.map(|(_, status)| *status),
            account: account.map(|a| a.name.clone()),
            domain_id: domain.map(|d| d.uuid.clone()),
            domain: domain.map(|d| d.name.clone()),
            snapshot_type: Some(s.kind.clone()),
            interval_type: Some(s.kind),
            volume_id: volume.map(|v| v.uuid.clone()),
            volume_name: volume.map(|v| v.name.clone()),
            volume_type: volume.map(|v| v.kind.clone()),
            created: Some(s.created),
            name: Some(s.name),
            state: Some(s.state),
            physical_size: Some(s.physical_size),
            virtual_size: Some(s.size),
            zone_id: zones.get(&s.zone_id).map(|z| z.uuid.clone()),
            revertable: Some(there && volume.is_some_and(|v| !v.removed)),
            os_type_id: os_type.map(|o| o.uuid.clone()),
            os_display_name: os_type.map(|o| o.name.clone()),
            id: Some(s.uuid),
            ..Snapshot::default()
        }
    });
    Ok(shown.collect())
}

/// One snapshot.
///
/// # Errors
/// Those of the database.
pub async fn one(db: &Db, row: SnapshotRow) -> Result<Snapshot, ApiError> {
    let mut shown = snapshots(db, vec![row]).await?;
    shown.pop().ok_or_else(|| ApiError::internal("a snapshot has vanished while it was shown"))
}
