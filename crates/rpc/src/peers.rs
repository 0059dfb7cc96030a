//! Channels to the other services, by name.

use crate::local::LocalNet;
use std::sync::Arc;
use tonic::transport::Channel;

/// The services of Arcus, by the names that `option (owner)` uses.
pub const SERVICES: &[&str] = &["gateway", "identity", "orchestrator", "network", "storage", "usage"];

/// One channel a service. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    channels: Arc<[(&'static str, Channel)]>,
}

impl Peers {
    /// All services in this process.
    pub fn local(net: &Arc<LocalNet>) -> Peers {
        Peers { channels: SERVICES.iter().map(|s| (*s, net.channel(s))).collect() }
    }

    /// Channels made elsewhere, for example with TLS and balanced over replicas.
    pub fn from_channels(channels: impl IntoIterator<Item = (&'static str, Channel)>) -> Peers {
        Peers { channels: channels.into_iter().collect() }
    }

    /// The channel to `service`, when there is such a service.
    pub fn find(&self, service: &str) -> Option<Channel> {
        self.channels.iter().find(|(name, _)| *name == service).map(|(_, c)| c.clone())
    }
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        impl Peers {
            $($(#[$doc])*
            ///
            /// # Panics
            /// Never for peers made by this crate: they hold all of [`SERVICES`].
            #[allow(clippy::expect_used)]
            pub fn $name(&self) -> Channel {
                self.find(stringify!($name)).expect("all services have a channel")
            })*
        }
    };
}
named! {
    /// Identity.
    identity,
    /// Orchestrator.
    orchestrator,
    /// Network.
    network,
    /// Storage.
    storage,
    /// Usage.
    usage,
}
