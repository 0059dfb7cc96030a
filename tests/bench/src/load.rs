//! Two kinds of load. A closed one: each client asks again once it is answered, which finds the most that a server gives. An
//! open one: requests are sent when they are due, answered or not, and their times count from then, so that a server that
//! stalls can't hide it by being asked less.

use crate::sample::Sample;
use anyhow::Result;
use futures::StreamExt as _;
use futures::stream;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What a load gave.
pub struct Outcome<T> {
    /// Times and failures.
    pub sample: Sample,
    /// What the requests that were answered well gave.
    pub good: Vec<T>,
    /// From the first request to the last answer.
    pub wall: Duration,
}

impl<T> Outcome<T> {
    /// Requests answered well, a second.
    pub fn rate(&self) -> f64 {
        self.sample.done() as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}

/// `clients` clients ask for `time`.
///
/// # Errors
/// None of the requests': they are counted.
pub async fn closed_for<F, A>(clients: usize, time: Duration, ask: F) -> Result<Outcome<()>>
where
    F: Fn() -> A + Clone + Send + 'static,
    A: Future<Output = Result<()>> + Send,
{
    let begun = Instant::now();
    let workers = (0..clients).map(|_| {
        let ask = ask.clone();
        tokio::spawn(async move {
            let mut sample = Sample::new()?;
            while begun.elapsed() < time {
                let start = Instant::now();
                let result = ask().await;
                sample.count(start.elapsed(), &result);
            }
            Ok::<_, anyhow::Error>(sample)
        })
    });
    let mut sample = Sample::new()?;
    for worker in futures::future::join_all(workers).await {
        sample.add(&worker??)?;
    }
    Ok(Outcome { sample, good: Vec::new(), wall: begun.elapsed() })
}

/// `clients` clients ask once for each of `items`.
///
/// # Errors
/// None of the requests': they are counted.
pub async fn closed_over<I, T, F, A>(clients: usize, items: Vec<I>, ask: F) -> Result<Outcome<T>>
where
    I: Send + 'static,
    T: Send + 'static,
    F: Fn(I) -> A + Clone + Send + 'static,
    A: Future<Output = Result<T>> + Send + 'static,
{
    let begun = Instant::now();
    let answers = stream::iter(items).map(|item| {
        let request = ask(item);
        tokio::spawn(async move {
            let start = Instant::now();
            let result = request.await;
            (start.elapsed(), result)
        })
    });
    let answers: Vec<_> = answers.buffer_unordered(clients.max(1)).collect().await;
    let wall = begun.elapsed();
    let (mut sample, mut good) = (Sample::new()?, Vec::new());
    for answer in answers {
        let (took, result) = answer?;
        sample.count(took, &result);
        good.extend(result.ok());
    }
    Ok(Outcome { sample, good, wall })
}

/// When the requests of an open loop are due, counted from its beginning: evenly spaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    rate: f64,
    requests: u32,
}

impl Schedule {
    /// `rate` requests a second for `time`; at least one.
    pub fn new(rate: f64, time: Duration) -> Schedule {
        let rate = if rate.is_finite() && rate > 0.0 { rate } else { 1.0 };
        // More than 2^32 requests are not meant; `as` saturates.
        Schedule { rate, requests: ((rate * time.as_secs_f64()).round() as u32).max(1) }
    }

    /// `requests` requests, `rate` a second.
    pub fn over(rate: f64, requests: usize) -> Schedule {
        Schedule { requests: u32::try_from(requests).unwrap_or(u32::MAX), ..Schedule::new(rate, Duration::ZERO) }
    }

    /// How many.
    pub fn requests(&self) -> usize {
        self.requests as usize
    }

    /// All its gaps, that after the last request included: a server that keeps up isn't faster than it was asked.
    fn span(&self) -> Duration {
        self.due(self.requests)
    }

    /// When the `n`-th is due, from 0 on.
    pub fn due(&self, n: u32) -> Duration {
        Duration::from_secs_f64(f64::from(n) / self.rate)
    }
}

/// Sends the `n`-th request when it is due.
///
/// # Errors
/// None of the requests': they are counted.
pub async fn open<T, F, A>(schedule: Schedule, ask: F) -> Result<Outcome<T>>
where
    T: Send + 'static,
    F: Fn(usize) -> A,
    A: Future<Output = Result<T>> + Send + 'static,
{
    let begun = Instant::now();
    // A thread of its own: the runtime's timers are a millisecond coarse, which is more than a quick answer takes.
    let (sender, mut turns) = mpsc::unbounded_channel();
    let pacer = std::thread::spawn(move || {
        for n in 0..schedule.requests {
            let due = begun + schedule.due(n);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send((n, due)).is_err() {
                return;
            }
        }
    });
    let mut requests = Vec::with_capacity(schedule.requests());
    while let Some((n, due)) = turns.recv().await {
        let request = ask(n as usize);
        requests.push(tokio::spawn(async move {
            let result = request.await;
            (due.elapsed(), result)
        }));
    }
    // It has sent all, and so has ended.
    let _ = pacer.join();
    let (mut sample, mut good) = (Sample::new()?, Vec::new());
    for request in requests {
        let (took, result) = request.await?;
        sample.count(took, &result);
        good.extend(result.ok());
    }
    Ok(Outcome { sample, good, wall: begun.elapsed().max(schedule.span()) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;
    use anyhow::bail;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn schedules_are_even_and_do_not_drift() {
        let schedule = Schedule::new(300.0, Duration::from_secs(2));
        assert_eq!(schedule.requests(), 600);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(300), Duration::from_secs(1));
        assert_eq!(schedule.due(150), Duration::from_millis(500));
        assert_eq!(Schedule::over(50.0, 120).requests(), 120);
        assert_eq!(Schedule::over(50.0, 120).due(100), Duration::from_secs(2));
    }

    #[test]
    fn a_schedule_has_a_request_whatever_it_is_asked_for() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.001] {
            let schedule = Schedule::new(rate, Duration::from_millis(1));
            assert_eq!(schedule.requests(), 1, "{rate}");
            assert_eq!(schedule.due(0), Duration::ZERO, "{rate}");
        }
    }

    #[tokio::test]
    async fn a_stall_is_seen_by_all_requests_that_were_due_in_it() {
        // One request at a time, as a server that is stuck; the first takes 200 ms.
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        let first = Arc::new(AtomicUsize::new(0));
        let outcome = open(Schedule::new(100.0, Duration::from_millis(200)), |_| {
            let (turn, first) = (turn.clone(), first.clone());
            async move {
                let _turn = turn.lock().await;
                if first.fetch_add(1, Ordering::SeqCst) == 0 {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Ok(())
            }
        })
        .await
        .unwrap();
        assert_eq!((outcome.sample.done(), outcome.good.len()), (20, 20));
        assert!(outcome.rate() <= 100.0, "{}", outcome.rate());
        // A closed loop would have seen one slow request, and a median of next to nothing.
        assert!(outcome.sample.millis(0.5) > 80.0, "{}", outcome.sample.millis(0.5));
    }

    #[tokio::test]
    async fn every_item_is_asked_for_once_and_failures_are_counted() {
        let ask = |n: usize| async move { if n.is_multiple_of(10) { bail!("no") } else { Ok(n) } };
        let outcome = closed_over(7, (0..100).collect(), ask).await.unwrap();
        assert_eq!((outcome.sample.done(), outcome.sample.failed()), (90, 10));
        let mut good = outcome.good;
        good.sort_unstable();
        assert_eq!(good, (0..100).filter(|n| n % 10 != 0).collect::<Vec<_>>());
    }
}
