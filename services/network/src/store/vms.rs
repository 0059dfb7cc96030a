//! What rules show and ask of virtual machines. Their table is the orchestrator's.

use super::zones::distinct;
use model::Owner;
use model::state::VmState;
use std::collections::HashMap;
use store::{Db, Result, Sql};

/// A virtual machine, as rules need it.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Name for people.
    pub display_name: String,
    /// State.
    pub state: VmState,
    /// Zone.
    pub zone_id: i64,
    /// Owner.
    pub owner: Owner,
    /// Whether it is gone.
    pub removed: bool,
}

/// The machines with these numbers, gone ones included.
pub async fn by_ids(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Vm>> {
    let ids = distinct(ids);
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = Sql::new(
        "SELECT id, uuid, name, display_name, state, zone_id, account_id, domain_id, domain_path, removed FROM vms WHERE ",
    );
    db.all(sql.in_list("id", ids))
        .await?
        .iter()
        .map(|r| {
            let vm = Vm {
                id: r.at(0)?,
                uuid: r.at(1)?,
                name: r.at(2)?,
                display_name: r.at(3)?,
                state: r.at(4)?,
                zone_id: r.at(5)?,
                owner: Owner { account_id: r.at(6)?, domain_id: r.at(7)?, domain_path: r.at(8)? },
                removed: r.at::<Option<i64>>(9)?.is_some(),
            };
            Ok((vm.id, vm))
        })
        .collect()
}

/// One machine.
pub async fn one(db: &Db, id: i64) -> Result<Option<Vm>> {
    Ok(by_ids(db, [id]).await?.remove(&id))
}
