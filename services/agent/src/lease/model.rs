//! Proof by exploration that no schedule gives two writers. The world here is hosts, clocks and a pool; what the hosts do
//! is decided by the machines of [`super::machine`], the very ones that the driver runs.
//!
//! Every step between two effects is a step of its own, so that a host can stand still, be cut off or be overtaken
//! anywhere: between reading the clock and reading the pool, between the check of a permit and the write, between a claim
//! and the note that it was made. A cut-off host is one whose steps don't come.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed

use super::machine::{Claimed, Missing, Rules, Sight, Standing, Step, Taker, Tenure};
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::Duration;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What is assumed of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Assumed {
    rules: Rules,
    /// How long after its check a write may reach the disk, in true time; none: for ever.
    late: Option<u64>,
    /// The pool itself refuses writes of an epoch that isn't the highest.
    fenced: bool,
    /// True time ends here.
    horizon: u64,
    /// Agents may restart, VMs may be stopped in order and started again.
    lively: bool,
}

/// A look or reading under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Io {
    None,
    Begun(Duration),
    Got(Duration, Sight),
    /// The claim is made, and its maker doesn't know yet.
    Claimed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    Idle,
    Taking(Taker),
    Holding(Tenure),
    /// Stopped in order; the claim isn't given back yet.
    Stopped(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    /// In thousandths of a unit.
    clock: u64,
    role: Role,
    io: Io,
    /// A write that was permitted and hasn't reached the disk: its epoch, and when it was checked in true time.
    write: Option<(i64, u64)>,
    /// The epoch of the VM that it stopped last: what it runs again when its own disk has lost the stop.
    stopped: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    assumed: Assumed,
    now: u64,
    hosts: Vec<Host>,
    /// Thousandths that each host's clock goes on while a unit of true time goes by.
    rates: Vec<u64>,
    claims: Vec<Claimed>,
    /// The highest epoch with which a VM was ever started.
    started: i64,
    next_epoch: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    /// A host goes on with what it is at.
    Go(usize),
    /// The answer of the pool doesn't come.
    Fail(usize),
    /// The guest decides to write.
    Check(usize),
    /// What it decided reaches the disk.
    Land(usize),
    /// The watchdog or a crash takes the write away.
    Drop(usize),
    Restart(usize),
    Stop(usize),
    Order(usize, bool),
}

impl Action {
    /// Whose it is: of a host's agent, or of its guest. Either can stand still for itself.
    fn part(self) -> Option<(usize, bool)> {
        match self {
            Action::Tick => None,
            Action::Go(n) | Action::Fail(n) | Action::Restart(n) | Action::Stop(n) | Action::Order(n, _) => {
                Some((n, true))
            }
            Action::Check(n) | Action::Land(n) | Action::Drop(n) => Some((n, false)),
        }
    }
}

impl World {
    /// The first host holds the VM; the others are ordered to take it.
    fn new(assumed: Assumed, rates: &[u64]) -> World {
        let mut world = World {
            assumed,
            now: 0,
            hosts: Vec::new(),
            rates: rates.to_vec(),
            claims: vec![Claimed { epoch: 1, host: NAMES[0].into(), free: false }],
            started: 1,
            next_epoch: 2,
        };
        for n in 0..rates.len() {
            world.hosts.push(Host { clock: 0, role: Role::Idle, io: Io::None, write: None, stopped: 0 });
            if n > 0 {
                world.order(n, true);
            }
        }
        let mut first = Tenure::unknown(1);
        assert_eq!(first.looked(assumed.rules, Duration::ZERO, world.sight().glance()), Missing::Nothing);
        world.hosts[0].role = Role::Holding(first);
        world
    }

    fn order(&mut self, n: usize, may_take: bool) {
        self.hosts[n].stopped = 0;
        let taker = Taker::new(self.assumed.rules, NAMES[n], self.next_epoch, may_take);
        self.next_epoch += 1;
        self.hosts[n].role = Role::Taking(taker);
    }

    fn clock(&self, n: usize) -> Duration {
        Duration::from_millis(self.hosts[n].clock)
    }

    fn sight(&self) -> Sight {
        Sight::new(self.claims.clone())
    }

    /// All that may happen next.
    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let overdue = |host: &Host| matches!((host.write, self.assumed.late), (Some((_, at)), Some(late)) if self.now >= at + late);
        if self.now < self.assumed.horizon && !self.hosts.iter().any(overdue) {
            actions.push(Action::Tick);
        }
        for (n, host) in self.hosts.iter().enumerate() {
            match &host.role {
                Role::Idle => {
                    if self.assumed.lively && host.stopped > 0 {
                        actions.push(Action::Restart(n));
                    }
                    if self.assumed.lively && self.next_epoch < 40 {
                        actions.extend([Action::Order(n, true), Action::Order(n, false)]);
                    }
                }
                Role::Taking(taker) => {
                    let waits = host.io == Io::None && matches!(taker.next(self.clock(n)), Step::Wait(_));
                    if !waits {
                        actions.push(Action::Go(n));
                    }
                    if self.assumed.lively {
                        actions.push(Action::Restart(n));
                    }
                }
                Role::Holding(tenure) => {
                    actions.push(Action::Go(n));
                    if host.write.is_none() && tenure.standing(self.clock(n)) == Standing::Permitted {
                        actions.push(Action::Check(n));
                    }
                    if self.assumed.lively {
                        actions.push(Action::Restart(n));
                        if host.write.is_none() {
                            actions.push(Action::Stop(n));
                        }
                    }
                }
                Role::Stopped(_) => actions.push(Action::Go(n)),
            }
            if host.write.is_some() {
                actions.push(Action::Land(n));
                if self.assumed.late.is_some() {
                    actions.push(Action::Drop(n));
                }
            }
            if matches!(host.io, Io::Begun(_) | Io::Got(..)) {
                actions.push(Action::Fail(n));
            }
        }
        actions
    }

    /// Does one of them; says when there were two writers.
    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Tick => {
                self.now += 1;
                for (host, rate) in self.hosts.iter_mut().zip(&self.rates) {
                    host.clock += rate;
                }
            }
            Action::Go(n) => self.go(n),
            Action::Fail(n) => self.hosts[n].io = Io::None,
            Action::Check(n) => {
                if let Role::Holding(tenure) = &self.hosts[n].role {
                    self.hosts[n].write = Some((tenure.epoch(), self.now));
                }
            }
            Action::Land(n) => {
                let (epoch, _) = self.hosts[n].write.take().unwrap();
                let refused = self.assumed.fenced && self.sight().epoch() != epoch;
                if !refused && epoch < self.started {
                    return Err(format!("{} wrote with epoch {epoch} when {} had started", NAMES[n], self.started));
                }
            }
            Action::Drop(n) => self.hosts[n].write = None,
            Action::Restart(n) => {
                self.hosts[n].io = Io::None;
                let stopped = std::mem::take(&mut self.hosts[n].stopped);
                match &self.hosts[n].role {
                    // The stop wasn't on its disk yet.
                    Role::Idle if stopped > 0 => self.hosts[n].role = Role::Holding(Tenure::unknown(stopped)),
                    // The VM outlives its agent, and so does its write.
                    Role::Holding(tenure) => self.hosts[n].role = Role::Holding(Tenure::unknown(tenure.epoch())),
                    // Nobody asks again: its claim lies there. Or the next order comes.
                    _ => self.hosts[n].role = Role::Idle,
                }
            }
            Action::Stop(n) => {
                if let Role::Holding(tenure) = &self.hosts[n].role {
                    let epoch = tenure.epoch();
                    self.hosts[n].stopped = epoch;
                    self.hosts[n].role = Role::Stopped(epoch);
                    self.hosts[n].io = Io::None;
                }
            }
            Action::Order(n, may_take) => self.order(n, may_take),
        }
        Ok(())
    }

    fn go(&mut self, n: usize) {
        let now = self.clock(n);
        let io = self.hosts[n].io.clone();
        match self.hosts[n].role.clone() {
            Role::Idle => {}
            Role::Stopped(epoch) => {
                self.free(epoch);
                self.hosts[n].role = Role::Idle;
            }
            Role::Holding(mut tenure) => {
                self.hosts[n].io = match io {
                    Io::None => Io::Begun(now),
                    Io::Begun(began) => Io::Got(began, self.sight()),
                    Io::Got(began, sight) => {
                        let missing = tenure.looked(self.assumed.rules, began, sight.glance());
                        let again = missing == Missing::Claim && self.claim(n, tenure.epoch());
                        if again { Io::Claimed } else { Io::None }
                    }
                    Io::Claimed => {
                        tenure.claimed_again(self.assumed.rules, now);
                        Io::None
                    }
                };
                self.hosts[n].role = match tenure.standing(now) {
                    // Stopped means that none of its writes is on its way any more.
                    Standing::Over(_) if self.hosts[n].write.is_none() => Role::Idle,
                    _ => Role::Holding(tenure),
                };
            }
            Role::Taking(mut taker) => {
                self.hosts[n].io = match (io, taker.next(now)) {
                    (Io::Begun(began), _) => Io::Got(began, self.sight()),
                    (Io::Got(began, sight), _) => {
                        taker.read(began, &sight);
                        Io::None
                    }
                    (Io::Claimed, _) => {
                        taker.claimed(now);
                        Io::None
                    }
                    (Io::None, Step::Read) => Io::Begun(now),
                    (Io::None, Step::Claim) => {
                        let epoch = taker.epoch();
                        if !self.claim(n, epoch) {
                            self.hosts[n].role = Role::Idle;
                            return;
                        }
                        Io::Claimed
                    }
                    (Io::None, Step::Wait(_)) => Io::None,
                    (Io::None, Step::Won(tenure)) => {
                        self.started = self.started.max(tenure.epoch());
                        self.hosts[n].role = Role::Holding(tenure);
                        return;
                    }
                    (Io::None, Step::Lost(_)) => {
                        self.hosts[n].role = Role::Stopped(taker.epoch());
                        return;
                    }
                    (Io::None, Step::Held(_)) => {
                        self.hosts[n].role = Role::Idle;
                        return;
                    }
                };
                self.hosts[n].role = Role::Taking(taker);
            }
        }
    }

    fn claim(&mut self, n: usize, epoch: i64) -> bool {
        match self.claims.iter_mut().find(|claim| claim.epoch == epoch) {
            Some(claim) => {
                claim.free = false;
                claim.host == NAMES[n]
            }
            None => {
                self.claims.push(Claimed { epoch, host: NAMES[n].into(), free: false });
                self.claims.sort_by_key(|claim| claim.epoch);
                true
            }
        }
    }

    fn free(&mut self, epoch: i64) {
        if let Some(claim) = self.claims.iter_mut().find(|claim| claim.epoch == epoch) {
            claim.free = true;
        }
    }
}

/// Tries every schedule. The number of states, or how two writers came about.
fn explore(first: World) -> Result<usize, (String, Vec<Action>)> {
    let mut seen = HashSet::from([first.clone()]);
    let mut stack = vec![(first, Vec::new())];
    while let Some((world, path)) = stack.pop() {
        for action in world.actions() {
            let mut next = world.clone();
            let mut way = path.clone();
            way.push(action);
            if let Err(error) = next.act(action) {
                return Err((error, way));
            }
            if seen.insert(next.clone()) {
                stack.push((next, way));
            }
        }
    }
    Ok(seen.len())
}

fn units(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A lease of two units, writes up to one unit late.
fn small() -> Assumed {
    let rules = Rules::of(units(2));
    Assumed { rules, late: Some(1), fenced: false, horizon: 7, lively: false }
}

#[test]
fn no_schedule_of_two_hosts_gives_two_writers() {
    let states = explore(World::new(small(), &[1000, 1000])).unwrap();
    eprintln!("{states} states, every one with at most one writer");
    assert!(states > 10_000, "{states} states are too few to mean anything");
}

#[test]
fn a_fencing_pool_bears_writes_that_are_late_by_any_time() {
    let assumed = Assumed { late: None, fenced: true, horizon: 6, ..small() };
    let states = explore(World::new(assumed, &[1000, 1000])).unwrap();
    eprintln!("{states} states");
}

/// The model can find what it is for: each assumption that is taken away gives two writers.
#[test]
fn it_fails_when_the_wait_is_shortened() {
    let short = Assumed { rules: Rules::with_wait(units(2), units(2)), ..small() };
    let (error, way) = explore(World::new(short, &[1000, 1000])).unwrap_err();
    eprintln!("one lease time is too short: {error}, after {} steps", way.len());
    let none = Assumed { rules: Rules::with_wait(units(2), units(0)), late: Some(0), ..small() };
    explore(World::new(none, &[1000, 1000])).unwrap_err();
    let later = Assumed { late: None, ..small() };
    explore(World::new(later, &[1000, 1000])).unwrap_err();
    // A taker's clock that goes twice as fast eats the second lease time up.
    explore(World::new(small(), &[1000, 2000])).unwrap_err();
}

/// A schedule by chance. Now and then an agent or a guest stands still for a while; most of what happens is work.
fn walk(world: &mut World, choices: &[u16]) -> Result<(), String> {
    let mut still = HashSet::new();
    for choice in choices {
        let (kind, pick) = (choice % 32, usize::from(choice / 32));
        if kind == 0 {
            let part = (pick % world.hosts.len(), pick.is_multiple_of(2));
            if !still.remove(&part) {
                still.insert(part);
            }
            continue;
        }
        let mut actions = world.actions();
        let wanted = |action: &Action| match action {
            Action::Tick => (1..8).contains(&kind),
            Action::Go(_) | Action::Check(_) | Action::Land(_) => kind > 8,
            _ => kind == 8,
        };
        actions.retain(|action| wanted(action) && action.part().is_none_or(|part| !still.contains(&part)));
        if let Some(action) = actions.get(pick % actions.len().max(1)) {
            world.act(*action)?;
        }
    }
    Ok(())
}

fn choices() -> impl Strategy<Value = Vec<u16>> {
    proptest::collection::vec(any::<u16>(), 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    // Ten units of lease, writes up to half a lease time late, clocks that differ by a tenth either way.
    #[test]
    fn three_hosts_with_drifting_clocks(choices in choices(), rates in proptest::collection::vec(900u64..=1100, 3)) {
        let assumed = Assumed {
            rules: Rules::of(units(4)),
            late: Some(2),
            fenced: false,
            horizon: 200,
            lively: true,
        };
        walk(&mut World::new(assumed, &rates), &choices).map_err(TestCaseError::fail)?;
    }

    // Whatever clocks do.
    #[test]
    fn a_fencing_pool_needs_no_clocks(choices in choices(), rates in proptest::collection::vec(0u64..=5000, 3)) {
        let assumed = Assumed {
            rules: Rules::of(units(4)),
            late: None,
            fenced: true,
            horizon: 200,
            lively: true,
        };
        walk(&mut World::new(assumed, &rates), &choices).map_err(TestCaseError::fail)?;
    }
}

/// Chance finds it too: so the walks above are long enough to mean something.
#[test]
fn chance_finds_two_writers_when_the_wait_is_shortened() {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    let assumed = Assumed {
        rules: Rules::with_wait(units(4), units(3)),
        late: Some(2),
        fenced: false,
        horizon: 200,
        lively: true,
    };
    let found = (0..20_000u64).find(|seed| {
        let mut random = StdRng::seed_from_u64(*seed);
        let choices: Vec<u16> = (0..400).map(|_| random.random()).collect();
        walk(&mut World::new(assumed, &[1000, 1000, 1000]), &choices).is_err()
    });
    eprintln!("found with seed {found:?}");
    assert!(found.is_some());
}
