//! A guest that moves between hosts while it runs, works, and somebody talks to it.

use crate::traffic;
use crate::world::{Vm, World, text};
use std::time::{Duration, Instant};
use testkit::guest::{Guest, Pings, Session};
use testkit::{until_ok, wait_until};

const PATIENCE: Duration = Duration::from_secs(300);
/// The public port that the guest's echo is forwarded to.
const PORT: &str = "1007";
/// Moves until one was fast enough.
const MOVES: usize = 8;
/// What a user may notice of a move (VM-244).
const DOWNTIME: Duration = Duration::from_secs(2);

/// What outside has to do with a guest while it moves, and what the guest does.
pub struct Held {
    /// By which it is reached.
    pub ip: String,
    /// One TCP connection through port forwarding, from before the first move until after the last.
    session: Session,
    /// Pings to an address that is the guest's own.
    pings: Pings,
    guest: Guest,
}

impl Held {
    /// It writes to its disk from here on, a numbered line at a time.
    async fn begin(world: &World, vm: &Vm) -> Held {
        let ip = traffic::reach(world, vm, PORT).await;
        let guest = traffic::shell(world, &ip).await;
        let outside = world.network.outside();
        let session = Session::open(&outside, format!("{ip}:12007").parse().expect("an address")).await;
        let pings = Pings::begin(&outside, traffic::pinged(world, vm).await, 1).await;
        let write = "n=0; while [ -e /persist/goes-on ]; do n=$((n + 1)); echo $n; sync; done >>/persist/written";
        guest.run(&format!("touch /persist/goes-on; ({write}) >/dev/null 2>&1 &")).await;
        let held = Held { ip, session, pings, guest };
        held.goes_on().await;
        held
    }

    /// Waits until connection and pings have gone on; gives the longest silence of each since this was asked last.
    async fn goes_on(&self) -> (Duration, Duration) {
        tokio::join!(self.session.goes_on(), self.pings.goes_on());
        (self.session.silence(), self.pings.silence())
    }

    /// Nothing was lost: not a line of the connection, nor one on the disk.
    pub async fn end(self) {
        self.goes_on().await;
        let lines = self.session.close().await;
        eprintln!("host test: {lines} lines on one connection");
        self.guest.run("rm /persist/goes-on; sync; echo 3 >/proc/sys/vm/drop_caches").await;
        // How many lines, and how many aren't what they should be.
        let check = "awk '$1 != NR { wrong++ } END { print NR, wrong + 0 }' /persist/written";
        let written = self.guest.run(check).await;
        let (written, wrong) = written.split_once(' ').expect("two numbers");
        eprintln!("host test: {written} lines on its disk");
        assert_eq!(wrong, "0");
        assert!(written.parse::<u64>().expect("a number") > 10);
    }
}

/// On which host a VM is: there only.
async fn place(world: &World, hosts: &[String], vm: &Vm) -> usize {
    let listed = world.first("listVirtualMachines", "virtualmachine", &[("id", &vm.id)]).await;
    assert_eq!(text(&listed, "/state"), "Running", "{listed}");
    hosts.iter().position(|host| *host == text(&listed, "/hostid")).expect("one of the hosts")
}

/// Waits until the VM runs on the host that it is said to be on, and nowhere else.
async fn in_one_place(world: &World, hosts: &[String], vm: &Vm) -> usize {
    let look = || async {
        let listed = world.first("listVirtualMachines", "virtualmachine", &[("id", &vm.id)]).await;
        let copies: Vec<usize> = world.machines.iter().map(|m| m.copies(&vm.instance)).collect();
        let at = hosts.iter().position(|host| listed["hostid"] == host.as_str());
        match at {
            Some(at) if listed["state"] == "Running" && copies[at] == 1 && copies.iter().sum::<usize>() == 1 => Ok(at),
            _ => Err(format!("{} at {at:?}, copies {copies:?}", listed["state"])),
        }
    };
    until_ok(look, PATIENCE).await
}

/// There and back, and again as long as it was silent for two seconds or more each time: a machine may be slow for a moment.
pub async fn there_and_back(world: &World, hosts: &[String], vm: &Vm) -> Held {
    let held = Held::begin(world, vm).await;
    let (boots, first) = (world.boots(vm), place(world, hosts, vm).await);
    let (mut at, mut least, mut places) = (first, Duration::MAX, Vec::new());
    while places.len() < 2 || (least >= DOWNTIME && places.len() < MOVES) || at != first {
        at = 1 - at;
        held.goes_on().await;
        let begun = Instant::now();
        let moved = world.run("migrateVirtualMachine", &[("virtualmachineid", &vm.id), ("hostid", &hosts[at])]).await;
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(text(&moved, "/virtualmachine/hostid"), hosts[at]);
        assert_eq!(text(&moved, "/virtualmachine/state"), "Running");
        assert_eq!(in_one_place(world, hosts, vm).await, at);
        let (session, pings) = held.goes_on().await;
        let silent = [session, pings].map(|silence| silence.as_secs_f64());
        eprintln!("host test: moved in {took:.1} s, silent for {:.2} s (TCP), {:.2} s (pings)", silent[0], silent[1]);
        least = least.min(session.max(pings));
        held.guest.run(&format!("echo {at} >>/persist/places; sync")).await;
        places.push(at.to_string());
    }
    assert!(least < DOWNTIME, "the least silence was {:.1} s", least.as_secs_f64());
    assert_eq!(held.guest.run("cat /persist/places").await, places.join("\n"));
    assert_eq!(world.boots(vm), boots, "it has gone on all the time");
    held
}

/// When an agent dies in the middle of a move.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as the VM is said to move.
    Begun,
    /// As soon as a copy waits for it.
    Waits,
    /// As soon as the copy that was left is gone.
    Left,
}

/// The agents die while the guest moves: it runs in exactly one place, the one that the control plane says, and goes on.
pub async fn killed(world: &mut World, hosts: &[String], vm: &Vm, held: &Held) {
    let (boots, ip) = (world.boots(vm), held.ip.as_str());
    for moment in [Moment::Begun, Moment::Waits, Moment::Left] {
        for of_source in [true, false] {
            let from = in_one_place(world, hosts, vm).await;
            let (to, api) = (1 - from, world.control.api());
            let (id, host) = (vm.id.clone(), hosts[to].clone());
            let moving = tokio::spawn(async move {
                api.run("migrateVirtualMachine", &[("virtualmachineid", &id), ("hostid", &host)]).await
            });
            let come = || async {
                moving.is_finished()
                    || match moment {
                        Moment::Begun => world.state(vm).await == "Migrating",
                        Moment::Waits => world.machines[to].copies(&vm.instance) > 0,
                        Moment::Left => world.machines[from].copies(&vm.instance) == 0,
                    }
            };
            wait_until(come, PATIENCE).await;
            let victim = if of_source { from } else { to };
            world.machines[victim].kill_agent().await;
            world.machines[victim].start_agent();
            let ended = moving.await.unwrap();
            let at = in_one_place(world, hosts, vm).await;
            let who = if of_source { "source" } else { "destination" };
            eprintln!(
                "host test: the agent of the {who} killed when {moment:?}: {}",
                match &ended {
                    Ok(_) => "it moved".to_owned(),
                    Err(error) => format!("{error:#}"),
                }
            );
            assert_eq!(at, if ended.is_ok() { to } else { from });
            world.reached(&format!("{ip}:{PORT}")).await;
            held.goes_on().await;
            assert_eq!(world.boots(vm), boots, "it has gone on all the time");
            let there = || async {
                let up = world.first("listHosts", "host", &[("id", &hosts[victim])]).await;
                if up["state"] == "Up" { Ok(()) } else { Err(up["state"].to_string()) }
            };
            until_ok(there, PATIENCE).await;
        }
    }
    // What it is told by its own host is its own still.
    let guest: Guest = traffic::shell(world, ip).await;
    assert_eq!(guest.run("hostname").await, "moving");
}
