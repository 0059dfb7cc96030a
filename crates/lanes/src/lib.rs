//! A bounded number of places, and who gets the next one: each lane (an account, an address) has a queue of its own, and
//! free places go round the lanes, so that whoever asks for much waits for itself.
//!
//! Three bounds keep the wait short and memory small. A lane holds at most [`Rules::lane`] waiters, fewer when many lanes
//! wait; it never has all the places ([`Rules::share`]); and with [`Patience`] nobody waits longer than a client would.
//! A queue that hasn't been empty for a while does nothing for throughput, only for delay: then those at its head who have
//! waited longer than the target are refused, all but the last one, as CoDel does for packets.
//!
//! No decision depends on a wall clock or on the order of a hash table.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // a test that cannot go on has failed

mod state;

use state::{Arrival, Next, State};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The bounds of a gate.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Places.
    pub places: usize,
    /// Most places that one lane has at a time.
    pub share: usize,
    /// Most waiters of one lane.
    pub lane: usize,
    /// Most waiters of all lanes: when they come to that, each has an equal part of them.
    pub all: usize,
    /// How long waiters wait; none: as long as it takes.
    pub patience: Option<Patience>,
}

impl Rules {
    /// So many places, all but an eighth of them for one lane at most, and queues without bounds.
    pub fn places(places: usize) -> Rules {
        let places = places.max(1);
        Rules { places, share: (places - places / 8).max(1), lane: usize::MAX, all: usize::MAX, patience: None }
    }
}

/// How long waiters wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Nobody waits longer.
    pub longest: Duration,
    /// The wait that a queue may keep up.
    pub target: Duration,
    /// How long a queue may stand, with longer waits, before they are cut to the target.
    pub standing: Duration,
}

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The lane has as many waiters as it may have.
    Full,
    /// The lane's queue stands, and its head has waited longer than the target.
    Standing,
    /// The longest wait is over.
    Late,
}

impl Shed {
    /// A word for it, for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Shed::Full => "full",
            Shed::Standing => "standing",
            Shed::Late => "late",
        }
    }
}

/// Figures of a gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Places taken.
    pub at_work: usize,
    /// Waiters of all lanes.
    pub waiting: usize,
    /// Lanes with waiters.
    pub queues: usize,
}

/// The places, and their queues. Cheap to clone.
pub struct Gate<K: Ord + Clone>(Arc<Mutex<State<K, Told<K>>>>);

type Told<K> = oneshot::Sender<Result<Permit<K>, Shed>>;

impl<K: Ord + Clone> Clone for Gate<K> {
    fn clone(&self) -> Self {
        Gate(self.0.clone())
    }
}

impl<K: Ord + Clone> std::fmt::Debug for Gate<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate({:?})", self.stats())
    }
}

/// A place, until dropped.
pub struct Permit<K: Ord + Clone> {
    gate: Gate<K>,
    lane: K,
    waited: Duration,
}

impl<K: Ord + Clone> Permit<K> {
    /// How long its holder waited for it.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl<K: Ord + Clone> std::fmt::Debug for Permit<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit(after {:?})", self.waited)
    }
}

impl<K: Ord + Clone> Drop for Permit<K> {
    fn drop(&mut self) {
        self.gate.state().leave(&self.lane);
        self.gate.pass_on();
    }
}

/// A place in a queue, until dropped.
struct Waiting<'g, K: Ord + Clone> {
    gate: &'g Gate<K>,
    lane: &'g K,
    ticket: u64,
}

impl<K: Ord + Clone> Drop for Waiting<'_, K> {
    fn drop(&mut self) {
        self.gate.state().give_up(self.lane, self.ticket);
    }
}

impl<K: Ord + Clone> Gate<K> {
    /// A gate with these bounds.
    pub fn new(rules: Rules) -> Gate<K> {
        Gate(Arc::new(Mutex::new(State::new(rules))))
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Why there is none; never without a bound that says so.
    pub async fn enter(&self, lane: K) -> Result<Permit<K>, Shed> {
        let (told, mut turn) = oneshot::channel();
        let (arrival, patience) = {
            let mut state = self.state();
            (state.arrive(&lane, Instant::now(), told), state.patience())
        };
        let ticket = match arrival {
            Arrival::AtWork => return Ok(Permit { gate: self.clone(), lane, waited: Duration::ZERO }),
            Arrival::Refused => return Err(Shed::Full),
            Arrival::Waits(ticket) => ticket,
        };
        let waiting = Waiting { gate: self, lane: &lane, ticket };
        let told = match patience {
            None => (&mut turn).await,
            Some(patience) => match tokio::time::timeout(patience.longest, &mut turn).await {
                Ok(told) => told,
                Err(_) => {
                    drop(waiting);
                    // The turn may have come at this very moment.
                    return turn.try_recv().unwrap_or(Err(Shed::Late));
                }
            },
        };
        // Nobody drops a waiter without telling it.
        told.unwrap_or(Err(Shed::Late))
    }

    /// Figures of now.
    pub fn stats(&self) -> Stats {
        self.state().stats()
    }

    /// How many wait in this lane.
    pub fn waiting_in(&self, lane: &K) -> usize {
        self.state().waiting_in(lane)
    }

    fn state(&self) -> MutexGuard<'_, State<K, Told<K>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free places to those whose turn it is.
    fn pass_on(&self) {
        loop {
            // The lock isn't held while somebody is told: a permit that nobody takes any more comes back here.
            let next = self.state().next(Instant::now());
            match next {
                None => return,
                Some(Next::Work(lane, told, waited)) => {
                    drop(told.send(Ok(Permit { gate: self.clone(), lane, waited })));
                }
                Some(Next::Refused(told)) => drop(told.send(Err(Shed::Standing))),
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
