//! How fast a device may be: what leaves by it is shaped by a token bucket (tbf), what comes in by it is dropped beyond the
//! rate by nftables. Both are what nearly every kernel has; `sfq` and the policing of libvirt's own way often aren't there.

use super::HostError;
use super::namespace::Namespace;
use super::netlink;
use super::tools::{run, run_in};
use std::collections::BTreeSet;

/// Bytes a second of a megabit a second, as 4.11 and libvirt count: 128 KiB.
const BYTES: u64 = 128 * 1024;
/// Smallest bucket, in bytes: the largest packet that a device is given at once must fit.
const BUCKET: u64 = 128 * 1024;

async fn at(namespace: &Namespace, program: &str, args: &[&str]) -> Result<String, HostError> {
    match namespace {
        Namespace::Own => run(program, args).await,
        Namespace::At(_) => run_in(namespace, program, args).await,
    }
}

/// Before the name of a device in the name of the table that holds what comes in by it.
const TABLE: &str = "arcus_rate_";

fn table_of(device: &str) -> String {
    format!("{TABLE}{}", device.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// Removes what was there to limit devices that are gone.
///
/// # Errors
/// nft or the kernel doesn't answer.
pub(crate) async fn sweep(namespace: &Namespace) -> Result<(), HostError> {
    let listed = at(namespace, "nft", &["list", "tables", "netdev"]).await?;
    let ours: Vec<&str> = listed.lines().filter_map(|l| l.strip_prefix("table netdev ")).collect();
    let ours: Vec<&str> = ours.into_iter().filter(|t| t.starts_with(TABLE)).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let links = netlink::with(namespace, |net| async move { net.links().await }).await?;
    let wanted: BTreeSet<String> = links.iter().map(|link| table_of(&link.name)).collect();
    for table in ours.into_iter().filter(|t| !wanted.contains(*t)) {
        // Somebody else may be at it.
        let _ = at(namespace, "nft", &["delete", "table", "netdev", table]).await;
    }
    Ok(())
}

/// Limits what leaves by a device, in megabits a second; 0: no limit.
///
/// # Errors
/// The kernel has no token buckets (CONFIG_NET_SCH_TBF), or the device isn't there.
pub(crate) async fn shape(namespace: &Namespace, device: &str, mbps: u64) -> Result<(), HostError> {
    if mbps == 0 {
        // One that has no queueing of ours refuses, and is as wanted.
        let _ = at(namespace, "tc", &["qdisc", "del", "dev", device, "root"]).await;
        return Ok(());
    }
    let rate = mbps.saturating_mul(BYTES);
    // What comes in 10 ms.
    let (bucket, rate) = ((rate / 100).max(BUCKET).to_string(), format!("{rate}bps"));
    let args = ["qdisc", "replace", "dev", device, "root", "tbf", "rate", &rate, "burst", &bucket, "latency", "50ms"];
    at(namespace, "tc", &args).await.map(drop)
}

/// Limits what comes in by a device, in megabits a second; 0: no limit.
///
/// # Errors
/// The kernel can't (CONFIG_NETFILTER_INGRESS), or the device isn't there.
pub(crate) async fn police(namespace: &Namespace, device: &str, mbps: u64) -> Result<(), HostError> {
    let table = table_of(device);
    if mbps == 0 {
        let _ = at(namespace, "nft", &["delete", "table", "netdev", &table]).await;
        return Ok(());
    }
    let rate = mbps.saturating_mul(BYTES);
    // What comes in 50 ms: TCP would never reach the rate with less.
    let bucket = (rate / 20).max(BUCKET);
    let text = format!(
        "add table netdev {table}; delete table netdev {table}; add table netdev {table}; \
         add chain netdev {table} in {{ type filter hook ingress device \"{device}\" priority 0; policy accept; }}; \
         add rule netdev {table} in limit rate over {rate} bytes/second burst {bucket} bytes drop"
    );
    at(namespace, "nft", &[&text]).await.map(drop)
}
