//! Statistics of domains.

use crate::connection::Connection;
use crate::domain::DomainRef;
use crate::errors::Result;
use crate::flags::{StatsFlags, StatsGroups};
use crate::params::Params;
use crate::procedure as p;
use crate::wire::{Decode, Decoder, WireError};

codes! {
    /// What a number of [`Connection::memory_stats`] means. KiB, unless said otherwise.
    pub struct MemoryStat {
        SWAP_IN = 0, SWAP_OUT = 1,
        /// Count.
        MAJOR_FAULT = 2,
        /// Count.
        MINOR_FAULT = 3,
        UNUSED = 4, AVAILABLE = 5, ACTUAL_BALLOON = 6, RSS = 7, USABLE = 8,
        /// Seconds since 1970.
        LAST_UPDATE = 9,
        DISK_CACHES = 10, HUGETLB_PAGE_ALLOC = 11, HUGETLB_PAGE_FAIL = 12,
    }
}

/// Bytes and packets of a network interface since it exists. -1: not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct InterfaceStats {
    pub rx_bytes: i64,
    pub rx_packets: i64,
    pub rx_errors: i64,
    pub rx_dropped: i64,
    pub tx_bytes: i64,
    pub tx_packets: i64,
    pub tx_errors: i64,
    pub tx_dropped: i64,
}

impl Decode for InterfaceStats {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (rx_bytes, rx_packets, rx_errors, rx_dropped) = Decode::decode(from)?;
        let (tx_bytes, tx_packets, tx_errors, tx_dropped) = Decode::decode(from)?;
        Ok(InterfaceStats { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped })
    }
}

/// Requests and bytes of a disk since the domain started. -1: not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BlockStats {
    pub read_requests: i64,
    pub read_bytes: i64,
    pub write_requests: i64,
    pub write_bytes: i64,
    pub errors: i64,
}

impl Decode for BlockStats {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (read_requests, read_bytes, write_requests, write_bytes, errors) = Decode::decode(from)?;
        Ok(BlockStats { read_requests, read_bytes, write_requests, write_bytes, errors })
    }
}

/// A domain and its statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainStats {
    /// Which.
    pub domain: DomainRef,
    /// `state.state`, `cpu.time`, `balloon.current`, `net.0.rx.bytes`, `block.0.rd.reqs` …
    pub stats: Params,
}

impl Decode for DomainStats {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(DomainStats { domain: Decode::decode(from)?, stats: Decode::decode(from)? })
    }
}

impl Connection {
    /// What the guest's balloon driver tells, and the resident memory on the host.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn memory_stats(&self, domain: &DomainRef) -> Result<Vec<(MemoryStat, u64)>> {
        self.call(p::DOMAIN_MEMORY_STATS, (domain, 64_u32, 0_u32)).await
    }

    /// A network interface, named by its device on the host (`"vnet0"`) or its MAC address.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn interface_stats(&self, domain: &DomainRef, device: &str) -> Result<InterfaceStats> {
        self.call(p::DOMAIN_INTERFACE_STATS, (domain, device)).await
    }

    /// A disk, named by its target (`"vda"`).
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn block_stats(&self, domain: &DomainRef, disk: &str) -> Result<BlockStats> {
        self.call(p::DOMAIN_BLOCK_STATS, (domain, disk)).await
    }

    /// A disk with times and flushes: `rd_total_times`, `flush_operations` …
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn block_stats_more(&self, domain: &DomainRef, disk: &str) -> Result<Params> {
        const STRING_OKAY: u32 = 4;
        let (params, _count): (Params, i32) =
            self.call(p::DOMAIN_BLOCK_STATS_FLAGS, (domain, disk, 16_i32, STRING_OKAY)).await?;
        Ok(params)
    }

    /// Statistics of all domains that the flags ask for, in one call.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn all_stats(&self, groups: StatsGroups, flags: StatsFlags) -> Result<Vec<DomainStats>> {
        self.stats_of(&[], groups, flags).await
    }

    /// Statistics of these domains.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn stats_of(
        &self,
        domains: &[DomainRef],
        groups: StatsGroups,
        flags: StatsFlags,
    ) -> Result<Vec<DomainStats>> {
        self.call(p::CONNECT_GET_ALL_DOMAIN_STATS, (domains, groups, flags)).await
    }
}
