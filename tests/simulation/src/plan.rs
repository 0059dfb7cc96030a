//! What a seed decides before the run begins: sizes, and which faults there are and how often. Every seed leaves some
//! faults out, so that no fault hides what another one alone would show.

use crate::dice::Dice;
use crate::scheduler::Order;
use std::time::Duration;

/// The shape of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Replicas of the service that runs the jobs.
    pub replicas: usize,
    /// Services that receive keyed calls.
    pub receivers: usize,
    /// Things that jobs claim.
    pub things: usize,
    /// Jobs that are asked for.
    pub jobs: usize,
    /// How long faults go on.
    pub chaos: Duration,
    /// Mean time between two faults of the nemesis; none: it rests.
    pub pause_between: Option<Duration>,
    /// Which of its faults the nemesis uses, by index into [`crate::nemesis::ACTIONS`].
    pub actions: Vec<usize>,
    /// In which order tasks go on.
    pub order: Order,
    /// Delays and losses.
    pub rates: Rates,
    /// Time of the lease in etcd.
    pub lease: Duration,
    /// Between looks for jobs.
    pub sweep: Duration,
    /// How long a worker must be seen missing.
    pub grace: Duration,
}

/// How often things go wrong, per mille, and how long they take at most, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// A hop to or from the database.
    pub database_delay: u64,
    /// A statement ends its transaction with a deadlock.
    pub deadlock: u64,
    /// Certification refuses a commit.
    pub refused: u64,
    /// The connection breaks before a statement.
    pub broken: u64,
    /// The answer to a commit is lost.
    pub commit_lost: u64,
    /// A hop to or from a receiver.
    pub network_delay: u64,
    /// A call doesn't arrive.
    pub call_lost: u64,
    /// An answer doesn't arrive.
    pub answer_lost: u64,
    /// A call arrives twice.
    pub doubled: u64,
    /// A call arrives long after its caller was told that it failed.
    pub belated: u64,
    /// A hop to or from etcd.
    pub etcd_delay: u64,
    /// A call to etcd fails, done or not.
    pub etcd_failed: u64,
    /// A stream from etcd breaks at a message.
    pub etcd_broken: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let mut dice = Dice::new(seed, 1);
        let calm = dice.per_mille(30);
        let rates = if calm { Rates::default() } else { Rates::of(&mut dice) };
        let mut actions: Vec<usize> = Vec::new();
        for action in 0..crate::nemesis::ACTIONS.len() {
            if dice.per_mille(500) {
                actions.push(action);
            }
        }
        let between = Duration::from_millis(*dice.one(&[200, 500, 1_000, 2_000, 4_000]));
        Plan {
            replicas: dice.within(2, 5) as usize,
            receivers: dice.within(1, 3) as usize,
            things: dice.within(1, 5) as usize,
            jobs: dice.within(2, 11) as usize,
            chaos: Duration::from_millis(dice.within(2_000, 20_000)),
            pause_between: (!calm && !actions.is_empty()).then_some(between),
            actions,
            order: *dice.one(&[Order::Random, Order::Random, Order::Random, Order::Oldest, Order::Youngest]),
            rates,
            lease: Duration::from_secs(dice.within(1, 5)),
            sweep: Duration::from_millis(*dice.one(&[200, 1_000, 2_000])),
            grace: Duration::from_millis(*dice.one(&[100, 1_000, 2_000])),
        }
    }
}

impl Rates {
    fn of(dice: &mut Dice) -> Rates {
        let mut some = |options: &[u64]| if dice.per_mille(500) { *dice.one(options) } else { 0 };
        Rates {
            database_delay: some(&[2, 5, 20, 100]),
            deadlock: some(&[2, 10, 40]),
            refused: some(&[5, 20, 100]),
            broken: some(&[1, 5, 20]),
            commit_lost: some(&[5, 20, 100]),
            network_delay: some(&[2, 20, 200, 1_000]),
            call_lost: some(&[10, 50, 200]),
            answer_lost: some(&[10, 50, 200]),
            doubled: some(&[10, 50, 200]),
            belated: some(&[10, 50]),
            etcd_delay: some(&[2, 20, 200]),
            etcd_failed: some(&[5, 20, 100]),
            etcd_broken: some(&[5, 20, 100]),
        }
    }
}
