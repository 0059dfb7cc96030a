//! Overload: how many requests are at work, who waits, and who is refused before anything has been done.
//!
//! Each service behind has a gate of its own, so that one that hangs holds up nobody who asks another. Requests of one
//! account are a lane; what is asked for often and costs little (the state of a job) has a gate beside them. Who isn't known
//! yet (a login, a key or session that isn't cached) goes by its address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use contract::ApiError;
use lanes::{Gate, Patience, Permit, Rules, Shed};
use telemetry::metrics::{self, Counters, Gauge, Histogram};

use crate::auth::Principal;
use crate::catalogue::{Catalogue, Entry};

/// Requests that clients repeat while they wait for something: they pass however busy the service is.
const QUICK: &[&str] = &["arcus.infra.v1.QueryAsyncJobResultRequest"];

/// How many requests are at work and may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Requests at work for each service behind; no account has the last eighth of them, nor the last one.
    pub at_work: usize,
    /// Requests of one account that may wait for a service.
    pub account: usize,
    /// Requests of all accounts that may wait for a service; when they do, each account has an equal part.
    pub all: usize,
    /// Look-ups and logins at work for callers who aren't known yet; half of them for one address at most.
    pub strangers: usize,
    /// Of them, those of one address that may wait.
    pub address: usize,
    /// How long a request waits.
    pub patience: Patience,
}

impl Default for Queues {
    fn default() -> Self {
        let cores = cores();
        Queues {
            // Enough to keep cores and database busy; more would only make each of them slower.
            at_work: (cores * 12).max(24),
            account: 1024,
            all: 4096,
            strangers: (cores * 4).max(16),
            address: 128,
            // A burst of a thousand requests is served whole; a queue that stands longer than that is overload.
            patience: Patience {
                longest: Duration::from_secs(20),
                target: Duration::from_secs(1),
                standing: Duration::from_secs(20),
            },
        }
    }
}

/// Cores of this machine that may be used.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// All gates of one replica.
pub struct Gates {
    services: BTreeMap<String, Lined<i64>>,
    quick: Lined<i64>,
    strangers: Lined<IpAddr>,
}

struct Lined<K: Ord + Clone> {
    name: String,
    gate: Gate<K>,
    at_work: Gauge,
    queued: Gauge,
    waited: Histogram,
    refused: Refusals,
}

/// Leave to work, until dropped.
pub struct Pass<K: Ord + Clone> {
    _permit: Permit<K>,
    _at_work: Counted,
}

/// Counts in a gauge until dropped.
struct Counted(Gauge);

impl Counted {
    fn in_(gauge: &Gauge) -> Counted {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Gates {
    /// The gates before the services of the contract.
    pub fn new(catalogue: &Catalogue, queues: &Queues) -> Gates {
        let patience = Some(queues.patience);
        let rules = Rules::places(queues.at_work);
        // However few they are, one is kept from each account.
        let share = rules.share.min(rules.places - 1).max(1);
        let busy = Rules { share, lane: queues.account, all: queues.all, patience, ..rules };
        let places = queues.strangers.max(2);
        let strangers =
            Rules { places, share: places / 2, lane: queues.address, all: queues.address.saturating_mul(8), patience };
        let owners = catalogue.entries().iter().map(|e| e.info.owner.to_string());
        let services: BTreeMap<_, _> = owners.map(|name| (name.clone(), Lined::new(name, busy.clone()))).collect();
        Gates {
            services,
            quick: Lined::new("quick".into(), busy),
            strangers: Lined::new("strangers".into(), strangers),
        }
    }

    /// Waits until a request of this user may be carried out.
    ///
    /// # Errors
    /// 503 when there is more to do than can be done.
    pub async fn pass(&self, principal: &Principal, entry: &Entry) -> Result<Pass<i64>, ApiError> {
        let quick = QUICK.contains(&entry.info.request.as_ref());
        let gate = if quick { None } else { self.services.get(entry.info.owner.as_ref()) };
        gate.unwrap_or(&self.quick).enter(principal.credentials().account_id).await
    }

    /// The same for what isn't a command: it asks this service.
    ///
    /// # Errors
    /// 503 when there is more to do than can be done.
    pub async fn pass_to(&self, principal: &Principal, service: &str) -> Result<Pass<i64>, ApiError> {
        self.services.get(service).unwrap_or(&self.quick).enter(principal.credentials().account_id).await
    }

    /// Waits until something may be done for somebody who isn't known yet. Whoever has this pass must not ask for another.
    ///
    /// # Errors
    /// 503 when there is more to do than can be done.
    pub async fn stranger(&self, from: IpAddr) -> Result<Pass<IpAddr>, ApiError> {
        self.strangers.enter(site(from)).await
    }
}

/// What counts as one address: the network that one customer has.
pub fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl<K: Ord + Clone> Lined<K> {
    fn new(name: String, rules: Rules) -> Lined<K> {
        let labels = vec![("gate", name.clone())];
        let at_work = metrics::gauges("api_at_work", "Requests at work by gate");
        let queued = metrics::gauges("api_queued", "Requests that wait for their turn by gate");
        let waited = metrics::histograms("api_queue_seconds", "Time that requests waited for their turn");
        Lined {
            gate: Gate::new(rules),
            at_work: at_work.get_or_create(&labels).clone(),
            queued: queued.get_or_create(&labels).clone(),
            waited: waited.get_or_create(&labels).clone(),
            refused: Refusals::default(),
            name,
        }
    }

    async fn enter(&self, lane: K) -> Result<Pass<K>, ApiError> {
        let waiting = Counted::in_(&self.queued);
        let entered = self.gate.enter(lane).await;
        drop(waiting);
        match entered {
            Ok(permit) => {
                self.waited.observe(permit.waited().as_secs_f64());
                Ok(Pass { _permit: permit, _at_work: Counted::in_(&self.at_work) })
            }
            Err(why) => {
                self.refused.note(&self.name, why.word());
                Err(ApiError::overloaded(text(&self.name, why)))
            }
        }
    }
}

fn text(gate: &str, why: Shed) -> String {
    match why {
        Shed::Full => format!("too many requests wait ({gate})"),
        Shed::Standing => format!("requests have been waiting for some time ({gate})"),
        Shed::Late => format!("the request's turn didn't come in time ({gate})"),
    }
}

/// What was refused: each is counted, and a line a second says how many they are.
pub struct Refusals {
    shed: Counters,
    log: Mutex<Option<(Instant, u64)>>,
}

impl Default for Refusals {
    fn default() -> Self {
        let shed = metrics::counters("api_shed", "Requests and connections refused for overload, by gate and reason");
        Refusals { shed, log: Mutex::default() }
    }
}

impl Refusals {
    /// Notes one.
    pub fn note(&self, gate: &str, reason: &str) {
        self.shed.get_or_create(&vec![("gate", gate.to_owned()), ("reason", reason.to_owned())]).inc();
        let now = Instant::now();
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, refused) = log.get_or_insert((now, 0));
        *refused += 1;
        if *refused == 1 || now.duration_since(*told) >= Duration::from_secs(1) {
            tracing::warn!(gate, reason, refused = *refused, "overload: requests are refused");
            *log = Some((now, u64::from(*refused == 1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_an_address_or_a_network() {
        let site = |text: &str| site(text.parse().unwrap()).to_string();
        assert_eq!(site("192.0.2.7"), "192.0.2.7");
        assert_eq!(site("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(site("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[tokio::test]
    async fn each_service_has_its_gate() {
        let catalogue = Catalogue::embedded().unwrap();
        let patience = Patience { longest: Duration::ZERO, target: Duration::ZERO, standing: Duration::ZERO };
        let queues = Queues { at_work: 1, account: 1, patience, ..Queues::default() };
        let gates = Gates::new(&catalogue, &queues);
        let system = Principal::system();
        let pass = |name: &'static str| {
            let (gates, system, catalogue) = (&gates, &system, &catalogue);
            async move { gates.pass(system, catalogue.command(name).unwrap()).await }
        };
        let held = pass("listZones").await.unwrap();
        let refused = pass("listZones").await.err().unwrap();
        assert_eq!((refused.code, refused.cs_code), (503, 9999));
        // Another service, what the gateway answers itself, and what is quick go on.
        for name in ["listDomains", "listApis", "queryAsyncJobResult"] {
            assert!(pass(name).await.is_ok(), "{name}");
        }
        drop(held);
        assert!(pass("listZones").await.is_ok());
    }
}
