//! What a host says of itself when it connects: after an upgrade or a change of its hardware it isn't what it was.

use crate::store::hosts as rows;
use crate::world::World;
use contract::ApiError;
use contract_agent::HostFacts;
use events::Alert;
use hub::HostEvent;
use std::collections::HashSet;

/// The hypervisor that factories may stand for.
const SIMULATOR: &str = "Simulator";
/// Most refusals that are remembered as told.
const REMEMBERED: usize = 10_000;

/// Follows the connections of this replica until the node stops.
pub fn start(world: &World) {
    let world = world.clone();
    world.node.clone().spawn("host-facts", async move {
        let mut news = world.hub.news();
        // Hosts whose agents stay outside, as it was told: they try again and again.
        let mut told = HashSet::new();
        loop {
            match news.next().await {
                Some(HostEvent::Up { host, facts }) => {
                    if let Err(error) = note(&world, host.0, &facts).await {
                        tracing::warn!(host = host.0, %error, "what a host says of itself can't be kept");
                    }
                }
                Some(HostEvent::Misfit { hosts, simulated, version, reason }) => {
                    let news = hosts.into_iter().map(|host| (host, reason.clone()));
                    let news: Vec<_> = news.filter(|news| !told.contains(news)).collect();
                    if news.is_empty() || told.len() >= REMEMBERED {
                        continue;
                    }
                    let hosts: Vec<_> = news.into_iter().map(|(host, _)| host).collect();
                    // A host whose earlier line isn't known to be gone yet is told of at the agent's next attempt.
                    match outside(&world, &hosts, simulated, &version, &reason).await {
                        Ok(noted) => told.extend(noted.into_iter().map(|host| (host, reason.clone()))),
                        Err(error) => {
                            tracing::warn!(version, %error, "an agent that stays outside can't be told of");
                        }
                    }
                }
                // What was missed is said again at the next connection.
                Some(_) => {}
                None => return,
            }
        }
    });
}

/// Shows the version of an agent that was refused at its hosts, and raises an alert. Gives the hosts that this was told of:
/// those that aren't connected.
async fn outside(
    world: &World,
    hosts: &[String],
    simulated: bool,
    version: &str,
    reason: &str,
) -> Result<Vec<String>, ApiError> {
    ::store::tx!(world.node.db, "agent-outside", |tx| {
        let only = simulated.then_some(SIMULATOR);
        let noted = rows::note_outside(tx, hosts, only, version).await?;
        if let Some(first) = noted.first() {
            let more = match noted.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            let text = format!("Host {first}{more} can't be managed: {reason}");
            events::record(tx, &[Alert::host(first).raise(text)]).await?;
        }
        Ok::<_, ApiError>(noted)
    })
    .await
}

/// Keeps what differs. A host that is still being added is left to its addition.
async fn note(world: &World, id: i64, facts: &HostFacts) -> Result<(), ApiError> {
    let db = &world.node.db;
    let Some(host) = rows::find(db, id).await?.filter(|h| h.removed.is_none()) else { return Ok(()) };
    let Some(version) = &host.version else { return Ok(()) };
    let same = *version == facts.agent_version
        && host.hypervisor_version.as_deref().unwrap_or_default() == facts.hypervisor_version
        && host.cpu_cores == i64::from(facts.cpus)
        && host.cpu_mhz == i64::from(facts.cpu_mhz)
        && u64::try_from(host.memory).is_ok_and(|m| m == facts.memory_bytes.saturating_sub(facts.dom0_memory_bytes));
    if same {
        return Ok(());
    }
    ::store::tx!(db, "host-facts", |tx| rows::adopt(tx, id, facts).await).await?;
    world.host_changed(id);
    Ok(())
}
