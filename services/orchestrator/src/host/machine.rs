//! Adding a real machine. Its agent has been enrolled, is connected, and waits ([`hub::waiting`]): the administrator names it by
//! address or name. One commit makes the host, with the agent's own UUID and all that it said; then the replica that holds its
//! line lets it in, at the latest some seconds later, whoever was killed in between.
//!
//! User name and password of `addHost` aren't used: nobody logs in to the machine.

use super::gone;
use crate::store::hosts::{self as rows, HostRow};
use crate::world::World;
use ::store::Tx;
use contract::ApiError;
use hub::WaitingAgent;
use model::state::HostStatus;
use std::time::Duration;
use tokio::time::Instant;

/// How long the agent, which is connected, may take to be let in.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks, should a notice get lost.
const LOOK: Duration = Duration::from_millis(500);

/// Ends the wait of the agent that `address` names, as part of the commit that makes its host.
///
/// # Errors
/// 530 when none or several wait there; 431 when the machine or its address is another host's.
pub(super) async fn take(
    world: &World,
    tx: &mut Tx,
    hypervisor: &str,
    address: &str,
) -> Result<WaitingAgent, ApiError> {
    let living: Vec<String> = world.node.coord.members().borrow().iter().map(|m| m.id.clone()).collect();
    let mut waiting = hub::waiting(tx).await?;
    waiting.retain(|a| a.facts.hypervisor == hypervisor && (a.hub == world.node.replica || living.contains(&a.hub)));
    let (mut named, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|a| is_named(a, address));
    let (Some(agent), None) = (named.pop(), named.first()) else {
        return Err(nobody(hypervisor, address, &others));
    };
    if let Some(known) = rows::same_machine(tx, &agent.guid, &agent.facts.private_ip).await? {
        return Err(ApiError::param(format!(
            "The machine at {address} is host {known} already, or has its address: delete that host first (deleteHost), or \
             give the machine another address"
        )));
    }
    if !hub::take_waiting(tx, &agent.uuid).await? {
        return Err(ApiError::concurrent(format!("Another request adds the host at {address} at this moment")));
    }
    Ok(agent)
}

/// By its private address, its name, or the first part of its name.
fn is_named(agent: &WaitingAgent, address: &str) -> bool {
    let name = &agent.facts.name;
    let short = name.split('.').next().unwrap_or_default();
    agent.facts.private_ip == address
        || [name.as_str(), short].iter().any(|n| !n.is_empty() && n.eq_ignore_ascii_case(address))
}

fn nobody(hypervisor: &str, address: &str, others: &[WaitingAgent]) -> ApiError {
    let shown = |a: &WaitingAgent| format!("{} ({})", a.facts.name, a.facts.private_ip);
    let others: Vec<String> = others.iter().map(shown).collect();
    let there = match others.as_slice() {
        [] => "No agent waits at all".to_owned(),
        _ => format!("Those that wait: {}", others.join(", ")),
    };
    ApiError::failed(format!(
        "Unable to add the host: not exactly one agent of a {hypervisor} host waits at {address}. {there}. Make a token with \
         \"arcus token --kind host\" and start the agent on the machine: \"arcus agent --hypervisor {} --token-file FILE \
         --endpoints HOST:PORT\" (docs/guides/add-a-kvm-host.md)",
        hypervisor.to_lowercase()
    ))
}

/// Waits until the host that was just made is connected. When its agent went away in this very moment, nothing of the host
/// stays, and the agent waits anew once it is back.
pub(super) async fn connected(world: &World, host: HostRow) -> Result<HostRow, ApiError> {
    let mut news = world.node.coord.subscribe("placement");
    world.hub.hurry(&host.uuid);
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let now = rows::find(&world.node.db, host.id).await?.filter(|h| h.removed.is_none()).ok_or_else(gone)?;
        if now.status != HostStatus::Connecting {
            world.host_changed(host.id);
            return Ok(now);
        }
        // A timeout is as good as a notice: both mean to look again.
        let _ = tokio::time::timeout(LOOK, news.next()).await;
    }
    let unborn = ::store::tx!(world.node.db, "host-unborn", |tx| {
        Ok::<_, ApiError>(rows::erase_unconnected(tx, host.id).await?)
    })
    .await?;
    world.host_changed(host.id);
    if unborn {
        return Err(ApiError::failed(format!(
            "Unable to add the host: the agent of {} went away meanwhile. Look whether it runs, and add the host again",
            host.name
        )));
    }
    rows::find(&world.node.db, host.id).await?.filter(|h| h.removed.is_none()).ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract_agent::HostFacts;

    #[test]
    fn machines_are_named_by_address_or_name() {
        let facts =
            HostFacts { name: "kvm1.example.org".into(), private_ip: "10.0.0.5".into(), ..HostFacts::default() };
        let agent = WaitingAgent { uuid: "u".into(), guid: "g".into(), hub: "h".into(), facts };
        for (address, named) in [
            ("10.0.0.5", true),
            ("KVM1.example.org", true),
            ("kvm1", true),
            ("kvm", false),
            ("10.0.0.50", false),
            ("", false),
        ] {
            assert_eq!(is_named(&agent, address), named, "{address}");
        }
        let error = nobody("KVM", "10.0.0.6", &[agent]);
        assert!(
            error.text.contains("kvm1.example.org (10.0.0.5)") && error.text.contains("--hypervisor kvm"),
            "{}",
            error.text
        );
    }
}
