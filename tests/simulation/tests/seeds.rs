//! Seeds of the simulation: all well, each the same twice, and the simulator finds what is broken on purpose.
#![allow(clippy::unwrap_used, clippy::panic)] // a failed set-up is a failed test

use simulation::{Options, Report, Runner};
use std::collections::BTreeMap;
use std::time::Instant;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn fail(report: &Report) -> ! {
    panic!(
        "seed {}: {}\nagain, event by event: cargo run -p simulation -- --seed {} --trace",
        report.seed,
        report.wrong.join("\n"),
        report.seed
    )
}

// covers: OPS-096
#[test]
fn every_seed_ends_well() {
    let (first, seeds) = (number("ARCUS_FIRST_SEED", 1), number("ARCUS_SEEDS", 1_000));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (begun, mut run) = (Instant::now(), 0);
    let mut places = BTreeMap::new();
    let mut failed = None;
    simulation::many(first, seeds, &Options::default(), threads, |report| {
        for (place, times) in &report.places {
            *places.entry(*place).or_insert(0) += times;
        }
        run += 1;
        if run % 1_000 == 0 {
            println!("{run} seeds from {first}, {:.0?}", begun.elapsed());
        }
        failed = (!report.wrong.is_empty()).then(|| report.clone());
        failed.is_none()
    })
    .unwrap();
    if let Some(report) = failed {
        fail(&report);
    }
    println!("reached: {places:#?}");
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let one = Runner::new().unwrap();
    for seed in 1..=40 {
        let first = one.run(seed, Options::default()).unwrap();
        // In another thread and another database, after other seeds.
        let other = std::thread::spawn(move || {
            let other = Runner::new().unwrap();
            other.run(seed + 7, Options::default()).unwrap();
            other.run(seed, Options::default()).unwrap()
        });
        let second = other.join().unwrap();
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}

/// With a safeguard switched off, some seed must show it.
fn is_found(safeguard: &str, within: u64) {
    let runner = Runner::new().unwrap();
    for seed in 1..=within {
        let options = Options { broken: vec![safeguard.to_owned()], ..Options::default() };
        if let Some(what) = runner.run(seed, options).unwrap().wrong.first() {
            println!("without {safeguard}, seed {seed} shows: {what}");
            return;
        }
    }
    panic!("{within} seeds didn't show that {safeguard} is off");
}

#[test]
fn a_job_without_its_fence_is_found() {
    is_found("job-fence", 200);
}

#[test]
fn a_duty_without_its_fence_is_found() {
    is_found("duty-fence", 300);
}

#[test]
fn a_receiver_that_lets_replaced_workers_in_is_found() {
    is_found("effect-fence", 2_000);
}

#[test]
fn jobs_that_take_no_claims_are_found() {
    is_found("claims", 50);
}
