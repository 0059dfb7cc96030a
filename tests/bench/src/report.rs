//! What was measured: told at once, kept for the tables, written as JSON for machines. Where requests failed there is no
//! figure: the failures stand in its place, and the run ends with an error.

use crate::facts::Facts;
use crate::load::Outcome;
use crate::table::{self, number};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// What a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Disk and database without Arcus.
    Raw,
    /// Starting, and memory.
    Start,
    /// Lists.
    Lists,
    /// Deploys and destroys.
    Machines,
    /// Hosts.
    Hosts,
    /// After `kill -9`.
    Recovery,
}

impl Part {
    /// All, in the order of the report.
    pub const ALL: [Part; 6] = [Part::Raw, Part::Start, Part::Lists, Part::Machines, Part::Hosts, Part::Recovery];

    /// The heading of its table.
    pub fn title(self) -> &'static str {
        match self {
            Part::Raw => "What disk and database give",
            Part::Start => "Starting, and memory",
            Part::Lists => "Lists: answers a second, p50 / p99 in ms",
            Part::Machines => "Deploys and destroys: a second, p50 / p99 in ms",
            Part::Hosts => "Hosts: a second, p50 / p99 in ms",
            Part::Recovery => "kill -9",
        }
    }

    /// Whether its table has a column for each number of VMs.
    pub fn by_size(self) -> bool {
        matches!(self, Part::Lists | Part::Machines)
    }

    fn word(self) -> &'static str {
        match self {
            Part::Raw => "raw",
            Part::Start => "start",
            Part::Lists => "lists",
            Part::Machines => "machines",
            Part::Hosts => "hosts",
            Part::Recovery => "recovery",
        }
    }
}

/// A figure, or why there is none.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it is about.
    pub part: Part,
    /// What was asked for.
    pub what: String,
    /// By how many, or how often.
    pub load: String,
    /// VMs that there were.
    pub vms: usize,
    /// What the table says.
    pub text: String,
    values: Vec<(&'static str, f64)>,
    requests: usize,
    failed: usize,
    errors: Vec<String>,
}

impl Figure {
    /// One without values yet.
    pub fn new(part: Part, what: &str, load: &str, vms: usize) -> Figure {
        let (what, load, text) = (what.to_owned(), load.to_owned(), String::new());
        Figure { part, what, load, vms, text, values: Vec::new(), requests: 0, failed: 0, errors: Vec::new() }
    }

    /// With what the table says.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Figure {
        self.text = text.into();
        self
    }

    /// With a value for machines.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Figure {
        self.values.push((name, value));
        self
    }

    /// With throughput and times of a load; `sent` is the rate of an open one.
    #[must_use]
    pub fn of<T>(self, outcome: &Outcome<T>, sent: Option<f64>) -> Figure {
        let (sample, rate) = (&outcome.sample, outcome.rate());
        let (p50, p99) = (sample.millis(0.5), sample.millis(0.99));
        let asked = sent.map(|s| format!(" of {}", number(s))).unwrap_or_default();
        let text = format!("{}{asked}/s, {} / {} ms", number(rate), number(p50), number(p99));
        let mut figure = self.with_text(text).with("per_second", rate).with("p50_ms", p50).with("p99_ms", p99);
        figure = figure.with("max_ms", sample.millis(1.0)).with("seconds", outcome.wall.as_secs_f64());
        if let Some(sent) = sent {
            figure = figure.with("sent_per_second", sent);
        }
        figure.requests = sample.done() + sample.failed();
        if figure.requests == 0 {
            return figure.failed(1, vec!["nothing was measured".into()]);
        }
        figure.failed(sample.failed(), sample.errors())
    }

    /// Takes its values away when something failed, or nothing was measured.
    #[must_use]
    pub fn failed(mut self, failed: usize, errors: Vec<String>) -> Figure {
        self.failed += failed;
        self.errors.extend(errors);
        if self.failed > 0 {
            self.values.clear();
            self.text = format!("none: {} of {} failed", self.failed, self.requests.max(self.failed));
        }
        self
    }

    fn json(&self) -> Value {
        let values: Map<String, Value> = self.values.iter().map(|(name, v)| ((*name).to_owned(), json!(v))).collect();
        let figures = if self.failed > 0 { Value::Null } else { Value::Object(values) };
        json!({
            "part": self.part.word(), "what": self.what, "load": self.load, "vms": self.vms, "requests": self.requests,
            "failed": self.failed, "errors": self.errors, "figures": figures, "text": self.text,
        })
    }
}

/// Where figures go.
pub struct Report {
    json: Option<File>,
    figures: Vec<Figure>,
}

impl Report {
    /// To the screen, and to `json` when there is one.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn new(json: Option<&Path>) -> Result<Report> {
        let json = json.map(|p| File::create(p).with_context(|| p.display().to_string())).transpose()?;
        Ok(Report { json, figures: Vec::new() })
    }

    /// Tells where it is measured.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn facts(&mut self, facts: &Facts) -> Result<()> {
        println!("{}", facts.text());
        self.line(&facts.json())
    }

    /// Tells what was measured.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn tell(&mut self, figure: Figure) -> Result<()> {
        let load = if figure.load.is_empty() { String::new() } else { format!(", {}", figure.load) };
        println!("{}{load} ({} VMs): {}", figure.what, figure.vms, figure.text);
        for error in &figure.errors {
            println!("    {error}");
        }
        self.line(&figure.json())?;
        self.figures.push(figure);
        Ok(())
    }

    /// Prints the tables.
    ///
    /// # Errors
    /// When figures are missing because requests failed.
    pub fn end(self, facts: &Facts) -> Result<()> {
        println!("\n{}\n\n{}", facts.text(), table::render(&self.figures));
        let missing = self.figures.iter().filter(|f| f.failed > 0).count();
        ensure!(missing == 0, "{missing} of {} figures are missing: requests failed (see above)", self.figures.len());
        Ok(())
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        self.json.as_mut().map_or(Ok(()), |out| writeln!(out, "{value}")).context("the JSON file")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::sample::Sample;
    use std::time::Duration;

    fn outcome(good: usize, bad: usize) -> Outcome<()> {
        let mut sample = Sample::new().unwrap();
        (0..good).for_each(|_| sample.count(Duration::from_millis(4), &Ok(())));
        (0..bad).for_each(|_| sample.count(Duration::ZERO, &Err::<(), _>(anyhow::anyhow!("refused"))));
        Outcome { sample, good: Vec::new(), wall: Duration::from_secs(2) }
    }

    #[test]
    fn a_figure_with_failures_is_none() {
        let good = Figure::new(Part::Lists, "zones", "1 client", 0).of(&outcome(500, 0), None);
        assert_eq!(good.text, "250/s, 4.00 / 4.00 ms");
        assert_eq!(good.json()["figures"]["per_second"], 250.0);
        let bad = Figure::new(Part::Lists, "zones", "1 client", 0).of(&outcome(500, 1), None);
        assert_eq!(bad.text, "none: 1 of 501 failed");
        assert!(bad.json()["figures"].is_null());
        assert_eq!(bad.json()["errors"][0], "1 × refused");
    }

    #[test]
    fn nothing_measured_is_no_figure() {
        let none = Figure::new(Part::Machines, "destroy", "open loop", 0).of(&outcome(0, 0), Some(5.0));
        assert!(none.json()["figures"].is_null() && none.text.starts_with("none"), "{}", none.text);
    }

    #[test]
    fn an_open_loop_tells_what_was_sent() {
        let figure = Figure::new(Part::Machines, "deploy", "open loop", 0).of(&outcome(100, 0), Some(60.0));
        assert!(figure.text.starts_with("50 of 60/s, "), "{}", figure.text);
        assert_eq!(figure.json()["figures"]["sent_per_second"], 60.0);
    }

    #[test]
    fn a_run_with_a_missing_figure_ends_with_an_error() {
        let facts = Facts::default();
        let mut report = Report::new(None).unwrap();
        report.tell(Figure::new(Part::Hosts, "addHost", "1 client", 0).of(&outcome(3, 0), None)).unwrap();
        report.end(&facts).unwrap();
        let mut report = Report::new(None).unwrap();
        report.tell(Figure::new(Part::Hosts, "addHost", "1 client", 0).of(&outcome(3, 2), None)).unwrap();
        assert!(report.end(&facts).unwrap_err().to_string().contains("1 of 1"));
    }
}
