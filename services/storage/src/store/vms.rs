//! What this service reads of virtual machines. The orchestrator writes them.

use model::Owner;
use model::state::VmState;
use std::collections::{HashMap, HashSet};
use store::{Db, Result, Row, Sql, Tx};

/// A virtual machine, as disks need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub display_name: String,
    pub state: VmState,
    pub owner: Owner,
    pub zone_id: i64,
    pub host_id: Option<i64>,
    pub last_host_id: Option<i64>,
    pub hypervisor: String,
    pub service_offering_id: i64,
    pub removed: bool,
}

const COLUMNS: &str = "id, uuid, name, display_name, state, account_id, domain_id, domain_path, zone_id, host_id, last_host_id, \
     hypervisor, service_offering_id, removed";

fn read(r: &Row) -> Result<Vm> {
    Ok(Vm {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        display_name: r.at(3)?,
        state: r.at(4)?,
        owner: Owner { account_id: r.at(5)?, domain_id: r.at(6)?, domain_path: r.at(7)? },
        zone_id: r.at(8)?,
        host_id: r.at(9)?,
        last_host_id: r.at(10)?,
        hypervisor: r.at(11)?,
        service_offering_id: r.at(12)?,
        removed: r.at::<Option<i64>>(13)?.is_some(),
    })
}

/// The VM with this number, removed or not.
pub async fn find(db: &Db, id: i64) -> Result<Option<Vm>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM vms WHERE id = ?")).bind(id);
    db.optional(sql).await?.as_ref().map(read).transpose()
}

/// The same, as `tx` sees it.
pub async fn find_in(tx: &mut Tx, id: i64) -> Result<Option<Vm>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM vms WHERE id = ?")).bind(id);
    tx.optional(sql).await?.as_ref().map(read).transpose()
}

/// The VMs with these numbers.
pub async fn by_ids(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Vm>> {
    let ids: HashSet<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM vms WHERE ")).in_list("id", ids);
    db.all(sql).await?.iter().map(|r| read(r).map(|vm| (vm.id, vm))).collect()
}

/// UUID, name and display text of compute offerings.
pub async fn offering_labels(
    db: &Db,
    ids: impl IntoIterator<Item = i64>,
) -> Result<HashMap<i64, (String, String, String)>> {
    let ids: HashSet<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    db.all(Sql::new("SELECT id, uuid, name, display_text FROM service_offerings WHERE ").in_list("id", ids))
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, (r.at(1)?, r.at(2)?, r.at(3)?))))
        .collect()
}
