//! When a host says on its pools that it lives.

use super::{millis, pause};
use contract_agent::Heartbeat;
use std::collections::BTreeSet;
use std::time::Duration;

/// Rounds of looks of which a host without VMs on a pool beats there in one.
const IDLE_ROUNDS: u32 = 4;

/// How long it may be between two heartbeats of a host on one of its pools; `shortest` is the shortest lease time of those
/// that its agent uses.
fn longest_pause(shortest: Duration) -> Duration {
    pause(shortest) * IDLE_ROUNDS
}

/// The heartbeats of one host.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    round: u64,
    /// Pools on which it has beaten since its agent began.
    begun: BTreeSet<String>,
}

impl Beats {
    /// Begins a round of looks; gives what the host says in it.
    pub fn next(&mut self, host: &str, boot_id: &str, shortest: Duration) -> Heartbeat {
        self.round += 1;
        Heartbeat {
            host_uuid: host.to_owned(),
            boot_id: boot_id.to_owned(),
            counter: self.round,
            beat_millis: millis(longest_pause(shortest)),
        }
    }

    /// Whether it says so in this round on a pool where it has no VMs: at once where it hasn't yet, then in one round of
    /// some, which isn't the same for all hosts.
    pub fn is_due(&mut self, host: &str, pool: &str) -> bool {
        if !self.begun.contains(pool) {
            self.begun.insert(pool.to_owned());
            return true;
        }
        let place: u64 = host.bytes().map(u64::from).sum();
        (self.round + place).is_multiple_of(IDLE_ROUNDS.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_hosts_beat_once_in_a_lease_time_and_not_all_at_once() {
        let lease = Duration::from_secs(10);
        let mut beats = Beats::default();
        for host in ["a", "b", "c", "d"] {
            let mut own = Beats::default();
            let due: Vec<u64> = (1..=13)
                .filter(|round| own.next(host, "boot", lease).counter == *round && own.is_due(host, "p"))
                .collect();
            assert_eq!((due[0], due.len()), (1, 4), "{due:?}");
            assert!(due[1..].windows(2).all(|two| two[1] - two[0] == 4), "{due:?}");
            let said = beats.next(host, "boot", lease);
            assert_eq!(said.beat_millis, 10_000);
        }
        let first = |host: &str| {
            let mut own = Beats::default();
            own.next(host, "boot", lease);
            assert!(own.is_due(host, "p"));
            (2u64..).find(|_| {
                own.next(host, "boot", lease);
                own.is_due(host, "p")
            })
        };
        let places: BTreeSet<_> = ["a", "b", "c", "d"].into_iter().map(first).collect();
        assert_eq!(places.len(), 4, "each has its own round");
    }
}
