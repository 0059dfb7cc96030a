//! What breaks things: one fault after the other, until everything heals.

use crate::cast::{Cast, DUTIES, Place};
use crate::dice::Dice;
use crate::host::{Host, Link};
use std::sync::Arc;
use std::time::Duration;

/// Its faults.
pub const ACTIONS: &[&str] = &[
    "kill",
    "pause",
    "cut from database",
    "cut from etcd",
    "cut from network",
    "stop in order",
    "wall clock",
    "depose",
    "kill receiver",
    "pause receiver",
    "compact",
    "cut all from etcd",
    "cut all from database",
];

/// Breaks things for as long as the plan says; then heals everything.
pub async fn rage(cast: &Arc<Cast>) {
    let plan = &cast.sim.plan;
    let mut dice = Dice::new(cast.sim.seed, 20);
    match plan.pause_between {
        None => tokio::time::sleep(plan.chaos).await,
        Some(between) => {
            let mean = between.as_millis() as u64;
            while cast.sim.elapsed() < plan.chaos {
                tokio::time::sleep(Duration::from_millis(dice.within(1, 2 * mean))).await;
                let action = *dice.one(&plan.actions);
                strike(cast, ACTIONS[action], &mut dice);
            }
        }
    }
    heal(cast);
}

fn heal(cast: &Arc<Cast>) {
    cast.sim.event("healed", &[], String::new);
    cast.sim.heal();
    for place in cast.replicas.iter().chain(&cast.receivers) {
        if let Some(host) = place.host() {
            for link in [&host.database, &host.etcd, &host.network] {
                link.set(false);
            }
            host.pause(false);
        }
    }
}

fn strike(cast: &Arc<Cast>, action: &str, dice: &mut Dice) {
    let place = dice.within(0, cast.replicas.len() as u64) as usize;
    let receiver = dice.within(0, cast.receivers.len() as u64) as usize;
    let time = Duration::from_millis(*dice.one(&[100, 500, 1_000, 3_000, 6_000, 12_000]));
    let time = time / 2 + time * dice.within(0, 1000) as u32 / 1000;
    let millis = time.as_millis() as u64;
    cast.sim.event("nemesis", &[place as u64, receiver as u64, millis], || {
        format!("{action} (replica {place}, receiver {receiver}, {millis} ms)")
    });
    cast.sim.reach("a fault of the nemesis");
    let server_wait = Duration::from_millis(dice.within(0, 3_000));
    match action {
        "kill" => kill(cast, place, false, time, server_wait),
        "kill receiver" => kill(cast, receiver, true, time, server_wait),
        "pause" => pause(cast, &cast.replicas[place], time, server_wait),
        "pause receiver" => pause(cast, &cast.receivers[receiver], time, server_wait),
        "cut from database" => cut(cast, &cast.replicas[place], |h| &h.database, time, server_wait),
        "cut from etcd" => cut(cast, &cast.replicas[place], |h| &h.etcd, time, server_wait),
        "cut from network" => cut(cast, &cast.replicas[place], |h| &h.network, time, server_wait),
        "cut all from etcd" => cast.replicas.iter().for_each(|p| cut(cast, p, |h| &h.etcd, time, server_wait)),
        "cut all from database" => {
            cast.replicas.iter().chain(&cast.receivers).for_each(|p| cut(cast, p, |h| &h.database, time, server_wait));
        }
        "stop in order" => {
            let cast = cast.clone();
            cast.sim.clone().spawn(async move {
                if cast.replicas[place].serving().is_some() {
                    cast.stop_replica(place).await;
                    again(&cast, place, false);
                }
            });
        }
        "wall clock" => cast.sim.set_wall(dice.within(0, 6_000_000_000).cast_signed() - 3_000_000_000),
        "depose" => {
            let duty = *dice.one(DUTIES);
            if let Some(serving) = cast.replicas[place].serving() {
                serving.host.clone().spawn(async move {
                    let _ = serving.coord.depose(duty).await; // etcd may be away
                });
            }
        }
        _ => cast.etcd.compact(),
    }
}

fn kill(cast: &Arc<Cast>, place: usize, receiver: bool, time: Duration, server_wait: Duration) {
    let places = if receiver { &cast.receivers } else { &cast.replicas };
    let Some(host) = places[place].host().filter(|h| !h.is_dead()) else { return };
    host.kill();
    cast.database.forget(&host, server_wait / 3);
    let cast = cast.clone();
    cast.sim.clone().spawn(async move {
        tokio::time::sleep(time).await;
        again(&cast, place, receiver);
    });
}

fn again(cast: &Arc<Cast>, place: usize, receiver: bool) {
    let places = if receiver { &cast.receivers } else { &cast.replicas };
    if places[place].host().is_none_or(|h| h.is_dead()) {
        if receiver { cast.start_receiver(place) } else { cast.start_replica(place) }
    }
}

fn pause(cast: &Arc<Cast>, place: &Place, time: Duration, server_wait: Duration) {
    let Some(host) = place.host() else { return };
    host.pause(true);
    // What it has locked is taken from it before long.
    let database = cast.database.clone();
    let locked = host.clone();
    cast.sim.spawn(async move {
        for _ in 0..3 {
            tokio::time::sleep(server_wait / 3).await;
            if locked.is_paused() {
                database.forget(&locked, Duration::ZERO);
            }
        }
    });
    cast.sim.spawn(async move {
        tokio::time::sleep(time).await;
        host.pause(false);
    });
}

fn cut(cast: &Arc<Cast>, place: &Place, link: fn(&Host) -> &Link, time: Duration, server_wait: Duration) {
    let Some(host) = place.host() else { return };
    link(&host).set(true);
    if link(&host).is(&host.database) {
        cast.database.forget(&host, server_wait);
    }
    cast.sim.spawn(async move {
        tokio::time::sleep(time).await;
        link(&host).set(false);
    });
}
