//! Many seeds, on several threads, each with runs of its own.

use crate::run::{Report, Runner};
use crate::sim::{Options, lock};
use anyhow::bail;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs `seeds` seeds from `first` on. `each` is told of every run, and whether to go on is its answer.
///
/// # Errors
/// When the simulation itself can't go on.
pub fn many(
    first: u64,
    seeds: u64,
    options: &Options,
    threads: usize,
    each: impl FnMut(&Report) -> bool + Send,
) -> anyhow::Result<()> {
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let each = Mutex::new(each);
    let work = || -> anyhow::Result<()> {
        let runner = Runner::new()?;
        while !over.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= seeds {
                break;
            }
            let ran = runner.run(first + n, options.clone());
            if !ran.as_ref().is_ok_and(|report| lock(&each)(report)) {
                over.store(true, Ordering::Relaxed);
                ran?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| bail!("a run panicked")))
    })
}
