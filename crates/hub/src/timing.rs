//! How often agents beat, and when silence counts.

use config::{Settings, keys};
use std::time::Duration;
use tokio::time::Instant;

/// How often agents beat at least: a hub that doesn't answer is left after a few of them.
const BEAT: Duration = Duration::from_secs(1);

/// Times of the line between agents and hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often an agent says that it is alive.
    pub beat: Duration,
    /// After how much silence a host counts as lost.
    pub silence: Duration,
}

impl Timing {
    /// From the settings: `ping.interval` × `ping.timeout` is the silence; beats are much more frequent, so that a few
    /// lost ones don't matter.
    pub fn of(settings: &Settings) -> Timing {
        let interval = Duration::from_secs(u64::try_from(settings.get(keys::PING_INTERVAL)).unwrap_or(0).max(1));
        let factor = settings.get(keys::PING_TIMEOUT);
        let factor = if factor.is_finite() { factor.clamp(1.0, 1000.0) } else { 2.5 };
        let beat = (interval / 4).clamp(Duration::from_millis(250), BEAT);
        Timing { beat, silence: interval.mul_f64(factor).max(beat * 3) }
    }

    /// How long an agent waits for the answer to a beat before it tries another replica. It has time for two more of
    /// them, and for a replica that is busy with a thousand others.
    pub(crate) fn patience(&self) -> Duration {
        self.beat * 2 + Duration::from_secs(3)
    }
}

/// Time that this replica has certainly watched. What it stood still (a stopped process, a starved machine) is no time in
/// which anybody else was silent.
#[derive(Debug)]
pub(crate) struct Watched {
    at: Instant,
    total: Duration,
}

impl Watched {
    pub fn new() -> Watched {
        Watched { at: Instant::now(), total: Duration::ZERO }
    }

    /// All of it. To be called at least every `pause`: of a longer gap only twice that counts.
    pub fn advance(&mut self, pause: Duration) -> Duration {
        let now = Instant::now();
        self.total += now.duration_since(self.at).min(pause * 2);
        self.at = now;
        self.total
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn standing_still_is_no_silence_of_others() {
        let pause = Duration::from_millis(100);
        let mut watched = Watched::new();
        for _ in 0..5 {
            tokio::time::advance(pause).await;
            watched.advance(pause);
        }
        assert_eq!(watched.advance(pause), pause * 5);
        // An hour in which this process was stopped.
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(watched.advance(pause), pause * 7);
    }
}
