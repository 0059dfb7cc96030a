//! Guests that are containers: what their life has that machines' lives don't.
//!
//! | module | what |
//! |---|---|
//! | [`xml`] | their domains |
//! | [`roots`] | their root file systems |
//! | [`process`] | their processes |
//! | [`limits`] | what they may use of the host |

mod limits;
mod process;
mod roots;
mod xml;

pub(super) use process::find;
pub(super) use roots::Roots;

use super::domain::Described;
use super::process::Process;
use super::spec::Checked;
use super::table::{Guest, Phase};
use super::{Guests, Lines, Parts, done, told};
use crate::hypervisor::{Done, Failure, Work};
use crate::kvm::KvmOptions;
use crate::kvm::network::Plug;
use crate::kvm::storage::DiskFile;
use crate::lease::{Standing, now};
use contract::ApiError;
use contract_agent::{PowerState, RebootVm, outcome};
use images::Format;
use libvirt::{Connection, CreateFlags, DomainRef, XmlFlags};
use std::sync::Arc;
use uuid::Uuid;

/// Where libvirt keeps what containers run.
pub(super) const STATES: &str = "run/libvirt/lxc";

impl Guests {
    /// Refuses what containers can't have.
    pub(in crate::kvm) fn refuse_for_containers(&self, what: &str) -> Result<(), ApiError> {
        match self.roots {
            None => Ok(()),
            Some(_) => Err(ApiError::unsupported(format!("{what} isn't possible with containers (LXC)"))),
        }
    }

    /// libvirt can't start a container paused, so its lease has to permit it just before.
    pub(super) fn flags_of_container(&self, vm: &str) -> Result<CreateFlags, ApiError> {
        let permit = self.table().guests.get(vm).map(|guest| guest.permit.clone());
        match permit.map(|permit| permit.standing(now())) {
            Some(Standing::Permitted) => Ok(CreateFlags::none()),
            _ => Err(ApiError::unavailable("the VM's lease ended before the VM was started: try again")),
        }
    }

    /// Pauses a guest. True: its processes stand still without libvirt, which can't pause containers where control groups are of
    /// version 2; whoever lets it go on has to let them go on first ([`Process::thaw`]).
    ///
    /// # Errors
    /// What libvirt says, when the guest doesn't stand still.
    pub(in crate::kvm) async fn pause(
        &self,
        line: &Connection,
        domain: &DomainRef,
        process: Option<&Process>,
    ) -> Result<bool, ApiError> {
        let Err(error) = line.suspend(domain).await else { return Ok(false) };
        let Some(process) = process.filter(|_| self.roots.is_some() && !error.is_no_domain()) else {
            return Err(told(&error));
        };
        process.freeze();
        if process.is_frozen() { Ok(true) } else { Err(told(&error)) }
    }

    /// Has what a container may use of the host hold, once it runs.
    ///
    /// # Errors
    /// 534: it can't be had.
    pub(super) async fn confine(&self, process: Option<Arc<Process>>, xml: &str) -> Result<(), ApiError> {
        match process.filter(|_| self.roots.is_some()) {
            Some(process) => limits::confine(&process, xml).await,
            None => Ok(()),
        }
    }

    /// The same for one that runs already.
    pub(super) fn keep_confined(&self, vm: &str, process: Option<&Arc<Process>>, xml: String) {
        if let Some(process) = process.filter(|_| self.roots.is_some()) {
            limits::keep(vm, process.clone(), xml);
        }
    }

    /// Refuses what no container can be made of, before anything is done for it.
    pub(super) fn check_container(&self, vm: &Checked, files: &[DiskFile]) -> Result<(), ApiError> {
        if self.roots.is_none() {
            return Ok(());
        }
        xml::root_of(vm)?;
        if vm.cd.is_some() {
            return Err(ApiError::unsupported("A CD drive isn't possible with containers (LXC)"));
        }
        match files {
            [file] if file.format == Format::Raw => Ok(()),
            _ => Err(ApiError::unsupported("A container's ROOT disk is a raw image that is made from a TAR template")),
        }
    }

    /// Mounts a container's root, and gives its domain's XML. Whoever has its lease calls it.
    pub(super) async fn contained(
        &self,
        roots: &Roots,
        parts: &Parts,
        vm: &Checked,
        plugs: &[Plug],
        files: &[DiskFile],
    ) -> Result<String, ApiError> {
        self.check_container(vm, files)?;
        let Some(file) = files.first() else { return Err(ApiError::internal("a container without a root")) };
        let root = roots.mount(&vm.uuid.to_string(), &file.path).await?;
        let place = xml::Place {
            root: &root,
            ids: KvmOptions::CONTAINER_IDS,
            cpu_limits: self.cpu_groups(parts),
            plugs: plugs.iter().map(|plug| (plug.bridge.clone(), plug.mtu)).collect(),
        };
        xml::domain(vm, &place)?.write().map_err(ApiError::param)
    }

    /// A container that has begun anew by itself has another number, but is the same run: under the same lease, on the same
    /// root. Whether it is that.
    pub(super) async fn has_rebooted(&self, lines: &Lines, domain: &DomainRef) -> Result<bool, libvirt::Error> {
        if self.roots.is_none() {
            return Ok(false);
        }
        let xml = match lines.keeper.xml(domain, XmlFlags::none()).await {
            Ok(xml) => xml,
            Err(error) if error.is_no_domain() => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok(Some(described)) = Described::read(&xml) else { return Ok(false) };
        let process = self.daemon.process_of(domain.uuid);
        let mut table = self.table();
        let Some(guest) = table.guests.get_mut(&domain.uuid.to_string()) else { return Ok(false) };
        let known = &guest.described;
        if (known.generation, &known.digest) != (described.generation, &described.digest) {
            return Ok(false);
        }
        // An order that is at it sees to it itself.
        if guest.phase == Phase::Settled {
            tracing::info!(name = domain.name, "a container has rebooted");
            self.keep_confined(&domain.uuid.to_string(), process.as_ref(), xml);
            (guest.domain, guest.described, guest.process) = (domain.clone(), described, process);
            guest.power = PowerState::On;
        }
        Ok(true)
    }

    /// Ends a container and begins it anew, under the same lease and on the same root.
    pub(super) async fn reboot_container(self: &Arc<Self>, work: &Work, order: &RebootVm) -> Result<Done, Failure> {
        let known = {
            let mut table = self.table();
            let on = table.guests.get_mut(&order.uuid).filter(|guest| guest.power == PowerState::On);
            on.map(|guest| guest.domain.clone())
                .ok_or_else(|| ApiError::failed("The VM doesn't run on this host: start it instead of rebooting it"))?
        };
        let lines = self.daemon.lines()?;
        let xml = lines.orders.xml(&known, XmlFlags::none()).await.map_err(|e| told(&e))?;
        self.set_phase(&order.uuid, Phase::Ending);
        let ended = async {
            self.ask_to_end(&known).await?;
            self.end(&order.uuid, false).await
        };
        if let Err(error) = ended.await {
            self.set_phase(&order.uuid, Phase::Settled);
            return Err(error.into());
        }
        self.set_phase(&order.uuid, Phase::Starting);
        if let Err(error) = self.boot(known.uuid, &xml).await {
            if let Err(error) = self.end(&order.uuid, true).await {
                tracing::warn!(vm = order.uuid, %error, "a container that couldn't be begun anew can't be ended");
            }
            let gone = self.table().guests.remove(&order.uuid);
            if let Some(guest) = gone {
                self.leave(&order.uuid, guest);
            }
            self.touch();
            return Err(error.into());
        }
        let state = self.table().guests.get(&order.uuid).map(Guest::state);
        let state = state.ok_or_else(|| ApiError::failed("The VM ended while it rebooted: start it"))?;
        done(work, outcome::Body::Vm(state))
    }

    /// Unmounts what an agent that was killed has left of containers that are no more.
    pub(super) fn sweep_roots(self: &Arc<Self>) {
        let Some(roots) = self.roots.clone() else { return };
        for vm in roots.known() {
            if Uuid::parse_str(&vm).is_err() || self.table().guests.contains_key(&vm) {
                continue;
            }
            let (guests, roots) = (self.clone(), roots.clone());
            tokio::spawn(async move {
                let _turn = guests.turn(&vm).await;
                let idle = guests.table().is_idle(&vm);
                if idle && let Err(error) = roots.release(&vm).await {
                    tracing::warn!(vm, %error, "a container's root can't be unmounted");
                }
            });
        }
    }
}
