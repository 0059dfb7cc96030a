//! What affinity groups and dedications ask of a VM's place, read where it is decided.

use super::Kind;
use crate::placement::Rules;
use crate::store::affinity::{self as rows, GroupRow};
use crate::store::dedications::{self, ZoneOf};
use crate::store::vms::VmRow;
use contract::ApiError;
use model::Owner;
use std::collections::HashSet;
use store::{Db, Tx};

/// The rules for a VM. Until `tx` ends nobody else places a VM of its groups: that two placements of one group at the same
/// moment, on whichever replicas, see each other rests on this.
///
/// # Errors
/// 530 when the VM's zone is kept for others (IAM-066).
pub async fn hold(tx: &mut Tx, vm: &VmRow) -> Result<Rules, ApiError> {
    let groups = rows::of_vm(&mut *tx, vm.id).await?;
    let shared = shared(&groups);
    // One that went meanwhile asks for nothing any more.
    rows::hold(tx, &shared).await?;
    let peers = rows::hosts_of(&mut *tx, &shared, vm.id).await?;
    let zone = dedications::of_zone(&mut *tx, vm.zone_id, vm.owner.account_id).await?;
    build(&groups, &peers, zone, &vm.owner)
}

/// The same as of now, without holding it: for what is shown.
///
/// # Errors
/// As [`hold`].
pub async fn look(db: &Db, vm: &VmRow) -> Result<Rules, ApiError> {
    let groups = rows::of_vm(db, vm.id).await?;
    of_groups(db, vm, &groups).await
}

/// The same for a VM that isn't there yet.
///
/// # Errors
/// As [`hold`].
pub async fn of_groups(db: &Db, vm: &VmRow, groups: &[GroupRow]) -> Result<Rules, ApiError> {
    let peers = rows::hosts_of(db, &shared(groups), vm.id).await?;
    let zone = dedications::of_zone(db, vm.zone_id, vm.owner.account_id).await?;
    build(groups, &peers, zone, &vm.owner)
}

/// The groups in which VMs mind each other.
fn shared(groups: &[GroupRow]) -> Vec<i64> {
    groups.iter().filter(|g| g.kind != Kind::Dedicated).map(|g| g.id).collect()
}

fn build(groups: &[GroupRow], peers: &[(i64, i64)], zone: Option<ZoneOf>, owner: &Owner) -> Result<Rules, ApiError> {
    if let Some(zone) = zone.as_ref().filter(|z| !z.admits(owner)) {
        return Err(ApiError::failed(format!(
            "Failed to deploy VM, Zone {} not available for the user account: it is dedicated to another account or domain",
            zone.zone
        )));
    }
    let hosts = |kind: Kind| -> HashSet<i64> {
        let of_kind = |id: i64| groups.iter().any(|g| g.id == id && g.kind == kind);
        peers.iter().filter(|(group, _)| of_kind(*group)).map(|(_, host)| *host).collect()
    };
    let mut together: Vec<i64> = hosts(Kind::Together).into_iter().collect();
    together.sort_unstable();
    Ok(Rules {
        apart: hosts(Kind::Apart),
        together,
        dedicated: groups.iter().filter(|g| g.kind == Kind::Dedicated).map(|g| g.id).collect(),
        zone: zone.map(|z| z.group),
        names: groups.iter().map(|g| g.name.clone()).collect(),
    })
}
