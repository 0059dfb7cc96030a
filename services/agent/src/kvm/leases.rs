//! Who may run which VM. What is decided by is [`crate::lease`]; here it is done to QEMU: a guest without a permit is paused, one
//! that was taken over is killed.

use super::driver::{Parts, done};
use super::guests::{Deed, Guest, Guests, Lines, Permit, Phase, Table, ended, look_at, told};
use crate::hypervisor::{Done, Failure, Work};
use crate::lease::{self, Area, Reach, Sight, Standing, Tenure, Wanted, now};
use contract::ApiError;
use contract_agent::{EnsurePool, FenceVm, Heartbeat, InspectHost, InspectLease, PowerReason, PowerState, outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Off the threads that everything else runs on: a pool may hang.
struct Blocking;

impl Reach for Blocking {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        match tokio::task::spawn_blocking(question).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(lease::unreachable(error).into()),
            Err(_) => Err(ApiError::unavailable("the agent is ending").into()),
        }
    }
}

/// A VM that may be started. To be kept until it runs, or its claim would be given back.
pub(super) struct Taken<'g> {
    pub tenure: Tenure,
    _taking: Taking<'g>,
}

struct Taking<'g> {
    guests: &'g Guests,
    vm: String,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.guests.table().claims.end(&self.vm);
    }
}

/// What is to be done on one pool in a round.
struct Errand {
    pool: String,
    looks: Vec<(String, i64, Arc<Permit>)>,
    /// Copies that wait: they have no lease to look after, but it may show that nobody wants them any more.
    waiting: Vec<(String, i64)>,
    heartbeat: Heartbeat,
}

impl Guests {
    /// Opens the lease area of a pool; gives its lease time in milliseconds.
    pub(super) async fn open_area(&self, order: &EnsurePool) -> Result<u32, ApiError> {
        let (areas, uuid) = (self.areas.clone(), order.pool_uuid.clone());
        let wanted = (order.lease_millis > 0).then(|| Duration::from_millis(order.lease_millis.into()));
        let area = Blocking.ask(move || areas.of(&uuid, wanted)).await.map_err(refused)?;
        Ok(lease::millis(area.rules().lease()))
    }

    /// Who has claimed a VM.
    pub(super) async fn sight(&self, vm: &str, pool: &str) -> Result<Sight, Failure> {
        let (area, vm) = (self.area(pool).await?, vm.to_owned());
        Blocking.ask(move || area.read(&vm)).await
    }

    async fn area(&self, pool: &str) -> Result<Arc<Area>, Failure> {
        let (areas, pool) = (self.areas.clone(), pool.to_owned());
        Blocking.ask(move || areas.of(&pool, None)).await
    }

    /// Gets a VM for this host: at once, or after two lease times.
    pub(super) async fn take(&self, work: &Work, wanted: Wanted<'_>) -> Result<Taken<'_>, Failure> {
        let area = self.area(wanted.pool).await?;
        self.table().claims.begin(wanted.vm, wanted.pool, wanted.epoch);
        let taking = Taking { guests: self, vm: wanted.vm.to_owned() };
        let given_up = async {
            match work.undo {
                true => std::future::pending().await,
                false => work.taken_back().await,
            }
        };
        let tenure = lease::take(&Blocking, &area, work.host(), wanted, given_up).await?;
        Ok(Taken { tenure, _taking: taking })
    }

    /// Gives back what is claimed of a VM that is certainly no more. What fails is tried again by the keeper. Whoever calls
    /// it has the VM's turn: a start that wants this very epoch again comes before or after, not in between.
    pub(super) async fn give_back(&self, vm: &str) {
        let Some(parts) = self.parts() else { return };
        let claim = {
            let table = self.table();
            table.is_idle(vm).then(|| table.claims.idle(vm).cloned()).flatten()
        };
        let Some(claim) = claim else { return };
        if let Some(roots) = &self.roots
            && let Err(error) = roots.release(vm).await
        {
            return tracing::warn!(vm, %error, "a container's lease isn't given back as long as its root is mounted");
        }
        let (areas, name, host) = (self.areas.clone(), vm.to_owned(), parts.host.clone());
        match Blocking.ask(move || areas.of(&claim.pool, None)?.free(&name, claim.epoch, &host)).await {
            Ok(()) => self.table().claims.remove(vm),
            Err(error) => tracing::debug!(vm, ?error, "a lease can't be given back yet"),
        }
    }

    /// Forgets claims that lost against one that has won. Not waited for: nothing depends on it.
    pub(super) fn clear_below(&self, vm: &str, pool: &str, epoch: i64) {
        let Some(parts) = self.parts() else { return };
        let (areas, vm, pool, host) = (self.areas.clone(), vm.to_owned(), pool.to_owned(), parts.host.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = areas.of(&pool, None).and_then(|area| area.clear_below(&vm, epoch, &host)) {
                tracing::debug!(vm, %error, "old claims can't be cleared away");
            }
        });
    }

    /// A VM is no more: what was claimed of it on a pool goes.
    pub(super) async fn forget_vm(&self, host: &str, vm: &str, pool: &str) -> Result<(), Failure> {
        let _turn = self.turn(vm).await;
        self.give_back(vm).await;
        let (area, vm, host) = (self.area(pool).await?, vm.to_owned(), host.to_owned());
        Blocking.ask(move || area.forget(&vm, &host)).await
    }

    pub async fn inspect_lease(&self, work: &Work, order: InspectLease) -> Result<Done, Failure> {
        let area = self.area(&order.pool_uuid).await?;
        let state = lease::inspect(&Blocking, &area, &order).await?;
        done(work, outcome::Body::Lease(state))
    }

    pub async fn inspect_host(&self, work: &Work, order: InspectHost) -> Result<Done, Failure> {
        let area = self.area(&order.pool_uuid).await?;
        let state = lease::inspect_host(&Blocking, &area, &order).await?;
        done(work, outcome::Body::Heartbeat(state))
    }

    pub async fn fence(self: &Arc<Self>, work: &Work, order: FenceVm) -> Result<Done, Failure> {
        let _turn = self.turn(&order.vm_uuid).await;
        let wanted = Wanted { vm: &order.vm_uuid, pool: &order.pool_uuid, epoch: order.generation, take_over: true };
        let taken = self.take(work, wanted).await?;
        let area = self.area(wanted.pool).await?;
        // The keeper may have seen to it already.
        self.end_copy(wanted.vm, wanted.epoch).await?;
        let state = lease::fenced(&area, work.host(), wanted);
        let done = work.commit(|entries| {
            let mut table = self.table();
            table.asked(wanted.vm, wanted.epoch, work.host(), entries);
            Ok((outcome::Body::Lease(state), table))
        })?;
        drop(taken);
        self.give_back(wanted.vm).await;
        self.clear_below(wanted.vm, wanted.pool, wanted.epoch);
        Ok(done)
    }

    /// Before the agent says hello: copies that were taken over while it was away are ended, others paused that may not
    /// go on. Claims of guests that are no more are given back beside.
    pub(super) async fn first_round(self: &Arc<Self>, parts: &Parts) {
        let rounds: Vec<_> = self.errands(parts).into_iter().map(|errand| self.begin(errand)).collect();
        let wait = async {
            for round in rounds {
                let _ = round.await; // an error means that the process ends
            }
        };
        // A pool that hangs holds nobody up: without a look nothing is permitted.
        let _ = tokio::time::timeout(lease::pause(self.areas.shortest()), wait).await;
        for deed in self.sweep() {
            let _ = deed.await;
        }
        let guests = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = guests.find_claims() {
                tracing::warn!(%error, "the pools' leases can't be read");
            }
            guests.kick.notify_one();
        });
    }

    /// Looks for ever.
    pub(super) async fn keep_leases(self: &Arc<Self>, parts: &Parts) {
        let mut running: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
        loop {
            let pause = lease::pause(self.areas.shortest());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.kick.notified() => {}
            }
            running.retain(|_, round| !round.is_finished());
            // A pool that doesn't answer holds up nothing but its own guests; their permits end nevertheless.
            for errand in self.errands(parts) {
                if !running.contains_key(&errand.pool) {
                    running.insert(errand.pool.clone(), self.begin(errand));
                }
            }
            // Not waited for: a guest that can't be paused mustn't hold up the others.
            drop(self.sweep());
            let idle: Vec<String> = {
                let table = self.table();
                table.claims.all_idle().filter(|vm| table.is_idle(vm)).cloned().collect()
            };
            for vm in idle {
                let guests = self.clone();
                tokio::spawn(async move {
                    // Else an order is at it, or this was begun before and its pool hangs.
                    if let Some(_turn) = guests.try_turn(&vm) {
                        guests.give_back(&vm).await;
                    }
                });
            }
        }
    }

    fn errands(&self, parts: &Parts) -> Vec<Errand> {
        let mut table = self.table();
        let Table { guests, pools, beats, .. } = &mut *table;
        let heartbeat = beats.next(&parts.host, &parts.boot_id, self.areas.shortest());
        let mut errands: BTreeMap<&str, Errand> = BTreeMap::new();
        let errand = |pool: &str| Errand {
            pool: pool.to_owned(),
            looks: Vec::new(),
            waiting: Vec::new(),
            heartbeat: heartbeat.clone(),
        };
        for (vm, guest) in guests {
            let errand = errands.entry(&guest.described.pool).or_insert_with(|| errand(&guest.described.pool));
            match guest.described.waits {
                true => errand.waiting.push((vm.clone(), guest.described.generation)),
                false => errand.looks.push((vm.clone(), guest.described.generation, guest.permit.clone())),
            }
        }
        // Where it has no guests others can tell nevertheless that it lives.
        for pool in pools.keys() {
            if !errands.contains_key(pool.as_str()) && beats.is_due(&parts.host, pool) {
                errands.insert(pool, errand(pool));
            }
        }
        errands.into_values().collect()
    }

    /// One look at each guest of a pool, and one heartbeat.
    fn begin(self: &Arc<Self>, errand: Errand) -> JoinHandle<()> {
        let guests = self.clone();
        tokio::task::spawn_blocking(move || {
            let Errand { pool, looks, waiting, heartbeat } = errand;
            let area = match guests.areas.of(&pool, None) {
                Ok(area) => area,
                Err(error) => return tracing::debug!(pool, %error, "a pool's leases can't be reached"),
            };
            for (vm, epoch, permit) in looks {
                if let Err(error) = lease::look(&area, &heartbeat.host_uuid, &vm, epoch, &*permit) {
                    tracing::debug!(vm, %error, "a lease can't be read");
                }
            }
            for (vm, generation) in waiting {
                // A later start counts, here or elsewhere.
                if area.glance(&vm).is_ok_and(|seen| seen.epoch > generation) {
                    tokio::spawn(guests.clone().discard(vm, generation));
                }
            }
            if let Err(error) = area.beat(&heartbeat) {
                tracing::debug!(pool, %error, "a heartbeat can't be written");
            }
        })
    }

    /// Ends what is lost, pauses what isn't permitted, resumes what is again.
    pub(super) fn sweep(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let now = now();
        let mut deeds = Vec::new();
        for (vm, guest) in &mut self.table().guests {
            let deed = match guest.permit.standing(now) {
                // The order that is at it sees to it itself.
                _ if guest.phase == Phase::Starting => continue,
                // Without a lease it mustn't run, whoever let it.
                _ if matches!(guest.phase, Phase::Waiting { .. }) => match guest.power {
                    PowerState::On => Deed::Pause,
                    _ => continue,
                },
                Standing::Over(epoch) => Deed::End(epoch),
                Standing::Unknown if guest.power == PowerState::On => Deed::Pause,
                Standing::Permitted if guest.is_held() => Deed::Resume,
                Standing::Unknown | Standing::Permitted => continue,
            };
            // A guest that hangs while it is paused can be killed.
            let begun = guest.kept.is_some_and(|kept| kept == deed || !matches!(deed, Deed::End(_)));
            if !begun {
                guest.kept = Some(deed);
                deeds.push((vm.clone(), deed));
            }
        }
        deeds.into_iter().map(|(vm, deed)| tokio::spawn(self.clone().carry_out(vm, deed))).collect()
    }

    async fn carry_out(self: Arc<Self>, vm: String, deed: Deed) {
        let result = match deed {
            Deed::Pause => {
                let held = self.hold(&vm, PowerState::Paused).await;
                if let (Ok(()), Some(roots)) = (&held, &self.roots) {
                    roots.freeze(&vm).await;
                }
                held
            }
            Deed::Resume => match &self.roots {
                Some(roots) => match roots.thaw(&vm).await {
                    Ok(()) => self.hold(&vm, PowerState::On).await,
                    Err(error) => Err(error),
                },
                None => self.hold(&vm, PowerState::On).await,
            },
            Deed::End(epoch) => self.lose(&vm, epoch).await,
        };
        if let Err(error) = result {
            tracing::warn!(vm, ?deed, %error, "a guest's lease changed what it may do, but it can't be done; trying again");
        }
        if let Some(guest) = self.table().guests.get_mut(&vm) {
            guest.kept = None;
        }
        self.touch();
    }

    async fn hold(&self, vm: &str, power: PowerState) -> Result<(), ApiError> {
        let known = self.table().guests.get(vm).map(|g| (g.domain.clone(), g.process.clone(), g.frozen, g.phase));
        let Some((domain, process, mut frozen, phase)) = known else { return Ok(()) };
        let lines = self.daemon.lines();
        match (power, lines, process) {
            // libvirt resumes what it couldn't send, and nothing that was sent may be resumed: QEMU stands still instead.
            (PowerState::On, lines, Some(process)) if phase == Phase::Moving => {
                process.thaw();
                return self.thawed(vm, &domain, lines).await;
            }
            (_, _, Some(process)) if phase == Phase::Moving => {
                process.freeze();
                frozen = true;
            }
            (PowerState::On, lines, process) => {
                if let Some(process) = process.filter(|_| frozen) {
                    process.thaw();
                    frozen = false;
                }
                // It may have been paused, too, before it was frozen.
                match lines?.keeper.resume(&domain).await {
                    Err(error) if !error.is_wrong_state() => return Err(told(&error)),
                    _ => {}
                }
            }
            (_, Ok(lines), process) => frozen |= self.pause(&lines.keeper, &domain, process.as_deref()).await?,
            (_, Err(_), Some(process)) => {
                process.freeze();
                frozen = true;
            }
            (_, Err(error), None) => return Err(error),
        }
        let state = {
            let mut table = self.table();
            let Some(guest) = table.guests.get_mut(vm) else { return Ok(()) };
            guest.frozen = frozen;
            guest.power = power;
            guest.reason = match (power, guest.phase) {
                (PowerState::On, _) => PowerReason::Unspecified,
                (_, Phase::Waiting { .. }) => PowerReason::Waiting,
                _ => PowerReason::LeaseUnreadable,
            };
            guest.state()
        };
        tracing::warn!(vm, ?power, frozen, "a guest's lease changed what it may do");
        self.tell(state);
        Ok(())
    }

    /// A guest that is being sent, or was, stood still and goes on with what it did.
    async fn thawed(
        &self,
        vm: &str,
        domain: &libvirt::DomainRef,
        lines: Result<Lines, ApiError>,
    ) -> Result<(), ApiError> {
        if let Some(guest) = self.table().guests.get_mut(vm) {
            (guest.frozen, guest.power, guest.reason) = (false, PowerState::On, PowerReason::Unspecified);
        }
        if let Some((_, state)) = look_at(&lines?, domain.uuid).await.map_err(|e| told(&e))? {
            self.note_moving(vm, state, !self.moves.sends(vm));
        }
        let state = self.table().guests.get(vm).map(Guest::state);
        if let Some(state) = state {
            self.tell(state);
        }
        Ok(())
    }

    /// A VM was taken over: this copy is killed, for QEMU would write its caches if it were asked to end.
    pub(super) async fn lose(self: &Arc<Self>, vm: &str, to: i64) -> Result<(), ApiError> {
        tracing::warn!(vm, epoch = to, "a VM was taken over: this copy is killed");
        // libvirt will say that it ended: that isn't what is to be told.
        let phase = self.set_phase(vm, Phase::Ending);
        if let Err(error) = self.end(vm, true).await {
            if let Some(phase) = phase {
                self.set_phase(vm, phase);
            }
            return Err(error);
        }
        let gone = self.table().guests.remove(vm);
        if let Some(guest) = gone {
            self.tell(ended(&guest, PowerReason::LeaseLost, to));
            // Its process is gone. Beside: an order that has the VM's turn may wait for this.
            let (guests, vm) = (self.clone(), vm.to_owned());
            tokio::spawn(async move { guests.let_go(&vm, &guest).await });
        }
        self.touch();
        Ok(())
    }

    /// Gives the phase that it had.
    pub(super) fn set_phase(&self, vm: &str, phase: Phase) -> Option<Phase> {
        self.table().guests.get_mut(vm).map(|guest| std::mem::replace(&mut guest.phase, phase))
    }

    /// Ends a copy of a VM with a lower generation, which is lost to `below`.
    pub(super) async fn end_copy(self: &Arc<Self>, vm: &str, below: i64) -> Result<(), ApiError> {
        let lower = self.table().guests.get(vm).is_some_and(|guest| guest.described.generation < below);
        if lower { self.lose(vm, below).await } else { Ok(()) }
    }

    /// Which claims on the pools are ours: those of a run that ended before it gave them back are found again.
    fn find_claims(&self) -> io::Result<()> {
        let Some(parts) = self.parts() else { return Ok(()) };
        for pool in self.areas.pools()?.into_iter().collect::<BTreeSet<_>>() {
            let area = self.areas.of(&pool, None)?;
            for (vm, claim) in lease::held(&area)? {
                if claim.host == parts.host {
                    self.table().claims.found(vm, &pool, claim.epoch);
                }
            }
        }
        Ok(())
    }
}

fn refused(failure: Failure) -> ApiError {
    match failure {
        Failure::Refused(error) => error,
        Failure::Silent => ApiError::unavailable("the host says nothing"),
    }
}
