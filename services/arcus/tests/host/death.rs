//! Hosts that die, or seem to: what ran there runs elsewhere when that was wanted, and never twice.

use crate::guests::{password_noted, passwords};
use crate::traffic;
use crate::watch::Watch;
use crate::world::{Vm, World, text};
use serde_json::Value;
use std::time::{Duration, Instant};
use testkit::guest::Guest;
use testkit::until_ok;

/// Everything here waits for leases of ten seconds, and for guests to boot.
const PATIENCE: Duration = Duration::from_secs(300);
/// The public port that a highly available guest's echo is forwarded to.
const PORT: &str = "1007";

/// Five seconds of silence are too long, and what failed is tried again after a second.
pub async fn hurry(world: &World) {
    let settings = [
        ("ping.interval", "5"),
        ("ping.timeout", "1"),
        ("investigate.retry.interval", "1"),
        ("restart.retry.interval", "1"),
    ];
    for (name, value) in settings {
        world.run("updateConfiguration", &[("name", name), ("value", value)]).await;
    }
}

/// Two guests on one host.
pub struct Pair {
    /// Highly available, reached at [`PORT`] of the address.
    pub kept: Vm,
    /// Not so.
    pub plain: Vm,
    address: String,
}

impl Pair {
    /// Deploys them on the first host.
    pub async fn deploy(world: &World, hosts: &[String]) -> Pair {
        let begun = Instant::now();
        let (kept, shown) =
            world.deploy("kept", &[("serviceofferingid", world.id("kept")), ("hostid", &hosts[0])]).await;
        assert_eq!(shown["haenable"], true, "{shown}");
        crate::timings::follow(world, "kept", &kept, begun).await;
        let (plain, shown) = world.deploy("plain", &[("hostid", &hosts[0])]).await;
        assert_eq!(shown["haenable"], false, "{shown}");
        let address = traffic::reach(world, &kept, PORT).await;
        world.booted(&plain, 1).await;
        Pair { kept, plain, address }
    }

    /// The address that the highly available one is reached at.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn watch(&self, world: &World) -> Watch {
        Watch::begin(world, &[&self.kept, &self.plain])
    }

    /// On which host the highly available one is, by what the API says, which is what hosts have.
    async fn place(&self, world: &World, hosts: &[String]) -> usize {
        let listed = world.first("listVirtualMachines", "virtualmachine", &[("id", &self.kept.id)]).await;
        let at = hosts.iter().position(|host| *host == text(&listed, "/hostid")).unwrap();
        let copies: Vec<usize> = world.machines.iter().map(|m| m.copies(&self.kept.instance)).collect();
        assert_eq!((copies[at], copies[1 - at]), (1, 0), "{listed}");
        at
    }

    /// Waits until the highly available one has booted anew, is Running and is reached, and the other is Stopped, with no copy left anywhere.
    async fn recovered(&self, world: &World, boots: usize) {
        let settled = || async {
            let states = (world.state(&self.kept).await, world.state(&self.plain).await);
            let copies = |vm: &Vm| world.machines.iter().map(|m| m.copies(&vm.instance)).sum::<usize>();
            let found = (
                states.0.as_str(),
                states.1.as_str(),
                copies(&self.kept),
                copies(&self.plain),
                world.boots(&self.kept),
            );
            if found == ("Running", "Stopped", 1, 0, boots) {
                Ok(())
            } else {
                Err(format!("{found:?} of {boots} boots"))
            }
        };
        until_ok(settled, PATIENCE).await;
        world.booted(&self.kept, boots).await;
        world.reached(&format!("{}:{PORT}", self.address)).await;
    }

    /// Starts the other one beside it again.
    async fn beside(&self, world: &World, host: &str) {
        let boots = world.boots(&self.plain);
        world.run("startVirtualMachine", &[("id", &self.plain.id), ("hostid", host)]).await;
        world.booted(&self.plain, boots + 1).await;
    }
}

/// Waits for an alert about something whose text has all these words.
async fn alerted(world: &World, words: &[&str]) {
    let look = || async {
        let listed = world.api.call("listAlerts", &[]).await.map_err(|e| format!("{e:#}"))?;
        let all = listed.get("alert").and_then(Value::as_array).cloned().unwrap_or_default();
        let told = |alert: &Value| {
            let text = alert["description"].as_str().unwrap_or_default();
            words.iter().all(|word| text.contains(word))
        };
        if all.iter().any(told) { Ok(()) } else { Err(format!("no alert with {words:?}: {listed}")) }
    };
    until_ok(look, PATIENCE).await;
}

async fn host_is(world: &World, host: &str, state: &str) {
    let look = || async {
        let found = text(&world.first("listHosts", "host", &[("id", host)]).await, "/state");
        if found == state { Ok(()) } else { Err(format!("the host is {found}")) }
    };
    until_ok(look, PATIENCE).await;
}

/// A highly available guest that is shut down from inside comes back by itself: nobody can tell that from a crash.
// covers: VM-159
pub async fn shut_down(world: &World, pair: &Pair, guest: &Guest) {
    let boots = world.boots(&pair.kept);
    guest.power_off().await;
    world.booted(&pair.kept, boots + 1).await;
    let running = || async {
        let state = world.state(&pair.kept).await;
        if state == "Running" { Ok(()) } else { Err(state) }
    };
    until_ok(running, PATIENCE).await;
}

/// The agent alone is gone, and stays away for longer than leases last: the guests go on, and their disks' locks keep others from starting
/// them a second time. When the agent is back, it ends what was taken over meanwhile.
pub async fn without_agent(world: &mut World, hosts: &[String], pair: &Pair) {
    let (at, boots, watch) = (pair.place(world, hosts).await, world.boots(&pair.kept), pair.watch(world));
    world.machines[at].kill_agent().await;
    host_is(world, &hosts[at], "Down").await;
    alerted(world, &[&pair.kept.id, "could not be started again"]).await;
    assert_eq!(world.machines[at].copies(&pair.kept.instance), 1, "the guest goes on");
    assert_eq!(world.boots(&pair.kept), boots, "no other has begun to boot");
    world.machines[at].start_agent();
    host_is(world, &hosts[at], "Up").await;
    pair.recovered(world, boots + 1).await;
    watch.end().await;
}

/// The host goes through a reboot that is over before anybody misses it: its router is as it was, its guests are found down.
pub async fn rebooted(world: &mut World, hosts: &[String], pair: &Pair) {
    let at = pair.place(world, hosts).await;
    pair.beside(world, &hosts[at]).await;
    let (boots, watch) = (world.boots(&pair.kept), pair.watch(world));
    let begun = Instant::now();
    world.kill_host(at).await;
    world.boot_host(at).await;
    pair.recovered(world, boots + 1).await;
    eprintln!(
        "host test: timings reboot of a host: its guest is reached again after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    host_is(world, &hosts[at], "Up").await;
    alerted(world, &[&pair.plain.id, "isn't started again: it is not HA-enabled"]).await;
    watch.end().await;
}

/// The host is gone with its guests and its router: all of it that is to go on goes on at the other host. When it is back, nothing of what it
/// had comes back with it.
pub async fn dead(world: &mut World, hosts: &[String], pair: &Pair, before: &[Vec<String>]) {
    let at = pair.place(world, hosts).await;
    pair.beside(world, &hosts[at]).await;
    password_noted(world, &pair.kept).await;
    let (boots, watch) = (world.boots(&pair.kept), pair.watch(world));
    let begun = Instant::now();
    world.kill_host(at).await;
    host_is(world, &hosts[at], "Down").await;
    let down = begun.elapsed().as_secs_f64();
    pair.recovered(world, boots + 1).await;
    eprintln!(
        "host test: timings death of a host: Down after {down:.1} s, its guest is reached elsewhere after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let name = world.machines[at].name().to_owned();
    alerted(world, &[&name, "is down"]).await;
    assert_eq!(pair.place(world, hosts).await, 1 - at, "elsewhere");
    assert_eq!(passwords(world, &pair.kept), 1, "its new router doesn't offer again what it has");
    world.boot_host(at).await;
    host_is(world, &hosts[at], "Up").await;
    let clean = || async {
        let left = world.machines[at].remains();
        if left == before[at] { Ok(()) } else { Err(format!("{left:#?}")) }
    };
    until_ok(clean, PATIENCE).await;
    assert_eq!(world.state(&pair.plain).await, "Stopped");
    watch.end().await;
}
