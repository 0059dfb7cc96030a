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
            // Behind all paths of that volume.
            let after = (Bound::Excluded((order.after, char::MAX.to_string())), Bound::Unbounded);
            let mut disks: Vec<DiskState> = Vec::new();
            let mut more = false;
            let on = state.pools.get(&order.pool_uuid);
            for ((volume, _), disk) in on.into_iter().flat_map(|pool| pool.disks.range(after.clone())) {
                // A page ends between volumes: the next one begins behind this one.
                if disks.len() >= limit && disks.last().is_some_and(|last| last.volume_uuid != *volume) {
                    more = true;
                    break;
                }
                disks.push(disk.clone());
            }
            Ok((outcome::Body::Disks(DiskList { disks, more }), state))
        })
    }
}
