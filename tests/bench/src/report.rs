//! Figures: a line each for people, and one as JSON for machines.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Where figures go.
pub struct Report {
    json: Option<File>,
}

impl Report {
    /// To the screen, and to `json` when there is one.
    pub fn new(json: Option<&Path>) -> Result<Report> {
        let json = json.map(|p| File::create(p).with_context(|| p.display().to_string())).transpose()?;
        Ok(Report { json })
    }

    /// Tells what was measured.
    pub fn figure(&mut self, what: &str, figures: &[(&str, f64)]) {
        let text =
            figures.iter().map(|(unit, value)| format!("{} {unit}", rounded(*value))).collect::<Vec<_>>().join(", ");
        println!("{what}: {text}");
        if let Some(out) = &mut self.json {
            let values: Map<String, Value> = figures.iter().map(|(unit, v)| ((*unit).to_owned(), json!(v))).collect();
            // A full disk is seen on the screen.
            let _ = writeln!(out, "{}", json!({"what": what, "figures": values}));
        }
    }

    /// Tells how often and how fast something was done.
    pub fn rate(&mut self, what: &str, times: &Histogram<u64>, wall: Duration, failed: usize) {
        self.figure(
            what,
            &[
                ("/s", times.len() as f64 / wall.as_secs_f64()),
                ("ms p50", millis(times, 0.5)),
                ("ms p99", millis(times, 0.99)),
                ("ms max", times.max() as f64 / 1000.0),
                ("failed", failed as f64),
            ],
        );
    }
}

fn millis(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}

fn rounded(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else if value >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
