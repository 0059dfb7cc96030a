//! Invalidation without races: what was loaded before a subject changed is never used after it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// More subjects than this are forgotten together, at the price of loading everything again.
const MOST: usize = 10_000;

/// When subjects changed last, on a clock that ticks with each change.
pub struct Fences<K> {
    clock: AtomicU64,
    state: RwLock<State<K>>,
}

struct State<K> {
    all: u64,
    by: HashMap<K, u64>,
}

impl<K: Eq + Hash> Default for Fences<K> {
    fn default() -> Self {
        Fences { clock: AtomicU64::new(0), state: RwLock::new(State { all: 0, by: HashMap::new() }) }
    }
}

impl<K: Eq + Hash> Fences<K> {
    /// The time, to be taken before something is loaded.
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// The subject changed: what was loaded before is out of date.
    pub fn raise(&self, subject: K) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        if state.by.len() >= MOST {
            state.by.clear();
            state.all = now;
        }
        state.by.insert(subject, now);
    }

    /// Everything may have changed.
    pub fn raise_all(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.all = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        state.by.clear();
    }

    /// Whether what was loaded at `since` still holds, when it depends on these subjects.
    pub fn hold(&self, since: u64, subjects: impl IntoIterator<Item = K>) -> bool {
        // Nothing at all has changed: the usual case.
        if since == self.now() {
            return true;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.all <= since && subjects.into_iter().all(|s| state.by.get(&s).is_none_or(|at| *at <= since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_depends_on_it_falls() {
        let fences = Fences::default();
        let before = fences.now();
        fences.raise("a");
        let after = fences.now();
        assert!(!fences.hold(before, ["a", "b"]));
        assert!(fences.hold(before, ["b"]));
        assert!(fences.hold(after, ["a", "b"]));
        fences.raise_all();
        assert!(!fences.hold(after, ["b"]));
    }

    #[test]
    fn forgetting_never_revives() {
        let fences = Fences::default();
        let before = fences.now();
        for subject in 0..=MOST {
            fences.raise(subject);
        }
        assert!(!fences.hold(before, [0]));
        assert!(fences.hold(fences.now(), [0]));
    }
}
