//! Times of many requests, and those that failed.

use anyhow::Result;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest time that is told apart from longer ones: ten minutes, in microseconds.
const LONGEST: u64 = 600_000_000;
/// Different failures that are told.
const TOLD: usize = 3;

/// What came of many requests.
#[derive(Clone)]
pub struct Sample {
    /// Microseconds, three digits exact.
    times: Histogram<u64>,
    failures: BTreeMap<String, usize>,
}

impl Sample {
    /// Nothing yet.
    ///
    /// # Errors
    /// None in practice: what the histogram refuses is constant.
    pub fn new() -> Result<Sample> {
        Ok(Sample { times: Histogram::new_with_bounds(1, LONGEST, 3)?, failures: BTreeMap::new() })
    }

    /// Counts a request.
    pub fn count<T>(&mut self, took: Duration, result: &Result<T>) {
        match result {
            Ok(_) => self.times.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1)),
            Err(e) => *self.failures.entry(format!("{e:#}")).or_default() += 1,
        }
    }

    /// Adds the requests of another.
    ///
    /// # Errors
    /// None in practice: both have the same bounds.
    pub fn add(&mut self, other: &Sample) -> Result<()> {
        self.times.add(&other.times)?;
        for (text, n) in &other.failures {
            *self.failures.entry(text.clone()).or_default() += n;
        }
        Ok(())
    }

    /// Requests that were answered well.
    pub fn done(&self) -> usize {
        usize::try_from(self.times.len()).unwrap_or(usize::MAX)
    }

    /// Requests that failed.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// The most frequent failures.
    pub fn errors(&self) -> Vec<String> {
        let mut all: Vec<_> = self.failures.iter().collect();
        all.sort_by_key(|(text, n)| (std::cmp::Reverse(**n), text.as_str().to_owned()));
        all.into_iter().take(TOLD).map(|(text, n)| format!("{n} × {text}")).collect()
    }

    /// The time in milliseconds within which `share` (0 to 1) of the requests were answered; 0 when there were none.
    pub fn millis(&self, share: f64) -> f64 {
        self.times.value_at_quantile(share) as f64 / 1000.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() <= wanted / 500.0
    }

    #[test]
    fn percentiles() {
        let mut sample = Sample::new().unwrap();
        for n in 1..=1000 {
            sample.count(Duration::from_millis(n), &Ok(()));
        }
        assert!(near(sample.millis(0.5), 500.0), "{}", sample.millis(0.5));
        assert!(near(sample.millis(0.99), 990.0), "{}", sample.millis(0.99));
        assert!(near(sample.millis(1.0), 1000.0), "{}", sample.millis(1.0));
        assert_eq!((sample.done(), sample.failed()), (1000, 0));
    }

    #[test]
    fn one_slow_request_is_in_the_maximum_and_not_in_the_median() {
        let mut sample = Sample::new().unwrap();
        for _ in 0..99 {
            sample.count(Duration::from_millis(2), &Ok(()));
        }
        sample.count(Duration::from_secs(3), &Ok(()));
        assert!(near(sample.millis(0.5), 2.0) && near(sample.millis(0.99), 2.0) && near(sample.millis(1.0), 3000.0));
        assert_eq!(Sample::new().unwrap().millis(0.99), 0.0);
    }

    #[test]
    fn failures_have_no_time() {
        let mut sample = Sample::new().unwrap();
        sample.count(Duration::from_millis(5), &Ok(()));
        for n in 0..5 {
            sample.count(Duration::from_secs(9), &Err::<(), _>(anyhow::anyhow!("{}", if n < 4 { "b" } else { "a" })));
        }
        let mut all = Sample::new().unwrap();
        all.add(&sample).unwrap();
        all.add(&sample).unwrap();
        assert_eq!((all.done(), all.failed()), (2, 10));
        assert_eq!(all.errors(), ["8 × b", "2 × a"]);
        assert!(near(all.millis(1.0), 5.0));
    }
}
