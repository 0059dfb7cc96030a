//! The disks of a VM that another account gets.
//!
//! They change their owner in one commit; nothing else of them does: bytes and places stay. What they count against limits is the
//! caller's matter.

use super::usage;
use crate::Storage;
use crate::store::snapshots;
use crate::store::volumes::{self, VolumeRow};
use contract::ApiError;
use contract_storage::{AssignDisksRequest, AssignDisksResponse, FormerOwner};
use jobs::StepKey;
use model::Owner;

/// Gives a VM's volumes another owner.
///
/// # Errors
/// 431 while one of them has snapshots, 530 while one is in use otherwise.
pub async fn assign(s: &Storage, key: &StepKey, req: &AssignDisksRequest) -> Result<AssignDisksResponse, ApiError> {
    let to = Owner { account_id: req.account_id, domain_id: req.domain_id, domain_path: req.domain_path.clone() };
    jobs::effect!(s.node.db, *key, |tx| {
        let (mut former, mut facts) = (Vec::new(), Vec::new());
        for v in volumes::of_vm_in(tx, req.vm_id).await? {
            if v.owner == to {
                continue;
            }
            // The volume's row first: who makes a snapshot of it afterwards finds another owner.
            if !volumes::assign(tx, v.id, v.owner.account_id, &to).await? {
                let text = format!("volume {} is being changed: try again", v.name);
                return Err(ApiError::concurrent(text).with_entity(&v.uuid, "volumeid"));
            }
            if snapshots::any_of(tx, v.id).await? {
                return Err(has_snapshots(&v));
            }
            facts.push(usage(&v, "VOLUME.DELETE"));
            facts.push(usage(&VolumeRow { owner: to.clone(), ..v.clone() }, "VOLUME.CREATE"));
            former.push(FormerOwner {
                volume_id: v.id,
                account_id: v.owner.account_id,
                domain_id: v.owner.domain_id,
                domain_path: v.owner.domain_path,
            });
        }
        events::record(tx, &facts).await?;
        Ok(AssignDisksResponse { former })
    })
    .await
}

/// Takes that back.
///
/// # Errors
/// 530 when a volume is in use otherwise.
pub async fn unassign(s: &Storage, key: &StepKey) -> Result<(), ApiError> {
    jobs::undo_effect!(s.node.db, *key, |tx, done: Option<AssignDisksResponse>| {
        let mut facts = Vec::new();
        for f in done.unwrap_or_default().former {
            let to = Owner { account_id: f.account_id, domain_id: f.domain_id, domain_path: f.domain_path };
            let Some(v) = volumes::find_in(tx, f.volume_id).await?.filter(|v| !v.removed) else { continue };
            if !volumes::assign(tx, v.id, v.owner.account_id, &to).await? {
                return Err(ApiError::concurrent(format!("volume {} is being changed", v.name)));
            }
            facts.push(usage(&v, "VOLUME.DELETE"));
            facts.push(usage(&VolumeRow { owner: to, ..v }, "VOLUME.CREATE"));
        }
        Ok(events::record(tx, &facts).await?)
    })
    .await
}

fn has_snapshots(v: &VolumeRow) -> ApiError {
    ApiError::param(format!(
        "Snapshots exists for volume: {}, Detach volume or remove snapshots for volume before assigning VM to another user.",
        v.name
    ))
    .with_entity(&v.uuid, "volumeid")
}
