//! Hypervisors by name.

use crate::store::{clusters, hypervisors};
use crate::world::World;
use contract::ApiError;
use contract_infra::{
    Hypervisor, HypervisorCapabilities, ListHypervisorCapabilitiesRequest, ListHypervisorCapabilitiesResponse,
    ListHypervisorsResponse,
};
use rpc::Cx;

/// Those that a cluster can have.
pub const KNOWN: &[&str] = &["XenServer", "KVM", "VMware", "Hyperv", "BareMetal", "Simulator", "Ovm", "Ovm3", "LXC"];

/// The name as 4.11 writes it.
///
/// # Errors
/// 431 for any other word.
pub fn parse(word: &str) -> Result<&'static str, ApiError> {
    KNOWN
        .iter()
        .copied()
        .find(|k| k.eq_ignore_ascii_case(word.trim()))
        .ok_or_else(|| ApiError::param(format!("Unable to resolve {word} to a valid supported hypervisor type")))
}

/// As [`parse`], where an unknown word only means that nothing matches.
pub fn filter(word: Option<&str>) -> Option<String> {
    word.filter(|w| !w.is_empty()).map(|w| parse(w).map_or_else(|_| w.to_owned(), str::to_owned))
}

/// The simulator's name; it is offered where a cluster has it.
const SIMULATOR: &str = "Simulator";

/// Lists the hypervisors that are offered; with a zone, those that it has.
pub async fn list(world: &World, cx: &Cx) -> Result<ListHypervisorsResponse, ApiError> {
    let db = &world.node.db;
    let zone: Option<i64> = cx.refs.id("zoneid")?;
    let present = clusters::hypervisors(db, zone).await?;
    let names = if zone.is_some() {
        present
    } else {
        let offered = world.node.settings.get(config::keys::HYPERVISOR_LIST);
        let mut names: Vec<String> =
            offered.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
        if present.iter().any(|p| p == SIMULATOR) && !names.iter().any(|n| n == SIMULATOR) {
            names.push(SIMULATOR.to_owned());
        }
        names
    };
    let hypervisor: Vec<Hypervisor> =
        names.into_iter().map(|name| Hypervisor { name: Some(name), ..Hypervisor::default() }).collect();
    Ok(ListHypervisorsResponse { count: i64::try_from(hypervisor.len()).ok(), hypervisor })
}

/// Lists what versions of hypervisors can do.
pub async fn list_capabilities(
    world: &World,
    cx: &Cx,
    r: ListHypervisorCapabilitiesRequest,
) -> Result<ListHypervisorCapabilitiesResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let id = cx.refs.one("id").map(|e| e.id);
    let keyword = r.keyword.as_deref().filter(|k| !k.is_empty());
    let of = filter(r.hypervisor.as_deref());
    let (found, count) = hypervisors::list(&world.node.db, id, of.as_deref(), keyword, page).await?;
    let small = |n: Option<i64>| n.and_then(|n| i32::try_from(n).ok());
    let hypervisor_capabilities = found
        .into_iter()
        .map(|c| HypervisorCapabilities {
            id: Some(c.uuid),
            hypervisor_version: Some(c.version),
            hypervisor: Some(c.hypervisor),
            max_guests_limit: c.max_guests,
            security_group_enabled: Some(c.security_groups),
            max_data_volumes_limit: small(c.max_data_volumes),
            max_hosts_per_cluster: small(c.max_hosts_per_cluster),
            storage_motion_enabled: Some(c.storage_motion),
            ..HypervisorCapabilities::default()
        })
        .collect();
    Ok(ListHypervisorCapabilitiesResponse { count: Some(count), hypervisor_capabilities })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!(parse("simulator").unwrap(), "Simulator");
        assert_eq!(parse("kvm").unwrap(), "KVM");
        assert!(parse("Bhyve").is_err());
        assert_eq!(filter(Some("xenserver")).as_deref(), Some("XenServer"));
        assert_eq!(filter(Some("")), None);
    }
}
