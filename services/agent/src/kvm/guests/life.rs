//! Guests from their start to their end.

use super::domain::{self, CpuGroups, Described, Place};
use super::migrate::is_moving;
use super::spec::Checked;
use super::table::{Guest, Permit, Phase};
use super::watch::look_at;
use super::{Guests, Lines, Parts, done, told};
use crate::hypervisor::{Done, Failure, Work};
use crate::kvm::network::Plug;
use crate::kvm::storage::DiskFile;
use crate::lease::{Standing, Wanted, now, outdated};
use contract::ApiError;
use contract_agent::{PowerReason, PowerState, RebootVm, StartVm, StopVm, VmState, outcome};
use libvirt::{
    CreateFlags, DestroyFlags, DomainRef, Event, EventKind, EventStream, RebootFlags, ShutdownFlags, XmlFlags,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How long QEMU may take to be gone after it was ended: longer, and it hangs in the kernel.
const END: Duration = Duration::from_secs(20);
/// How often a guest is asked to shut down: one that boots doesn't hear it.
const ASKED: u32 = 4;
/// Where control groups of version 2 are told by.
const UNIFIED: &str = "/sys/fs/cgroup/cgroup.controllers";

impl Guests {
    pub async fn start(self: &Arc<Self>, work: &Work, parts: &Parts, order: StartVm) -> Result<Done, Failure> {
        let spec = order.vm.ok_or_else(|| ApiError::param("there is no VM to start"))?;
        let vm = Checked::of(&spec)?;
        let _turn = self.turn(&spec.uuid).await;
        if let Some(state) = self.runs(&vm).await? {
            self.limit(parts, &spec.uuid, &vm.nics).await;
            return done(work, outcome::Body::Vm(state));
        }
        let mut plugs = Vec::new();
        for nic in &vm.nics {
            plugs.push(parts.network.plug(nic).await?);
        }
        let files = vm.disks.iter().map(|disk| parts.storage.disk_file(&disk.pool, &disk.path));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        self.check_container(&vm, &files)?;
        let cd = vm.cd.as_ref().map(|cd| parts.storage.iso_file(&cd.pool, &cd.iso.to_string())).transpose()?;
        let wanted = Wanted { vm: &spec.uuid, pool: &vm.pool, epoch: vm.generation, take_over: order.take_over };
        let started = self.start_taken(work, parts, &vm, wanted, (plugs, files, cd)).await;
        match &started {
            Ok(_) => self.clear_below(wanted.vm, wanted.pool, wanted.epoch),
            Err(_) => {
                self.give_back(wanted.vm).await;
                parts.network.unplug(&vm.nics).await;
            }
        }
        self.touch();
        started
    }

    async fn start_taken(
        self: &Arc<Self>,
        work: &Work,
        parts: &Parts,
        vm: &Checked,
        wanted: Wanted<'_>,
        (plugs, files, cd): (Vec<Plug>, Vec<DiskFile>, Option<PathBuf>),
    ) -> Result<Done, Failure> {
        let taken = self.take(work, wanted).await?;
        if self.adopt(vm, taken.tenure).await?.is_some() {
            self.limit(parts, wanted.vm, &vm.nics).await;
            return self.note_start(work, vm, wanted);
        }
        // A former copy, or what a start left that was cut off.
        self.end_former(wanted.vm).await?;
        let contained = match &self.roots {
            Some(roots) => Some(self.contained(roots, parts, vm, &plugs, &files).await?),
            None => None,
        };
        let place = Place {
            acceleration: &parts.acceleration,
            cpu_model: self.options.cpu_model.as_deref(),
            cpu_limits: self.cpu_groups(parts),
            plugs: plugs.iter().map(|plug| (plug.bridge.clone(), plug.mtu)).collect(),
            files,
            cd,
        };
        let xml = match contained {
            Some(xml) => xml,
            None => domain::domain(vm, &place).write().map_err(ApiError::param)?,
        };
        let described = Described {
            generation: vm.generation,
            pool: vm.pool.clone(),
            digest: vm.digest.clone(),
            waits: false,
            nics: vm.nics.clone(),
            disks: Vec::new(),
            drive: None,
            vnc: None,
        };
        let guest = Guest {
            domain: DomainRef { name: vm.name.clone(), uuid: vm.uuid, id: -1 },
            described,
            permit: Permit::new(taken.tenure),
            process: None,
            phase: Phase::Starting,
            power: PowerState::Paused,
            reason: PowerReason::Unspecified,
            kept: None,
            frozen: false,
        };
        self.table().guests.insert(wanted.vm.to_owned(), guest);
        let booted = match self.boot(vm.uuid, &xml).await {
            Ok(()) => {
                self.limit(parts, wanted.vm, &vm.nics).await;
                self.note_start(work, vm, wanted)
            }
            Err(error) => Err(error.into()),
        };
        if booted.is_err() {
            // Nothing of it stays. What can't be ended is found again by its metadata; without a permit it never runs.
            if let Err(error) = self.end(wanted.vm, true).await {
                tracing::warn!(vm = wanted.vm, %error, "a guest that couldn't be started can't be ended");
            }
            if let Some(mut gone) = self.table().guests.remove(wanted.vm) {
                gone.process = gone.process.or_else(|| self.daemon.process_of(vm.uuid));
                if gone.process.is_some() {
                    self.leave(wanted.vm, gone);
                }
            }
        }
        booted
    }

    fn note_start(&self, work: &Work, vm: &Checked, wanted: Wanted<'_>) -> Result<Done, Failure> {
        work.commit(|entries| {
            let mut table = self.table();
            let state = table.guests.get(wanted.vm).map(Guest::state);
            let state = state.ok_or_else(|| ApiError::failed(format!("VM {} ended as soon as it ran", vm.name)))?;
            table.asked(wanted.vm, wanted.epoch, work.host(), entries);
            Ok((outcome::Body::Vm(state), table))
        })
    }

    /// Brings a domain to life, and lets it run if its lease permits.
    pub(super) async fn boot(self: &Arc<Self>, vm: Uuid, xml: &str) -> Result<(), ApiError> {
        let lines = self.daemon.lines()?;
        let key = vm.to_string();
        // Paused: whether it may run is looked at when it could.
        let flags = if self.roots.is_none() { CreateFlags::PAUSED } else { self.flags_of_container(&key)? };
        let domain = lines.orders.create_transient(xml, flags).await.map_err(|e| refusal(&e))?;
        let live = lines.orders.xml(&domain, XmlFlags::none()).await.map_err(|e| told(&e))?;
        let described = Described::read(&live).map_err(ApiError::internal)?;
        let described = described.ok_or_else(|| ApiError::internal("libvirt keeps no metadata of the domain"))?;
        let process = self.daemon.process_of(vm);
        let permit = {
            let mut table = self.table();
            let Some(guest) = table.guests.get_mut(&key) else {
                return Err(ApiError::concurrent("the VM was taken over while it started"));
            };
            (guest.domain, guest.described, guest.process) = (domain.clone(), described, process.clone());
            guest.permit.clone()
        };
        self.let_run(&lines, &domain, &permit).await?;
        self.confine(process, &live).await
    }

    /// Lets a paused domain run if its lease permits; if not, it stays paused until that does.
    pub(super) async fn let_run(&self, lines: &Lines, domain: &DomainRef, permit: &Permit) -> Result<(), ApiError> {
        let (vm, key) = (domain.uuid, domain.uuid.to_string());
        self.kick.notify_one();
        if let Standing::Over(epoch) = permit.standing(now()) {
            return Err(ApiError::concurrent(format!(
                "the VM was taken over with generation {epoch} while it started"
            )));
        }
        let (permitted, mut frozen) = (permit.standing(now()) == Standing::Permitted, false);
        if permitted {
            match lines.orders.resume(domain).await {
                // Containers run from the beginning.
                Err(error) if self.roots.is_none() || !error.is_wrong_state() => return Err(told(&error)),
                _ => {}
            }
        } else if self.roots.is_some() {
            let process = self.table().guests.get(&key).and_then(|guest| guest.process.clone());
            frozen = self.pause(&lines.orders, domain, process.as_deref()).await?;
        }
        {
            let mut table = self.table();
            let Some(guest) = table.guests.get_mut(&key) else {
                return Err(ApiError::concurrent("the VM was taken over while it started"));
            };
            guest.phase = Phase::Settled;
            guest.frozen |= frozen;
            // What was done counts: what its lease permits by now the keeper looks at.
            if permitted {
                (guest.power, guest.reason) = (PowerState::On, PowerReason::Unspecified);
            } else {
                // The keeper resumes it when its lease can be read again.
                guest.reason = PowerReason::LeaseUnreadable;
            }
        }
        // From here on events count; this is for those that came before.
        match look_at(lines, vm).await.map_err(|e| told(&e))? {
            Some(_) => Ok(()),
            None => Err(ApiError::failed("The VM ended as soon as it ran: see QEMU's log on the host")),
        }
    }

    /// The VM, when it runs here as this order wants it. Refuses what is out of date.
    async fn runs(self: &Arc<Self>, vm: &Checked) -> Result<Option<VmState>, Failure> {
        let key = vm.uuid.to_string();
        let (resume, state) = {
            let table = self.table();
            let known = table.generation(&key);
            if vm.generation < known {
                return Err(outdated(&vm.name, known, vm.generation).into());
            }
            let same =
                |guest: &&Guest| guest.described.generation == vm.generation && guest.described.digest == vm.digest;
            let Some(guest) = table.guests.get(&key).filter(same) else { return Ok(None) };
            match guest.phase {
                // It is let go on once its lease is taken.
                Phase::Waiting { .. } => return Ok(None),
                Phase::Moving => return Err(is_moving().into()),
                _ => {}
            }
            let paused = guest.power == PowerState::Paused && !guest.is_held();
            (paused.then(|| guest.domain.clone()), guest.state())
        };
        // It is as it was ordered only if libvirt says so now.
        let lines = self.daemon.lines()?;
        if look_at(&lines, vm.uuid).await.map_err(|e| told(&e))?.is_none() {
            return Ok(None);
        }
        let Some(domain) = resume else { return Ok(Some(state)) };
        lines.orders.resume(&domain).await.map_err(|e| told(&e))?;
        let mut table = self.table();
        let guest = table.guests.get_mut(&key);
        Ok(guest.map(|guest| {
            guest.power = PowerState::On;
            guest.state()
        }))
    }

    pub(super) fn cpu_groups(&self, parts: &Parts) -> Option<CpuGroups> {
        let facts = parts.facts();
        self.options.cpu_limits.then(|| CpuGroups {
            unified: Path::new(UNIFIED).exists(),
            host_mhz: facts.cpu_mhz.into(),
            host_cpus: facts.cpus.into(),
        })
    }

    pub async fn stop(self: &Arc<Self>, work: &Work, parts: &Parts, order: StopVm) -> Result<Done, Failure> {
        let _turn = self.turn(&order.uuid).await;
        let known = {
            let mut table = self.table();
            match table.guests.get_mut(&order.uuid) {
                Some(guest) if order.generation > 0 && guest.described.generation > order.generation => {
                    let state = guest.state();
                    drop(table);
                    return done(work, outcome::Body::Vm(state));
                }
                Some(guest) => {
                    let before = std::mem::replace(&mut guest.phase, Phase::Ending);
                    Some((guest.domain.clone(), guest.power, before))
                }
                None => None,
            }
        };
        if let Some((domain, power, before)) = &known {
            let stopped = async {
                // libvirt asks nothing of a guest that it sends.
                self.break_off(&order.uuid).await;
                if !order.forced && *power == PowerState::On {
                    self.ask_to_end(domain).await?;
                }
                self.end(&order.uuid, false).await
            };
            if let Err(error) = stopped.await {
                // It goes on, and what it does is news again.
                self.set_phase(&order.uuid, *before);
                return Err(error.into());
            }
            self.moves.forget(&order.uuid);
        } else {
            // One that isn't known may be there: made while the line was lost.
            self.end_former(&order.uuid).await?;
        }
        let mut gone = None;
        let done = work.commit(|entries| {
            let mut table = self.table();
            gone = table.guests.remove(&order.uuid);
            let mut state = match &gone {
                Some(guest) => super::ended(guest, PowerReason::Unspecified, 0),
                None => VmState {
                    uuid: order.uuid.clone(),
                    generation: order.generation,
                    power: PowerState::Off.into(),
                    ..VmState::default()
                },
            };
            state.vnc = None;
            // A start with a lower generation that is still on its way must not come after this.
            table.asked(&order.uuid, order.generation, work.host(), entries);
            Ok((outcome::Body::Vm(state), table))
        })?;
        self.give_back(&order.uuid).await;
        if let Some(guest) = gone {
            parts.network.unplug(&guest.described.nics).await;
        }
        self.touch();
        Ok(done)
    }

    /// Asks a guest to shut down, and waits until it has, or for as long as it may take.
    pub(super) async fn ask_to_end(&self, domain: &DomainRef) -> Result<(), ApiError> {
        let lines = self.daemon.lines()?;
        let mut changes = self.changes.subscribe();
        for _ in 0..ASKED {
            let asked = match lines.orders.shutdown(domain, ShutdownFlags::none()).await {
                // libvirt takes a container that has no /dev/initctl for one that was asked.
                Ok(()) if self.roots.is_some() => lines.orders.shutdown(domain, ShutdownFlags::SIGNAL).await,
                asked => asked,
            };
            match asked {
                Ok(()) => {}
                Err(error) if error.is_no_domain() || error.is_wrong_state() => return Ok(()),
                Err(error) => tracing::debug!(domain = domain.name, %error, "a guest can't be asked to shut down"),
            }
            let until = Instant::now() + self.options.grace / ASKED;
            loop {
                changes.mark_unchanged();
                if look_at(&lines, domain.uuid).await.map_err(|e| told(&e))?.is_none() {
                    return Ok(());
                }
                if tokio::time::timeout_at(until, changes.changed()).await.is_err() {
                    break;
                }
            }
        }
        tracing::info!(domain = domain.name, "a guest doesn't shut down: its power is cut");
        Ok(())
    }

    /// Whatever there is of a VM ends, known or not; the host starts it anew, or doesn't want it.
    pub(super) async fn end_former(self: &Arc<Self>, vm: &str) -> Result<(), ApiError> {
        let known = self.table().guests.contains_key(vm);
        let Ok(uuid) = Uuid::parse_str(vm) else { return Ok(()) };
        if known || self.daemon.process_of(uuid).is_some() {
            let before = self.set_phase(vm, Phase::Ending);
            if let Err(error) = self.end(vm, known).await {
                if let Some(before) = before {
                    self.set_phase(vm, before);
                }
                return Err(error);
            }
            self.moves.forget(vm);
            if let Some(guest) = self.table().guests.remove(vm) {
                tracing::info!(vm, generation = guest.described.generation, "a former copy was ended");
            }
        }
        Ok(())
    }

    /// Ends a guest, and returns once its QEMU is gone: then none of its writes is on its way any more. `violent`: QEMU
    /// must not write even what it has cached.
    ///
    /// # Errors
    /// 534: it isn't gone, as far as can be seen.
    pub(in crate::kvm) async fn end(&self, vm: &str, violent: bool) -> Result<(), ApiError> {
        let Ok(uuid) = Uuid::parse_str(vm) else { return Ok(()) };
        let process = self
            .table()
            .guests
            .get(vm)
            .and_then(|guest| guest.process.clone())
            .or_else(|| self.daemon.process_of(uuid));
        if let Some(roots) = &self.roots {
            match violent {
                true => roots.cut(vm).await,
                false => {
                    if let Err(error) = roots.thaw(vm).await {
                        tracing::warn!(vm, %error, "a container's root can't be thawed before it ends");
                    }
                }
            }
        }
        if violent && let Some(process) = &process {
            process.kill();
        }
        let destroyed = match self.daemon.lines() {
            Err(error) => Err(error),
            Ok(lines) => {
                let domain = DomainRef { name: String::new(), uuid, id: -1 };
                match lines.keeper.destroy(&domain, DestroyFlags::none()).await {
                    Err(error) if !error.is_no_domain() && !error.is_wrong_state() => Err(told(&error)),
                    _ => Ok(()),
                }
            }
        };
        let Some(process) = process else { return destroyed };
        if let Err(error) = &destroyed {
            tracing::warn!(vm, %error, "libvirt can't end a guest: its QEMU is killed");
            process.kill();
        }
        if process.gone_within(END).await {
            return Ok(());
        }
        Err(ApiError::unavailable(format!(
            "QEMU of VM {vm} doesn't end: it hangs in the kernel, most likely on its storage"
        )))
    }

    pub async fn reboot(self: &Arc<Self>, work: &Work, order: RebootVm) -> Result<Done, Failure> {
        let _turn = self.turn(&order.uuid).await;
        if self.moves_now(&order.uuid) {
            return Err(is_moving().into());
        }
        if self.roots.is_some() {
            return self.reboot_container(work, &order).await;
        }
        let domain = {
            let table = self.table();
            let on = table.guests.get(&order.uuid).filter(|guest| guest.power == PowerState::On);
            on.map(|guest| guest.domain.clone())
                .ok_or_else(|| ApiError::failed("The VM doesn't run on this host: start it instead of rebooting it"))?
        };
        let lines = self.daemon.lines()?;
        let mut events = lines.orders.events(&[EventKind::REBOOT], Some(&domain)).await.map_err(|e| told(&e))?;
        let asked = lines.orders.reboot(&domain, RebootFlags::none()).await;
        let rebooted = match asked {
            Ok(()) => tokio::time::timeout(self.options.grace, rebooted(&mut events)).await.unwrap_or(false),
            Err(_) => false, // such a guest can't be asked
        };
        if !rebooted {
            lines.orders.reset(&domain).await.map_err(|e| told(&e))?;
        }
        let state = self.table().guests.get(&order.uuid).map(Guest::state);
        let state = state.ok_or_else(|| ApiError::failed("The VM ended while it rebooted: start it"))?;
        done(work, outcome::Body::Vm(state))
    }

    /// Ends all guests: the host was deleted, so nobody else would.
    pub async fn abandon(self: &Arc<Self>) {
        let all: Vec<String> = self.table().guests.keys().cloned().collect();
        for vm in all {
            let _turn = self.turn(&vm).await;
            match self.end(&vm, false).await {
                Ok(()) => {
                    self.table().guests.remove(&vm);
                    self.give_back(&vm).await;
                }
                Err(error) => tracing::warn!(vm, %error, "a guest of a deleted host can't be ended"),
            }
        }
        self.touch();
    }
}

/// Whether the guest has begun anew; not when the line is lost.
async fn rebooted(events: &mut EventStream) -> bool {
    loop {
        match events.next().await {
            Some(Event::Reboot { .. }) => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

/// Why a domain wasn't made: what QEMU says is told, for it names what is missing.
fn refusal(error: &libvirt::Error) -> ApiError {
    match error {
        libvirt::Error::Remote(remote) if !error.is_busy() => {
            ApiError::internal(format!("the VM can't be started: {}", remote.message))
        }
        _ => told(error),
    }
}
