//! The clock of leases: monotonic, and it goes on while the machine sleeps.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The kernel's time since boot. `Instant` stands still in a suspended machine, so a permit would outlive it there.
const UPTIME: &str = "/proc/uptime";

static WITHOUT_UPTIME: LazyLock<Option<Instant>> = LazyLock::new(|| uptime().is_none().then(Instant::now));

/// A reading. Only differences mean anything, and only on this machine.
pub fn now() -> Duration {
    match *WITHOUT_UPTIME {
        Some(begun) => begun.elapsed(),
        // Unreadable all of a sudden: as late as can be, so that nothing is permitted.
        None => uptime().unwrap_or(Duration::MAX / 4),
    }
}

fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string(UPTIME).ok()?;
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = hundredths.get(..2)?.parse().ok()?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_millis(hundredths * 10))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let (first, begun) = (now(), Instant::now());
        assert!(uptime().is_some());
        while now() == first {
            assert!(begun.elapsed() < Duration::from_secs(5), "the clock stands still");
            std::thread::yield_now();
        }
        assert!(now() > first);
    }
}
