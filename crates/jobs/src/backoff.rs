//! How long to wait before trying again.

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use contract::ApiError;
use std::time::Duration;

/// Waits of one undertaking: short ones for conflicts in the database, longer ones for peers that don't answer.
pub(crate) struct Backoff {
    conflicts: ExponentialBackoff,
    troubles: ExponentialBackoff,
    attempts: u32,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff { conflicts: waits(2, 200), troubles: waits(20, 5_000), attempts: 0 }
    }

    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The wait after a deadlock or certification failure.
    pub fn conflict(&mut self) -> Duration {
        self.conflicts.next().unwrap_or(Duration::from_millis(200))
    }

    /// The wait after an error that may pass.
    pub fn trouble(&mut self) -> Duration {
        self.attempts += 1;
        self.troubles.next().unwrap_or(Duration::from_secs(5))
    }
}

fn waits(first: u64, last: u64) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(first))
        .with_max_delay(Duration::from_millis(last))
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Whether the same step may succeed a moment later. No room (533) isn't cured by waiting: another host must be tried.
pub(crate) fn may_pass(error: &ApiError) -> bool {
    error.is_transient() && error.code != 533
}
