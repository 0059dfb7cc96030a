//! What lists of VMs behind load balancing rules read of the network service's tables.

use std::collections::HashMap;
use store::{Db, Result, Sql};

/// The network and the owning account of a load balancing rule.
pub async fn rule(db: &Db, id: i64) -> Result<Option<(i64, i64)>> {
    let sql = Sql::new("SELECT network_id, account_id FROM firewall_rules WHERE id = ? AND purpose = 'LoadBalancing'");
    db.optional(sql.bind(id)).await?.map(|r| Ok((r.at(0)?, r.at(1)?))).transpose()
}

/// The addresses behind a rule, by VM.
pub async fn addresses(db: &Db, rule: i64) -> Result<HashMap<String, Vec<String>>> {
    let sql = Sql::new(
        "SELECT v.uuid, m.ip FROM lb_members m JOIN vms v ON v.id = m.vm_id WHERE m.rule_id = ? ORDER BY m.id",
    );
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for row in db.all(sql.bind(rule)).await? {
        found.entry(row.at(0)?).or_default().push(row.at(1)?);
    }
    Ok(found)
}
