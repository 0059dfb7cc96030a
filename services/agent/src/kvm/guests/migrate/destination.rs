//! At the destination: a copy waits, becomes whole, and is let go on by the start that has its lease.

use super::description::arriving;
use super::{FLAGS, refusal};
use crate::hypervisor::{Done, Failure, Work};
use crate::kvm::driver::{Parts, done};
use crate::kvm::guests::domain::{self, Described, Place};
use crate::kvm::guests::spec::Checked;
use crate::kvm::guests::table::{Guest, Permit, Phase};
use crate::kvm::guests::watch::look_at;
use crate::kvm::guests::{Guests, told};
use crate::lease::{Tenure, outdated};
use contract::ApiError;
use contract_agent::{FinishMigration, MigrationStep, PowerReason, PowerState, PrepareMigration, outcome};
use libvirt::domain::{Metadata, PausedReason};
use libvirt::migration::{Cookie, migrate};
use libvirt::{AffectFlags, DomainRef, Params, XmlFlags};
use std::net::IpAddr;
use std::sync::Arc;

/// QEMU has the network learn where a guest is now: five times within a second.
const ANNOUNCE: &str = r#"{"execute":"announce-self","arguments":{"initial":50,"max":550,"rounds":5,"step":100}}"#;

/// Other ports, when one was taken by somebody else at the same moment.
const PORTS_TRIED: usize = 4;

impl Guests {
    pub async fn prepare_migration(
        self: &Arc<Self>,
        work: &Work,
        parts: &Parts,
        order: PrepareMigration,
    ) -> Result<Done, Failure> {
        let spec = order.vm.as_ref().ok_or_else(|| ApiError::param("there is no VM to wait for"))?;
        let vm = Checked::of(spec)?;
        let _turn = self.turn(&spec.uuid).await;
        if let Some(step) = self.awaits(&vm)? {
            return done(work, outcome::Body::Migration(step));
        }
        self.end_former(&spec.uuid).await?;
        self.refuse_foreign_pool(&spec.uuid, &vm).await?;
        let prepared = self.prepare(parts, &vm, &order).await;
        if prepared.is_err() {
            // Nothing of it stays; what can't be ended is found again by its metadata.
            if let Err(error) = self.end(&spec.uuid, true).await {
                tracing::warn!(vm = spec.uuid, %error, "a copy that can't wait can't be ended");
            }
            let gone = self.table().guests.remove(&spec.uuid);
            if let Some(gone) = gone {
                self.leave(&spec.uuid, gone);
            }
            parts.network.unplug(&vm.nics).await;
        }
        self.touch();
        done(work, outcome::Body::Migration(prepared?))
    }

    /// What was answered for a copy that waits already. Refuses what is out of date.
    fn awaits(&self, vm: &Checked) -> Result<Option<MigrationStep>, ApiError> {
        let key = vm.uuid.to_string();
        let table = self.table();
        let asked = table.generations.get(&key).copied().unwrap_or(0);
        let there = table.guests.get(&key).map(|guest| (guest.phase, guest.described.generation));
        match there {
            Some((Phase::Waiting { whole: false }, generation)) if generation == vm.generation => {
                Ok(self.moves.awaited().get(&key).cloned())
            }
            Some((Phase::Waiting { .. }, generation)) if generation < vm.generation => Ok(None),
            Some((_, generation)) if generation < vm.generation => {
                Err(ApiError::failed(format!("VM {} is on this host already", vm.name)))
            }
            Some((_, generation)) => Err(outdated(&vm.name, generation, vm.generation)),
            None if asked >= vm.generation => Err(outdated(&vm.name, asked, vm.generation)),
            None => Ok(None),
        }
    }

    /// The pool here must be the one that the guest runs on: there its lease is another host's.
    async fn refuse_foreign_pool(&self, uuid: &str, vm: &Checked) -> Result<(), Failure> {
        let sight = self.sight(uuid, &vm.pool).await?;
        let host = self.parts().map(|parts| parts.host.clone()).unwrap_or_default();
        match sight.highest() {
            Some(claim) if claim.epoch >= vm.generation => Err(outdated(&vm.name, claim.epoch, vm.generation).into()),
            Some(claim) if !claim.free && claim.host != host => Ok(()),
            _ if vm.pool.is_empty() => Ok(()),
            _ => Err(ApiError::failed(format!(
                "Pool {} of this host doesn't show that VM {} runs elsewhere: is it the same storage as the other host's?",
                vm.pool, vm.name
            ))
            .into()),
        }
    }

    async fn prepare(
        self: &Arc<Self>,
        parts: &Parts,
        vm: &Checked,
        order: &PrepareMigration,
    ) -> Result<MigrationStep, ApiError> {
        let (lines, key) = (self.daemon.lines()?, vm.uuid.to_string());
        let address = self.migration_address(parts)?;
        let mut plugs = Vec::new();
        for nic in &vm.nics {
            plugs.push(parts.network.plug(nic).await?);
        }
        let files = vm.disks.iter().map(|disk| parts.storage.disk_file(&disk.pool, &disk.path));
        let cd = vm.cd.as_ref().map(|cd| parts.storage.iso_file(&cd.pool, &cd.iso.to_string()));
        let place = Place {
            acceleration: &parts.acceleration,
            cpu_model: self.options.cpu_model.as_deref(),
            cpu_limits: self.cpu_groups(parts),
            plugs: plugs.iter().map(|plug| (plug.bridge.clone(), plug.mtu)).collect(),
            files: files.collect::<Result<Vec<_>, _>>()?,
            cd: cd.transpose()?,
        };
        let xml = arriving(&order.domain, vm, &place, order.take_cpu_as_is)?;
        self.table().guests.insert(key.clone(), waiting(vm));
        let to = match address {
            IpAddr::V4(ip) => format!("tcp://{ip}"),
            IpAddr::V6(ip) => format!("tcp://[{ip}]"),
        };
        let params = Params::new()
            .with(migrate::URI, to.clone())
            .with(migrate::LISTEN_ADDRESS, address.to_string())
            .with(migrate::DESTINATION_XML, xml);
        // Once this line is gone, libvirt ends a copy that isn't whole.
        let cookie = Cookie::from(order.cookie.clone());
        let mut prepared = lines.orders.migrate_prepare(&params, &cookie, FLAGS).await;
        // libvirt looks which port is free, and QEMU takes it a moment later: another program may have been faster.
        for _ in 0..PORTS_TRIED {
            match &prepared {
                Err(error) if error.to_string().contains("Address already in use") => {
                    prepared = lines.orders.migrate_prepare(&params, &cookie, FLAGS).await;
                }
                _ => break,
            }
        }
        let (cookie, uri) = prepared.map_err(|e| refusal("The host can't take the VM", &e))?;
        let domain = lines.orders.domain_by_uuid(vm.uuid).await.map_err(|e| told(&e))?;
        let live = lines.orders.xml(&domain, XmlFlags::none()).await.map_err(|e| told(&e))?;
        let described = Described::read(&live).map_err(ApiError::internal)?.filter(|described| described.waits);
        let described = described.ok_or_else(|| ApiError::internal("libvirt keeps no metadata of the domain"))?;
        let process = self.daemon.process_of(vm.uuid);
        let step = MigrationStep { cookie: cookie.0, uri: uri.unwrap_or(to), ..MigrationStep::default() };
        {
            let mut table = self.table();
            let guest = table.guests.get_mut(&key);
            let guest = guest.ok_or_else(|| ApiError::concurrent("the VM was taken over while it was to move here"))?;
            (guest.domain, guest.described, guest.process) = (domain, described, process);
            guest.phase = Phase::Waiting { whole: false };
            self.moves.awaited().insert(key, step.clone());
        }
        // From here on events count; this is for those that came before.
        match look_at(&lines, vm.uuid).await.map_err(|e| told(&e))? {
            Some(_) => Ok(step),
            None => Err(ApiError::failed("The copy that was to wait has ended: see QEMU's log on the host")),
        }
    }

    fn migration_address(&self, parts: &Parts) -> Result<IpAddr, ApiError> {
        let set = self.options.migration_address.clone();
        let address = set.unwrap_or_else(|| parts.facts().private_ip.clone());
        let wrong = || ApiError::failed(format!("The host's address for migrations, {address:?}, is none: set it"));
        address.parse().map_err(|_| wrong())
    }

    pub async fn finish_migration(
        self: &Arc<Self>,
        work: &Work,
        parts: &Parts,
        order: FinishMigration,
    ) -> Result<Done, Failure> {
        let _turn = self.turn(&order.vm_uuid).await;
        let vm = order.vm_uuid.as_str();
        if order.cancelled {
            self.throw_away(parts, vm, order.generation).await?;
            return work.commit(|entries| {
                let mut table = self.table();
                // A late Prepare makes none any more.
                table.asked(vm, order.generation, work.host(), entries);
                Ok((outcome::Body::Migration(MigrationStep::default()), table))
            });
        }
        let there = {
            let table = self.table();
            let guest = table.guests.get(vm).filter(|guest| guest.described.generation == order.generation);
            guest.map(|guest| (guest.phase, guest.domain.clone()))
        };
        let step = match there {
            Some((Phase::Waiting { whole: false }, domain)) => {
                let finished = self.finish(&domain, &order).await;
                if let Err(error) = &finished
                    && !error.is_transient()
                {
                    self.throw_away(parts, vm, order.generation).await?;
                }
                let cookie = finished?;
                MigrationStep { cookie: cookie.0, sent: true, ..MigrationStep::default() }
            }
            // It is whole already, or goes on already.
            Some(_) => MigrationStep { sent: true, ..MigrationStep::default() },
            None => return Err(ApiError::failed("No copy of the VM waits on this host").into()),
        };
        self.touch();
        done(work, outcome::Body::Migration(step))
    }

    async fn finish(&self, domain: &DomainRef, order: &FinishMigration) -> Result<Cookie, ApiError> {
        let lines = self.daemon.lines()?;
        let params = Params::new().with(migrate::DESTINATION_NAME, domain.name.clone());
        let cookie = Cookie::from(order.cookie.clone());
        let finished = lines.orders.migrate_finish(&params, &cookie, FLAGS, false).await;
        let (_, cookie) = finished.map_err(|e| refusal("The VM didn't come here whole", &e))?;
        let state = look_at(&lines, domain.uuid).await.map_err(|e| told(&e))?;
        if state.and_then(|(_, state)| state.paused()) != Some(PausedReason::USER) {
            return Err(ApiError::failed("The VM didn't come here whole: it isn't paused as it should be"));
        }
        self.moves.awaited().remove(&order.vm_uuid);
        self.set_phase(&order.vm_uuid, Phase::Waiting { whole: true });
        Ok(cookie)
    }

    /// A copy that waits here, of at most this generation, is ended. One that goes on is refused to be.
    pub(in crate::kvm) async fn throw_away(
        self: &Arc<Self>,
        parts: &Parts,
        vm: &str,
        generation: i64,
    ) -> Result<(), ApiError> {
        let there = self.table().guests.get(vm).map(|guest| (guest.phase, guest.described.generation));
        match there {
            Some((Phase::Waiting { .. }, waits)) if waits <= generation => {}
            Some((_, runs)) if runs == generation => {
                return Err(ApiError::failed("The VM goes on on this host already: it can't be cancelled any more"));
            }
            Some(_) => return Ok(()),
            // One that isn't known may be there: its order was cut off.
            None => return self.end_former(vm).await,
        }
        let phase = self.set_phase(vm, Phase::Ending);
        if let Err(error) = self.end(vm, true).await {
            if let Some(phase) = phase {
                self.set_phase(vm, phase);
            }
            return Err(error);
        }
        self.moves.forget(vm);
        let gone = self.table().guests.remove(vm);
        if let Some(guest) = gone {
            tracing::info!(vm, generation = guest.described.generation, "a copy that waited was thrown away");
            parts.network.unplug(&guest.described.nics).await;
        }
        self.touch();
        Ok(())
    }

    /// The same, for a copy that can't be wanted any more; what fails is tried again by the keeper.
    pub(in crate::kvm) async fn discard(self: Arc<Self>, vm: String, generation: i64) {
        let (Some(parts), Some(_turn)) = (self.parts(), self.try_turn(&vm)) else { return };
        if let Err(error) = self.throw_away(parts, &vm, generation).await {
            tracing::warn!(vm, generation, %error, "a copy that nobody wants can't be ended; trying again");
        }
    }

    /// Lets a copy that waits go on: the lease is this host's now. None when no whole copy of this generation waits, or it
    /// can't go on: then the VM starts from its disks, as after a crash.
    pub(in crate::kvm::guests) async fn adopt(
        self: &Arc<Self>,
        vm: &Checked,
        tenure: Tenure,
    ) -> Result<Option<()>, ApiError> {
        let key = vm.uuid.to_string();
        let described = {
            let table = self.table();
            let waits = |guest: &&Guest| {
                guest.phase == Phase::Waiting { whole: true }
                    && guest.described.generation == vm.generation
                    && guest.described.digest == vm.digest
            };
            let Some(guest) = table.guests.get(&key).filter(waits) else { return Ok(None) };
            guest.described.clone()
        };
        let lines = self.daemon.lines()?;
        let Some((domain, _)) = look_at(&lines, vm.uuid).await.map_err(|e| told(&e))? else { return Ok(None) };
        // What has its lease is a guest like any other, from here on.
        let described = Described { waits: false, ..described };
        let facts = domain::plain_facts(&described).write().map_err(ApiError::internal)?;
        let element = Metadata::Element { uri: domain::NAMESPACE, prefix: domain::PREFIX };
        let noted = lines.orders.set_metadata(&domain, element, Some(&facts), AffectFlags::LIVE).await;
        noted.map_err(|e| told(&e))?;
        let permit = Permit::new(tenure);
        {
            let mut table = self.table();
            let Some(guest) = table.guests.get_mut(&key) else { return Ok(None) };
            (guest.described, guest.permit, guest.phase) = (described, permit.clone(), Phase::Starting);
            guest.reason = PowerReason::Unspecified;
        }
        match self.let_run(&lines, &domain, &permit).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => {
                // The keeper lets it run as soon as that can be done.
                if let Some(guest) = self.table().guests.get_mut(&key) {
                    (guest.phase, guest.reason) = (Phase::Settled, PowerReason::LeaseUnreadable);
                }
                return Err(error);
            }
            Err(error) => {
                tracing::error!(vm = key, %error, "a VM that moved here can't go on: it is started from its disks");
                return Ok(None);
            }
        }
        tracing::info!(vm = key, name = domain.name, generation = vm.generation, "a VM that moved here goes on");
        if let Err(error) = lines.orders.monitor_command(&domain, ANNOUNCE).await {
            tracing::debug!(vm = key, %error, "the network isn't told where a guest is now");
        }
        Ok(Some(()))
    }
}

/// What is about to wait.
fn waiting(vm: &Checked) -> Guest {
    let described = Described {
        generation: vm.generation,
        pool: vm.pool.clone(),
        digest: vm.digest.clone(),
        waits: true,
        nics: vm.nics.clone(),
        disks: Vec::new(),
        drive: None,
        vnc: None,
    };
    Guest {
        domain: DomainRef { name: vm.name.clone(), uuid: vm.uuid, id: -1 },
        // It has no lease: nothing is permitted.
        permit: Permit::new(Tenure::unknown(vm.generation)),
        described,
        process: None,
        phase: Phase::Starting,
        power: PowerState::Paused,
        reason: PowerReason::Waiting,
        kept: None,
        frozen: false,
    }
}
