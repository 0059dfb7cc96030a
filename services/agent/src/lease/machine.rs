//! The protocol itself: pure, without input, output or a clock of its own. Driver and model test run this very code.
//!
//! Times are readings of one host's monotonic clock. They are never compared with another host's.

use std::time::Duration;

/// How many lease times a taker waits: one for permits that were given before its claim, one for clocks that differ and
/// writes that are late.
const WAITS: u32 = 2;

/// The times of a pool's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    lease: Duration,
    wait: Duration,
}

impl Rules {
    /// Those of a lease time.
    pub fn of(lease: Duration) -> Rules {
        Rules { lease, wait: lease * WAITS }
    }

    /// Rules that are known to be too short: for tests that must fail with them.
    #[cfg(test)]
    pub fn with_wait(lease: Duration, wait: Duration) -> Rules {
        Rules { lease, wait }
    }

    /// How long a look that found the epoch highest permits writes.
    pub fn lease(self) -> Duration {
        self.lease
    }
}

/// One claim, as it lies on the pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claimed {
    /// Its epoch.
    pub epoch: i64,
    /// The host that made it.
    pub host: String,
    /// That host has stopped the VM and gave it back.
    pub free: bool,
}

/// The highest claim of a VM, as a holder's look finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// Its epoch; 0 when there is none.
    pub epoch: i64,
    /// It was given back.
    pub free: bool,
}

/// All claims of a VM, the highest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sight(Vec<Claimed>);

impl Sight {
    /// What was read, in any order.
    pub fn new(mut claims: Vec<Claimed>) -> Sight {
        claims.sort_by_key(|claim| claim.epoch);
        Sight(claims)
    }

    /// The claim that counts.
    pub fn highest(&self) -> Option<&Claimed> {
        self.0.last()
    }

    /// Its epoch; 0 when the VM was never claimed.
    pub fn epoch(&self) -> i64 {
        self.highest().map_or(0, |claim| claim.epoch)
    }

    /// What a holder needs to know of it.
    #[cfg(test)]
    pub fn glance(&self) -> Glance {
        Glance { epoch: self.epoch(), free: self.highest().is_some_and(|claim| claim.free) }
    }

    /// The highest claim below `epoch` by which another host than `host` may still write.
    fn held_below(&self, epoch: i64, host: &str) -> Option<&Claimed> {
        self.0.iter().rev().find(|claim| claim.epoch < epoch && !claim.free && claim.host != host)
    }
}

/// What a holder may do with its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Run it.
    Permitted,
    /// Pause it: its lease couldn't be read for too long.
    Unknown,
    /// Stop it, for ever: this epoch counts.
    Over(i64),
}

/// A host's right to run one VM in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    epoch: i64,
    /// Writes are permitted until then.
    until: Duration,
    /// Looks that began earlier permit nothing.
    not_before: Duration,
    over: Option<i64>,
}

impl Tenure {
    /// Of a VM that this host ran when its agent ended: nothing is permitted before the first look.
    pub fn unknown(epoch: i64) -> Tenure {
        Tenure { epoch, until: Duration::ZERO, not_before: Duration::ZERO, over: None }
    }

    /// Its epoch.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// A look at the pool that began at `began` gave this. One that failed gives nothing, and isn't told of.
    #[must_use]
    pub fn looked(&mut self, rules: Rules, began: Duration, seen: Glance) -> Missing {
        if seen.epoch > self.epoch {
            self.over = Some(seen.epoch);
        } else if seen.epoch < self.epoch {
            return Missing::Claim;
        } else if seen.free {
            // It was stopped, and the host's own disk doesn't know.
            self.over = Some(self.epoch);
        } else if began >= self.not_before {
            // A look that was overtaken by a later one takes nothing away.
            self.until = self.until.max(began + rules.lease);
        }
        Missing::Nothing
    }

    /// The claim was gone, and was made anew at `now`: whoever else lost its claim has no permit any more after the wait.
    pub fn claimed_again(&mut self, rules: Rules, now: Duration) {
        self.until = Duration::ZERO;
        self.not_before = now + rules.wait;
    }

    /// What may be done at `now`.
    pub fn standing(&self, now: Duration) -> Standing {
        match self.over {
            Some(epoch) => Standing::Over(epoch),
            None if now < self.until => Standing::Permitted,
            None => Standing::Unknown,
        }
    }
}

/// What a holder must put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing.
    Nothing,
    /// Its claim is gone and no higher one is there: the pool was lost. It has to claim again.
    Claim,
}

/// What a taker does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read the claims.
    Read,
    /// Make the claim; that it exists already, by this host, is as good.
    Claim,
    /// Wait until then.
    Wait(Duration),
    /// The VM is this host's, with this tenure.
    Won(Tenure),
    /// A higher epoch counts.
    Lost(Claimed),
    /// Another host holds it, and it may not be taken.
    Held(Claimed),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Looking,
    Claiming,
    Reading { claimed: Duration },
    Waiting { until: Duration },
    Won { began: Duration },
    Ended,
}

/// A host that wants a VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taker {
    rules: Rules,
    host: String,
    epoch: i64,
    stage: Stage,
    end: Option<Step>,
}

impl Taker {
    /// Of `host`, for `epoch`. It takes a VM that another one holds only when it may.
    pub fn new(rules: Rules, host: impl Into<String>, epoch: i64, may_take: bool) -> Taker {
        let stage = if may_take { Stage::Claiming } else { Stage::Looking };
        Taker { rules, host: host.into(), epoch, stage, end: None }
    }

    /// The epoch that it wants.
    #[cfg(test)]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// What to do at `now`.
    pub fn next(&self, now: Duration) -> Step {
        match self.stage {
            Stage::Claiming => Step::Claim,
            Stage::Waiting { until } if now < until => Step::Wait(until),
            Stage::Looking | Stage::Reading { .. } | Stage::Waiting { .. } => Step::Read,
            Stage::Won { began } => {
                let until = began + self.rules.lease;
                Step::Won(Tenure { epoch: self.epoch, until, not_before: Duration::ZERO, over: None })
            }
            Stage::Ended => self.end.clone().unwrap_or(Step::Read),
        }
    }

    /// The claim is on the pool, since `now` at the latest.
    pub fn claimed(&mut self, now: Duration) {
        if self.stage == Stage::Claiming {
            self.stage = Stage::Reading { claimed: now };
        }
    }

    /// A reading that began at `began` gave this.
    pub fn read(&mut self, began: Duration, sight: &Sight) {
        if let Some(highest) = sight.highest().filter(|claim| claim.epoch > self.epoch) {
            return self.end(Step::Lost(highest.clone()));
        }
        let holder = sight.held_below(self.epoch, &self.host);
        match (&self.stage, holder) {
            (Stage::Looking, Some(holder)) => self.end(Step::Held(holder.clone())),
            (Stage::Looking, None) => self.stage = Stage::Claiming,
            (Stage::Reading { claimed }, Some(_)) => {
                self.stage = Stage::Waiting { until: *claimed + self.rules.wait };
            }
            (Stage::Reading { .. }, None) => self.win(began, sight),
            (Stage::Waiting { until }, _) if began >= *until => self.win(began, sight),
            (Stage::Waiting { .. } | Stage::Claiming | Stage::Won { .. } | Stage::Ended, _) => {}
        }
    }

    /// Unless its own claim is gone: then the pool was lost, and all begins anew.
    fn win(&mut self, began: Duration, sight: &Sight) {
        let own = sight.highest().is_some_and(|claim| claim.epoch == self.epoch && claim.host == self.host);
        self.stage = if own { Stage::Won { began } } else { Stage::Claiming };
    }

    fn end(&mut self, step: Step) {
        self.stage = Stage::Ended;
        self.end = Some(step);
    }
}
