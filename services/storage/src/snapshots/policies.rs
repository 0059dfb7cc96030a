//! Policies: snapshots of a volume that are taken by themselves. A volume has one of each kind; a second one of the same kind
//! takes the place of the first.

use super::schedule::{Kind, Schedule};
use crate::Storage;
use crate::store::policies::PolicyRow;
use crate::store::snapshots;
use crate::tasks;
use config::{Key, keys};
use contract::ApiError;
use contract_storage::{CreateSnapshotPolicyRequest, SnapshotPolicy};
use jiff::Timestamp;
use model::scope::may_act_for;
use rpc::Cx;
use store::Db;

/// The kind of the entity, as events name it.
pub const ENTITY: &str = "SnapshotPolicy";
/// What is told when a policy has come, or a snapshot of one has been taken.
const TOPIC: &str = "snapshots/policies";

/// The error for a policy that isn't there.
pub fn gone() -> ApiError {
    ApiError::param("Unable to find the snapshot policy: it doesn't exist or has been deleted")
}

/// Tells the duty of [`super::clock`] that there is something to do.
pub fn nudge(s: &Storage) {
    s.node.coord.publish(TOPIC, "");
}

/// What nudges come by.
pub(super) fn told(s: &Storage) -> coord::Subscription {
    s.node.coord.subscribe(TOPIC)
}

/// The setting that bounds how many snapshots policies of a kind keep.
fn most(kind: Kind) -> Key<i64> {
    match kind {
        Kind::Hourly => keys::SNAPSHOT_MAX_HOURLY,
        Kind::Daily => keys::SNAPSHOT_MAX_DAILY,
        Kind::Weekly => keys::SNAPSHOT_MAX_WEEKLY,
        Kind::Monthly => keys::SNAPSHOT_MAX_MONTHLY,
    }
}

/// Checks createSnapshotPolicy; gives the row to write.
///
/// # Errors
/// 431 for what is no schedule, or keeps more than may be kept (STO-163); 531 for a volume out of reach.
pub async fn check(s: &Storage, cx: &Cx, req: &CreateSnapshotPolicyRequest) -> Result<PolicyRow, ApiError> {
    let v = tasks::volume(s, cx.refs.need("volumeid")?).await?;
    if !may_act_for(&cx.caller, &v.owner) {
        return Err(ApiError::permission("you may not act on that volume"));
    }
    if let Some(hypervisor) = &v.hypervisor {
        super::check_hypervisor(hypervisor, &v)?;
    }
    let interval = req.interval_type.as_deref().unwrap_or_default();
    let kind = Kind::parse(interval).ok_or_else(|| {
        ApiError::param(format!("Unsupported interval type {interval}: there are HOURLY, DAILY, WEEKLY and MONTHLY"))
    })?;
    let (text, timezone) = (req.schedule.clone().unwrap_or_default(), req.timezone.clone().unwrap_or_default());
    let schedule = Schedule::parse(kind, &text, &timezone)?;
    let keeps = i64::from(req.max_snaps.unwrap_or_default());
    let most: i64 = s.node.settings.get(most(kind));
    if keeps < 1 {
        return Err(ApiError::param("maxSnaps should be greater than 0"));
    }
    if keeps > most {
        let text = format!("maxSnaps exceeds limit: {most} for interval type: {}", kind.name());
        return Err(ApiError::param(text));
    }
    Ok(PolicyRow {
        id: s.node.db.next_id("snapshot_policy").await?,
        uuid: model::new_uuid(),
        volume_id: v.id,
        owner: v.owner,
        kind: kind.name().to_owned(),
        schedule: text.trim().to_owned(),
        timezone: timezone.trim().to_owned(),
        max_snaps: keeps,
        display: req.for_display.filter(|_| cx.caller.is_root_admin()).unwrap_or(true),
        next_run: schedule.next(Timestamp::now())?.as_microsecond(),
        removed: false,
    })
}

/// The schedule of a row.
///
/// # Errors
/// 431 when this version can't read it.
pub fn schedule(p: &PolicyRow) -> Result<Schedule, ApiError> {
    let kind = Kind::parse(&p.kind).ok_or_else(|| ApiError::internal(format!("a policy is {}", p.kind)))?;
    Schedule::parse(kind, &p.schedule, &p.timezone)
}

/// Policies as answers show them: a constant number of queries a page.
///
/// # Errors
/// Those of the database.
pub async fn view(db: &Db, rows: Vec<PolicyRow>) -> Result<Vec<SnapshotPolicy>, ApiError> {
    let volumes = snapshots::volumes(db, rows.iter().map(|p| p.volume_id)).await?;
    let uuids: Vec<String> = rows.iter().map(|p| p.uuid.clone()).collect();
    let jobs = jobs::view::pending(db, &uuids).await?;
    let shown = rows.into_iter().map(|p| {
        let job = jobs.get(&p.uuid);
        SnapshotPolicy {
            volume_id: volumes.get(&p.volume_id).map(|v| v.uuid.clone()),
            schedule: Some(p.schedule),
            interval_type: Kind::parse(&p.kind).map(Kind::number),
            max_snaps: i32::try_from(p.max_snaps).ok(),
            timezone: Some(p.timezone),
            for_display: Some(p.display),
            job_id: job.map(|(uuid, _)| uuid.clone()),
            job_status: job.map(|(_, status)| *status),
            id: Some(p.uuid),
        }
    });
    Ok(shown.collect())
}
