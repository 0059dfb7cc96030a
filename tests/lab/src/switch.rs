//! Switches: bridges in the lab's namespace.

use crate::Inner;
use std::sync::Arc;

/// A switch without a configuration: it passes frames with tags of 802.1Q and all kinds of packets on as they are.
#[derive(Clone, Debug)]
pub struct Switch {
    pub(crate) lab: Arc<Inner>,
    pub(crate) device: String,
    name: String,
}

impl Switch {
    pub(crate) fn new(lab: Arc<Inner>, name: &str) -> Switch {
        let device = lab.device("sw");
        lab.ip(&format!("link add {device} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"));
        lab.ip(&format!("link set {device} up"));
        Switch { lab, device, name: name.to_owned() }
    }

    /// The switch's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the lab's own namespace an address on the switch: `10.0.0.254/24`.
    ///
    /// # Panics
    /// When the address is none.
    pub fn join(&self, address: &str) {
        self.lab.ip(&format!("addr add {address} dev {}", self.device));
    }

    /// Gives this machine itself, where the test runs, an address on the switch: for control planes and clients that the test starts
    /// outside of the lab. Addresses of labs that run at the same time must differ: see [`crate::Lab::own_network`].
    ///
    /// # Panics
    /// When the address is none, or somebody has it.
    pub fn join_here(&self, address: &str) {
        let (here, there) =
            (format!("{}h{}", self.lab.name, self.device.trim_start_matches("sw")), self.lab.device("here"));
        crate::ip(&format!("link add {here} type veth peer name {there} netns {}", self.lab.name));
        self.lab.ip(&format!("link set {there} master {} up", self.device));
        crate::ip(&format!("addr add {address} dev {here}"));
        crate::ip(&format!("link set {here} up"));
    }

    /// Plugs in a new port, for a machine.
    pub(crate) fn port(&self) -> String {
        let port = self.lab.device("port");
        self.lab.ip(&format!("tuntap add dev {port} mode tap"));
        self.lab.ip(&format!("link set {port} master {} up", self.device));
        port
    }
}
