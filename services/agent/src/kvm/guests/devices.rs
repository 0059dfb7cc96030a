//! Disks of running guests: plugged, unplugged, resized, copied.

use super::domain::{self, Described, Plugged};
use super::flavour::Bus;
use super::migrate::is_moving;
use super::spec::{self, Disk};
use super::xml::Element;
use super::{Guests, Lines, Parts, done, told};
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Work};
use crate::kvm::storage::{DiskFile, Moment};
use contract::ApiError;
use contract_agent::{AttachDisk, DetachDisk, DiskState, ResizeDisk, outcome};
use libvirt::events::BlockJobStatus;
use libvirt::{
    AffectFlags, BlockCopyFlags, BlockJobAbortFlags, BlockResizeFlags, DomainRef, Event, EventKind, EventStream,
    Params, XmlFlags,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

/// How long a guest may take to let go of a device.
pub(super) const RELEASE: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile: one that boots doesn't hear it.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Numbers that a disk's device can have.
const MOST_TARGETS: u32 = 256;

/// A guest that runs, as libvirt describes it now.
pub(super) struct Live {
    pub lines: Lines,
    pub domain: DomainRef,
    pub described: Described,
    /// All of its description.
    pub xml: String,
}

impl Guests {
    /// None when the guest doesn't run here.
    pub(super) async fn live(&self, vm: &str) -> Result<Option<Live>, ApiError> {
        if self.moves_now(vm) {
            return Err(is_moving());
        }
        let Some(domain) = self.table().guests.get(vm).map(|guest| guest.domain.clone()) else { return Ok(None) };
        let lines = self.daemon.lines()?;
        match lines.orders.xml(&domain, XmlFlags::none()).await {
            Ok(xml) => {
                let described = Described::read(&xml).map_err(ApiError::internal)?;
                Ok(described.map(|described| Live { lines, domain, described, xml }))
            }
            Err(error) if error.is_no_domain() => Ok(None),
            Err(error) => Err(told(&error)),
        }
    }

    /// Takes note of what a guest has now.
    pub(super) async fn describe_again(&self, vm: &str) -> Result<Option<Live>, ApiError> {
        let live = self.live(vm).await?;
        if let Some(live) = &live
            && let Some(guest) = self.table().guests.get_mut(vm)
        {
            guest.described = live.described.clone();
        }
        Ok(live)
    }

    pub async fn attach_disk(&self, work: &Work, parts: &Parts, order: AttachDisk) -> Result<Done, Failure> {
        let disk = order.disk.ok_or_else(|| ApiError::param("there is no disk to attach"))?;
        let volume = spec::uuid("volume", &disk.volume_uuid)?;
        self.refuse_for_containers("Attaching a volume")?;
        let _turn = self.turn(&order.vm_uuid).await;
        let Some(live) = self.live(&order.vm_uuid).await? else {
            return Err(
                ApiError::failed("The VM doesn't run on this host: start it, then attach the volume again").into()
            );
        };
        let file = parts.storage.disk_file(&disk.pool_uuid, &disk.path)?;
        if live.described.disk(volume).is_none() {
            let (bus, target) = free_place(&live.described, disk.device_id)?;
            let planned = Disk {
                volume,
                device_id: disk.device_id,
                pool: disk.pool_uuid.clone(),
                path: disk.path.clone(),
                root: false,
                bus,
                target,
            };
            let xml = domain::disk(&planned, &file, None).write().map_err(ApiError::param)?;
            let attached = live.lines.orders.attach_device(&live.domain, &xml, AffectFlags::LIVE).await;
            attached.map_err(|e| told(&e))?;
        }
        let live = self.describe_again(&order.vm_uuid).await?;
        let Some((live, plugged)) = live.as_ref().and_then(|live| Some((live, live.described.disk(volume)?))) else {
            return Err(ApiError::failed("The VM ended while the volume was attached: start it with the volume").into());
        };
        let state = disk_state(live, plugged, &disk.volume_uuid, &disk.path).await?;
        done(work, outcome::Body::Disk(state))
    }

    pub async fn detach_disk(&self, work: &Work, order: DetachDisk) -> Result<Done, Failure> {
        let volume = spec::uuid("volume", &order.volume_uuid)?;
        let _turn = self.turn(&order.vm_uuid).await;
        if let Some(live) = self.live(&order.vm_uuid).await?
            && let Some(plugged) = live.described.disk(volume)
        {
            let there = |xml: &str| Ok(Described::read(xml)?.is_some_and(|described| described.disk(volume).is_some()));
            let leaving = Leaving { alias: plugged.alias(), what: format!("volume {volume}"), there: &there };
            match tokio::time::timeout(RELEASE, release(&live, &leaving)).await {
                Ok(result) => result?,
                Err(_) => {
                    return Err(ApiError::failed(format!(
                        "The VM doesn't let go of volume {volume} within {} s: unmount it in the VM, or stop the VM",
                        RELEASE.as_secs()
                    ))
                    .into());
                }
            }
            self.describe_again(&order.vm_uuid).await?;
        }
        done(work, nothing())
    }

    pub async fn resize_disk(&self, work: &Work, parts: &Parts, order: ResizeDisk) -> Result<Done, Failure> {
        let vm = order.vm_uuid.clone().unwrap_or_default();
        let _turn = self.turn(&vm).await;
        let volume = spec::uuid("volume", &order.volume_uuid)?;
        // Whoever gave the order may not know that the VM has ended since, or that it runs.
        let user = {
            let table = self.table();
            let uses = |disks: &[Plugged]| disks.iter().any(|disk| disk.volume == volume);
            table.guests.iter().find(|(_, guest)| uses(&guest.described.disks)).map(|(vm, _)| vm.clone())
        };
        if user.is_some() {
            self.refuse_for_containers("Resizing a volume while its VM runs")?;
        }
        if let Some(user) = user
            && let Some(live) = self.live(&user).await?
            && let Some(plugged) = live.described.disk(volume)
        {
            let state = resize_live(&live, plugged, &order).await?;
            return done(work, outcome::Body::Disk(state));
        }
        let state = parts.storage.resize_disk(&order).await?;
        done(work, outcome::Body::Disk(state))
    }
}

/// QEMU has the file open: it is the only one that may change it.
async fn resize_live(live: &Live, plugged: &Plugged, order: &ResizeDisk) -> Result<DiskState, ApiError> {
    let block = &live.lines.orders;
    let now = block.block_info(&live.domain, &plugged.target).await.map_err(|e| told(&e))?;
    if order.size < now.capacity {
        return Err(ApiError::failed(format!(
            "Volume {} can't shrink from {} to {} bytes while VM {} runs: stop the VM",
            order.volume_uuid, now.capacity, order.size, live.domain.name
        )));
    }
    if order.size > now.capacity {
        let resized = block.block_resize(&live.domain, &plugged.target, order.size, BlockResizeFlags::BYTES).await;
        resized.map_err(|e| told(&e))?;
    }
    disk_state(live, plugged, &order.volume_uuid, &order.path).await
}

async fn disk_state(live: &Live, plugged: &Plugged, volume: &str, path: &str) -> Result<DiskState, ApiError> {
    let info = live.lines.orders.block_info(&live.domain, &plugged.target).await.map_err(|e| told(&e))?;
    Ok(DiskState {
        volume_uuid: volume.to_owned(),
        path: path.to_owned(),
        size: info.capacity,
        physical_size: info.allocation,
    })
}

/// The place of a disk's number, or the next free one: only what the guest was started with has IDE.
fn free_place(described: &Described, device_id: u32) -> Result<(Bus, String), ApiError> {
    let scsi = described.disks.first().is_some_and(|root| root.bus == Bus::Scsi.name());
    let bus = if scsi { Bus::Scsi } else { Bus::Virtio };
    let taken: BTreeSet<&str> = described.disks.iter().map(|disk| disk.target.as_str()).collect();
    let numbers = std::iter::once(device_id.min(MOST_TARGETS)).chain(1..MOST_TARGETS);
    let mut targets = numbers.map(|number| spec::target(bus, number));
    let free = targets.find(|target| !taken.contains(target.as_str()));
    free.map(|target| (bus, target)).ok_or_else(|| ApiError::failed("The VM has no place for another volume"))
}

/// A device that a guest is to let go of.
pub(super) struct Leaving<'l> {
    /// libvirt's name of it.
    pub alias: String,
    /// What it is, for people.
    pub what: String,
    /// Whether the description of a domain still has it.
    pub there: &'l (dyn Fn(&str) -> Result<bool, String> + Sync),
}

/// Has a guest let go of a device. Waits for as long as it takes.
pub(super) async fn release(live: &Live, leaving: &Leaving<'_>) -> Result<(), ApiError> {
    let (line, alias) = (&live.lines.orders, &leaving.alias);
    let kinds = [EventKind::DEVICE_REMOVED, EventKind::DEVICE_REMOVAL_FAILED];
    let mut events = line.events(&kinds, Some(&live.domain)).await.map_err(|e| told(&e))?;
    loop {
        if let Err(error) = line.detach_alias(&live.domain, alias, AffectFlags::LIVE).await {
            if error.is_no_domain() || error.is_lost() {
                return if error.is_lost() { Err(told(&error)) } else { Ok(()) };
            }
            // "Already in the process of unplug", or gone by now: what is there decides.
            tracing::debug!(domain = live.domain.name, alias, %error, "a device is asked for again");
        }
        let heard = tokio::time::timeout(ASK_AGAIN, removed(&mut events, alias)).await;
        if heard == Ok(false) {
            return Err(ApiError::failed(format!(
                "The VM refuses to let go of {}: free it in the VM, or stop the VM",
                leaving.what
            )));
        }
        // Events may be missed, and libvirt has it removed already when the guest was quick.
        match line.xml(&live.domain, XmlFlags::none()).await {
            Ok(xml) if (leaving.there)(&xml).map_err(ApiError::internal)? => {}
            Ok(_) => return Ok(()),
            Err(error) if error.is_no_domain() => return Ok(()),
            Err(error) => return Err(told(&error)),
        }
    }
}

/// Whether the device was let go of, once that is decided.
async fn removed(events: &mut EventStream, alias: &str) -> bool {
    loop {
        match events.next().await {
            Some(Event::DeviceRemoved { device, .. }) if device == alias => return true,
            Some(Event::DeviceRemovalFailed { device, .. }) if device == alias => return false,
            Some(Event::Missed(_)) | None => return true, // what is there decides
            Some(_) => {}
        }
    }
}

/// Copies disks of running guests, for those who take snapshots.
pub(in crate::kvm) struct Copier(pub Weak<Guests>);

#[async_trait::async_trait]
impl Moment for Copier {
    async fn copy(&self, vm_uuid: &str, disk: &DiskFile, target: &Path) -> Result<(), ApiError> {
        let guests = self.0.upgrade().ok_or_else(|| ApiError::unavailable("the agent is ending"))?;
        guests.refuse_for_containers("Copying a running VM's volume")?;
        let ended = || ApiError::unavailable("the VM has ended meanwhile: its volume is at rest now");
        let live = guests.live(vm_uuid).await?.ok_or_else(ended)?;
        let file = disk.path.display().to_string();
        let plugged = live.described.disks.iter().find(|plugged| plugged.file == file).ok_or_else(ended)?;
        let to = Element::new("disk")
            .with("type", "file")
            .child(Element::new("driver").with("name", "qemu").with("type", "qcow2"))
            .child(Element::new("source").with("file", target.display()));
        let to = to.write().map_err(ApiError::param)?;
        let line = live.lines.orders.clone();
        let kinds = [EventKind::BLOCK_JOB];
        let mut events = line.events(&kinds, Some(&live.domain)).await.map_err(|e| told(&e))?;
        let mut job = Job { live: &live, disk: plugged.target.clone(), begun: true };
        let flags = BlockCopyFlags::TRANSIENT_JOB;
        line.block_copy(&live.domain, &job.disk, &to, &Params::new(), flags).await.map_err(|e| told(&e))?;
        copied(&mut events, &job.disk).await?;
        // With file systems at rest, if the guest's agent is there to bring that about.
        let at_rest = line.freeze(&live.domain, &[]).await.is_ok();
        let end = line.block_job_abort(&live.domain, &job.disk, BlockJobAbortFlags::none()).await;
        if at_rest && let Err(error) = line.thaw(&live.domain, &[]).await {
            tracing::warn!(vm = vm_uuid, %error, "a guest's file systems can't be thawed");
        }
        end.map_err(|e| told(&e))?;
        job.begun = false;
        Ok(())
    }
}

/// A copying under way, which ends with this.
struct Job<'l> {
    live: &'l Live,
    disk: String,
    begun: bool,
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        if self.begun {
            let (line, domain, disk) = (self.live.lines.orders.clone(), self.live.domain.clone(), self.disk.clone());
            tokio::spawn(async move {
                // An error means that there is nothing to end.
                let _ = line.block_job_abort(&domain, &disk, BlockJobAbortFlags::none()).await;
            });
        }
    }
}

/// Waits until the copy is as the disk is, from then on at every moment.
async fn copied(events: &mut EventStream, disk: &str) -> Result<(), ApiError> {
    loop {
        match events.next().await {
            Some(Event::BlockJob { disk: of, status, .. }) if of == disk => match status {
                BlockJobStatus::READY => return Ok(()),
                _ => return Err(ApiError::unavailable(format!("the volume's copying ended as {status:?}"))),
            },
            Some(Event::Missed(_)) | None => {
                return Err(ApiError::unavailable("it isn't known how far the volume's copying is"));
            }
            Some(_) => {}
        }
    }
}
