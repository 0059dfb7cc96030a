//! Metrics of hosts and of their investigations.

use super::investigate::Verdict;
use model::state::HostStatus;
use std::collections::HashMap;
use telemetry::metrics::{Gauge, Gauges, counters, gauges};

/// Hosts by state. Only who leads shows them: dropped, they are gone, and another replica's count.
pub struct Hosts;

fn hosts() -> Gauges {
    gauges("hosts", "Hosts by state")
}

impl Hosts {
    /// Shows the counts; states that aren't named have none.
    pub fn show(&self, counts: &HashMap<HostStatus, i64>) {
        for status in HostStatus::ALL {
            let labels = vec![("state", status.to_string())];
            hosts().get_or_create(&labels).set(counts.get(status).copied().unwrap_or(0));
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        hosts().clear();
    }
}

/// An investigation that is under way, until dropped.
pub struct UnderWay(Gauge);

impl UnderWay {
    /// Begins to count.
    pub fn begin() -> UnderWay {
        let family = gauges("host_investigations_under_way", "Absent hosts that are being investigated");
        let gauge = family.get_or_create(&Vec::new()).clone();
        gauge.inc();
        UnderWay(gauge)
    }

    /// Counts its end.
    pub fn end(self, verdict: Verdict) {
        let family = counters("host_investigations", "Investigations of absent hosts, by verdict");
        family.get_or_create(&vec![("verdict", verdict.word().to_owned())]).inc();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}
