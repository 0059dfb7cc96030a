//! What audits ask: it changes nothing, and faults that tests order don't touch it.

use super::driver::Simulator;
use crate::hypervisor::{Done, Failure, Work};
use contract_agent::{DiskList, DiskState, ListDisks, outcome};
use std::ops::Bound;

/// Most disks of a page.
const MOST: usize = 5000;

impl Simulator {
    pub(super) async fn do_inventory(&self, work: &Work) -> Result<Done, Failure> {
        work.commit(|_| {
            let mut state = self.alive(work)?;
            let report = state.host(work.host())?.report();
            Ok((outcome::Body::Inventory(report), state))
        })
    }

    pub(super) async fn do_list_disks(&self, work: &Work, order: ListDisks) -> Result<Done, Failure> {
        work.commit(|_| {
            let state = self.alive(work)?;
            let limit = usize::try_from(order.limit).unwrap_or(MOST).clamp(1, MOST);
            let after = (Bound::Excluded(order.after), Bound::Unbounded);
            let mut disks: Vec<DiskState> = match state.pools.get(&order.pool_uuid) {
                Some(pool) => pool.disks.range(after).take(limit + 1).map(|(_, disk)| disk.clone()).collect(),
                None => Vec::new(),
            };
            let more = disks.len() > limit;
            disks.truncate(limit);
            Ok((outcome::Body::Disks(DiskList { disks, more }), state))
        })
    }
}
