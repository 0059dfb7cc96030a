//! Waiting on conditions instead of sleeping.

use std::future::Future;
use std::time::{Duration, Instant};

/// Waits until `condition` holds.
///
/// # Panics
/// When it doesn't hold within `timeout`.
#[track_caller]
pub fn wait_until<C, F>(condition: C, timeout: Duration) -> impl Future<Output = ()>
where
    C: FnMut() -> F,
    F: Future<Output = bool>,
{
    let caller = std::panic::Location::caller();
    let mut condition = condition;
    async move {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !condition().await {
            assert!(start.elapsed() < timeout, "condition of {caller} doesn't hold after {timeout:?}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Waits, at most 60 s, until `probe` gives a value.
///
/// # Panics
/// When it doesn't in time.
#[track_caller]
pub fn eventually<T, P, F>(probe: P) -> impl Future<Output = T>
where
    P: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    let caller = std::panic::Location::caller();
    let mut probe = probe;
    async move {
        let start = Instant::now();
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "nothing came for {caller}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits until `probe` gives a value.
///
/// # Panics
/// When it doesn't within `timeout`, with why it last didn't.
#[track_caller]
pub fn until_ok<T, P, F>(probe: P, timeout: Duration) -> impl Future<Output = T>
where
    P: FnMut() -> F,
    F: Future<Output = Result<T, String>>,
{
    let caller = std::panic::Location::caller();
    let mut probe = probe;
    async move {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            match probe().await {
                Ok(value) => return value,
                Err(why) => assert!(start.elapsed() < timeout, "{caller}: not after {timeout:?}: {why}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// The least of ten looks: what something costs when nothing else happens beside it.
pub async fn least<L, F>(mut look: L) -> u64
where
    L: FnMut() -> F,
    F: Future<Output = u64>,
{
    let mut least = u64::MAX;
    for _ in 0..10 {
        least = least.min(look().await);
    }
    least
}
