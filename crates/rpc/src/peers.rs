//! Channels to the other services, by name.

use crate::channel::{Dial, PeerChannel};
use crate::local::LocalNet;
use coord::Coord;
use futures::future::BoxFuture;
use std::sync::Arc;

/// The services of Arcus, by the names that `option (owner)` uses.
pub const SERVICES: &[&str] = &["gateway", "identity", "orchestrator", "network", "storage", "usage"];

/// One channel a service. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    channels: Arc<[(&'static str, PeerChannel)]>,
}

impl Peers {
    /// All services in this process.
    pub fn local(net: &Arc<LocalNet>) -> Peers {
        Peers { channels: SERVICES.iter().map(|s| (*s, net.channel(s).into())).collect() }
    }

    /// The living replicas of all services, found through `coord` and reached by what `dial` makes for a service. Also
    /// gives the work of following them, which the caller runs.
    pub fn discovered(coord: &Coord, dial: impl Fn(&'static str) -> Dial) -> (Peers, BoxFuture<'static, ()>) {
        let mut work = Vec::new();
        let channels = SERVICES
            .iter()
            .map(|service| {
                let (channel, follow) = PeerChannel::to_replicas(service, coord, dial(service));
                work.push(follow);
                (*service, channel)
            })
            .collect();
        (Peers { channels }, Box::pin(async move { drop(futures::future::join_all(work).await) }))
    }

    /// Channels made elsewhere.
    pub fn from_channels(channels: impl IntoIterator<Item = (&'static str, PeerChannel)>) -> Peers {
        Peers { channels: channels.into_iter().collect() }
    }

    /// The channel to `service`, when there is such a service.
    pub fn find(&self, service: &str) -> Option<PeerChannel> {
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
            pub fn $name(&self) -> PeerChannel {
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
