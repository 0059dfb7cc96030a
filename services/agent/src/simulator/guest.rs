//! What runs in a simulated VM: something that writes to its disk, as long as it may.

use super::driver::Simulator;
use super::screen::Screen;
use crate::lease::{Area, Glance, Holder, Missing, Rules, Standing, Tenure, Written, now};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// A guest, and its permit to write. The permit ends by itself, whether or not anybody looks.
pub(super) struct Guest {
    inner: Mutex<Inner>,
    /// What it shows.
    pub screen: Screen,
}

struct Inner {
    tenure: Tenure,
    /// It heeds no lease: somebody started it behind the control plane's back.
    stray: bool,
    on: bool,
    /// Its host stands still.
    frozen: bool,
    /// It was sent to another host.
    held: bool,
    writes: u64,
}

impl Guest {
    pub fn new(tenure: Tenure) -> Arc<Guest> {
        let inner = Mutex::new(Inner { tenure, stray: false, on: true, frozen: false, held: false, writes: 0 });
        Arc::new(Guest { inner, screen: Screen::default() })
    }

    /// One that heeds no lease.
    pub fn stray(epoch: i64) -> Arc<Guest> {
        let guest = Guest::new(Tenure::unknown(epoch));
        guest.inner().stray = true;
        guest
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn standing(&self, now: Duration) -> Standing {
        let inner = self.inner();
        if inner.stray { Standing::Permitted } else { inner.tenure.standing(now) }
    }

    /// Ends it. A write that is under way is done when this returns, and no other one comes.
    pub fn off(&self) {
        self.inner().on = false;
        self.screen.off();
    }

    pub fn freeze(&self, frozen: bool) {
        self.inner().frozen = frozen;
    }

    /// It was sent to another host, and does nothing any more; or it goes on here after all.
    pub fn hold(&self, held: bool) {
        self.inner().held = held;
    }

    /// Writes once, if it may. None when it may not.
    fn write(&self, area: &Area, vm: &str, host: &str) -> io::Result<Option<Written>> {
        let mut inner = self.inner();
        if !inner.on || inner.frozen || inner.held || inner.tenure.standing(now()) != Standing::Permitted {
            return Ok(None);
        }
        let written = area.write(vm, inner.tenure.epoch(), host, inner.writes + 1)?;
        if written == Written::Yes {
            inner.writes += 1;
        }
        Ok(Some(written))
    }
}

impl Holder for Guest {
    fn looked(&self, rules: Rules, began: Duration, seen: Glance) -> Missing {
        let mut inner = self.inner();
        if inner.stray { Missing::Nothing } else { inner.tenure.looked(rules, began, seen) }
    }

    fn claimed_again(&self, rules: Rules, now: Duration) {
        self.inner().tenure.claimed_again(rules, now);
    }
}

impl Simulator {
    /// Has all guests write, again and again.
    pub async fn write_on(self: Arc<Self>, every: Duration) {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let simulator = self.clone();
            // An error means that the process ends.
            let _ = tokio::task::spawn_blocking(move || simulator.write_once()).await;
        }
    }

    fn write_once(&self) {
        let mut guests = Vec::new();
        for (host, on) in &self.state().hosts {
            let vms = on.vms.iter();
            guests.extend(vms.map(|(uuid, vm)| (host.clone(), uuid.clone(), vm.lease_pool(), vm.guest.clone())));
        }
        for (host, vm, pool, guest) in guests {
            let written = self.areas.of(&pool, None).and_then(|area| guest.write(&area, &vm, &host));
            match written {
                Ok(Some(Written::Refused)) => {
                    tracing::warn!(host, vm, "the pool refused a guest's write: another epoch counts");
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(host, vm, %error, "a guest can't write"),
            }
        }
    }
}
