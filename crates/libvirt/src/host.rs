//! What the daemon knows of its host.

use crate::connection::Connection;
use crate::errors::Result;
use crate::procedure as p;
use crate::wire::{Decode, Decoder, WireError};

/// A version: 9.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    pub release: u64,
}

impl Decode for Version {
    /// One number: 1,000,000 × major + 1,000 × minor + release.
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let n = from.u64()?;
        Ok(Version { major: n / 1_000_000, minor: n / 1_000 % 1_000, release: n % 1_000 })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.release)
    }
}

/// The host's processors and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// `"x86_64"`.
    pub model: String,
    /// KiB.
    pub memory: u64,
    /// Active logical processors.
    pub cpus: i32,
    /// MHz; 0 if unknown.
    pub mhz: i32,
    /// NUMA cells; 1 if it is unusual.
    pub nodes: i32,
    /// Sockets of each cell.
    pub sockets: i32,
    /// Cores of each socket.
    pub cores: i32,
    /// Threads of each core.
    pub threads: i32,
}

impl Decode for NodeInfo {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        // char[32]: XDR spends four bytes on each.
        let model: Vec<u8> =
            (0..32).map(|_| i32::decode(from).map(|c| c.to_be_bytes()[3])).collect::<Result<_, _>>()?;
        let model = model.split(|c| *c == 0).next().unwrap_or_default();
        Ok(NodeInfo {
            model: String::from_utf8_lossy(model).into_owned(),
            memory: Decode::decode(from)?,
            cpus: Decode::decode(from)?,
            mhz: Decode::decode(from)?,
            nodes: Decode::decode(from)?,
            sockets: Decode::decode(from)?,
            cores: Decode::decode(from)?,
            threads: Decode::decode(from)?,
        })
    }
}

/// For which kind of guest the capabilities are asked. Absent: the daemon's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestKind {
    /// Path of the emulator.
    pub emulator: Option<String>,
    /// `"x86_64"`.
    pub arch: Option<String>,
    /// `"q35"`.
    pub machine: Option<String>,
    /// `"kvm"` or `"qemu"`.
    pub virt_type: Option<String>,
}

impl Connection {
    /// libvirt's version.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn library_version(&self) -> Result<Version> {
        self.call(p::CONNECT_GET_LIB_VERSION, ()).await
    }

    /// The hypervisor's version (QEMU's).
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn hypervisor_version(&self) -> Result<Version> {
        self.call(p::CONNECT_GET_VERSION, ()).await
    }

    /// The host's name, as others may reach it for migrations.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn hostname(&self) -> Result<String> {
        self.call(p::CONNECT_GET_HOSTNAME, ()).await
    }

    /// The URI that the daemon knows this connection by.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn uri(&self) -> Result<String> {
        self.call(p::CONNECT_GET_URI, ()).await
    }

    /// The host's and the guests' capabilities, XML. The host's UUID is in it.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn capabilities(&self) -> Result<String> {
        self.call(p::CONNECT_GET_CAPABILITIES, ()).await
    }

    /// What guests of a kind may have, XML.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn domain_capabilities(&self, kind: &GuestKind) -> Result<String> {
        let GuestKind { emulator, arch, machine, virt_type } = kind;
        let kind = (emulator.as_ref(), arch.as_ref(), machine.as_ref(), virt_type.as_ref(), 0_u32);
        self.call(p::CONNECT_GET_DOMAIN_CAPABILITIES, kind).await
    }

    /// Processors and memory.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn node_info(&self) -> Result<NodeInfo> {
        self.call(p::NODE_GET_INFO, ()).await
    }

    /// Memory that is free, bytes.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn free_memory(&self) -> Result<u64> {
        self.call(p::NODE_GET_FREE_MEMORY, ()).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::{Encode, Encoder, decode_all};

    #[test]
    fn node_info_spends_four_bytes_on_a_character() {
        let mut to = Encoder::new();
        for i in 0..32 {
            b"x86_64".get(i).map_or(0_u32, |c| u32::from(*c)).encode(&mut to);
        }
        (1024_u64, 8_i32, 3000_i32, 1_i32, 1_i32, 4_i32, 2_i32).encode(&mut to);
        let info: NodeInfo = decode_all(&to.finish().unwrap()).unwrap();
        assert_eq!((info.model.as_str(), info.memory, info.cpus, info.threads), ("x86_64", 1024, 8, 2));
    }

    #[test]
    fn versions_are_one_number() {
        let version: Version = decode_all(&9_002_003_u64.to_be_bytes()).unwrap();
        assert_eq!(version.to_string(), "9.2.3");
    }
}
