//! Finding out whether a host that is connected with nobody lives.
//!
//! Investigators look from different sides. A sign of life outweighs everything; a host is dead only when somebody knows;
//! else nobody can tell, and nothing may be done to its VMs.

use super::heartbeats;
use crate::store::absences::{self, Leased, Suspect};
use crate::world::World;
use contract::ApiError;
use contract_agent::{Command, InspectLease, LeaseState, command, outcome};
use model::HostId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It showed a sign of life.
    Alive,
    /// It certainly doesn't run anything any more.
    Dead,
    /// Nobody can tell.
    Unknown,
}

impl Verdict {
    /// The word that the database keeps.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Alive => "Alive",
            Verdict::Dead => "Dead",
            Verdict::Unknown => "Unknown",
        }
    }
}

/// A verdict, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// For people.
    pub reason: String,
}

impl Finding {
    /// A finding.
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Finding {
        Finding { verdict, reason: reason.into() }
    }
}

/// Somebody who can tell something about a host.
#[tonic::async_trait]
pub trait Investigator: Send + Sync {
    /// Looks at a host. An investigator that can't see it says [`Verdict::Unknown`] and why.
    async fn look(&self, host: &Suspect) -> Finding;
}

/// What all investigators together know.
pub async fn ask(investigators: &[Arc<dyn Investigator>], host: &Suspect) -> Finding {
    let findings = futures::future::join_all(investigators.iter().map(|i| i.look(host))).await;
    together(findings)
}

/// A sign of life outweighs a death certificate, which outweighs ignorance.
fn together(findings: Vec<Finding>) -> Finding {
    for verdict in [Verdict::Alive, Verdict::Dead] {
        if let Some(found) = findings.iter().find(|f| f.verdict == verdict) {
            return found.clone();
        }
    }
    let reasons: Vec<String> = findings.into_iter().map(|f| f.reason).collect();
    let reason = if reasons.is_empty() { "nobody looks".to_owned() } else { reasons.join("; ") };
    Finding::new(Verdict::Unknown, reason)
}

/// Has other hosts watch what the host writes on pools: the leases of its VMs, and when it has none, its heartbeat.
pub struct Leases {
    world: World,
}

/// Hosts that are asked about a pool, one after the other until one can tell.
pub(super) const WITNESSES: i64 = 3;
/// VMs of a pool that are asked about: those that another host has taken since tell nothing.
const VMS: usize = 3;
/// Longest that a witness may take beyond what it watches.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Longest lease time that is waited for.
pub(super) const LONGEST_LEASE: u32 = 120_000;

impl Leases {
    /// Asks through this replica's connections and those of the others.
    pub fn new(world: World) -> Leases {
        Leases { world }
    }

    async fn try_look(&self, host: &Suspect) -> Result<Finding, ApiError> {
        let mut pools: BTreeMap<i64, Vec<Leased>> = BTreeMap::new();
        for vm in absences::leased(&self.world.node.db, host.id).await? {
            pools.entry(vm.pool).or_default().push(vm);
        }
        let looks = pools.into_iter().map(|(pool, vms)| self.pool(host, pool, vms));
        let findings = futures::future::join_all(looks).await;
        if findings.is_empty() {
            return heartbeats::look(&self.world, host).await;
        }
        // It may be cut off from one pool and alive on another that nobody here sees.
        match findings
            .iter()
            .find(|f| f.verdict == Verdict::Alive)
            .or(findings.iter().find(|f| f.verdict == Verdict::Unknown))
        {
            Some(found) => Ok(found.clone()),
            None => Ok(together(findings)),
        }
    }

    async fn pool(&self, host: &Suspect, pool: i64, vms: Vec<Leased>) -> Finding {
        let witnesses = match absences::witnesses(&self.world.node.db, host, pool, WITNESSES).await {
            Ok(witnesses) => witnesses,
            Err(error) => return Finding::new(Verdict::Unknown, error.to_string()),
        };
        let mut why = "no other host reaches the pool of its VMs".to_owned();
        for witness in witnesses {
            for vm in vms.iter().take(VMS) {
                match self.watch(host, witness, vm).await {
                    Ok(Some(found)) => return found,
                    Ok(None) => why = "its VMs' leases aren't its own any more".to_owned(),
                    Err(error) => {
                        why = error.to_string();
                        break; // another witness
                    }
                }
            }
        }
        Finding::new(Verdict::Unknown, why)
    }

    /// What one witness sees of one VM's lease; none when the lease isn't the suspect's.
    async fn watch(&self, host: &Suspect, witness: i64, vm: &Leased) -> Result<Option<Finding>, ApiError> {
        let first = self.inspect(witness, vm, 0).await?;
        if first.lease_millis == 0 {
            return Err(ApiError::failed(format!("pool {} keeps no leases", vm.pool_uuid)));
        }
        if first.free || first.host_uuid != host.uuid {
            return Ok(None);
        }
        let enough = first.lease_millis.min(LONGEST_LEASE).saturating_mul(3) / 2;
        let seen = self.inspect(witness, vm, enough).await?;
        if seen.moved {
            return Ok(Some(Finding::new(Verdict::Alive, "its VMs go on: it renews their leases on the pool")));
        }
        if seen.free || seen.host_uuid != host.uuid {
            return Ok(None);
        }
        if seen.observed_millis <= seen.lease_millis {
            return Err(ApiError::unavailable(format!(
                "host {witness} watched only {} ms of a lease of {} ms",
                seen.observed_millis, seen.lease_millis
            )));
        }
        Ok(Some(Finding::new(
            Verdict::Dead,
            format!("it has renewed no lease for {:.1} s", f64::from(seen.observed_millis) / 1000.0),
        )))
    }

    async fn inspect(&self, witness: i64, vm: &Leased, observe_millis: u32) -> Result<LeaseState, ApiError> {
        let order = InspectLease { vm_uuid: vm.vm.clone(), pool_uuid: vm.pool_uuid.clone(), observe_millis };
        let command = Command { body: Some(command::Body::InspectLease(order)) };
        let deadline = Duration::from_millis(observe_millis.into()) + GRACE;
        match self.world.hub.execute(HostId(witness), None, false, command, deadline).await?.body {
            Some(outcome::Body::Lease(lease)) => Ok(lease),
            other => Err(ApiError::internal(format!("a host was asked for a lease and answered {other:?}"))),
        }
    }
}

#[tonic::async_trait]
impl Investigator for Leases {
    async fn look(&self, host: &Suspect) -> Finding {
        match self.try_look(host).await {
            Ok(finding) => finding,
            Err(error) => Finding::new(Verdict::Unknown, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: OPS-117
    #[test]
    fn a_sign_of_life_outweighs_everything() {
        let of = |verdicts: &[Verdict]| together(verdicts.iter().map(|v| Finding::new(*v, v.word())).collect()).verdict;
        use Verdict::{Alive, Dead, Unknown};
        assert_eq!(of(&[Dead, Unknown, Alive]), Alive);
        assert_eq!(of(&[Unknown, Dead]), Dead);
        assert_eq!(of(&[Unknown, Unknown]), Unknown);
        assert_eq!(of(&[]), Unknown);
        let told = together(vec![Finding::new(Unknown, "a"), Finding::new(Unknown, "b")]);
        assert_eq!(told.reason, "a; b");
    }
}
