//! Metrics of restarts after failures.

use telemetry::metrics::{Gauges, counters, gauges};

/// Counts a restart's end: "done", "failed" (it may be tried again), "given up" (the VM stays Stopped).
pub fn restart(result: &'static str) {
    let family = counters("ha_restarts", "Restarts of VMs after failures, by result");
    family.get_or_create(&vec![("result", result.to_owned())]).inc();
}

/// VMs that are to be started again. Only who leads shows them: dropped, they are gone, and another replica's count.
pub struct Waiting;

fn pending() -> Gauges {
    gauges("ha_pending", "VMs that are to be started again after a failure, by whether that is under way")
}

impl Waiting {
    /// Shows how many wait, and for how many it is under way.
    pub fn show(&self, (waiting, under_way): (i64, i64)) {
        for (state, count) in [("waiting", waiting), ("under way", under_way)] {
            pending().get_or_create(&vec![("state", state.to_owned())]).set(count);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        pending().clear();
    }
}
