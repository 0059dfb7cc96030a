//! Figures of zones, clusters, hosts and virtual machines as the user interface shows them (plugin metrics of 4.11), from the
//! same books as the plain lists. Hosts don't measure themselves yet: what is in use, other than given away, is 0.

use crate::store::metrics::{self as rows, HostFigures, Of, PlaceFigures};
use crate::world::World;
use config::{Scope, Settings, keys};
use contract::ApiError;
use contract_compute::VmMetrics;
use contract_infra::{ClusterMetrics, HostMetrics, Infrastructure, ZoneMetrics};

const GB: f64 = 1024.0 * 1024.0 * 1024.0;

/// How much there is of everything.
///
/// # Errors
/// Those of the database.
pub async fn infrastructure(world: &World) -> Result<Infrastructure, ApiError> {
    let counts = rows::infrastructure(&world.node.db).await?;
    let [zones, pods, clusters, hosts, storage_pools, image_stores, routers, cpu_sockets] =
        counts.map(|n| i32::try_from(n).ok());
    Ok(Infrastructure {
        zones,
        pods,
        clusters,
        hosts,
        storage_pools,
        image_stores,
        // Consoles and secondary storage need no machines of their own.
        system_vms: Some(0),
        routers,
        cpu_sockets,
        ..Infrastructure::default()
    })
}

/// Adds the figures of zones.
///
/// # Errors
/// Those of the database.
pub async fn zones(world: &World, zones: &mut [ZoneMetrics]) -> Result<(), ApiError> {
    let uuids: Vec<String> = zones.iter().filter_map(|z| z.id.clone()).collect();
    let figures = rows::places(&world.node.db, Of::Zone, &uuids).await?;
    for zone in zones {
        zone.state.clone_from(&zone.allocation_state);
        let Some(found) = figures.get(zone.id()) else { continue };
        let shown = Shown::of(&world.node.settings, found, None);
        zone.clusters = Some(format!("{}/{}", found.well, found.parts));
        zone.cpu_total = Some(shown.cpu_total);
        zone.cpu_used = Some(percent(0.0));
        zone.cpu_allocated = Some(shown.cpu_allocated);
        zone.cpu_max_deviation = Some(percent(0.0));
        zone.memory_total = Some(shown.memory_total);
        zone.memory_used = Some(percent(0.0));
        zone.memory_allocated = Some(shown.memory_allocated);
        zone.memory_max_deviation = Some(percent(0.0));
        (zone.cpu_threshold, zone.cpu_disable_threshold) = (Some(false), Some(false));
        (zone.memory_threshold, zone.memory_disable_threshold) = (Some(false), Some(false));
        (zone.cpu_allocated_threshold, zone.cpu_allocated_disable_threshold) = shown.cpu_above;
        (zone.memory_allocated_threshold, zone.memory_allocated_disable_threshold) = shown.memory_above;
    }
    Ok(())
}

/// Adds the figures of clusters.
///
/// # Errors
/// Those of the database.
pub async fn clusters(world: &World, clusters: &mut [ClusterMetrics]) -> Result<(), ApiError> {
    let uuids: Vec<String> = clusters.iter().filter_map(|c| c.id.clone()).collect();
    let figures = rows::places(&world.node.db, Of::Cluster, &uuids).await?;
    for cluster in clusters {
        let unmanaged = cluster.managed_state() == "Unmanaged";
        cluster.state = if unmanaged { cluster.managed_state.clone() } else { cluster.allocation_state.clone() };
        let Some(found) = figures.get(cluster.id()) else { continue };
        let shown = Shown::of(&world.node.settings, found, Some(found.id));
        cluster.hosts = Some(format!("{}/{}", found.well, found.parts));
        cluster.cpu_total = Some(shown.cpu_total);
        cluster.cpu_used = Some(percent(0.0));
        cluster.cpu_allocated = Some(shown.cpu_allocated);
        cluster.cpu_max_deviation = Some(percent(0.0));
        cluster.memory_total = Some(shown.memory_total);
        cluster.memory_used = Some(percent(0.0));
        cluster.memory_allocated = Some(shown.memory_allocated);
        cluster.memory_max_deviation = Some(percent(0.0));
        (cluster.cpu_threshold, cluster.cpu_disable_threshold) = (Some(false), Some(false));
        (cluster.memory_threshold, cluster.memory_disable_threshold) = (Some(false), Some(false));
        (cluster.cpu_allocated_threshold, cluster.cpu_allocated_disable_threshold) = shown.cpu_above;
        (cluster.memory_allocated_threshold, cluster.memory_allocated_disable_threshold) = shown.memory_above;
    }
    Ok(())
}

/// Adds the figures of hosts.
///
/// # Errors
/// Those of the database.
pub async fn hosts(world: &World, hosts: &mut [HostMetrics]) -> Result<(), ApiError> {
    let uuids: Vec<String> = hosts.iter().filter_map(|h| h.id.clone()).collect();
    let figures = rows::hosts(&world.node.db, &uuids).await?;
    for host in hosts {
        host.power_state = host.out_of_band_management.as_ref().and_then(|o| o.power_state.clone());
        let Some(found) = figures.get(host.id()) else { continue };
        host_figures(&world.node.settings, host, found);
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // capacities are far below 2^53
fn host_figures(settings: &Settings, host: &mut HostMetrics, found: &HostFigures) {
    let HostFigures { cpu, memory, .. } = *found;
    let scope = Scope::Cluster(found.cluster);
    host.instances = Some(format!("{}/{}", found.running, found.guests));
    host.cpu_total_ghz = Some(format!("{} (x{:?})", ghz(cpu.total as f64), cpu.factor));
    host.cpu_used_ghz = Some(ghz(0.0));
    host.cpu_allocated_ghz = Some(ghz(cpu.given as f64));
    host.memory_total_gb = Some(format!("{} (x{:?})", gb(memory.total as f64), memory.factor));
    host.memory_used_gb = Some(gb(host.memory_used.unwrap_or(0) as f64));
    host.memory_allocated_gb = Some(gb(memory.given as f64));
    let kib = |n: Option<i64>| n.map(|n| gb(n as f64 * 1024.0));
    (host.network_read, host.network_write) = (kib(host.network_kbs_read), kib(host.network_kbs_write));
    (host.cpu_threshold, host.cpu_disable_threshold) = (Some(false), Some(false));
    (host.memory_threshold, host.memory_disable_threshold) = (Some(false), Some(false));
    let above = |given: i64, room: f64, bounds: [f64; 2]| above((room, given), bounds);
    (host.cpu_allocated_threshold, host.cpu_allocated_disable_threshold) =
        above(cpu.given, cpu.room(), cpu_bounds(settings, scope));
    (host.memory_allocated_threshold, host.memory_allocated_disable_threshold) =
        above(memory.given, memory.room(), memory_bounds(settings, scope));
}

/// Adds the figures of virtual machines.
#[allow(clippy::cast_precision_loss)] // sizes are far below 2^53
pub fn virtual_machines(vms: &mut [VmMetrics]) {
    for vm in vms {
        vm.ip_address = vm.nic.iter().find(|n| n.is_default()).and_then(|n| n.ip_address.clone());
        let speed = f64::from(vm.cpu_number.unwrap_or(0)) * f64::from(vm.cpu_speed.unwrap_or(0));
        vm.cpu_total = Some(format!("{:.1} Ghz", speed / 1000.0));
        vm.memory_total = vm.memory.map(|mb| format!("{:.2} GB", f64::from(mb) / 1024.0));
        let mb = |kib: Option<i64>| kib.map(|n| format!("{:.2} MB", n as f64 / 1024.0));
        (vm.network_read, vm.network_write) = (mb(vm.network_kbs_read), mb(vm.network_kbs_write));
        (vm.disk_read, vm.disk_write) = (mb(vm.disk_kbs_read), mb(vm.disk_kbs_write));
        vm.disk_iops_total = vm.disk_io_read.zip(vm.disk_io_write).map(|(read, write)| read + write);
    }
}

/// What a place shows.
struct Shown {
    cpu_total: String,
    cpu_allocated: String,
    memory_total: String,
    memory_allocated: String,
    cpu_above: (Option<bool>, Option<bool>),
    memory_above: (Option<bool>, Option<bool>),
}

impl Shown {
    fn of(settings: &Settings, found: &PlaceFigures, cluster: Option<i64>) -> Shown {
        let scope = cluster.map_or(Scope::Global, Scope::Cluster);
        Shown {
            cpu_total: ghz(found.cpu.0),
            cpu_allocated: percent(share(found.cpu)),
            memory_total: gb(found.memory.0),
            memory_allocated: percent(share(found.memory)),
            cpu_above: above(found.cpu, cpu_bounds(settings, scope)),
            memory_above: above(found.memory, memory_bounds(settings, scope)),
        }
    }
}

/// Shares from which people are told, and from which nothing more is placed.
fn cpu_bounds(settings: &Settings, scope: Scope) -> [f64; 2] {
    [
        settings.get_in(keys::CLUSTER_CPU_NOTIFICATION_THRESHOLD, scope),
        settings.get_in(keys::CLUSTER_CPU_DISABLE_THRESHOLD, scope),
    ]
}

fn memory_bounds(settings: &Settings, scope: Scope) -> [f64; 2] {
    [
        settings.get_in(keys::CLUSTER_MEMORY_NOTIFICATION_THRESHOLD, scope),
        settings.get_in(keys::CLUSTER_MEMORY_DISABLE_THRESHOLD, scope),
    ]
}

fn above(figure: (f64, i64), [notify, disable]: [f64; 2]) -> (Option<bool>, Option<bool>) {
    let share = share(figure);
    (Some(share > notify), Some(share > disable))
}

#[allow(clippy::cast_precision_loss)] // capacities are far below 2^53
fn share((room, given): (f64, i64)) -> f64 {
    if room > 0.0 { given as f64 / room } else { 0.0 }
}

fn ghz(mhz: f64) -> String {
    format!("{:.2} Ghz", mhz / 1000.0)
}

fn gb(bytes: f64) -> String {
    format!("{:.2} GB", bytes / GB)
}

fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}
