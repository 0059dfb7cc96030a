//! Devices of domains, and jobs on their disks.

use crate::connection::Connection;
use crate::domain::DomainRef;
use crate::errors::Result;
use crate::events::BlockJobKind;
use crate::flags::{
    AffectFlags, BlockCommitFlags, BlockCopyFlags, BlockJobAbortFlags, BlockResizeFlags, SnapshotFlags,
};
use crate::params::Params;
use crate::procedure as p;
use crate::wire::{Decode, Decoder, WireError};

/// The sizes of a block device, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// The highest byte that was written, or what the image takes.
    pub allocation: u64,
    /// What the guest sees.
    pub capacity: u64,
    /// Size of the file or device on the host.
    pub physical: u64,
}

impl Decode for BlockInfo {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (allocation, capacity, physical) = Decode::decode(from)?;
        Ok(BlockInfo { allocation, capacity, physical })
    }
}

/// How far a block job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockJobInfo {
    /// What kind of job.
    pub kind: BlockJobKind,
    /// Its limit, MiB/s; 0: none.
    pub bandwidth: u64,
    /// Done so far, in the unit of `end`.
    pub current: u64,
    /// All there is to do. A copy is ready when both are equal **and** the event says so.
    pub end: u64,
}

impl Connection {
    /// Attaches a device.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn attach_device(&self, domain: &DomainRef, xml: &str, flags: AffectFlags) -> Result<()> {
        self.call(p::DOMAIN_ATTACH_DEVICE_FLAGS, (domain, xml, flags)).await
    }

    /// Detaches a device. From a running guest this is only a request: [`Event::DeviceRemoved`](crate::Event::DeviceRemoved)
    /// tells when it is done.
    ///
    /// # Errors
    /// [`is_no_device`](crate::Error::is_no_device) when there is none.
    pub async fn detach_device(&self, domain: &DomainRef, xml: &str, flags: AffectFlags) -> Result<()> {
        self.call(p::DOMAIN_DETACH_DEVICE_FLAGS, (domain, xml, flags)).await
    }

    /// Detaches the device of that alias, as [`Connection::detach_device`].
    ///
    /// # Errors
    /// What the daemon says. libvirt 9 calls a missing alias an internal error.
    pub async fn detach_alias(&self, domain: &DomainRef, alias: &str, flags: AffectFlags) -> Result<()> {
        self.call(p::DOMAIN_DETACH_DEVICE_ALIAS, (domain, alias, flags)).await
    }

    /// Changes a device: another CD, another bridge, a link that goes down.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn update_device(&self, domain: &DomainRef, xml: &str, flags: AffectFlags) -> Result<()> {
        self.call(p::DOMAIN_UPDATE_DEVICE_FLAGS, (domain, xml, flags)).await
    }

    /// Resizes the disk of a running guest.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn block_resize(&self, domain: &DomainRef, disk: &str, size: u64, flags: BlockResizeFlags) -> Result<()> {
        self.call(p::DOMAIN_BLOCK_RESIZE, (domain, disk, size, flags)).await
    }

    /// The sizes of a disk.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn block_info(&self, domain: &DomainRef, disk: &str) -> Result<BlockInfo> {
        self.call(p::DOMAIN_GET_BLOCK_INFO, (domain, disk, 0_u32)).await
    }

    /// Limits of a disk: `total_iops_sec`, `read_bytes_sec` …
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn set_block_io_tune(
        &self,
        domain: &DomainRef,
        disk: &str,
        limits: &Params,
        flags: AffectFlags,
    ) -> Result<()> {
        self.call(p::DOMAIN_SET_BLOCK_IO_TUNE, (domain, disk, limits, flags)).await
    }

    /// Limits of a network interface: `inbound.average` (kB/s) …
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn set_interface_limits(
        &self,
        domain: &DomainRef,
        device: &str,
        limits: &Params,
        flags: AffectFlags,
    ) -> Result<()> {
        self.call(p::DOMAIN_SET_INTERFACE_PARAMETERS, (domain, device, limits, flags)).await
    }

    /// Begins to copy a disk to what the XML (`<disk>`) says.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn block_copy(
        &self,
        domain: &DomainRef,
        disk: &str,
        destination_xml: &str,
        params: &Params,
        flags: BlockCopyFlags,
    ) -> Result<()> {
        self.call(p::DOMAIN_BLOCK_COPY, (domain, disk, destination_xml, params, flags)).await
    }

    /// Begins to commit layers of a disk into a lower one. `bandwidth` in MiB/s, 0: unlimited.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn block_commit(
        &self,
        domain: &DomainRef,
        disk: &str,
        base: Option<&str>,
        top: Option<&str>,
        bandwidth: u64,
        flags: BlockCommitFlags,
    ) -> Result<()> {
        self.call(p::DOMAIN_BLOCK_COMMIT, (domain, disk, base, top, bandwidth, flags)).await
    }

    /// Ends a disk's job: cancels it, or with PIVOT moves over to the copy.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn block_job_abort(&self, domain: &DomainRef, disk: &str, flags: BlockJobAbortFlags) -> Result<()> {
        self.call(p::DOMAIN_BLOCK_JOB_ABORT, (domain, disk, flags)).await
    }

    /// A disk's job, if it has one.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn block_job_info(&self, domain: &DomainRef, disk: &str) -> Result<Option<BlockJobInfo>> {
        let (found, kind, bandwidth, current, end): (i32, BlockJobKind, u64, u64, u64) =
            self.call(p::DOMAIN_GET_BLOCK_JOB_INFO, (domain, disk, 0_u32)).await?;
        Ok((found != 0).then_some(BlockJobInfo { kind, bandwidth, current, end }))
    }

    /// Takes a snapshot as the XML (`<domainsnapshot>`) says; gives its name.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn snapshot(&self, domain: &DomainRef, xml: &str, flags: SnapshotFlags) -> Result<String> {
        let (name, _domain): (String, DomainRef) =
            self.call(p::DOMAIN_SNAPSHOT_CREATE_XML, (domain, xml, flags)).await?;
        Ok(name)
    }
}
