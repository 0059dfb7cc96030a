//! Keeps the leases of all simulated hosts: looks at every VM's epoch, beats for the hosts, stops VMs that are lost and
//! pauses those whose lease can't be read. What it decides by is [`crate::lease`].

use super::driver::Simulator;
use super::guest::Guest;
use super::state::Host;
use crate::hypervisor::News;
use crate::lease::{self, Area, Standing, now};
use contract_agent::state_entry::Body as Entry;
use contract_agent::{ForgottenVm, Heartbeat, PowerReason, PowerState, VmEvent};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// What is to be done for a host in one round.
struct Errand {
    host: String,
    heartbeat: Heartbeat,
    looks: Vec<Look>,
    /// Where it beats.
    beats: BTreeSet<String>,
    /// Claimed VMs that the host doesn't run any more.
    free: Vec<String>,
}

struct Look {
    vm: String,
    epoch: i64,
    pool: String,
    guest: Arc<Guest>,
}

impl Simulator {
    /// Before the agent says hello: copies that were taken over while it was away are stopped, and claims of VMs that its
    /// hosts don't run are given back.
    pub async fn first_round(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.apply_states();
            for host in state.hosts.values_mut() {
                host.returning = false; // the line hasn't said anything of them yet
            }
        }
        let simulator = self.clone();
        let scan = tokio::task::spawn_blocking(move || {
            if let Err(error) = simulator.find_claims() {
                tracing::warn!(%error, "the pools' leases can't be read");
            }
            simulator.round();
        });
        let _ = scan.await; // an error means that the process ends
        self.sweep();
    }

    /// Looks for ever.
    pub async fn keep_leases(self: Arc<Self>) {
        let mut running: Option<JoinHandle<()>> = None;
        loop {
            let pause = lease::pause(self.areas.shortest());
            let due = tokio::select! {
                () = tokio::time::sleep(pause) => true,
                () = self.kick.notified() => true,
                () = ended(&mut running) => {
                    running = None;
                    false
                }
            };
            // Permits end even while a round hangs on a pool that doesn't answer.
            self.sweep();
            if due && running.is_none() {
                let simulator = self.clone();
                running = Some(tokio::task::spawn_blocking(move || simulator.round()));
            }
        }
    }

    /// One look at every VM, one heartbeat a host and pool where it has VMs; a host without VMs on a pool that it was told of
    /// beats there more seldom.
    fn round(&self) {
        let (errands, back): (Vec<Errand>, Vec<String>) = {
            let mut state = self.state();
            let back = state.hosts.iter().filter(|(_, host)| host.returning && host.has_agent());
            let back = back.map(|(uuid, _)| uuid.clone()).collect();
            let up = state.hosts.values_mut().filter(|host| host.has_agent() && !host.lease_cut);
            let shortest = self.areas.shortest();
            (up.map(|host| errand(host, shortest)).collect(), back)
        };
        for errand in &errands {
            self.run(errand);
        }
        if !back.is_empty() {
            // What was lost meanwhile is stopped before anybody can give the host an order.
            self.sweep();
        }
        for uuid in back {
            if let Some(host) = self.state().hosts.get_mut(&uuid) {
                host.returning = false;
            }
            self.tell(News::HostUp(uuid));
        }
    }

    fn run(&self, errand: &Errand) {
        let mut areas: HashMap<&str, Option<Arc<Area>>> = HashMap::new();
        for look in &errand.looks {
            let area = areas.entry(&look.pool).or_insert_with(|| self.areas.of(&look.pool, None).ok());
            let Some(area) = area else { continue };
            if let Err(error) = lease::look(area, &errand.host, &look.vm, look.epoch, &*look.guest) {
                tracing::debug!(host = errand.host, vm = look.vm, %error, "a lease can't be read");
            }
        }
        for pool in &errand.beats {
            let area = areas.entry(pool).or_insert_with(|| self.areas.of(pool, None).ok());
            if let Some(area) = area
                && let Err(error) = area.beat(&errand.heartbeat)
            {
                tracing::debug!(host = errand.host, pool, %error, "a heartbeat can't be written");
            }
        }
        for vm in &errand.free {
            if let Err(error) = self.give_back_now(&errand.host, vm) {
                tracing::debug!(host = errand.host, vm, %error, "a lease can't be given back");
            }
        }
    }

    /// Gives back what a host has claimed of a VM that it doesn't run.
    pub(super) fn give_back_now(&self, host: &str, vm: &str) -> io::Result<()> {
        // Under the lock: a start that wants this very epoch again comes before or after, not in between.
        let mut state = self.state();
        let Some(on) = state.hosts.get_mut(host).filter(|host| host.has_agent() && !host.lease_cut) else {
            return Ok(());
        };
        let claim = on.claims.idle(vm).filter(|_| !on.vms.contains_key(vm));
        if let Some(claim) = claim {
            self.areas.of(&claim.pool, None)?.free(vm, claim.epoch, host)?;
            on.claims.remove(vm);
        }
        Ok(())
    }

    /// Stops what is lost, pauses what isn't permitted, resumes what is again.
    pub(super) fn sweep(&self) {
        let now = now();
        let events = self.by_hand(|state, entries| {
            let mut events = Vec::new();
            for (uuid, host) in state.hosts.iter_mut().filter(|(_, host)| host.has_agent()) {
                sweep_host(uuid, host, now, entries, &mut events);
            }
            events
        });
        for event in events {
            self.tell(News::Vm(event));
        }
    }

    /// Which claims on the pools are our hosts': those of a run that ended before it gave them back are found again.
    fn find_claims(&self) -> io::Result<()> {
        for pool in self.areas.pools()? {
            let area = self.areas.of(&pool, None)?;
            for (vm, claim) in lease::held(&area)? {
                if let Some(host) = self.state().hosts.get_mut(&claim.host) {
                    host.claims.found(vm, &pool, claim.epoch);
                }
            }
        }
        Ok(())
    }
}

fn errand(host: &mut Host, shortest: Duration) -> Errand {
    let uuid = host.spec.host_uuid.clone();
    let look = |(vm, on): (&String, &super::state::Vm)| Look {
        vm: vm.clone(),
        epoch: on.spec.generation,
        pool: on.lease_pool(),
        guest: on.guest.clone(),
    };
    let looks: Vec<Look> = host.vms.iter().map(look).collect();
    let heartbeat = host.beats.next(&uuid, &host.boot_id, shortest);
    let mut beats: BTreeSet<String> = looks.iter().map(|look| look.pool.clone()).collect();
    for pool in &host.pools {
        if !beats.contains(pool) && host.beats.is_due(&uuid, pool) {
            beats.insert(pool.clone());
        }
    }
    Errand {
        heartbeat,
        host: uuid,
        looks,
        beats,
        free: host.claims.all_idle().filter(|vm| !host.vms.contains_key(*vm)).cloned().collect(),
    }
}

fn sweep_host(uuid: &str, host: &mut Host, now: Duration, entries: &mut Vec<Entry>, events: &mut Vec<VmEvent>) {
    let mut lost = Vec::new();
    for vm in host.vms.values_mut() {
        let (power, reason) = match vm.guest.standing(now) {
            Standing::Over(epoch) => {
                lost.push((vm.spec.uuid.clone(), epoch));
                continue;
            }
            Standing::Unknown if vm.power == PowerState::On => (PowerState::Paused, PowerReason::LeaseUnreadable),
            Standing::Permitted if vm.reason == PowerReason::LeaseUnreadable => {
                (PowerState::On, PowerReason::Unspecified)
            }
            Standing::Unknown | Standing::Permitted => continue,
        };
        tracing::warn!(host = uuid, vm = vm.spec.uuid, ?power, ?reason, "a VM's lease changed what it may do");
        (vm.power, vm.reason) = (power, reason);
        host.dirty = true;
        entries.push(vm.saved(uuid));
        events.push(VmEvent { host_uuid: uuid.to_owned(), vm: Some(vm.state()) });
    }
    for (vm, epoch) in lost {
        tracing::warn!(host = uuid, vm, epoch, "a VM was taken over: this copy is stopped");
        events.extend(lose(uuid, host, &vm, epoch, entries));
    }
}

/// Stops a VM whose epoch rose.
pub(super) fn lose(uuid: &str, host: &mut Host, vm: &str, to: i64, entries: &mut Vec<Entry>) -> Option<VmEvent> {
    let gone = host.vms.remove(vm)?;
    gone.guest.off();
    host.dirty = true;
    entries.push(Entry::VmForgotten(ForgottenVm { host_uuid: uuid.to_owned(), vm_uuid: vm.to_owned() }));
    let mut state = gone.state();
    state.power = PowerState::Off.into();
    state.reason = PowerReason::LeaseLost.into();
    state.lost_to = to;
    Some(VmEvent { host_uuid: uuid.to_owned(), vm: Some(state) })
}

async fn ended(running: &mut Option<JoinHandle<()>>) {
    match running {
        // An error means that the process ends.
        Some(round) => drop(round.await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::super::state::Vm;
    use super::*;
    use crate::journal::Journal;
    use crate::lease::{Areas, Tenure};
    use contract_agent::{SpawnHost, VmSpec};
    use std::time::Instant;

    const HOSTS: usize = 100;
    const VMS: usize = 100;

    #[test]
    fn a_round_for_ten_thousand_vms_writes_once_a_host() {
        let dir = testkit::temp_dir();
        let (journal, _) = Journal::open(dir.path(), false).unwrap();
        let areas = Areas::new(dir.path().join("pools"), Duration::from_secs(10));
        let simulator = Simulator::new(Arc::new(journal), areas);
        let area = simulator.areas.of("", None).unwrap();
        for n in 0..HOSTS {
            let uuid = format!("h{n}");
            let mut host = Host::new(SpawnHost { host_uuid: uuid.clone(), ..SpawnHost::default() });
            for m in 0..VMS {
                let spec = VmSpec { uuid: format!("{n}-{m}"), generation: 1, ..VmSpec::default() };
                assert!(area.claim(&spec.uuid, 1, &uuid).unwrap());
                let guest = Guest::new(Tenure::unknown(1));
                let (power, reason) = (PowerState::On, PowerReason::Unspecified);
                host.vms.insert(spec.uuid.clone(), Vm { spec, power, reason, boots: 1, sent: Vec::new(), guest });
            }
            simulator.state().hosts.insert(uuid, host);
        }
        let begun = Instant::now();
        simulator.round();
        let took = begun.elapsed();
        eprintln!("{} leases of {HOSTS} hosts were looked at in {took:?}", HOSTS * VMS);
        assert!(took < Duration::from_secs(5), "{took:?}: longer than there is time for");
        simulator.sweep();
        let state = simulator.state();
        assert!(state.hosts.values().flat_map(|host| host.vms.values()).all(|vm| vm.power == PowerState::On));
        for n in 0..HOSTS {
            assert_eq!(area.heartbeat(&format!("h{n}")).unwrap().unwrap().counter, 1);
        }
    }

    /// The cost of hosts that run nothing: two files a lease time each.
    #[test]
    fn a_thousand_idle_hosts_beat_on_their_pools_at_little_cost() {
        const IDLE: usize = 1000;
        let dir = testkit::temp_dir();
        let (journal, _) = Journal::open(dir.path(), false).unwrap();
        let areas = Areas::new(dir.path().join("pools"), Duration::from_secs(10));
        let simulator = Simulator::new(Arc::new(journal), areas);
        let uuid = |n: usize| format!("{n:036}");
        for n in 0..IDLE {
            let mut host = Host::new(SpawnHost { host_uuid: uuid(n), ..SpawnHost::default() });
            host.pools = ["p".to_owned(), "q".to_owned()].into();
            simulator.state().hosts.insert(uuid(n), host);
        }
        simulator.state().hosts.insert("untold".into(), Host::new(SpawnHost::default()));
        let area = simulator.areas.of("p", None).unwrap();
        let beat = |n: usize| area.heartbeat(&uuid(n)).unwrap().unwrap();
        simulator.round();
        assert!((0..IDLE).all(|n| beat(n).counter == 1), "at once where it hasn't yet");
        assert_eq!(beat(0).beat_millis, 10_000);
        let mut shares = Vec::new();
        let mut took = Duration::ZERO;
        for round in 2..=5 {
            let begun = Instant::now();
            simulator.round();
            took += begun.elapsed();
            shares.push((0..IDLE).filter(|n| beat(*n).counter == round).count());
        }
        eprintln!("{IDLE} idle hosts beat on two pools in {took:?}, {shares:?} in a round");
        assert_eq!(shares.iter().sum::<usize>(), IDLE, "once in four rounds");
        assert!(shares.iter().all(|share| (IDLE / 8..IDLE / 2).contains(share)), "not all at once: {shares:?}");
        assert_eq!(area.heartbeat("untold").unwrap(), None);
        // One that is cut off from its storage, or off, says nothing.
        simulator.state().hosts.get_mut(&uuid(0)).unwrap().lease_cut = true;
        simulator.state().hosts.get_mut(&uuid(1)).unwrap().dead = true;
        (0..8).for_each(|_| simulator.round());
        assert!(beat(0).counter <= 5 && beat(1).counter <= 5 && beat(2).counter > 5);
    }
}
