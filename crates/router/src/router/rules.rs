//! The ruleset in the kernel.

use super::Context;
use crate::host::HostError;
use crate::host::files;
use crate::host::process;
use crate::host::tools::run_in;
use crate::ruleset::{Ruleset, TABLE, USAGE_TABLE};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// What passed a public address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The address.
    pub address: Ipv4Addr,
    /// Bytes from outside.
    pub received: u64,
    /// Bytes to the outside.
    pub sent: u64,
}

/// Puts a ruleset into force, unless it is. All of it or, on failure, nothing: nft sends it as one transaction. `known`:
/// the counters that are there, when this process has just put the former ruleset into force and nothing else is at it.
pub(super) async fn apply(
    context: &Context,
    ruleset: &Ruleset,
    known: Option<&BTreeSet<String>>,
) -> Result<(), HostError> {
    let file = match known {
        Some(known) => write(context, ruleset, known)?,
        None => {
            let mark = ["list", "chain", "ip", TABLE, ruleset.mark.as_str()];
            if run_in(&context.namespace, "nft", &mark).await.is_ok() {
                return Ok(());
            }
            alone(context).await?;
            write(context, ruleset, &there(context).await)?
        }
    };
    context.at("rules-written")?;
    nft(context, &["-f", &file]).await
}

/// Whether the kernel would take a ruleset.
pub(super) async fn check(context: &Context, ruleset: &Ruleset) -> Result<(), HostError> {
    let file = write(context, ruleset, &there(context).await)?;
    nft(context, &["-c", "-f", &file]).await
}

/// Ends an nft that a killed agent started: it must not come after ours.
async fn alone(context: &Context) -> Result<(), HostError> {
    process::end(&context.namespace, &context.layout.rules()).await
}

async fn there(context: &Context) -> BTreeSet<String> {
    counters(context).await.unwrap_or_default().into_keys().collect()
}

async fn nft(context: &Context, args: &[&str]) -> Result<(), HostError> {
    run_in(&context.namespace, "nft", args).await.map(|_| ())
}

/// Writes the script to a file: the ruleset, and the end of counters whose address went. Not through a pipe: an agent that
/// is killed while it writes would leave nft with half of it.
fn write(context: &Context, ruleset: &Ruleset, there: &BTreeSet<String>) -> Result<String, HostError> {
    let file = context.layout.rules();
    let mut text = ruleset.text.clone();
    for counter in there.difference(&ruleset.counters) {
        let _ = writeln!(text, "delete counter ip {USAGE_TABLE} {counter}");
    }
    files::replace(&file, text.as_bytes(), 0o600)?;
    Ok(file.to_string_lossy().into_owned())
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    bytes: u64,
}

async fn counters(context: &Context) -> Result<BTreeMap<String, u64>, HostError> {
    let args = ["-j", "list", "counters", "table", "ip", USAGE_TABLE];
    let text = run_in(&context.namespace, "nft", &args).await?;
    let listing: Listing = serde_json::from_str(&text).map_err(|e| HostError::failed("nft's counters", e))?;
    Ok(listing.nftables.into_iter().filter_map(|e| e.counter).map(|c| (c.name, c.bytes)).collect())
}

/// What the counters say.
pub(super) async fn usage(context: &Context) -> Result<Vec<Usage>, HostError> {
    let counters = counters(context).await?;
    let side = |side: &str, address: Ipv4Addr| counters.get(&format!("{side}_{address}")).copied().unwrap_or_default();
    let addresses: BTreeSet<Ipv4Addr> =
        counters.keys().filter_map(|name| name.split_once('_')?.1.parse().ok()).collect();
    let usage = |address| Usage { address, received: side("in", address), sent: side("out", address) };
    Ok(addresses.into_iter().map(usage).collect())
}
