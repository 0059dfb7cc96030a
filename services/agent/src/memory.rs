//! What jobs' orders gave: a repeat is answered as the first was, an undo that came first refuses the do.

use contract::ApiError;
use contract_agent::state_entry::Body;
use contract_agent::{Effect, Execute, Outcome};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// More effects than this are kept only while they are fresh.
const PLENTY: usize = 500_000;
/// An hour, in microseconds: longer than any worker takes to come back to a step.
const FRESH: i64 = 3_600_000_000;

/// The identity of an effect on a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EffectKey {
    pub host: String,
    pub job: i64,
    pub step: String,
}

impl EffectKey {
    /// None for orders that aren't a job's.
    pub fn of(order: &Execute) -> Option<EffectKey> {
        (order.job_id != 0).then(|| EffectKey {
            host: order.host_uuid.clone(),
            job: order.job_id,
            step: order.step.clone(),
        })
    }
}

/// What is known of an effect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Known {
    /// It took place.
    Done(Outcome),
    /// It is being taken back, or that failed: the do is refused.
    Undoing,
    /// It was taken back, or never took place and never will.
    Undone(Outcome),
}

#[derive(Default)]
struct Job {
    epoch: i64,
    steps: HashMap<String, (Known, i64)>,
}

/// The memory of all hosts of an agent.
pub(crate) struct Memory {
    keep: i64,
    hosts: HashMap<String, HashMap<i64, Job>>,
    /// By age, to forget the oldest; an entry that was renewed since is skipped.
    order: VecDeque<(i64, EffectKey)>,
}

impl Memory {
    /// Forgets what is older than `keep`.
    pub fn new(keep: Duration) -> Memory {
        let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        Memory { keep, hosts: HashMap::new(), order: VecDeque::new() }
    }

    /// Refuses a worker that was replaced; remembers the highest epoch of a job.
    pub fn fence(&mut self, key: &EffectKey, epoch: i64) -> Result<(), ApiError> {
        let jobs = self.hosts.entry(key.host.clone()).or_default();
        if !jobs.contains_key(&key.job) {
            // So that a job whose orders all fail is forgotten too.
            self.order.push_back((store::now_micros(), EffectKey { step: String::new(), ..key.clone() }));
        }
        let job = jobs.entry(key.job).or_default();
        if epoch < job.epoch {
            return Err(ApiError::concurrent(format!(
                "job {} is run by another worker now: epoch {epoch} is over, {} counts",
                key.job, job.epoch
            )));
        }
        job.epoch = epoch;
        Ok(())
    }

    /// The highest epoch that was seen of the key's job.
    pub fn epoch(&self, key: &EffectKey) -> i64 {
        self.hosts.get(&key.host).and_then(|jobs| jobs.get(&key.job)).map_or(0, |job| job.epoch)
    }

    pub fn known(&self, key: &EffectKey) -> Option<&Known> {
        self.hosts.get(&key.host)?.get(&key.job)?.steps.get(&key.step).map(|(known, _)| known)
    }

    /// Remembers, and gives the entry for the state file.
    pub fn remember(&mut self, key: &EffectKey, known: Known, now: i64) -> Body {
        let entry = entry(key, self.epoch(key), &known, now);
        self.put(key, known, now);
        entry
    }

    fn put(&mut self, key: &EffectKey, known: Known, at: i64) {
        let job = self.hosts.entry(key.host.clone()).or_default().entry(key.job).or_default();
        job.steps.insert(key.step.clone(), (known, at));
        self.order.push_back((at, key.clone()));
    }

    /// Takes over an entry of the state file.
    pub fn load(&mut self, effect: Effect) {
        let key = EffectKey { host: effect.host_uuid, job: effect.job_id, step: effect.step };
        let known = match (effect.undone, effect.outcome) {
            (false, outcome) => Known::Done(outcome.unwrap_or_default()),
            (true, Some(outcome)) => Known::Undone(outcome),
            (true, None) => Known::Undoing,
        };
        self.put(&key, known, effect.at);
        let job = self.hosts.entry(key.host).or_default().entry(key.job).or_default();
        job.epoch = job.epoch.max(effect.job_epoch);
    }

    /// Drops all that is known of a host.
    pub fn forget_host(&mut self, host: &str) {
        self.hosts.remove(host);
    }

    /// Drops what is too old, and of more than [`PLENTY`] what isn't fresh. Amortised: each entry is looked at once.
    pub fn expire(&mut self, now: i64) {
        while let Some((at, key)) = self.order.front() {
            let age = now.saturating_sub(*at);
            if age < self.keep && (self.order.len() <= PLENTY || age < FRESH) {
                return;
            }
            if let Some(jobs) = self.hosts.get_mut(&key.host)
                && let Some(job) = jobs.get_mut(&key.job)
            {
                if job.steps.get(&key.step).is_some_and(|(_, known_at)| known_at == at) {
                    job.steps.remove(&key.step);
                }
                if job.steps.is_empty() {
                    jobs.remove(&key.job);
                }
            }
            self.order.pop_front();
        }
    }

    /// All of it, oldest first.
    pub fn entries(&self) -> Vec<Body> {
        let mut entries = Vec::with_capacity(self.order.len());
        for (at, key) in &self.order {
            let job = self.hosts.get(&key.host).and_then(|jobs| jobs.get(&key.job));
            let step = job.and_then(|job| job.steps.get(&key.step).map(|(known, known_at)| (job, known, known_at)));
            if let Some((job, known, known_at)) = step
                && known_at == at
            {
                entries.push(entry(key, job.epoch, known, *at));
            }
        }
        entries
    }
}

fn entry(key: &EffectKey, epoch: i64, known: &Known, at: i64) -> Body {
    let (undone, outcome) = match known {
        Known::Done(outcome) => (false, Some(outcome.clone())),
        Known::Undoing => (true, None),
        Known::Undone(outcome) => (true, Some(outcome.clone())),
    };
    Body::Effect(Effect {
        host_uuid: key.host.clone(),
        job_id: key.job,
        step: key.step.clone(),
        job_epoch: epoch,
        undone,
        outcome,
        at,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    fn key(step: &str) -> EffectKey {
        EffectKey { host: "h".into(), job: 7, step: step.into() }
    }

    #[test]
    fn replaced_workers_are_refused() {
        let mut memory = Memory::new(Duration::from_secs(60));
        memory.fence(&key("a"), 3).unwrap();
        assert!(memory.fence(&key("b"), 2).is_err());
        memory.fence(&key("b"), 3).unwrap();
        memory.fence(&key("b"), 4).unwrap();
        assert!(memory.fence(&key("a"), 3).is_err());
    }

    #[test]
    fn old_effects_are_forgotten_and_fresh_ones_kept() {
        let mut memory = Memory::new(Duration::from_secs(1));
        memory.remember(&key("a"), Known::Done(Outcome::default()), 0);
        memory.remember(&key("b"), Known::Undoing, 10);
        memory.remember(&key("a"), Known::Undone(Outcome::default()), 900_000);
        memory.expire(1_000_020);
        assert_eq!(memory.known(&key("a")), Some(&Known::Undone(Outcome::default())));
        assert_eq!(memory.known(&key("b")), None);
        memory.expire(2_000_000);
        assert_eq!(memory.known(&key("a")), None);
        assert!(memory.hosts["h"].is_empty());
    }

    #[test]
    fn jobs_whose_orders_fail_are_forgotten() {
        let mut memory = Memory::new(Duration::from_secs(1));
        memory.fence(&key("a"), 3).unwrap();
        assert_eq!(memory.epoch(&key("a")), 3);
        memory.expire(store::now_micros() + 2_000_000);
        assert!(memory.hosts["h"].is_empty());
        assert!(memory.order.is_empty());
    }

    #[test]
    fn the_state_file_brings_everything_back() {
        let mut memory = Memory::new(Duration::from_secs(60));
        memory.fence(&key("a"), 5).unwrap();
        memory.remember(&key("a"), Known::Done(Outcome::default()), 1);
        memory.remember(&key("b"), Known::Undoing, 2);
        memory.remember(&key("c"), Known::Undone(Outcome::default()), 3);
        memory.remember(&key("a"), Known::Undone(Outcome::default()), 4);
        let mut again = Memory::new(Duration::from_secs(60));
        for entry in memory.entries() {
            let Body::Effect(effect) = entry else { panic!("{entry:?}") };
            again.load(effect);
        }
        for step in ["a", "b", "c"] {
            assert_eq!(again.known(&key(step)), memory.known(&key(step)));
        }
        assert!(again.fence(&key("x"), 4).is_err());
    }
}
