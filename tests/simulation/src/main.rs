//! Runs seeds of the simulation.

use anyhow::bail;
use clap::Parser;
use simulation::{Options, Report};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Deterministic simulation of coordination and jobs.
#[derive(Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, env = "ARCUS_SEEDS", default_value_t = 1000)]
    seeds: u64,
    /// The first one.
    #[arg(long, env = "ARCUS_FIRST_SEED", default_value_t = 1)]
    first: u64,
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Switch a safeguard off: job-fence, duty-fence, effect-fence, claims.
    #[arg(long = "break")]
    broken: Vec<String>,
    /// Threads, each with runs of its own.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Stop after so many failing seeds.
    #[arg(long, default_value_t = 10)]
    failures: u64,
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: u64,
    events: u64,
    virtual_time: Duration,
    slowest: (Duration, u64),
    places: BTreeMap<&'static str, u64>,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.virtual_time += report.virtual_time;
        self.slowest = self.slowest.max((report.settled, report.seed));
        for (place, times) in &report.places {
            *self.places.entry(place).or_default() += times;
        }
        if !report.wrong.is_empty() {
            self.failed += 1;
            println!("seed {} FAILED: {}", report.seed, report.wrong.join("; "));
            println!("  again, event by event: cargo run -p simulation -- --seed {} --trace", report.seed);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = Options { trace: args.trace, broken: args.broken.clone() };
    let (first, seeds) = args.seed.map_or((args.first, args.seeds), |seed| (seed, 1));
    let begun = Instant::now();
    let mut totals = Totals::default();
    simulation::many(first, seeds, &options, args.threads, |report| {
        totals.add(report);
        if totals.seeds.is_multiple_of(1000) {
            println!("{} seeds, {} failed, {:.0?}", totals.seeds, totals.failed, begun.elapsed());
        }
        totals.failed < args.failures
    })?;
    let run = totals.seeds;
    let took = begun.elapsed();
    println!(
        "{run} seeds from {first} in {took:.1?} ({:.2?} each), {} events, {:.0?} of virtual time; longest to settle {:?} (seed {}); {} failed",
        took / u32::try_from(run.max(1))?,
        totals.events,
        totals.virtual_time,
        totals.slowest.0,
        totals.slowest.1,
        totals.failed
    );
    for (place, times) in &totals.places {
        println!("  {times:>9} times: {place}");
    }
    if totals.failed == 0 { Ok(()) } else { bail!("{} seeds failed", totals.failed) }
}
