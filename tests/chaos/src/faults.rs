//! Which faults happen when: drawn from a seed, never more at a time than the redundancy bears (unless `wild`).

use crate::history::{Event, History};
use crate::system::{Part, System};
use anyhow::{Result, bail};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time until a part is back.
const START_IN: Duration = Duration::from_secs(90);

/// How a part is hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `kill -9`, and started again after this time.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Pause(Duration),
    /// Cut off from all others for this time.
    Partition(Duration),
    /// SIGTERM, and started again.
    Restart,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Kill(_) => "kill",
            How::Pause(_) => "pause",
            How::Partition(_) => "partition",
            How::Restart => "restart",
        }
    }
}

/// How much of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Ends after so many faults.
    pub faults: Option<u64>,
    /// Ends after so long.
    pub time: Option<Duration>,
    /// Between the beginnings of two faults.
    pub every: (Duration, Duration),
    /// Whether redundancy is ignored.
    pub wild: bool,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

/// Hurts the system as planned; when it returns, all is mended. Gives the number of faults.
///
/// # Errors
/// When something couldn't be mended: then the run is over.
pub async fn run(system: &Arc<dyn System>, history: &Arc<History>, plan: &Plan) -> Result<u64> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let begun = Instant::now();
    let mut hurt: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut under_way = FuturesUnordered::new();
    let mut n = 0;
    while plan.faults.is_none_or(|most| n < most) && plan.time.is_none_or(|most| begun.elapsed() < most) {
        let pause = random.random_range(plan.every.0..=plan.every.1);
        let until = Instant::now() + pause;
        while let Ok(Some(mended)) = tokio::time::timeout_at(until.into(), under_way.next()).await {
            settle(mended, &mut hurt)?;
        }
        tokio::time::sleep_until(until.into()).await;
        let Some((part, how)) = draw(&mut random, &system.parts(), &hurt, plan.wild, system.can_partition()) else {
            continue; // all that may be hurt is
        };
        n += 1;
        hurt.entry(part.group.clone()).or_default().push(part.name.clone());
        let (system, history) = (system.clone(), history.clone());
        under_way.push(async move {
            let done = strike(&*system, &history, n, &part, how).await;
            (part, how, done)
        });
    }
    while let Some(mended) = under_way.next().await {
        settle(mended, &mut hurt)?;
    }
    Ok(n)
}

fn settle((part, how, done): (Part, How, Result<()>), hurt: &mut BTreeMap<String, Vec<String>>) -> Result<()> {
    if let Err(e) = done {
        bail!("{} doesn't come back after a {}: {e:#}", part.name, how.name());
    }
    if let Some(away) = hurt.get_mut(&part.group) {
        away.retain(|name| *name != part.name);
    }
    Ok(())
}

/// The next fault, among those that are allowed now.
fn draw(
    random: &mut StdRng,
    parts: &[Part],
    hurt: &BTreeMap<String, Vec<String>>,
    wild: bool,
    can_partition: bool,
) -> Option<(Part, How)> {
    let none = Vec::new();
    let away = |p: &Part| hurt.get(&p.group).unwrap_or(&none);
    let may = |p: &&Part| !away(p).contains(&p.name) && (wild || away(p).len() < p.spare);
    let part = parts.iter().filter(may).collect::<Vec<_>>().choose(random).map(|p| (*p).clone())?;
    let millis = |random: &mut StdRng, from, to| Duration::from_millis(random.random_range(from..to));
    let how = match random.random_range(0..100) {
        0..45 => How::Kill(millis(random, 0, 4000)),
        45..70 => How::Pause(millis(random, 1000, 10_000)),
        70..90 if can_partition => How::Partition(millis(random, 1000, 10_000)),
        _ => How::Restart,
    };
    Some((part, how))
}

async fn strike(system: &dyn System, history: &History, fault: u64, part: &Part, how: How) -> Result<()> {
    let name = &part.name;
    history.write(Event::Fault { fault, part: name.clone(), how: how.name().to_owned() });
    let done = match how {
        How::Kill(away) => {
            system.kill(name).await;
            tokio::time::sleep(away).await;
            start(system, name).await
        }
        How::Pause(away) => {
            system.pause(name);
            tokio::time::sleep(away).await;
            system.resume(name);
            Ok(())
        }
        How::Partition(away) => {
            system.partition(name).await;
            tokio::time::sleep(away).await;
            system.heal(name).await;
            Ok(())
        }
        How::Restart => {
            system.stop(name).await;
            start(system, name).await
        }
    };
    let done = match done {
        Ok(()) => system.well(name).await,
        failed => failed,
    };
    history.write(Event::Mended { fault });
    done
}

/// Starts a part as init systems do: again when it ends because something else is away.
async fn start(system: &dyn System, name: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        match system.restart(name).await {
            Err(_) if begun.elapsed() < START_IN => tokio::time::sleep(Duration::from_millis(500)).await,
            done => return done,
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    fn parts() -> Vec<Part> {
        let part = |name: &str, group: &str, spare| Part { name: name.into(), group: group.into(), spare };
        vec![part("network-1", "network", 1), part("network-2", "network", 1), part("etcd-1", "etcd", 0)]
    }

    #[test]
    fn redundancy_is_respected() {
        let mut random = StdRng::seed_from_u64(1);
        let hurt = BTreeMap::from([("network".to_owned(), vec!["network-2".to_owned()])]);
        for _ in 0..100 {
            let (part, _) = draw(&mut random, &parts(), &BTreeMap::new(), false, true).expect("a fault");
            assert_eq!(part.group, "network");
            assert!(draw(&mut random, &parts(), &hurt, false, true).is_none());
            let (part, _) = draw(&mut random, &parts(), &hurt, true, true).expect("a wild fault");
            assert_ne!(part.name, "network-2");
        }
    }

    #[test]
    fn a_seed_draws_the_same_again() {
        let draws = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            (0..50).map(|_| draw(&mut random, &parts(), &BTreeMap::new(), true, true)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }
}
