//! Migration, and what else is a domain's job.
//!
//! Two ways: [`Connection::migrate_to`], where the source's daemon talks to the destination's; or the five steps one by one, where this
//! client holds both connections: begin (source), prepare (destination), perform (source), finish (destination), confirm (source). Each step
//! gives a cookie that the next one takes.

use crate::connection::Connection;
use crate::domain::DomainRef;
use crate::errors::Result;
use crate::flags::{JobStatsFlags, MigrateFlags};
use crate::params::Params;
use crate::procedure as p;
use crate::wire::{Decode, Decoder, Opaque, WireError};

/// Names of parameters of migrations.
#[allow(missing_docs)]
pub mod migrate {
    /// Where the guest's memory goes: `tcp://host:port`, `unix:///path`.
    pub const URI: &str = "migrate_uri";
    pub const DESTINATION_NAME: &str = "destination_name";
    /// The domain as it shall be there.
    pub const DESTINATION_XML: &str = "destination_xml";
    pub const PERSISTENT_XML: &str = "persistent_xml";
    /// MiB/s, unsigned 64 bits.
    pub const BANDWIDTH: &str = "bandwidth";
    pub const GRAPHICS_URI: &str = "graphics_uri";
    pub const LISTEN_ADDRESS: &str = "listen_address";
    /// Target of a disk to copy; may be given more than once.
    pub const DISKS: &str = "migrate_disks";
    pub const DISKS_PORT: &str = "disks_port";
    pub const DISKS_URI: &str = "disks_uri";
    pub const COMPRESSION: &str = "compression";
    pub const AUTO_CONVERGE_INITIAL: &str = "auto_converge.initial";
    pub const AUTO_CONVERGE_INCREMENT: &str = "auto_converge.increment";
    pub const PARALLEL_CONNECTIONS: &str = "parallel.connections";
    pub const TLS_DESTINATION: &str = "tls.destination";
}

codes! {
    /// What kind of job a domain has.
    pub struct JobKind { NONE = 0, BOUNDED = 1, UNBOUNDED = 2, COMPLETED = 3, FAILED = 4, CANCELLED = 5, }
}

/// A domain's job. Times in ms, the rest in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct JobInfo {
    pub kind: JobKind,
    pub elapsed: u64,
    pub remaining: u64,
    pub data_total: u64,
    pub data_processed: u64,
    pub data_remaining: u64,
    pub memory_total: u64,
    pub memory_processed: u64,
    pub memory_remaining: u64,
    pub file_total: u64,
    pub file_processed: u64,
    pub file_remaining: u64,
}

impl Decode for JobInfo {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (kind, elapsed, remaining) = Decode::decode(from)?;
        let (data_total, data_processed, data_remaining) = Decode::decode(from)?;
        let (memory_total, memory_processed, memory_remaining) = Decode::decode(from)?;
        let (file_total, file_processed, file_remaining) = Decode::decode(from)?;
        Ok(JobInfo {
            kind,
            elapsed,
            remaining,
            data_total,
            data_processed,
            data_remaining,
            memory_total,
            memory_processed,
            memory_remaining,
            file_total,
            file_processed,
            file_remaining,
        })
    }
}

/// What a step of a migration hands to the next.
pub type Cookie = Opaque;

impl Connection {
    /// Migrates a domain to the daemon at `destination` (a libvirt URI, **as the source's daemon sees it**), peer to peer; returns
    /// when it runs there. [`MigrateFlags::PEER_TO_PEER`] is added. Holds one of the connection's calls all the while; cancelling stops only the waiting:
    /// end it with [`Connection::abort_job`].
    ///
    /// # Errors
    /// What the daemon says; the domain then runs on here.
    pub async fn migrate_to(
        &self,
        domain: &DomainRef,
        destination: &str,
        params: &Params,
        flags: MigrateFlags,
    ) -> Result<()> {
        let flags = flags | MigrateFlags::PEER_TO_PEER;
        self.migrate_perform(domain, Some(destination), params, &Cookie::default(), flags).await.map(drop)
    }

    /// First step, at the source: gives the domain's XML for the destination.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn migrate_begin(
        &self,
        domain: &DomainRef,
        params: &Params,
        flags: MigrateFlags,
    ) -> Result<(Cookie, String)> {
        self.call(p::DOMAIN_MIGRATE_BEGIN3_PARAMS, (domain, params, flags)).await
    }

    /// Second step, at the destination: a domain waits there for the memory; gives the URI to send it to, if none was asked for. `params` must have
    /// [`migrate::DESTINATION_XML`].
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn migrate_prepare(
        &self,
        params: &Params,
        cookie: &Cookie,
        flags: MigrateFlags,
    ) -> Result<(Cookie, Option<String>)> {
        self.call(p::DOMAIN_MIGRATE_PREPARE3_PARAMS, (params, cookie, flags)).await
    }

    /// Third step, at the source: sends the memory. `destination` only with [`MigrateFlags::PEER_TO_PEER`], when it is the one step.
    ///
    /// # Errors
    /// What the daemon says; finish and confirm must follow with `cancelled`.
    pub async fn migrate_perform(
        &self,
        domain: &DomainRef,
        destination: Option<&str>,
        params: &Params,
        cookie: &Cookie,
        flags: MigrateFlags,
    ) -> Result<Cookie> {
        self.call(p::DOMAIN_MIGRATE_PERFORM3_PARAMS, (domain, destination, params, cookie, flags)).await
    }

    /// Fourth step, at the destination: the domain runs, or, when `cancelled`, is ended.
    ///
    /// # Errors
    /// What the daemon says; confirm must follow with `cancelled`.
    pub async fn migrate_finish(
        &self,
        params: &Params,
        cookie: &Cookie,
        flags: MigrateFlags,
        cancelled: bool,
    ) -> Result<(DomainRef, Cookie)> {
        self.call(p::DOMAIN_MIGRATE_FINISH3_PARAMS, (params, cookie, flags, cancelled)).await
    }

    /// Last step, at the source: the domain is ended, or, when `cancelled`, goes on.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn migrate_confirm(
        &self,
        domain: &DomainRef,
        params: &Params,
        cookie: &Cookie,
        flags: MigrateFlags,
        cancelled: bool,
    ) -> Result<()> {
        self.call(p::DOMAIN_MIGRATE_CONFIRM3_PARAMS, (domain, params, cookie, flags, cancelled)).await
    }

    /// Longest standstill at a migration's end, ms.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn set_max_downtime(&self, domain: &DomainRef, ms: u64) -> Result<()> {
        self.call(p::DOMAIN_MIGRATE_SET_MAX_DOWNTIME, (domain, ms, 0_u32)).await
    }

    /// Bandwidth of a migration, MiB/s.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn set_max_speed(&self, domain: &DomainRef, mib_per_s: u64) -> Result<()> {
        self.call(p::DOMAIN_MIGRATE_SET_MAX_SPEED, (domain, mib_per_s, 0_u32)).await
    }

    /// Ends the domain's job (a migration).
    ///
    /// # Errors
    /// [`is_wrong_state`](crate::Error::is_wrong_state) when it has none.
    pub async fn abort_job(&self, domain: &DomainRef) -> Result<()> {
        self.call(p::DOMAIN_ABORT_JOB, domain).await
    }

    /// How far the domain's job is.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn job_info(&self, domain: &DomainRef) -> Result<JobInfo> {
        self.call(p::DOMAIN_GET_JOB_INFO, domain).await
    }

    /// All that is known of the domain's job.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn job_stats(&self, domain: &DomainRef, flags: JobStatsFlags) -> Result<(JobKind, Params)> {
        self.call(p::DOMAIN_GET_JOB_STATS, (domain, flags)).await
    }
}
