//! How often agents beat, and when silence counts.

use config::{Settings, keys};
use std::time::Duration;

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
        let beat = (interval / 4).clamp(Duration::from_millis(250), Duration::from_secs(5));
        Timing { beat, silence: interval.mul_f64(factor).max(beat * 3) }
    }
}
