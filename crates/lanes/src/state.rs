//! Who is at work, who waits, whose turn it is: everything but the waiting itself.

use crate::{Patience, Rules, Stats};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

pub(crate) struct State<K, W> {
    rules: Rules,
    at_work: usize,
    waiting: usize,
    /// Lanes with waiters.
    queues: usize,
    lanes: BTreeMap<K, Lane<W>>,
    /// The order in which lanes get the next places: each that has a waiter and may have another place, once.
    turns: VecDeque<K>,
    next_ticket: u64,
}

struct Lane<W> {
    at_work: usize,
    waiting: BTreeMap<u64, (W, Instant)>,
    /// Since when somebody has been waiting without a break.
    standing: Option<Instant>,
    in_turns: bool,
}

impl<W> Default for Lane<W> {
    fn default() -> Self {
        Lane { at_work: 0, waiting: BTreeMap::new(), standing: None, in_turns: false }
    }
}

/// What becomes of somebody who comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    AtWork,
    Waits(u64),
    Refused,
}

/// What becomes of somebody who waits.
pub(crate) enum Next<K, W> {
    Work(K, W, Duration),
    Refused(W),
}

impl<K: Ord + Clone, W> State<K, W> {
    pub fn new(rules: Rules) -> Self {
        State {
            rules,
            at_work: 0,
            waiting: 0,
            queues: 0,
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            next_ticket: 0,
        }
    }

    pub fn patience(&self) -> Option<Patience> {
        self.rules.patience
    }

    pub fn stats(&self) -> Stats {
        Stats { at_work: self.at_work, waiting: self.waiting, queues: self.queues }
    }

    pub fn waiting_in(&self, lane: &K) -> usize {
        self.lanes.get(lane).map_or(0, |l| l.waiting.len())
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.turns.is_empty()
    }

    /// Somebody comes: has a place at once when one is free, since then nobody waits who could have it.
    pub fn arrive(&mut self, key: &K, now: Instant, who: W) -> Arrival {
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.waiting.is_empty() && self.at_work < self.rules.places && lane.at_work < self.rules.share {
            lane.at_work += 1;
            self.at_work += 1;
            return Arrival::AtWork;
        }
        // An equal part of all for each lane: one that is alone may have much, and nobody can crowd the others out.
        let queues = self.queues + usize::from(lane.waiting.is_empty());
        let most = self.rules.lane.min(self.rules.all / queues.max(1)).max(1);
        if lane.waiting.len() >= most {
            return Arrival::Refused;
        }
        if lane.waiting.is_empty() {
            lane.standing = Some(now);
            self.queues += 1;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        lane.waiting.insert(ticket, (who, now));
        self.waiting += 1;
        self.line_up(key);
        Arrival::Waits(ticket)
    }

    /// Somebody who waits doesn't any more; nothing when it isn't in the queue.
    pub fn give_up(&mut self, key: &K, ticket: u64) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.waiting.remove(&ticket).is_some() {
            self.waiting -= 1;
            self.tidy(key);
        }
    }

    /// Somebody at work has ended.
    pub fn leave(&mut self, key: &K) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.at_work = lane.at_work.saturating_sub(1);
            self.at_work = self.at_work.saturating_sub(1);
        }
        self.line_up(key);
        self.tidy(key);
    }

    /// Who is next; none when no place is free or nobody who waits may have it.
    pub fn next(&mut self, now: Instant) -> Option<Next<K, W>> {
        while self.at_work < self.rules.places {
            let key = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            lane.in_turns = false;
            if lane.at_work >= self.rules.share {
                continue; // lines up again when it gives one back
            }
            let Some((_, (who, since))) = lane.waiting.pop_first() else { continue };
            self.waiting -= 1;
            let waited = now.saturating_duration_since(since);
            let stands = |p: Patience| lane.standing.is_some_and(|s| now.saturating_duration_since(s) > p.standing);
            let refused =
                self.rules.patience.is_some_and(|p| waited > p.target && !lane.waiting.is_empty() && stands(p));
            if refused {
                // Its lane keeps the turn.
                lane.in_turns = true;
                self.turns.push_front(key);
                return Some(Next::Refused(who));
            }
            lane.at_work += 1;
            self.at_work += 1;
            self.line_up(&key);
            self.tidy(&key);
            return Some(Next::Work(key, who, waited));
        }
        None
    }

    /// Puts a lane at the end of the round, when it has a waiter and may have another place.
    fn line_up(&mut self, key: &K) {
        if let Some(lane) = self.lanes.get_mut(key)
            && !lane.in_turns
            && !lane.waiting.is_empty()
            && lane.at_work < self.rules.share
        {
            lane.in_turns = true;
            self.turns.push_back(key.clone());
        }
    }

    /// Forgets what a lane without waiters, or without anybody, leaves behind.
    fn tidy(&mut self, key: &K) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if !lane.waiting.is_empty() {
            return;
        }
        if lane.standing.take().is_some() {
            self.queues -= 1;
        }
        // One that gave up may have left its lane's turn behind.
        if lane.in_turns {
            lane.in_turns = false;
            self.turns.retain(|k| k != key);
        }
        if lane.at_work == 0 {
            self.lanes.remove(key);
        }
    }
}
