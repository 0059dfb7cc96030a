//! What all parts of a run share: its dice, its clock, its trace, and what it has found wrong.

use crate::dice::Dice;
use crate::host::{self, Host};
use crate::plan::{Plan, Rates};
use crate::scheduler::Scheduler;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Wall-clock time at the start of every run: 2026-01-01.
const EPOCH: i64 = 1_767_225_600_000_000;

/// What a random number is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// The database's delays and faults.
    Database = 3,
    /// The network's.
    Network = 4,
    /// etcd's.
    Etcd = 5,
    /// Ids and jitter in the code under test.
    Code = 6,
}

/// How a run is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether each event is printed.
    pub trace: bool,
    /// Safeguards that are switched off.
    pub broken: Vec<String>,
}

/// One run.
pub struct Sim {
    /// What decides everything.
    pub seed: u64,
    /// What it decided beforehand.
    pub plan: Plan,
    /// Its tasks.
    pub scheduler: Arc<Scheduler>,
    /// What isn't a process under test: servers, the network, who asks for jobs.
    world: Arc<Host>,
    options: Options,
    dice: [Mutex<Dice>; 4],
    trace: Mutex<Trace>,
    start: Instant,
    wall: AtomicI64,
    healed: AtomicBool,
    wrong: Mutex<Vec<String>>,
    reached: Mutex<BTreeMap<&'static str, u64>>,
}

struct Trace {
    hash: u64,
    events: u64,
}

/// Locks; a panic elsewhere ends the run anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// A run that begins now.
    pub fn new(seed: u64, options: Options) -> Arc<Sim> {
        let dice = |n| Mutex::new(Dice::new(seed, n));
        let plan = Plan::of(seed);
        let scheduler = Arc::new(Scheduler::new(plan.order, Dice::new(seed, 2)));
        let world = Host::new(&scheduler, "world".into(), 0);
        Arc::new(Sim {
            seed,
            plan,
            scheduler,
            world,
            options,
            dice: [dice(3), dice(4), dice(5), dice(6)],
            trace: Mutex::new(Trace { hash: seed, events: 0 }),
            start: Instant::now(),
            wall: AtomicI64::new(0),
            healed: AtomicBool::new(false),
            wrong: Mutex::default(),
            reached: Mutex::default(),
        })
    }

    /// The dice for `purpose`.
    pub fn dice(&self, purpose: Purpose) -> MutexGuard<'_, Dice> {
        lock(&self.dice[purpose as usize - 3])
    }

    /// Starts a task that is no process's.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> oneshot::Receiver<()> {
        self.world.spawn(work)
    }

    /// Whether an event happens that has this rate.
    pub fn happens(&self, purpose: Purpose, rate: fn(&Rates) -> u64) -> bool {
        !self.is_healed() && self.dice(purpose).per_mille(rate(&self.plan.rates))
    }

    /// Waits for a time of the given rate at most.
    pub async fn hop(&self, purpose: Purpose, rate: fn(&Rates) -> u64) {
        let most = if self.is_healed() { 1 } else { rate(&self.plan.rates) };
        let wait = if most == 0 { 0 } else { self.dice(purpose).within(0, most + 1) };
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    /// No more faults from now on.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    /// Whether faults have ended.
    pub fn is_healed(&self) -> bool {
        self.healed.load(Ordering::SeqCst)
    }

    /// Moves the wall clock.
    pub fn set_wall(&self, offset: i64) {
        self.wall.store(offset, Ordering::SeqCst);
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Notes an event: `what`, numbers that tell it from others, and its words when they are printed.
    pub fn event(&self, what: &str, numbers: &[u64], words: impl FnOnce() -> String) {
        let now = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut trace = lock(&self.trace);
        trace.events += 1;
        trace.hash = numbers.iter().fold(mix(mix(trace.hash, now), bytes(what.as_bytes())), |h, n| mix(h, *n));
        if self.options.trace {
            println!("{:>6} {:>7}.{:03} {what}: {}", trace.events, now / 1000, now % 1000, words());
        }
    }

    /// What happened, as one number, and how many events there were.
    pub fn hash(&self) -> (u64, u64) {
        let trace = lock(&self.trace);
        (trace.hash, trace.events)
    }

    /// Something isn't as it must be.
    pub fn wrong(&self, what: String) {
        self.event("WRONG", &[bytes(what.as_bytes())], || what.clone());
        lock(&self.wrong).push(what);
    }

    /// What was found wrong.
    pub fn found(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// Counts that a place was reached.
    pub fn reach(&self, place: &'static str) {
        *lock(&self.reached).entry(place).or_default() += 1;
    }

    /// How often each place was reached.
    pub fn places(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.reached).clone()
    }
}

/// Adds a number to a hash.
pub fn mix(hash: u64, number: u64) -> u64 {
    (hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// A number for bytes.
pub fn bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash, u64::from_le_bytes(word));
    }
    hash
}

/// What the code under test gets instead of the system's clock and random bits.
struct World(Arc<Sim>);

impl store::chance::World for World {
    fn now_micros(&self) -> i64 {
        let since = i64::try_from(self.0.elapsed().as_micros()).unwrap_or(i64::MAX);
        EPOCH + since + self.0.wall.load(Ordering::SeqCst)
    }

    fn bits(&self) -> u128 {
        let mut dice = self.0.dice(Purpose::Code);
        u128::from(dice.next()) << 64 | u128::from(dice.next())
    }

    fn place(&self, work: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        let ended = host::current().unwrap_or_else(|| self.0.world.clone()).spawn(work);
        Box::pin(async move {
            let _ = ended.await; // ended or dropped, it is over
        })
    }

    fn is_broken(&self, name: &str) -> bool {
        self.0.options.broken.iter().any(|b| b == name)
    }
}

/// This thread is in the world of `sim` until dropped.
pub struct Entered(());

impl Entered {
    /// Enters.
    pub fn new(sim: &Arc<Sim>) -> Entered {
        // The jitter of waits comes from this thread's own generator.
        fastrand::seed(sim.dice(Purpose::Code).next());
        store::chance::enter(Some(Rc::new(World(sim.clone()))));
        Entered(())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        store::chance::enter(None);
    }
}
