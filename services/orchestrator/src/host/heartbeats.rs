//! Whether a host without VMs lives: others watch the heartbeat that it writes on the pools which it shares with them.
//!
//! Of a host with VMs this tells nothing: those are judged by all their leases. For the rest, above all for routers, the
//! heartbeat is enough: one that is wrongly taken for dead is cut off from the control plane and from all that it shares, and
//! its routers run twice until it is back, as if it had VMs.

use super::investigate::{Finding, GRACE, LONGEST_LEASE, Verdict, WITNESSES};
use crate::store::absences::{self, Shared, Suspect};
use crate::world::World;
use contract::ApiError;
use contract_agent::{Command, HeartbeatState, InspectHost, command, outcome};
use model::HostId;
use std::time::Duration;

/// What one pool shows of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sign {
    /// Its heartbeat goes on.
    Moves,
    /// Its heartbeat stands still, for so many milliseconds, and shouldn't.
    Still(u32),
    /// Nobody can look.
    Hidden(String),
    /// The host writes nothing there by which it could be judged.
    None(&'static str),
}

/// Looks at a host of which no VM has a lease on a shared pool.
///
/// # Errors
/// Those of the database.
pub(super) async fn look(world: &World, host: &Suspect) -> Result<Finding, ApiError> {
    let db = &world.node.db;
    if !absences::with_vms(db, &[host.id]).await?.is_empty() {
        let why = "none of its VMs has a lease on a shared pool, by which others could tell";
        return Ok(Finding::new(Verdict::Unknown, why));
    }
    let pools = absences::shared(db, host.id).await?;
    let signs = futures::future::join_all(pools.iter().map(|pool| sign(world, host, pool))).await;
    Ok(together(&signs))
}

/// It may be cut off from one pool and alive on another: only when all are seen and none shows life, it is dead.
fn together(signs: &[Sign]) -> Finding {
    let mut longest = None;
    let mut why = Vec::new();
    for sign in signs {
        match sign {
            Sign::Moves => {
                return Finding::new(
                    Verdict::Alive,
                    "it is alive by its storage: its heartbeat on a shared pool goes on",
                );
            }
            Sign::Still(millis) => longest = longest.max(Some(*millis)),
            Sign::Hidden(_) | Sign::None(_) => {}
        }
    }
    for sign in signs {
        match sign {
            Sign::Hidden(reason) => return Finding::new(Verdict::Unknown, reason.clone()),
            Sign::None(reason) if !why.contains(reason) => why.push(*reason),
            _ => {}
        }
    }
    if let Some(millis) = longest {
        let seconds = f64::from(millis) / 1000.0;
        let text = format!("its heartbeat on shared storage has stood still for {seconds:.1} s, and it runs no VM");
        return Finding::new(Verdict::Dead, text);
    }
    let why =
        if why.is_empty() { "it shares no pool, so it writes no sign of life".to_owned() } else { why.join("; ") };
    Finding::new(Verdict::Unknown, why)
}

async fn sign(world: &World, host: &Suspect, pool: &Shared) -> Sign {
    let witnesses = match absences::witnesses(&world.node.db, host, pool.id, WITNESSES).await {
        Ok(witnesses) => witnesses,
        Err(error) => return Sign::Hidden(error.to_string()),
    };
    let mut why = "no other host that is Up reaches a pool of it".to_owned();
    for witness in witnesses {
        match watch(world, host, pool, witness).await {
            Ok(sign) => return sign,
            Err(error) => why = error.to_string(), // another witness
        }
    }
    Sign::Hidden(why)
}

/// What one witness sees.
async fn watch(world: &World, host: &Suspect, pool: &Shared, witness: i64) -> Result<Sign, ApiError> {
    let first = inspect(world, host, pool, witness, 0).await?;
    if let Some(none) = nothing(&first) {
        return Ok(none);
    }
    let seen = inspect(world, host, pool, witness, enough(&first)).await?;
    judge(&seen, witness)
}

/// How long a heartbeat is watched, in milliseconds: as a lease is, and for as long as it may stand still besides.
fn enough(first: &HeartbeatState) -> u32 {
    let beat = first.beat_millis.min(LONGEST_LEASE);
    (first.lease_millis.min(LONGEST_LEASE).saturating_mul(3) / 2).saturating_add(beat)
}

/// Why there is nothing to judge by, if there isn't.
fn nothing(seen: &HeartbeatState) -> Option<Sign> {
    match (seen.seen, seen.beat_millis) {
        (false, _) => Some(Sign::None("it has never written a sign of life on a pool that it shares")),
        (true, 0) => Some(Sign::None("its agent is of a version that writes no sign of life without VMs")),
        (true, _) => None,
    }
}

fn judge(seen: &HeartbeatState, witness: i64) -> Result<Sign, ApiError> {
    if seen.moved {
        return Ok(Sign::Moves);
    }
    if let Some(none) = nothing(seen) {
        return Ok(none);
    }
    let least = seen.lease_millis.saturating_add(seen.beat_millis);
    if seen.observed_millis <= least {
        let watched = seen.observed_millis;
        return Err(ApiError::unavailable(format!(
            "host {witness} watched a heartbeat for only {watched} of {least} ms"
        )));
    }
    Ok(Sign::Still(seen.observed_millis))
}

async fn inspect(
    world: &World,
    host: &Suspect,
    pool: &Shared,
    witness: i64,
    observe_millis: u32,
) -> Result<HeartbeatState, ApiError> {
    let order = InspectHost { host_uuid: host.uuid.clone(), pool_uuid: pool.uuid.clone(), observe_millis };
    let command = Command { body: Some(command::Body::InspectHost(order)) };
    let deadline = Duration::from_millis(observe_millis.into()) + GRACE;
    match world.hub.execute(HostId(witness), None, false, command, deadline).await?.body {
        Some(outcome::Body::Heartbeat(seen)) => Ok(seen),
        other => Err(ApiError::internal(format!("a host was asked for a heartbeat and answered {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(observed_millis: u32) -> HeartbeatState {
        let (lease_millis, beat_millis) = (10_000, 10_000);
        HeartbeatState { seen: true, observed_millis, lease_millis, beat_millis, ..HeartbeatState::default() }
    }

    // covers: OPS-117
    #[test]
    fn a_host_is_dead_only_when_all_that_it_shares_is_seen_and_stands_still() {
        let hidden = || Sign::Hidden("hidden".into());
        let of = |signs: &[Sign]| together(signs).verdict;
        assert_eq!(of(&[Sign::Still(1), Sign::Moves, hidden()]), Verdict::Alive);
        assert_eq!(of(&[Sign::Still(1), hidden(), Sign::Still(2)]), Verdict::Unknown);
        assert_eq!(of(&[Sign::None("a"), Sign::Still(2)]), Verdict::Dead);
        assert_eq!(of(&[]), Verdict::Unknown);
        assert_eq!(together(&[Sign::None("a"), Sign::None("b"), Sign::None("a")]).reason, "a; b");
        assert!(together(&[Sign::Still(25_100), Sign::Still(1)]).reason.contains("25.1 s"));
    }

    #[test]
    fn a_heartbeat_is_watched_for_long_enough() {
        assert_eq!(enough(&seen(0)), 25_000);
        assert_eq!(judge(&seen(25_000), 1).unwrap(), Sign::Still(25_000));
        assert!(judge(&seen(20_000), 1).unwrap_err().is_transient());
        assert_eq!(judge(&HeartbeatState { moved: true, ..seen(1) }, 1).unwrap(), Sign::Moves);
        // It went away meanwhile, or is one of an agent that promises nothing.
        let old = HeartbeatState { beat_millis: 0, ..seen(25_000) };
        assert!(matches!(judge(&old, 1).unwrap(), Sign::None(why) if why.contains("version")));
        assert!(matches!(judge(&HeartbeatState { seen: false, ..old }, 1).unwrap(), Sign::None(_)));
    }
}
