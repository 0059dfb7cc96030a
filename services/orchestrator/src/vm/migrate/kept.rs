//! What administrators are told when a VM moves from, to, or between dedicated hosts (IAM-074).

use crate::store::dedications::{self, Keeper};
use crate::store::vms::VmRow;
use crate::vm::view;
use contract::ApiError;
use events::{Alert, Record};
use store::Tx;

/// The alert for a move between hosts that aren't kept for the same; `None`: they are, or neither is for anybody.
///
/// # Errors
/// Those of the database.
pub async fn alert(tx: &mut Tx, vm: &VmRow, source: i64, host: i64) -> Result<Option<Record>, ApiError> {
    let [from, to] = [dedications::keeper(tx, source).await?, dedications::keeper(tx, host).await?];
    let (Some(from), Some(to)) = (from, to) else { return Ok(None) };
    if from.group == to.group {
        return Ok(None);
    }
    let word = |k: &Keeper| match &k.owner {
        Some(owner) => format!("host {} dedicated to {owner}", k.host),
        None => format!("non-dedicated host {}", k.host),
    };
    let text = format!("VM {} was migrated from {} to {}", view::label(vm), word(&from), word(&to));
    Ok(Some(Alert::user_vm(&vm.uuid).warn(text)))
}
