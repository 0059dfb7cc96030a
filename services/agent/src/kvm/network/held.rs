//! Bridges that somebody is about to use: they aren't removed, though nothing is plugged in yet.

use router::Segment;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

type Counts = Arc<Mutex<BTreeMap<Segment, usize>>>;

#[derive(Default)]
pub(super) struct Held {
    counts: Counts,
    /// Between "nobody holds it" and its removal nobody may begin to hold it.
    turn: tokio::sync::Mutex<()>,
}

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    counts: Counts,
    segment: Segment,
}

impl Held {
    pub async fn hold(&self, segment: &Segment) -> Hold {
        let _turn = self.turn.lock().await;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(segment.clone()).or_default() += 1;
        Hold { counts: self.counts.clone(), segment: segment.clone() }
    }

    /// Does `work` unless the segment is held.
    pub async fn unless_held<T, F: Future<Output = T>>(
        &self,
        segment: &Segment,
        work: impl FnOnce() -> F,
    ) -> Option<T> {
        let _turn = self.turn.lock().await;
        let held = self.counts.lock().unwrap_or_else(PoisonError::into_inner).contains_key(segment);
        if held { None } else { Some(work().await) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.segment) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.segment);
            }
        }
    }
}
