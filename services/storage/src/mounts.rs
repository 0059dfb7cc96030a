//! Every pool is known to every host that may use it, before it does: hosts that are told of a pool keep a heartbeat there, by
//! which others see whether they live. createStoragePool tells the first hosts; this duty tells the others, and those that come
//! later. A host that can't reach a pool is asked again, less and less often, and at once when something is heard of it.

use crate::Storage;
use crate::bytes::reach;
use crate::hosts::Tell;
use crate::news::{Changed, News};
use crate::store::mounts::{self, Missing};
use contract::ApiError;
use coord::Term;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

const DUTY: &str = "storage/mounts";
/// How often it looks when it hears nothing: news may be lost.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest time between two looks: news comes in swarms.
const LEAST: Duration = Duration::from_millis(500);
/// Hosts that are asked at the same time.
const MOST: usize = 32;
/// Rows of one look.
const PAGE: i64 = 256;
/// How long a host may take to reach a pool.
const DEADLINE: Duration = Duration::from_secs(60);
/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// A pool and a host.
type Pair = (i64, i64);

/// Starts the duty.
pub fn start(s: &Storage) {
    let storage = s.clone();
    s.node.duty(DUTY, move |term| serve(storage.clone(), term));
}

/// Failures of a pair, and when it is tried again.
struct Off {
    tries: u32,
    until: Instant,
}

/// What the duty remembers; whoever takes over begins with nothing.
#[derive(Default)]
struct Book {
    at_work: BTreeSet<Pair>,
    off: BTreeMap<Pair, Off>,
}

impl Book {
    /// Whether a pair is to be tried now.
    fn is_due(&self, pair: Pair, now: Instant) -> bool {
        !self.at_work.contains(&pair) && self.off.get(&pair).is_none_or(|off| off.until <= now)
    }

    /// The next time at which a pair is due that was put off.
    fn next(&self, now: Instant) -> Instant {
        let at = self.off.iter().filter(|(pair, _)| !self.at_work.contains(pair)).map(|(_, off)| off.until).min();
        at.unwrap_or(now + INTERVAL).min(now + INTERVAL)
    }

    fn failed(&mut self, pair: Pair, now: Instant) {
        let off = self.off.entry(pair).or_insert(Off { tries: 0, until: now });
        off.until = now + (WAITS.0 * 2u32.pow(off.tries.min(10))).min(WAITS.1);
        off.tries += 1;
    }

    /// What was heard of: no wait holds any more.
    fn heard(&mut self, changed: Changed) {
        match changed {
            Changed::Host(id) => self.off.retain(|(_, host), _| *host != id),
            // It says nothing of a particular host: the waits of those that failed stay.
            Changed::Any => {}
        }
    }
}

async fn serve(s: Storage, term: Term) {
    let mut news = News::of(&s.node.coord);
    let mut asked: FuturesUnordered<BoxFuture<'static, (Pair, Result<(), ApiError>)>> = FuturesUnordered::new();
    let mut book = Book::default();
    loop {
        let begun = Instant::now();
        match due(&s, &mut book).await {
            Ok(pairs) => {
                for missing in pairs {
                    let pair = (missing.pool.id, missing.host);
                    book.at_work.insert(pair);
                    let s = s.clone();
                    asked.push(async move { (pair, ask(&s, &missing).await) }.boxed());
                }
            }
            Err(error) => tracing::warn!(%error, "looking for hosts that don't know their pools"),
        }
        let wake = book.next(begun).max(begun + LEAST);
        tokio::select! {
            Some(first) = asked.next(), if !asked.is_empty() => {
                let mut answers = vec![first];
                while let Some(Some(more)) = asked.next().now_or_never() {
                    answers.push(more);
                }
                if let Err(error) = note(&s, &term, &mut book, answers).await {
                    tracing::warn!(%error, "noting which hosts reach a pool");
                }
            }
            changed = news.next() => {
                book.heard(changed);
                tokio::time::sleep_until(begun + LEAST).await;
            }
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

/// Pairs that are to be tried now, as many as there is room for.
async fn due(s: &Storage, book: &mut Book) -> Result<Vec<Missing>, ApiError> {
    let now = Instant::now();
    let mut found = Vec::new();
    let mut after = (0, 0);
    while book.at_work.len() + found.len() < MOST {
        let page = mounts::missing(&s.node.db, after, PAGE).await?;
        after = page.last().map_or(after, |last| (last.host, last.pool.id));
        let more = page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        let room = MOST - book.at_work.len() - found.len();
        found.extend(page.into_iter().filter(|m| book.is_due((m.pool.id, m.host), now)).take(room));
        if !more {
            // All were seen: what was put off and isn't missing any more (a host or pool that is gone) is forgotten.
            let still: BTreeSet<Pair> = found.iter().map(|m| (m.pool.id, m.host)).collect();
            book.off.retain(|pair, off| off.until > now || book.at_work.contains(pair) || still.contains(pair));
            break;
        }
    }
    Ok(found)
}

async fn ask(s: &Storage, missing: &Missing) -> Result<(), ApiError> {
    let Some(target) = missing.pool.target() else {
        return Err(ApiError::internal(format!("storage pool {} is of an unknown kind", missing.pool.name)));
    };
    let body = reach(&missing.pool.uuid, &target);
    s.hosts.ask(&rpc::cx::system_caller(), Tell { host: missing.host, body, deadline: DEADLINE }).await.map(drop)
}

/// Writes down who reaches what, in one commit; who doesn't is put off.
async fn note(
    s: &Storage,
    term: &Term,
    book: &mut Book,
    answers: Vec<(Pair, Result<(), ApiError>)>,
) -> Result<(), ApiError> {
    let now = Instant::now();
    let mut reached = Vec::new();
    for (pair, answer) in answers {
        book.at_work.remove(&pair);
        match answer {
            Ok(()) => reached.push(pair),
            Err(error) => {
                tracing::info!(pool = pair.0, host = pair.1, %error, "a host doesn't reach a pool; it is asked again");
                book.failed(pair, now);
            }
        }
    }
    if reached.is_empty() {
        return Ok(());
    }
    store::tx!(s.node.db, "pools-mounted", |tx| {
        term.fence(tx).await?;
        for (pool, host) in &reached {
            mounts::note(tx, *pool, *host).await?;
        }
        Ok::<_, ApiError>(())
    })
    .await?;
    for pair in &reached {
        book.off.remove(pair);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_until_something_is_heard() {
        let mut book = Book::default();
        let now = Instant::now();
        assert!(book.is_due((1, 2), now));
        assert_eq!(book.next(now), now + INTERVAL);
        book.failed((1, 2), now);
        assert_eq!((book.is_due((1, 2), now), book.next(now)), (false, now + WAITS.0));
        book.failed((1, 2), now);
        assert_eq!(book.next(now), now + WAITS.0 * 2);
        for _ in 0..40 {
            book.failed((1, 2), now);
        }
        assert!(book.is_due((1, 2), now + WAITS.1));
        book.heard(Changed::Any);
        assert!(!book.is_due((1, 2), now));
        book.heard(Changed::Host(2));
        assert!(book.is_due((1, 2), now));
        book.at_work.insert((1, 2));
        assert!(!book.is_due((1, 2), now));
    }
}
