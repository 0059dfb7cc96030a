//! Following what hosts report. A VM that ended by itself is settled ([`super::power`]). A copy of a VM that has been started
//! elsewhere since is stopped; any other VM that the database doesn't expect is told of, never touched. A host that returns
//! first does what it owes ([`super::debts`]).

use super::{VmWorld, debts, power};
use crate::store::vms::{self, VmRow};
use contract::ApiError;
use contract_agent::{PowerState, VmState as Reported};
use hub::HostEvent;
use model::state::VmState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::now_micros;
use tokio::time::Instant;

/// How much older than the database a report may be, in µs.
const REPORT_LAG: i64 = 60_000_000;
/// How often all VMs of a host are compared while its reports keep coming; those that changed are each time.
const WHOLE: Duration = Duration::from_secs(60);

/// Follows the hub's events until the node stops.
pub async fn follow(world: VmWorld) {
    let mut news = world.hub.news();
    let mut follower = Follower { world, compared: HashMap::new() };
    while let Some(event) = news.next().await {
        if let Err(e) = follower.heed(event).await {
            tracing::warn!(error = %e, "a host's report could not be acted on; the next one is looked at again");
        }
    }
}

struct Follower {
    world: VmWorld,
    compared: HashMap<i64, Compared>,
}

/// What a host reported when it was compared last.
struct Compared {
    vms: Arc<Vec<Reported>>,
    /// When all of it was.
    whole: Instant,
    /// VMs that weren't as they should be: they are looked at again.
    again: HashSet<String>,
}

impl Follower {
    async fn heed(&mut self, event: HostEvent) -> Result<(), ApiError> {
        let world = &self.world;
        match event {
            HostEvent::Up { host, .. } => {
                self.compared.remove(&host.0);
                world.index.refresh(&world.node.db, &[host.0]).await?;
                let world = world.clone();
                // Its own task: a host that answers slowly must not hold up the news of the others.
                let tasks = world.node.tasks.clone();
                tasks.spawn(async move {
                    if let Err(e) = debts::pay(&world, host.0).await {
                        tracing::warn!(host = host.0, error = %e, "a host still owes; it is asked again");
                    }
                });
                Ok(())
            }
            HostEvent::Lost { host, .. } | HostEvent::Down { host, .. } => {
                self.compared.remove(&host.0);
                world.index.refresh(&world.node.db, &[host.0]).await
            }
            HostEvent::Vm { host, state } => compare(world, host.0, &[], &[&state]).await.map(drop),
            HostEvent::Report { host, vms, .. } => self.report(host.0, vms).await,
            HostEvent::Misfit { .. } => Ok(()), // its hosts aren't connected
        }
    }

    /// Compares with the database what differs from the host's last report; everything when nothing does (the report was
    /// asked for), and once in a while.
    async fn report(&mut self, host: i64, vms: Arc<Vec<Reported>>) -> Result<(), ApiError> {
        // Taken out: when this fails, the next report is compared whole.
        let before = self.compared.remove(&host).filter(|before| before.whole.elapsed() < WHOLE);
        let (whole, again) = match before {
            Some(before) if before.vms != vms => {
                let (gone, changed) = differing(&before, &vms);
                (before.whole, compare(&self.world, host, &gone, &changed).await?)
            }
            _ => (Instant::now(), compare_whole(&self.world, host, &vms).await?),
        };
        self.compared.insert(host, Compared { vms, whole, again });
        Ok(())
    }
}

/// The VMs that the newer report doesn't name any more, and those that are new or otherwise in it, or to be looked at again.
fn differing<'a>(before: &'a Compared, newer: &'a [Reported]) -> (Vec<&'a str>, Vec<&'a Reported>) {
    let mut left: HashMap<&str, &Reported> = before.vms.iter().map(|v| (v.uuid.as_str(), v)).collect();
    let same = |v: &Reported, left: &mut HashMap<&str, &Reported>| left.remove(v.uuid.as_str()) == Some(v);
    let changed: Vec<&Reported> =
        newer.iter().filter(|v| !same(v, &mut left) || before.again.contains(&v.uuid)).collect();
    let named = |uuid: &str| newer.iter().any(|v| v.uuid == uuid);
    let mut gone: Vec<&str> = left.into_keys().collect();
    gone.extend(before.again.iter().map(String::as_str).filter(|uuid| !named(uuid)));
    gone.sort_unstable();
    gone.dedup();
    (gone, changed)
}

/// Compares all that a host runs with all that it should. Gives what isn't as it should be.
async fn compare_whole(world: &VmWorld, host: i64, reported: &[Reported]) -> Result<HashSet<String>, ApiError> {
    let expected = vms::on_host(&world.node.db, host).await?;
    act(world, host, &expected, &reported.iter().collect::<Vec<_>>()).await
}

/// Compares these VMs, of which a host doesn't name some any more. Gives what isn't as it should be.
async fn compare(
    world: &VmWorld,
    host: i64,
    gone: &[&str],
    changed: &[&Reported],
) -> Result<HashSet<String>, ApiError> {
    let uuids: Vec<String> =
        gone.iter().copied().chain(changed.iter().map(|v| v.uuid.as_str())).map(str::to_owned).collect();
    let expected = vms::by_uuids(&world.node.db, &uuids).await?;
    act(world, host, &expected, changed).await
}

async fn act(
    world: &VmWorld,
    host: i64,
    expected: &[VmRow],
    reported: &[&Reported],
) -> Result<HashSet<String>, ApiError> {
    let by_uuid: HashMap<&str, &Reported> = reported.iter().map(|v| (v.uuid.as_str(), *v)).collect();
    let known: HashMap<&str, &VmRow> = expected.iter().map(|v| (v.uuid.as_str(), v)).collect();
    let mut again = HashSet::new();
    for vm in expected.iter().filter(|v| v.state == VmState::Running && v.host_id == Some(host)) {
        if power::is_off(by_uuid.get(vm.uuid.as_str()).copied()) {
            again.insert(vm.uuid.clone());
            power::check_again(world, vm, host).await?;
        }
    }
    let strays: Vec<&Reported> = reported
        .iter()
        .copied()
        .filter(|v| matches!(v.power(), PowerState::On | PowerState::Paused))
        .filter(|v| known.get(v.uuid.as_str()).is_none_or(|known| known.host_id != Some(host)))
        .collect();
    if !strays.is_empty() {
        again.extend(strays.iter().map(|v| v.uuid.clone()));
        strange(world, host, &strays).await?;
    }
    Ok(again)
}

/// VMs that run where they should not: what has been started elsewhere since is stopped, of the rest somebody is told.
async fn strange(world: &VmWorld, host: i64, strays: &[&Reported]) -> Result<(), ApiError> {
    let uuids: Vec<String> = strays.iter().map(|v| v.uuid.clone()).collect();
    let known: HashMap<String, VmRow> =
        vms::by_uuids(&world.node.db, &uuids).await?.into_iter().map(|v| (v.uuid.clone(), v)).collect();
    let mut stale = Vec::new();
    for state in strays {
        let vm = known.get(&state.uuid);
        // It may have come here since the list was read.
        if vm.is_some_and(|v| v.host_id == Some(host)) {
            continue;
        }
        if vm.is_some_and(|v| v.generation > state.generation) {
            stale.push((*state).clone());
        } else if !vm.is_some_and(moving) {
            tracing::warn!(
                host,
                vm = state.uuid,
                name = state.instance_name,
                "a host runs a virtual machine that should not be there"
            );
        }
    }
    if !stale.is_empty() {
        let own = world.clone();
        // Its own task: the host's answers must not hold up the news of the others.
        world.node.tasks.spawn(async move { debts::stop_stale(&own, host, stale).await });
    }
    Ok(())
}

/// Whether the VM is between hosts or states, or was a moment ago: a report may be older than what the database says now.
fn moving(vm: &VmRow) -> bool {
    vm.changed > now_micros() - REPORT_LAG
        || matches!(vm.state, VmState::Starting | VmState::Stopping | VmState::Migrating)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(uuid: &str, generation: i64) -> Reported {
        Reported { uuid: uuid.into(), generation, ..Reported::default() }
    }

    #[test]
    fn what_differs_between_two_reports() {
        let before = |again: &[&str]| Compared {
            vms: Arc::new(vec![vm("a", 1), vm("b", 1), vm("c", 1), vm("d", 1)]),
            whole: Instant::now(),
            again: again.iter().map(|s| (*s).to_owned()).collect(),
        };
        let newer = [vm("b", 1), vm("c", 2), vm("e", 1)];
        let look = |before: &Compared| {
            let (gone, changed) = differing(before, &newer);
            let changed: Vec<String> = changed.iter().map(|v| v.uuid.clone()).collect();
            (gone.join(" "), changed.join(" "))
        };
        assert_eq!(look(&before(&[])), ("a d".into(), "c e".into()));
        // What was wrong before is looked at again, there or gone.
        assert_eq!(look(&before(&["b", "x", "a"])), ("a d x".into(), "b c e".into()));
    }
}
