//! What a KVM host says of itself.

use super::KvmOptions;
use super::probe::Acceleration;
use contract::ApiError;
use contract_agent::HostFacts;
use router::{Device, Namespace};

/// The hypervisor's name in the API.
pub(crate) const HYPERVISOR: &str = "KVM";
/// The same where guests are containers.
const CONTAINERS: &str = "LXC";
/// MHz where neither libvirt nor the kernel knows: emulated processors.
const UNKNOWN_MHZ: u32 = 1000;

/// What facts depend on beside the machine.
#[derive(Clone, Debug)]
pub(crate) struct FactsConfig {
    /// The device whose address is the host's private one; none: that of the default route.
    pub management: Option<String>,
    /// The host's name; none: libvirt's.
    pub name: Option<String>,
    /// The host's private address; none: the first of the management device.
    pub private_ip: Option<String>,
    /// What is left to the host itself, bytes (4.11's `host.reserved.mem.mb`).
    pub reserved_memory: u64,
    /// The host's own network namespace.
    pub namespace: Namespace,
    /// Version of the agent.
    pub agent_version: String,
}

impl FactsConfig {
    /// As a host is set to.
    pub fn of(options: &KvmOptions, agent_version: impl Into<String>) -> FactsConfig {
        FactsConfig {
            management: None,
            name: None,
            private_ip: options.private_ip.clone(),
            reserved_memory: options.reserved_memory,
            namespace: options.network_namespace.as_deref().map_or(Namespace::Own, Namespace::named),
            agent_version: agent_version.into(),
        }
    }
}

/// Asks libvirt and the kernel. Sockets, processors and MHz as 4.11 counts them: `cpus` are logical processors.
///
/// # Errors
/// libvirt doesn't answer, or the management device isn't there.
pub(crate) async fn facts(
    connection: &libvirt::Connection,
    config: &FactsConfig,
    acceleration: &Acceleration,
) -> Result<HostFacts, ApiError> {
    let told = |error: libvirt::Error| ApiError::unavailable(format!("libvirt doesn't say what this host is: {error}"));
    let node = connection.node_info().await.map_err(told)?;
    let version = connection.hypervisor_version().await.map_err(told)?;
    let name = match &config.name {
        Some(name) => name.clone(),
        None => connection.hostname().await.map_err(told)?,
    };
    let device = management(config).await?;
    let positive = |n: i32| u32::try_from(n).unwrap_or(0);
    let memory_bytes = node.memory.saturating_mul(1024);
    let address = device.as_ref().and_then(|d| d.addresses.first()).map(|a| a.addr().to_string());
    Ok(HostFacts {
        name,
        hypervisor: if *acceleration == Acceleration::Unneeded { CONTAINERS } else { HYPERVISOR }.into(),
        hypervisor_version: version.to_string(),
        agent_version: config.agent_version.clone(),
        sockets: positive(node.nodes).max(1) * positive(node.sockets).max(1),
        cpus: positive(node.cpus).max(1),
        cpu_mhz: mhz(positive(node.mhz), &std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        memory_bytes,
        // A small machine keeps a quarter: else nothing would be left for guests.
        dom0_memory_bytes: config.reserved_memory.min(memory_bytes / 4),
        private_ip: config.private_ip.clone().or(address).unwrap_or_default(),
        private_mac: device.map(|d| d.mac.to_string()).unwrap_or_default(),
        capabilities: capabilities(acceleration),
    })
}

/// The management device with its addresses; `None` when none is named and the machine has no default route.
async fn management(config: &FactsConfig) -> Result<Option<Device>, ApiError> {
    let failed = |error: router::HostError| ApiError::internal(error.to_string());
    if let (None, Some(ip)) = (&config.management, &config.private_ip) {
        let with_it = |d: &Device| d.addresses.iter().any(|a| a.addr().to_string() == *ip);
        return Ok(Device::all(&config.namespace).await.map_err(failed)?.into_iter().find(with_it));
    }
    match &config.management {
        Some(name) => match Device::find(&config.namespace, name).await.map_err(failed)? {
            Some(device) => Ok(Some(device)),
            None => {
                Err(ApiError::failed(format!("this host has no device {name}, which is to be its management device")))
            }
        },
        None => Device::way_out(&config.namespace).await.map_err(failed),
    }
}

/// 4.11's words; `kvm` only where hardware acceleration runs guests, so that whoever looks sees an emulating host.
fn capabilities(acceleration: &Acceleration) -> Vec<String> {
    if *acceleration == Acceleration::Unneeded {
        return vec!["lxc".to_owned()];
    }
    let mut capabilities = vec!["hvm".to_owned(), "snapshot".to_owned()];
    if matches!(acceleration, Acceleration::Kvm) {
        capabilities.push("kvm".to_owned());
    }
    capabilities
}

/// libvirt's, else the fastest processor's of `/proc/cpuinfo` at the moment.
fn mhz(told: u32, cpuinfo: &str) -> u32 {
    if told > 0 {
        return told;
    }
    let values = cpuinfo.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == "cpu MHz");
    let whole = |text: &str| text.trim().split('.').next().and_then(|n| n.parse::<u32>().ok());
    values.filter_map(|(_, value)| whole(value)).max().filter(|n| *n > 0).unwrap_or(UNKNOWN_MHZ)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn megahertz_are_never_zero() {
        assert_eq!(mhz(2400, ""), 2400);
        assert_eq!(mhz(0, "processor : 0\ncpu MHz\t\t: 1800.123\nprocessor : 1\ncpu MHz : 2601.9\n"), 2601);
        assert_eq!(mhz(0, "cpu MHz : 0.000\n"), UNKNOWN_MHZ);
        assert_eq!(mhz(0, "no such line"), UNKNOWN_MHZ);
    }

    #[tokio::test]
    async fn a_host_is_what_libvirt_and_the_kernel_say() {
        if !testkit::Libvirtd::available("a_host_is_what_libvirt_and_the_kernel_say") {
            return;
        }
        let host = testkit::Libvirtd::start().await;
        let connection = libvirt::Connection::open(host.socket(), libvirt::Options::default()).await.unwrap();
        let config = FactsConfig { management: Some("lo".into()), ..FactsConfig::of(&KvmOptions::default(), "1.2.3") };
        let tcg = Acceleration::Tcg { why: "a test".into() };
        let said = facts(&connection, &config, &tcg).await.unwrap();
        assert_eq!((said.hypervisor.as_str(), said.name.as_str()), ("KVM", host.name()));
        assert_eq!((said.private_ip.as_str(), said.agent_version.as_str()), ("127.0.0.1", "1.2.3"));
        let cpus = std::thread::available_parallelism().unwrap().get();
        assert!(said.cpus as usize >= cpus && said.sockets >= 1 && said.cpu_mhz > 0, "{said:?}");
        assert!(said.memory_bytes > 256 << 20 && said.dom0_memory_bytes < said.memory_bytes / 2, "{said:?}");
        assert!(said.hypervisor_version.starts_with(|c: char| c.is_ascii_digit()), "{said:?}");
        assert!(!said.capabilities.contains(&"kvm".to_owned()));
        let nowhere = FactsConfig { management: Some("nothere".into()), ..config };
        let error = facts(&connection, &nowhere, &Acceleration::Kvm).await.unwrap_err();
        assert!(error.text.contains("no device nothere"), "{}", error.text);
    }
}
