//! Hosts as answers show them.

use crate::hypervisor;
use crate::store::hosts::{self as rows, HostFilter, HostRow};
use crate::world::World;
use contract::ApiError;
use contract_infra::{Host, HostHa, ListHostsRequest, ListHostsResponse, OutOfBandManagement};
use model::state::{HostStatus, ResourceState};
use rpc::Cx;

/// Which parts of a host an answer shows (`details`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Names and the preferred OS.
    pub names: bool,
    /// What it has and has given away.
    pub capacity: bool,
    /// What it does.
    pub stats: bool,
    /// What may happen to it.
    pub events: bool,
}

impl Details {
    /// Everything.
    pub fn all() -> Details {
        Details { names: true, capacity: true, stats: true, events: true }
    }

    /// Reads `details`; none means all.
    ///
    /// # Errors
    /// 431 for a word that isn't one.
    pub fn parse(words: &[String]) -> Result<Details, ApiError> {
        if words.is_empty() {
            return Ok(Details::all());
        }
        let mut details = Details::default();
        for word in words {
            match word.trim().to_ascii_lowercase().as_str() {
                "all" => details = Details::all(),
                "capacity" => details.capacity = true,
                "stats" => details.stats = true,
                "events" => details.events = true,
                "min" => {}
                _ => {
                    return Err(ApiError::param(format!(
                        "The details parameter contains a non permitted value. The allowed values are [all, capacity, events, stats, min], not {word}"
                    )));
                }
            }
        }
        details.names = details.capacity || details.stats || details.events;
        Ok(details)
    }
}

/// What out-of-band management may say of a host's power (4.11).
const POWER_STATES: [&str; 4] = ["On", "Off", "Unknown", "Disabled"];

/// Lists hosts.
pub async fn list(world: &World, cx: &Cx, r: ListHostsRequest) -> Result<ListHostsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let details = Details::parse(&r.details)?;
    let given = |v: &Option<String>| v.clone().filter(|v| !v.is_empty());
    let db = &world.node.db;
    let mut filter = HostFilter {
        id: cx.refs.one("id").map(|e| e.id),
        name: given(&r.name),
        cluster: cx.refs.one("clusterid").map(|e| e.id),
        pod: cx.refs.one("podid").map(|e| e.id),
        zone: cx.refs.one("zoneid").map(|e| e.id),
        status: given(&r.state).map(|w| HostStatus::parse(&w).map_or(w, |s| s.to_string())),
        resource_state: given(&r.resource_state).map(|w| ResourceState::parse(&w).map_or(w, |s| s.to_string())),
        hypervisor: hypervisor::filter(r.hypervisor.as_deref()),
        except: None,
        only: None,
        nothing: given(&r.r#type).is_some_and(|t| !t.eq_ignore_ascii_case("Routing")),
        keyword: given(&r.keyword),
        tag: None,
    };
    let ha_tag = super::ha_tag(&world.node.settings);
    match (r.ha_host, &ha_tag) {
        (Some(wanted), Some(tag)) => filter.tag = Some((tag.clone(), wanted)),
        // Without a tag there are no such hosts.
        (Some(true), None) => filter.nothing = true,
        _ => {}
    }
    // No host has out-of-band management: as answers show, all are Disabled.
    let power = given(&r.out_of_band_management_power_state);
    if let Some(word) = power.as_deref().filter(|w| !POWER_STATES.iter().any(|s| s.eq_ignore_ascii_case(w))) {
        return Err(ApiError::param(format!(
            "{word} is no power state: out-of-band management says On, Off, Unknown or Disabled"
        )));
    }
    if r.out_of_band_management_enabled == Some(true) || power.is_some_and(|w| !w.eq_ignore_ascii_case("Disabled")) {
        filter.nothing = true;
    }
    let guest = match cx.refs.id::<i64>("virtualmachineid")? {
        Some(vm) => Some(movable(db, vm).await?),
        None => None,
    };
    if let Some(guest) = &guest {
        filter.cluster = guest.cluster;
        filter.except = guest.host;
    }
    let (found, count) = rows::list(db, &filter, page).await?;
    let uuids: Vec<String> = found.iter().map(|h| h.uuid.clone()).collect();
    let pending = jobs::view::pending(db, &uuids).await?;
    let host = found
        .into_iter()
        .map(|h| {
            let fits = guest.as_ref().map(|g| fits(&h, g));
            let mut host = shown(h, details, ha_tag.as_deref());
            if let Some(fits) = fits {
                host.has_enough_capacity = Some(fits);
                host.suitable_for_migration = Some(fits && host.state.as_deref() == Some("Up"));
            }
            if let Some((job, status)) = host.id.as_ref().and_then(|id| pending.get(id)) {
                host.job_id = Some(job.clone());
                host.job_status = Some(*status);
            }
            host
        })
        .collect();
    Ok(ListHostsResponse { count: Some(count), host })
}

async fn movable(db: &::store::Db, vm: i64) -> Result<rows::Guest, ApiError> {
    let guest = rows::guest(db, vm).await?.ok_or_else(|| ApiError::param("Unable to find the VM with given id"))?;
    if guest.state == "Running" {
        Ok(guest)
    } else {
        Err(ApiError::param("VM is not Running, cannot migrate the vm with specified id"))
    }
}

#[allow(clippy::cast_precision_loss)] // capacities are far below 2^53
fn fits(host: &HostRow, guest: &rows::Guest) -> bool {
    host.capacity.is_some_and(|c| {
        (c.cpu_used + guest.cpu_mhz) as f64 <= c.cpu_total as f64 * c.cpu_overcommit
            && (c.mem_used + guest.memory) as f64 <= c.mem_total as f64 * c.mem_overcommit
    })
}

/// A host as an answer shows it. `ha_tag`: the tag of hosts that are kept for VMs whose host failed.
pub fn shown(h: HostRow, details: Details, ha_tag: Option<&str>) -> Host {
    let for_ha = ha_tag.is_some_and(|tag| h.tags.split(',').any(|t| t == tag));
    let mut host = Host {
        id: Some(h.uuid),
        name: Some(h.name),
        state: Some(h.status.to_string()),
        disconnected: h.disconnected,
        r#type: Some("Routing".to_owned()),
        ip_address: h.ip,
        zone_id: Some(h.zone.1),
        pod_id: Some(h.pod.1),
        version: h.version,
        hypervisor: Some(h.hypervisor),
        cpu_sockets: h.cpu_sockets.and_then(|n| i32::try_from(n).ok()),
        cpu_number: i32::try_from(h.cpu_cores).ok(),
        cpu_speed: Some(h.cpu_mhz),
        capabilities: Some(h.capabilities).filter(|c| !c.is_empty()),
        last_pinged: h.last_ping,
        management_server_id: h.hub.as_deref().map(server_number),
        cluster_id: Some(h.cluster.1),
        is_local_storage_active: Some(false),
        created: Some(h.created),
        removed: h.removed,
        host_ha: Some(HostHa { ha_enable: Some(false), ha_state: Some("Disabled".to_owned()), ..HostHa::default() }),
        out_of_band_management: Some(OutOfBandManagement {
            power_state: Some("Disabled".to_owned()),
            enabled: Some(false),
            ..OutOfBandManagement::default()
        }),
        resource_state: Some(h.resource_state.to_string()),
        // 4.11 writes a number even where no capacity was asked for.
        memory_allocated: Some(0),
        ..Host::default()
    };
    if details.names {
        host.zone_name = Some(h.zone.2);
        host.pod_name = Some(h.pod.2);
        host.cluster_name = Some(h.cluster.2);
        host.cluster_type = Some(h.cluster_type);
        (host.os_category_id, host.os_category_name) = h.os_category.unzip();
    }
    if details.capacity {
        capacity(&mut host, h.capacity, h.memory);
        host.host_tags = Some(h.tags).filter(|t| !t.is_empty());
        host.hypervisor_version = h.hypervisor_version;
        host.ha_host = Some(for_ha);
    }
    if details.stats {
        // Hosts don't measure themselves yet.
        host.cpu_used = Some("0%".to_owned());
        host.memory_used = Some(0);
        host.network_kbs_read = Some(0);
        host.network_kbs_write = Some(0);
    }
    if details.events {
        host.events = Some(events(h.status).join("; "));
    }
    if let Some((text, at, by)) = h.annotation {
        host.annotation = Some(text);
        host.last_annotated = at;
        host.username = by;
    }
    host
}

#[allow(clippy::cast_precision_loss)] // capacities are far below 2^53
fn capacity(host: &mut Host, capacity: Option<rows::Capacity>, memory: i64) {
    host.memory_total = Some(memory);
    let Some(c) = capacity else { return };
    host.cpu_allocated = Some(percent(c.cpu_used as f64, c.cpu_total as f64));
    host.cpu_with_over_provisioning = Some(short(c.cpu_total as f64 * c.cpu_overcommit));
    host.memory_allocated = Some(c.mem_used);
    host.memory_with_over_provisioning = Some(short(c.mem_total as f64 * c.mem_overcommit));
}

/// At most two decimals, as Java's "#.##" writes it.
pub fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share in percent: "12.5%".
pub fn percent(used: f64, total: f64) -> String {
    if total > 0.0 { format!("{}%", short(used / total * 100.0)) } else { "0%".to_owned() }
}

/// A share as `percentused` shows it: "12.5".
pub fn shown_percent(share: f64) -> String {
    short(share * 100.0)
}

/// 4.11 shows a number (its MAC address) for the server that holds a connection: one that stays the same for a replica.
fn server_number(replica: &str) -> i64 {
    // FNV-1a over 48 bits, which every client can hold.
    let hash =
        replica.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    i64::try_from(hash & 0xffff_ffff_ffff).unwrap_or(0)
}

/// What may happen to a host in a state (states.json, Host.Status).
fn events(status: HostStatus) -> &'static [&'static str] {
    match status {
        HostStatus::Creating => &["AgentConnected", "Error"],
        HostStatus::Connecting => &[
            "AgentConnected",
            "Ready",
            "PingTimeout",
            "ShutdownRequested",
            "HostDown",
            "Ping",
            "ManagementServerDown",
            "AgentDisconnected",
        ],
        HostStatus::Up => &[
            "ManagementServerDown",
            "Remove",
            "Ping",
            "AgentDisconnected",
            "ShutdownRequested",
            "PingTimeout",
            "StartAgentRebalance",
            "HostDown",
            "AgentConnected",
        ],
        HostStatus::Down => {
            &["AgentConnected", "Remove", "ManagementServerDown", "AgentDisconnected", "PingTimeout", "HostDown"]
        }
        HostStatus::Disconnected => &[
            "PingTimeout",
            "AgentConnected",
            "Ping",
            "HostDown",
            "ManagementServerDown",
            "WaitedTooLong",
            "Remove",
            "AgentDisconnected",
        ],
        HostStatus::Alert => &[
            "AgentConnected",
            "Ping",
            "Remove",
            "ManagementServerDown",
            "AgentDisconnected",
            "ShutdownRequested",
            "HostDown",
        ],
        HostStatus::Removed => &[],
        HostStatus::Error => &["AgentConnected"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_4_11_does() {
        assert_eq!(short(2_048_000.0), "2048000");
        assert_eq!(short(0.0), "0");
        assert_eq!(short(12.5), "12.5");
        assert_eq!(percent(1000.0, 512_000.0), "0.2%");
        assert_eq!(percent(1.0, 0.0), "0%");
    }

    #[test]
    fn details_choose_parts() {
        assert_eq!(Details::parse(&[]).unwrap(), Details::all());
        assert_eq!(Details::parse(&["min".into()]).unwrap(), Details::default());
        let some = Details::parse(&["capacity".into(), "Events".into()]).unwrap();
        assert!(some.names && some.capacity && some.events && !some.stats);
        assert!(Details::parse(&["everything".into()]).is_err());
    }
}
