//! Metrics by name. Asking for the same name again gives the same metric, so that several services in one process,
//! and code that doesn't know of each other, may share one.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// The labels of one series.
pub type Labels = Vec<(&'static str, String)>;

/// Makes histograms of the process's one set of buckets.
#[derive(Clone, Copy, Debug)]
pub struct Seconds;

/// From a tenth of a millisecond to two minutes.
const BUCKETS: [f64; 16] =
    [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// Counters by labels.
pub type Counters = Family<Labels, Counter>;
/// Gauges by labels.
pub type Gauges = Family<Labels, Gauge>;
/// Histograms of seconds by labels.
pub type Histograms = Family<Labels, Histogram, Seconds>;

#[derive(Default)]
struct All {
    registry: Registry,
    counters: HashMap<&'static str, Counters>,
    gauges: HashMap<&'static str, Gauges>,
    histograms: HashMap<&'static str, Histograms>,
}

static ALL: LazyLock<Mutex<All>> =
    LazyLock::new(|| Mutex::new(All { registry: Registry::with_prefix("arcus"), ..All::default() }));

fn all<T>(f: impl FnOnce(&mut All) -> T) -> T {
    f(&mut ALL.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The counters `arcus_NAME_total`.
pub fn counters(name: &'static str, help: &'static str) -> Counters {
    all(|all| {
        let registry = &mut all.registry;
        let new = || {
            let family = Counters::default();
            registry.register(name, help, family.clone());
            family
        };
        all.counters.entry(name).or_insert_with(new).clone()
    })
}

/// The gauges `arcus_NAME`.
pub fn gauges(name: &'static str, help: &'static str) -> Gauges {
    all(|all| {
        let registry = &mut all.registry;
        let new = || {
            let family = Gauges::default();
            registry.register(name, help, family.clone());
            family
        };
        all.gauges.entry(name).or_insert_with(new).clone()
    })
}

/// The histograms `arcus_NAME`; `name` ends with `_seconds`.
pub fn histograms(name: &'static str, help: &'static str) -> Histograms {
    all(|all| {
        let registry = &mut all.registry;
        let new = || {
            let family = Histograms::new_with_constructor(Seconds);
            registry.register(name, help, family.clone());
            family
        };
        all.histograms.entry(name).or_insert_with(new).clone()
    })
}

/// Sets gauges when they are about to be read; false: it isn't needed any more.
type Sample = Box<dyn Fn() -> bool + Send>;

static SAMPLES: Mutex<Vec<Sample>> = Mutex::new(Vec::new());

/// Calls `sample` before each scrape, to set gauges whose value lies elsewhere, until it gives false. It mustn't keep alive
/// what it looks at.
pub fn before_each_scrape(sample: impl Fn() -> bool + Send + 'static) {
    SAMPLES.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(sample));
}

/// Everything, in the text form of OpenMetrics.
pub fn text() -> String {
    SAMPLES.lock().unwrap_or_else(PoisonError::into_inner).retain(|sample| sample());
    let mut text = String::new();
    // Writing into a String can't fail.
    let _ = all(|all| encode(&mut text, &all.registry));
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_metric() {
        counters("test_calls", "Calls").get_or_create(&vec![("service", "a".into())]).inc();
        counters("test_calls", "Calls").get_or_create(&vec![("service", "a".into())]).inc();
        histograms("test_seconds", "Time").get_or_create(&Vec::new()).observe(0.003);
        let left = std::sync::atomic::AtomicI64::new(3);
        before_each_scrape(move || {
            let value = left.fetch_sub(3, std::sync::atomic::Ordering::SeqCst);
            gauges("test_open", "Open").get_or_create(&Vec::new()).set(value);
            value > 0
        });
        let text = text();
        assert!(text.contains("arcus_test_calls_total{service=\"a\"} 2"), "{text}");
        assert!(text.contains("arcus_test_seconds_count{} 1"), "{text}");
        assert!(text.contains("arcus_test_open{} 3"), "{text}");
        assert_eq!(text.matches("# HELP arcus_test_calls").count(), 1);
    }
}
