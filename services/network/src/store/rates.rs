//! How fast interfaces may be, by their offerings.

use std::collections::HashMap;
use store::{Db, Result, Sql};

/// What offerings say of an interface, in megabits a second; 0: unlimited, none: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Zone of its network.
    pub zone_id: i64,
    /// Whether it is its VM's default one.
    pub is_default: bool,
    /// The network's offering.
    pub network: Option<i64>,
    /// The VM's service offering.
    pub vm: Option<i64>,
}

/// Of these interfaces of VMs, by number.
pub async fn of_nics(db: &Db, ids: &[i64]) -> Result<HashMap<i64, Rate>> {
    let sql = Sql::new(
        "SELECT n.id, w.zone_id, n.is_default, o.network_rate, s.rate_mbps FROM nics n JOIN networks w ON w.id = n.network_id \
         JOIN network_offerings o ON o.id = w.offering_id LEFT JOIN vms v ON v.id = n.vm_id LEFT JOIN service_offerings s ON \
         s.id = v.service_offering_id WHERE ",
    );
    db.all(sql.in_list("n.id", ids.iter().copied()))
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, Rate { zone_id: r.at(1)?, is_default: r.at(2)?, network: r.at(3)?, vm: r.at(4)? })))
        .collect()
}
