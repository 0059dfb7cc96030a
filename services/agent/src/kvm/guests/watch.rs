//! What libvirt tells of guests. An event is only a reason to ask: what counts is the answer.

use super::domain::Described;
use super::migrate::was_sent;
use super::{Guest, Guests, Lines, Permit, Phase, ended};
use crate::lease::Tenure;
use contract_agent::{PowerReason, PowerState};
use libvirt::domain::PausedReason;
use libvirt::events::{LifecycleChange, StoppedDetail};
use libvirt::{DomainRef, DomainState, Event, EventStream, ListFlags, State, XmlFlags};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

/// Between two looks at all guests, though events tell: what was missed is noticed then.
const LOOK: Duration = Duration::from_secs(30);
/// After a daemon that answers, but doesn't say what runs.
const PAUSE: Duration = Duration::from_secs(1);

impl Guests {
    /// Listens, for ever.
    pub(super) async fn watch(self: &Arc<Self>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        loop {
            match events.take() {
                Some(stream) => self.listen_to(stream).await,
                None => {
                    let opened = self.daemon.open().await;
                    self.daemon.publish(Some(opened.lines.clone()));
                    match self.list(&opened.lines, false).await {
                        Ok(()) => tracing::info!("libvirt answers again"),
                        Err(error) => {
                            tracing::warn!(%error, "libvirt doesn't say what runs; trying again");
                            tokio::time::sleep(PAUSE).await;
                            continue;
                        }
                    }
                    self.kick.notify_one();
                    self.listen_to(opened.events).await;
                }
            }
            self.daemon.publish(None);
            tracing::warn!("the line to libvirt is lost; guests go on");
        }
    }

    /// Until the lines are lost.
    async fn listen_to(self: &Arc<Self>, mut events: EventStream) {
        let Ok(lines) = self.daemon.lines() else { return };
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        loop {
            let heard = tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(Event::Lifecycle { domain, change, detail }) => {
                        self.observe(&lines, domain.uuid, end(change, detail), false).await
                    }
                    Some(Event::Missed(_)) => self.list(&lines, false).await,
                    Some(_) => Ok(()),
                },
                _ = look.tick() => self.list(&lines, false).await,
                _ = lines.orders.lost() => return,
            };
            if let Err(error) = heard {
                tracing::warn!(%error, "libvirt doesn't say what became of a guest");
            }
        }
    }

    /// Looks at all guests; `first`: nothing of it is news.
    pub(super) async fn list(self: &Arc<Self>, lines: &Lines, first: bool) -> Result<(), libvirt::Error> {
        let mut vms: BTreeSet<Uuid> = {
            let table = self.table();
            let settled = table.guests.values().filter(|guest| guest.phase == Phase::Settled || guest.phase.moves());
            settled.map(|guest| guest.domain.uuid).collect()
        };
        vms.extend(lines.keeper.domains(ListFlags::ACTIVE).await?.into_iter().map(|domain| domain.uuid));
        for vm in vms {
            // Nobody saw how it ended: not by an order.
            self.observe(lines, vm, Some(PowerReason::Guest), first).await?;
        }
        Ok(())
    }

    /// Looks at one guest. `end`: why it has ended, if it has; none: whoever knows that will tell.
    async fn observe(
        self: &Arc<Self>,
        lines: &Lines,
        vm: Uuid,
        end: Option<PowerReason>,
        first: bool,
    ) -> Result<(), libvirt::Error> {
        let Some((domain, state)) = look_at(lines, vm).await? else {
            if let Some(reason) = end {
                self.has_ended(&vm.to_string(), reason);
            }
            return Ok(());
        };
        let known = self.table().guests.get(&vm.to_string()).map(|guest| guest.domain.id);
        match known {
            Some(id) if id == domain.id || id < 0 => {
                self.update(&vm.to_string(), state);
                Ok(())
            }
            Some(_) if self.has_rebooted(lines, &domain).await? => Ok(()),
            // Another run, that no order began: what was known of the former one means nothing.
            Some(_) => {
                self.has_ended(&vm.to_string(), end.unwrap_or(PowerReason::Guest));
                self.discover(lines, domain, state, first).await
            }
            None => self.discover(lines, domain, state, first).await,
        }
    }

    fn has_ended(self: &Arc<Self>, vm: &str, reason: PowerReason) {
        let gone = {
            let mut table = self.table();
            match table.guests.get(vm).map(|guest| guest.phase) {
                Some(Phase::Settled | Phase::Moving | Phase::Waiting { .. }) => table.guests.remove(vm),
                // Whoever is at it looks.
                Some(Phase::Starting | Phase::Ending) | None => None,
            }
        };
        if let Some(guest) = gone {
            tracing::info!(vm, name = guest.domain.name, ?reason, phase = ?guest.phase, "a guest has ended by itself");
            // That of a copy that waited says nothing of the VM.
            if !matches!(guest.phase, Phase::Waiting { .. }) {
                self.tell(ended(&guest, reason, 0));
            }
            self.moves.forget(vm);
            self.leave(vm, guest);
        }
        self.touch();
    }

    fn update(&self, vm: &str, state: State) {
        let power = power(state);
        let news = {
            let mut table = self.table();
            let Some(guest) = table.guests.get_mut(vm) else { return };
            let told = guest.phase == Phase::Settled || guest.phase.moves();
            // Nobody sends it any more, and it goes on.
            let stays = guest.phase == Phase::Moving && power == PowerState::On && !self.moves.sends(vm);
            if !told || guest.kept.is_some() || guest.frozen || (guest.power == power && !stays) {
                None
            } else if guest.phase == Phase::Moving {
                drop(table);
                // Without a sending nobody else would notice that it goes on.
                self.note_moving(vm, state, !self.moves.sends(vm));
                self.table().guests.get(vm).map(Guest::state)
            } else if guest.phase != Phase::Settled {
                // Nobody may let a copy run that waits: the keeper pauses it.
                guest.power = power;
                self.kick.notify_one();
                None
            } else {
                guest.power = power;
                if power == PowerState::On {
                    guest.reason = PowerReason::Unspecified;
                }
                Some(guest.state())
            }
        };
        if let Some(state) = news {
            tracing::info!(vm, ?power, "a guest's power state changed");
            self.tell(state);
        }
        self.touch();
    }

    /// A domain that isn't known yet: of an earlier run of the agent, or made while the line was lost.
    async fn discover(
        self: &Arc<Self>,
        lines: &Lines,
        domain: DomainRef,
        state: State,
        first: bool,
    ) -> Result<(), libvirt::Error> {
        let xml = match lines.keeper.xml(&domain, XmlFlags::none()).await {
            Ok(xml) => xml,
            Err(error) if error.is_no_domain() => return Ok(()),
            Err(error) => return Err(error),
        };
        let described = match Described::read(&xml) {
            Ok(Some(described)) => described,
            Ok(None) => return Ok(()), // somebody else's
            Err(error) => {
                tracing::warn!(domain = domain.name, error, "a domain's description can't be read");
                return Ok(());
            }
        };
        // Only the keeper pauses guests so, and a start that was cut off: either way the lease decides.
        let held =
            matches!(state.paused(), Some(PausedReason::USER | PausedReason::UNKNOWN | PausedReason::STARTING_UP));
        let vm = domain.uuid.to_string();
        let process = self.daemon.process_of(domain.uuid);
        let frozen = process.as_ref().is_some_and(|process| process.is_frozen());
        self.keep_confined(&vm, process.as_ref(), xml);
        let (waits, runs) = (described.waits, state.running().is_some());
        let (phase, reason) = match waits {
            // Paused by the end of its migration, else it isn't whole.
            true => (Phase::Waiting { whole: state.paused() == Some(PausedReason::USER) }, PowerReason::Waiting),
            false if was_sent(state) => (Phase::Moving, PowerReason::Sent),
            false if held || frozen => (Phase::Settled, PowerReason::LeaseUnreadable),
            false => (Phase::Settled, PowerReason::Unspecified),
        };
        let guest = Guest {
            permit: Permit::new(Tenure::unknown(described.generation)),
            process,
            phase,
            power: if frozen { PowerState::Paused } else { power(state) },
            reason,
            kept: None,
            frozen,
            domain,
            described,
        };
        let (domain, generation) = (guest.domain.clone(), guest.described.generation);
        let news = {
            let mut table = self.table();
            if table.guests.contains_key(&vm) {
                return Ok(()); // an order was faster
            }
            tracing::info!(vm, name = guest.domain.name, power = ?guest.power, ?phase, "a guest runs");
            let news = guest.state();
            // It runs, so it was claimed: whatever becomes of it, that is given back.
            if !waits {
                table.claims.found(vm.clone(), &guest.described.pool, generation);
            }
            table.guests.insert(vm.clone(), guest);
            news
        };
        if phase == (Phase::Waiting { whole: false }) {
            // Who prepared it is no more, so nobody goes on with it.
            tokio::spawn(self.clone().discard(vm, generation));
        } else if runs {
            self.call_off(lines, &domain).await;
        }
        if !first {
            self.tell(news);
            self.kick.notify_one();
        }
        self.touch();
        Ok(())
    }

    /// A guest is no more. Once its QEMU is gone too, its lease and its bridges are let go.
    pub(super) fn leave(self: &Arc<Self>, vm: &str, guest: Guest) {
        *self.table().leaving.entry(vm.to_owned()).or_default() += 1;
        let (guests, vm) = (self.clone(), vm.to_owned());
        tokio::spawn(async move {
            if let Some(process) = &guest.process {
                process.gone().await;
            }
            {
                let mut table = guests.table();
                if let Some(count) = table.leaving.get_mut(&vm) {
                    *count -= 1;
                    if *count == 0 {
                        table.leaving.remove(&vm);
                    }
                }
            }
            guests.let_go(&vm, &guest).await;
        });
    }

    /// A guest and its QEMU are gone: its lease and its bridges are let go.
    pub(in crate::kvm) async fn let_go(&self, vm: &str, guest: &Guest) {
        {
            let _turn = self.turn(vm).await;
            self.give_back(vm).await;
        }
        if let Some(parts) = self.parts() {
            parts.network.unplug(&guest.described.nics).await;
        }
    }
}

/// A domain and what it does; none when it doesn't run.
pub(in crate::kvm) async fn look_at(lines: &Lines, vm: Uuid) -> Result<Option<(DomainRef, State)>, libvirt::Error> {
    let look = async {
        let domain = lines.keeper.domain_by_uuid(vm).await?;
        let state = lines.keeper.state(&domain).await?;
        Ok((domain, state))
    };
    match look.await {
        Ok((domain, state)) if domain.id >= 0 && state.state != DomainState::SHUT_OFF => Ok(Some((domain, state))),
        Ok(_) => Ok(None),
        Err(error) => {
            let error: libvirt::Error = error;
            if error.is_no_domain() { Ok(None) } else { Err(error) }
        }
    }
}

pub(super) fn power(state: State) -> PowerState {
    match state.state {
        DomainState::PAUSED | DomainState::PM_SUSPENDED | DomainState::CRASHED => PowerState::Paused,
        _ => PowerState::On,
    }
}

/// Why a guest has ended, by the event that says so.
fn end(change: LifecycleChange, detail: i32) -> Option<PowerReason> {
    (change == LifecycleChange::STOPPED).then_some(match StoppedDetail(detail) {
        StoppedDetail::SHUTDOWN | StoppedDetail::CRASHED | StoppedDetail::FAILED => PowerReason::Guest,
        _ => PowerReason::Unspecified,
    })
}
