//! Whether there is an order of the operations that respects real time and that the model allows (linearizability).
//!
//! Events are taken in the order of their times; what is carried along is every state that things may be in, with those
//! operations under way that have taken effect in it already. An operation that is done must have taken effect in what
//! remains. One whose end nobody knows may take effect at any later time, or never.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

/// More configurations than this are given up on.
const MOST: usize = 100_000;

/// A sequential model.
pub trait Model {
    /// What things are like.
    type State: Clone + Eq + Hash + Debug;
    /// An operation with its outcome.
    type Op: Debug;
    /// What things may be like after `op`, which took effect in `state`; empty: it can't have.
    fn apply(state: &Self::State, op: &Self::Op) -> Vec<Self::State>;
}

/// An operation, and when.
#[derive(Clone, Debug)]
pub struct Step<O> {
    /// Number, for people.
    pub id: u64,
    /// When it began.
    pub invoked: u64,
    /// When it was over; none: nobody knows whether it will still take effect.
    pub done: Option<u64>,
    /// It.
    pub op: O,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Ordered,
    /// There is none: this operation can't have ended so, in whatever state things may have been in.
    Impossible {
        /// Its number.
        id: u64,
        /// Its states, for people.
        states: String,
    },
    /// Too many orders to look at.
    Undecided,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Config<S> {
    state: S,
    /// Operations under way that have taken effect.
    placed: BTreeSet<usize>,
}

/// Looks for an order.
pub fn find<M: Model>(initial: M::State, steps: &[Step<M::Op>]) -> Verdict {
    // An end comes after a beginning of the same instant: then the two overlap, which allows more.
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        events.push((step.invoked, false, i));
        events.extend(step.done.map(|done| (done.max(step.invoked), true, i)));
    }
    events.sort_unstable();
    let mut configs: HashSet<Config<M::State>> = HashSet::new();
    configs.insert(Config { state: initial, placed: BTreeSet::new() });
    let mut pending: BTreeSet<usize> = BTreeSet::new();
    for (_, ends, i) in events {
        if !ends {
            pending.insert(i);
            continue;
        }
        let Some(after) = place::<M>(&configs, &pending, steps, i) else { return Verdict::Undecided };
        if after.is_empty() {
            let mut states: Vec<String> = configs.iter().map(|c| format!("{:?}", c.state)).collect();
            states.sort();
            states.dedup();
            states.truncate(4);
            return Verdict::Impossible { id: steps[i].id, states: states.join(" or ") };
        }
        configs = after;
        pending.remove(&i);
    }
    Verdict::Ordered
}

/// The configurations in which operation `i` has taken effect, without it among those under way.
fn place<M: Model>(
    configs: &HashSet<Config<M::State>>,
    pending: &BTreeSet<usize>,
    steps: &[Step<M::Op>],
    i: usize,
) -> Option<HashSet<Config<M::State>>> {
    let mut seen: HashSet<Config<M::State>> = configs.clone();
    let mut open: Vec<Config<M::State>> = configs.iter().cloned().collect();
    let mut after = HashSet::new();
    while let Some(config) = open.pop() {
        if config.placed.contains(&i) {
            let mut placed = config.placed;
            placed.remove(&i);
            after.insert(Config { state: config.state, placed });
            continue;
        }
        for other in pending.iter().filter(|o| !config.placed.contains(o)) {
            for state in M::apply(&config.state, &steps[*other].op) {
                let mut placed = config.placed.clone();
                placed.insert(*other);
                let next = Config { state, placed };
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        if seen.len() > MOST {
            return None;
        }
    }
    Some(after)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    /// A number that is written and read.
    #[derive(Debug)]
    struct Number;

    #[derive(Clone, Debug)]
    enum Op {
        Write(u8),
        Read(u8),
    }

    impl Model for Number {
        type State = u8;
        type Op = Op;

        fn apply(state: &u8, op: &Op) -> Vec<u8> {
            match op {
                Op::Write(n) => vec![*n],
                Op::Read(n) if n == state => vec![*state],
                Op::Read(_) => Vec::new(),
            }
        }
    }

    fn step(id: u64, invoked: u64, done: impl Into<Option<u64>>, op: Op) -> Step<Op> {
        Step { id, invoked, done: done.into(), op }
    }

    #[test]
    fn real_time_is_respected() {
        let steps = [step(1, 0, 1, Op::Write(1)), step(2, 2, 3, Op::Read(0))];
        assert!(matches!(find::<Number>(0, &steps), Verdict::Impossible { id: 2, .. }));
        let steps = [step(1, 0, 3, Op::Write(1)), step(2, 1, 2, Op::Read(0))];
        assert_eq!(find::<Number>(0, &steps), Verdict::Ordered);
    }

    #[test]
    fn what_nobody_knows_may_come_later_or_never_but_once() {
        let unknown = || step(1, 0, None, Op::Write(1));
        let reads = |a, b, c| [step(2, 1, 2, Op::Read(a)), step(3, 3, 4, Op::Read(b)), step(4, 5, 6, Op::Read(c))];
        for (a, b, c, possible) in
            [(0, 0, 0, true), (0, 0, 1, true), (0, 1, 1, true), (1, 1, 1, true), (0, 1, 0, false)]
        {
            let steps: Vec<_> = std::iter::once(unknown()).chain(reads(a, b, c)).collect();
            assert_eq!(find::<Number>(0, &steps) == Verdict::Ordered, possible, "{a} {b} {c}");
        }
    }

    /// Histories that a real number could have had are never refused, and a lie at their end always is.
    #[test]
    fn true_histories_have_an_order() {
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut state, mut steps) = (0, Vec::new());
            for id in 1..=30 {
                // It takes effect at a point of its own, somewhere within its time.
                let point = id * 10;
                let invoked = point - random.random_range(0..25).min(point);
                let op = if random.random_bool(0.5) { Op::Write(random.random_range(0..3)) } else { Op::Read(state) };
                if let Op::Write(n) = op {
                    state = n;
                }
                let unknown = matches!(op, Op::Write(_)) && random.random_bool(0.05);
                let done = (!unknown).then(|| point + random.random_range(1..25));
                steps.push(step(id, invoked, done, op));
            }
            steps.push(step(31, 1000, 1001, Op::Read(state)));
            assert_eq!(find::<Number>(0, &steps), Verdict::Ordered, "seed {seed}");
            steps.pop();
            steps.push(step(31, 1000, 1001, Op::Read(9)));
            assert!(matches!(find::<Number>(0, &steps), Verdict::Impossible { id: 31, .. }), "seed {seed}");
        }
    }
}
