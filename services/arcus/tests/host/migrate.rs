//! A guest that moves between hosts while it runs and somebody talks to it.

use crate::traffic;
use crate::world::{Vm, World, text};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use testkit::guest::{Guest, talk};
use testkit::{until_ok, wait_until};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(300);
/// The public port that the guest's echo is forwarded to.
const PORT: &str = "1007";

/// Somebody outside who calls the guest's echo again and again.
struct Call {
    said: Arc<AtomicU64>,
    hung_up: Arc<AtomicBool>,
    talk: JoinHandle<Duration>,
}

impl Call {
    fn begin(world: &World, ip: &str) -> Call {
        let (outside, address) = (world.network.outside(), format!("{ip}:{PORT}").parse().expect("an address"));
        let (said, hung_up) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (said.clone(), hung_up.clone());
        let talk = tokio::spawn(async move {
            let (mut longest, mut heard) = (Duration::ZERO, Instant::now());
            while !end.load(Ordering::Relaxed) {
                let echo = talk(&outside, address, b"still there?\n", Duration::from_secs(3)).await;
                if echo.is_some_and(|echo| echo == b"still there?\n") {
                    longest = longest.max(heard.elapsed());
                    heard = Instant::now();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            longest
        });
        Call { said, hung_up, talk }
    }

    /// Waits until the guest has answered once more.
    async fn goes_on(&self) {
        let before = self.said.load(Ordering::Relaxed);
        let more = || async { self.said.load(Ordering::Relaxed) > before + 1 };
        wait_until(more, PATIENCE).await;
    }

    /// Gives the longest time without an echo.
    async fn hang_up(self) -> Duration {
        self.goes_on().await;
        self.hung_up.store(true, Ordering::Relaxed);
        self.talk.await.expect("a talk")
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

/// There and back, while somebody outside goes on talking to it.
pub async fn there_and_back(world: &World, hosts: &[String], vm: &Vm) -> String {
    let ip = traffic::reach(world, vm, PORT).await;
    let guest = traffic::shell(world, &ip).await;
    let (boots, first) = (world.boots(vm), place(world, hosts, vm).await);
    let call = Call::begin(world, &ip);
    call.goes_on().await;
    for to in [1 - first, first] {
        let begun = Instant::now();
        let moved = world.run("migrateVirtualMachine", &[("virtualmachineid", &vm.id), ("hostid", &hosts[to])]).await;
        eprintln!("host test: moved in {:.1} s", begun.elapsed().as_secs_f64());
        assert_eq!(text(&moved, "/virtualmachine/hostid"), hosts[to]);
        assert_eq!(in_one_place(world, hosts, vm).await, to);
        call.goes_on().await;
        guest.run(&format!("echo {to} >>/persist/places; sync")).await;
    }
    let longest = call.hang_up().await;
    eprintln!("host test: the longest silence was {:.1} s", longest.as_secs_f64());
    assert_eq!(guest.run("cat /persist/places").await, format!("{}\n{first}", 1 - first));
    assert_eq!(world.boots(vm), boots, "it has gone on all the time");
    ip
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
pub async fn killed(world: &mut World, hosts: &[String], vm: &Vm, ip: &str) {
    let boots = world.boots(vm);
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
