//! What operators see of the hub.

use std::sync::LazyLock;
use std::time::Duration;
use telemetry::metrics::{Gauges, Histograms, gauges, histograms};

static HOSTS: LazyLock<Gauges> = LazyLock::new(|| gauges("hub_hosts", "Hosts that are connected with this process"));
static WAITING: LazyLock<Gauges> = LazyLock::new(|| {
    gauges("hub_waiting_agents", "Agents of machines that no host was added for yet, at this process")
});
static ORDERS: LazyLock<Histograms> = LazyLock::new(|| {
    histograms("hub_order_seconds", "Time from an order to a host until its answer, by what came of it")
});

static CONSOLES: LazyLock<Gauges> =
    LazyLock::new(|| gauges("hub_consoles", "Consoles that are open on hosts connected with this process"));

/// How many consoles are open.
pub(crate) fn consoles(open: usize) {
    CONSOLES.get_or_create(&Vec::new()).set(i64::try_from(open).unwrap_or(i64::MAX));
}

/// How many hosts are connected.
pub(crate) fn connected(hosts: usize) {
    HOSTS.get_or_create(&Vec::new()).set(i64::try_from(hosts).unwrap_or(i64::MAX));
}

/// How many agents wait for their host to be added.
pub(crate) fn waiting(agents: usize) {
    WAITING.get_or_create(&Vec::new()).set(i64::try_from(agents).unwrap_or(i64::MAX));
}

/// An order that ended.
pub(crate) fn order(result: &'static str, took: Duration) {
    ORDERS.get_or_create(&vec![("result", result.to_owned())]).observe(took.as_secs_f64());
}
