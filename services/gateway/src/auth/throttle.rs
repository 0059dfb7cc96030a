//! The rate limit of accounts (settings `api.throttling.*`), counted by this replica.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use contract::ApiError;

/// Ended windows are removed when there are more accounts than this.
const SWEEP: usize = 10_000;

/// Requests of accounts in the current interval.
#[derive(Default)]
pub struct Throttle {
    windows: Mutex<HashMap<i64, Window>>,
}

struct Window {
    began: Instant,
    count: i64,
}

impl Throttle {
    /// Counts a request.
    ///
    /// # Errors
    /// 429 when the account has made `most` within `interval`.
    pub fn count(&self, account_id: i64, most: i64, interval: Duration, now: Instant) -> Result<(), ApiError> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() > SWEEP {
            windows.retain(|_, window| now.duration_since(window.began) < interval);
        }
        let window = windows.entry(account_id).or_insert(Window { began: now, count: 0 });
        let gone = now.duration_since(window.began);
        if gone >= interval {
            *window = Window { began: now, count: 0 };
        }
        window.count += 1;
        if window.count <= most {
            return Ok(());
        }
        let left = interval.saturating_sub(now.duration_since(window.began)).as_millis();
        Err(ApiError::rate_limited(format!(
            "The given user has reached his/her account api limit, please retry after {left} ms."
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: API-032 API-033
    #[test]
    fn an_interval_has_so_many() {
        let throttle = Throttle::default();
        let (start, five) = (Instant::now(), Duration::from_secs(5));
        for _ in 0..3 {
            throttle.count(7, 3, five, start).unwrap();
        }
        let error = throttle.count(7, 3, five, start + Duration::from_secs(1)).unwrap_err();
        assert_eq!((error.code, error.cs_code), (429, 4545));
        assert!(error.text.ends_with("please retry after 4000 ms."), "{}", error.text);
        throttle.count(8, 3, five, start).unwrap();
        throttle.count(7, 3, five, start + five).unwrap();
    }
}
