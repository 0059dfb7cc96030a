//! The driver of long work on hosts: orders that are answered with how far they are (`FetchImage`, `StoreDisk`).
//!
//! The order's identity is its place in the store, so sending it again goes on with the same work, on the same host or
//! another one. It runs for as long as something moves: there is no limit to its total time (TPL-008).

use crate::Storage;
use crate::hosts::Tell;
use crate::store::infra::{self, Worker};
use contract::ApiError;
use contract::api::Caller;
use contract_agent::image_state::Phase;
use contract_agent::{ImageState, command, outcome};
use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// How long a host listens to its work before it tells how far it is.
const LOOK: Duration = Duration::from_secs(5);
/// What a host may take to answer beyond that.
const GRACE: Duration = Duration::from_secs(20);
/// The shortest time between two looks.
const LEAST: Duration = Duration::from_millis(200);
/// How long nothing may move.
const PATIENCE: Duration = Duration::from_secs(1800);
/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Failures on hosts in a row, with nothing moving in between, after which the work has failed.
const FAILURES: u32 = 4;
/// `cserrorcode` of what a host can't do at all.
const UNSUPPORTED: i32 = 4390;

/// Who may do the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Hosts of a zone (or of all) that handle images of a hypervisor's kind.
    Zone {
        /// The zone; none: any.
        zone: Option<i64>,
        /// The kind; see [`serves`].
        hypervisor: String,
    },
    /// This host alone: it runs the VM whose disk is copied.
    Host(i64),
    /// Hosts that reach a pool.
    Pool(i64),
}

/// Whether hosts of kind `host` handle images that are for `wanted` hypervisors. Real bytes are for KVM hosts, which also
/// handle those of hypervisors that have no hosts here; simulated hosts only make believe, so they never do it for KVM.
pub fn serves(host: &str, wanted: &str) -> bool {
    let is = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    if is(wanted, "KVM") || is(wanted, "Simulator") {
        return is(host, wanted);
    }
    is(host, "KVM") || is(host, "Simulator") || is(host, wanted)
}

/// The connected hosts that may do the work, the best first.
///
/// # Errors
/// Those of the database.
pub async fn candidates(s: &Storage, who: &Who) -> Result<Vec<Worker>, ApiError> {
    let db = &s.node.db;
    Ok(match who {
        Who::Zone { zone, hypervisor } => {
            let mut found = infra::workers(db, *zone).await?;
            found.retain(|w| serves(&w.hypervisor, hypervisor));
            // Where both are, the real ones do it.
            if found.iter().any(|w| w.hypervisor == "KVM") {
                found.retain(|w| w.hypervisor == "KVM");
            }
            found
        }
        Who::Host(id) => {
            let host = infra::host(db, *id).await?.filter(|h| h.up);
            host.map(|h| Worker { id: h.id, hypervisor: h.hypervisor }).into_iter().collect()
        }
        Who::Pool(pool) => {
            let ids = infra::hosts_of_pool(db, *pool, 64).await?;
            let mut found = infra::workers(db, None).await?;
            found.retain(|w| ids.contains(&w.id));
            found
        }
    })
}

/// Whether to go on.
#[derive(Debug)]
pub enum Next {
    /// Yes.
    Go,
    /// Nobody wants it any more.
    Stop,
    /// It can't be done.
    Refuse(ApiError),
}

/// Who listens to the progress.
pub trait Watcher: Send {
    /// Something was heard of the work; called for each look, also for the last.
    ///
    /// # Errors
    /// Those of the database: the driver ends, and the work is taken up again later.
    fn seen(&mut self, host: &Worker, state: &ImageState) -> impl Future<Output = Result<Next, ApiError>> + Send;
}

/// How the work ended.
#[derive(Debug)]
pub enum Ended {
    /// It is done, by this host.
    Ready(Worker, ImageState),
    /// The watcher said so.
    Stopped,
    /// A host, or the watcher, refused it, or nothing moves.
    Failed(ApiError),
}

/// Drives a piece of work to its end. `order` gives it for a number of milliseconds after which the host reports; `first` is
/// the host that was at it before.
///
/// # Errors
/// Those of the database. What hosts say is in [`Ended`].
pub async fn follow<W: Watcher>(
    s: &Storage,
    caller: &Caller,
    who: &Who,
    first: Option<i64>,
    order: impl Fn(u32) -> command::Body + Send + Sync,
    watcher: &mut W,
) -> Result<Ended, ApiError> {
    let look = u32::try_from(LOOK.as_millis()).unwrap_or(u32::MAX);
    let mut at = first;
    let mut pace = Pace::new();
    loop {
        let hosts = candidates(s, who).await?;
        let Some(host) = pace.pick(&hosts, at) else {
            at = None;
            pace.nobody(&hosts).await;
            continue;
        };
        let begun = Instant::now();
        let tell = Tell { host: host.id, body: order(look), deadline: LOOK + GRACE };
        let state = match s.hosts.ask(caller, tell).await {
            Ok(outcome) => match outcome.body {
                Some(outcome::Body::Image(state)) => state,
                other => {
                    let text = format!("host {} answered long work with {other:?}", host.id);
                    return Ok(Ended::Failed(ApiError::internal(text)));
                }
            },
            Err(error) => {
                at = None;
                match pace.failed(&host, &hosts, error).await {
                    Some(error) => return Ok(Ended::Failed(error)),
                    None => continue,
                }
            }
        };
        at = Some(host.id);
        match watcher.seen(&host, &state).await? {
            Next::Go => {}
            Next::Stop => return Ok(Ended::Stopped),
            Next::Refuse(error) => return Ok(Ended::Failed(error)),
        }
        if state.phase() == Phase::Ready {
            return Ok(Ended::Ready(host, state));
        }
        if !pace.moves(&state) {
            let minutes = PATIENCE.as_secs() / 60;
            return Ok(Ended::Failed(ApiError::failed(format!("nothing has come for {minutes} minutes"))));
        }
        tokio::time::sleep_until(begun + LEAST).await;
    }
}

/// What has been tried, and when something moved.
struct Pace {
    avoid: HashSet<i64>,
    failures: u32,
    wait: Duration,
    moved: Instant,
    last: (i32, u64),
    /// What a host that can't do this at all said.
    unfit: Option<ApiError>,
}

impl Pace {
    fn new() -> Pace {
        Pace { avoid: HashSet::new(), failures: 0, wait: WAITS.0, moved: Instant::now(), last: (-1, 0), unfit: None }
    }

    /// The host that was at it, or one by chance: work spreads.
    fn pick(&self, hosts: &[Worker], at: Option<i64>) -> Option<Worker> {
        let fit: Vec<&Worker> = hosts.iter().filter(|h| !self.avoid.contains(&h.id)).collect();
        let same = fit.iter().find(|h| Some(h.id) == at);
        let index = (!fit.is_empty()).then(|| rand::random_range(0..fit.len()));
        same.or(index.and_then(|i| fit.get(i))).map(|h| (*h).clone())
    }

    /// No host is there now: that is no fault of the work.
    async fn nobody(&mut self, hosts: &[Worker]) {
        self.avoid.clear();
        if hosts.is_empty() {
            self.moved = Instant::now();
        }
        self.pause().await;
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(WAITS.1);
    }

    /// What a host's error means: the error with which the work ends, if it does.
    async fn failed(&mut self, host: &Worker, hosts: &[Worker], error: ApiError) -> Option<ApiError> {
        self.avoid.insert(host.id);
        let others = hosts.iter().any(|h| !self.avoid.contains(&h.id));
        if !error.is_transient() {
            // An agent that is too old, or can't handle this image: another may.
            if error.cs_code == UNSUPPORTED && others {
                self.unfit = Some(error);
                return None;
            }
            return Some(error);
        }
        // A host that is away says nothing of the work.
        if error.code != 534 {
            self.failures += 1;
        }
        tracing::debug!(host = host.id, %error, "long work goes on elsewhere");
        if self.failures >= FAILURES || self.moved.elapsed() >= PATIENCE {
            return Some(error);
        }
        if !others {
            if let Some(unfit) = self.unfit.take() {
                return Some(unfit);
            }
            self.avoid.clear();
            self.pause().await;
        }
        None
    }

    /// Notes how far the work is; false when nothing has moved for too long.
    fn moves(&mut self, state: &ImageState) -> bool {
        let now = (state.phase, state.received);
        if now != self.last {
            self.last = now;
            self.moved = Instant::now();
            self.failures = 0;
            self.wait = WAITS.0;
            self.avoid.clear();
        }
        self.moved.elapsed() < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_hosts_make_no_real_images() {
        assert!(serves("KVM", "KVM") && !serves("Simulator", "KVM") && !serves("KVM", "Simulator"));
        assert!(serves("Simulator", "simulator") && serves("KVM", "None") && serves("Simulator", "None"));
        assert!(serves("Simulator", "XenServer") && serves("XenServer", "XenServer") && !serves("LXC", "XenServer"));
    }

    #[test]
    fn the_host_that_was_at_it_goes_on() {
        let hosts = [1, 2, 3].map(|id| Worker { id, hypervisor: "KVM".into() });
        let mut pace = Pace::new();
        assert_eq!(pace.pick(&hosts, Some(2)).unwrap().id, 2);
        pace.avoid.extend([1, 2]);
        assert_eq!(pace.pick(&hosts, Some(2)).unwrap().id, 3);
        pace.avoid.insert(3);
        assert_eq!(pace.pick(&hosts, None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_breaks_ends_the_work_and_a_host_that_is_away_does_not() {
        let hosts = [Worker { id: 1, hypervisor: "KVM".into() }];
        let mut pace = Pace::new();
        for _ in 0..20 {
            assert_eq!(pace.failed(&hosts[0], &hosts, ApiError::unavailable("away")).await, None);
        }
        for _ in 0..3 {
            assert_eq!(pace.failed(&hosts[0], &hosts, ApiError::concurrent("broke")).await, None);
        }
        pace.moves(&ImageState { received: 7, ..ImageState::default() });
        for _ in 0..3 {
            assert_eq!(pace.failed(&hosts[0], &hosts, ApiError::concurrent("broke")).await, None);
        }
        assert!(pace.failed(&hosts[0], &hosts, ApiError::concurrent("broke")).await.is_some());
        assert!(pace.moves(&ImageState { received: 7, ..ImageState::default() }));
        tokio::time::advance(PATIENCE).await;
        assert!(!pace.moves(&ImageState { received: 7, ..ImageState::default() }));
    }
}
