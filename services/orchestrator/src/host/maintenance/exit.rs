//! How a VM may leave a host that is being emptied.

use crate::placement::Rejection;
use crate::store::maintenances::{Emptying, Way};
use crate::store::placement::HostRow;
use crate::store::vm_order;
use crate::store::vms::VmRow;
use crate::vm::VmWorld;
use crate::vm::migrate::{self, Suitability};
use contract::ApiError;
use std::collections::HashMap;

/// What can be done with a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It goes by this way; a move, to this host.
    By(Way, Option<i64>),
    /// Not now.
    Shut(String),
}

/// Containers don't move while they run, as in 4.11: they are stopped and started elsewhere.
const STAYS_WHILE_IT_RUNS: &str = "LXC";

/// Looks for a VM's way off its host, among `hosts`: hosts of its cluster before others, roomy ones before full ones. `tries`
/// that failed make it look further down. On the last host of a cluster, VMs that no other cluster takes are stopped, as in
/// 4.11.
///
/// # Errors
/// Those of the database and of the storage service.
pub async fn find(
    world: &VmWorld,
    host: &Emptying,
    hosts: &[HostRow],
    vm: &VmRow,
    tries: i64,
) -> Result<Exit, ApiError> {
    let last = !hosts.iter().any(|h| h.id != host.host && h.cluster == host.cluster && h.refusal().is_none());
    if host.hypervisor.eq_ignore_ascii_case(STAYS_WHILE_IT_RUNS) {
        return Ok(Exit::By(if last { Way::Stop } else { Way::Restart }, None));
    }
    let tags = vm_order::offering_of_vm(&world.node.db, vm.service_offering_id).await?.host_tags;
    let suits = match migrate::suitability(world, vm, tags).await {
        Ok(suits) => suits,
        // What it says of a VM whose disks nobody else reaches.
        Err(error) if !error.is_transient() => return Ok(Exit::Shut(error.full_text().to_owned())),
        Err(error) => return Err(error),
    };
    let mut good: Vec<&HostRow> = hosts.iter().filter(|h| suits.get(&h.id).is_some_and(|s| s.suitable)).collect();
    good.sort_by_key(|h| (h.cluster != host.cluster, std::cmp::Reverse(h.free_memory), h.id));
    let turn = usize::try_from(tries).unwrap_or(0).checked_rem(good.len()).unwrap_or(0);
    match good.get(turn) {
        Some(target) => Ok(Exit::By(Way::Move, Some(target.id))),
        None if last => Ok(Exit::By(Way::Stop, None)),
        None => Ok(Exit::Shut(why(host, hosts, &suits))),
    }
}

/// Why none of the hosts takes a VM.
fn why(host: &Emptying, hosts: &[HostRow], suits: &HashMap<i64, Suitability>) -> String {
    let mut counts = [0usize; 4];
    for other in hosts.iter().filter(|h| h.id != host.host && suits.contains_key(&h.id)) {
        let roomy = suits.get(&other.id).is_some_and(|s| s.roomy);
        let kind = match other.refusal() {
            Some(Rejection::Guests) => 1,
            Some(_) => 0,
            None if !roomy => 1,
            None => 2,
        };
        counts[kind] += 1;
    }
    counts[3] = hosts.iter().filter(|h| h.id != host.host && !suits.contains_key(&h.id)).count();
    let words = [
        "not connected, disabled or in maintenance",
        "without room for it",
        "not for VMs like it (tags, affinity, dedication)",
        "out of reach of its disks, or for others",
    ];
    let told: Vec<String> =
        counts.iter().zip(words).filter(|(n, _)| **n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if told.is_empty() {
        "there is no other host".to_owned()
    } else {
        format!("no other host takes it: {}", told.join(", "))
    }
}
