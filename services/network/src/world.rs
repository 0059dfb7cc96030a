//! What handlers, jobs and background work of this service share.

use crate::network::{Pools, Views};
use crate::router::Routers;
use contract::ApiError;
use contract::api::Caller;
use contract_identity::limits_client::LimitsClient;
use contract_identity::{ReleaseRequest, ReserveRequest, ResourceAmount};
use coord::Notice;
use jobs::Jobs;
use node::Node;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

/// The topic of changed networks; the payload is the number.
const CHANGED: &str = "network/changed";
/// Resource type of public addresses (enums.json).
pub const LIMIT_PUBLIC_IP: i32 = 1;
/// Resource type of networks.
pub const LIMIT_NETWORK: i32 = 6;

/// Handles and caches of one replica.
pub struct World {
    /// Database, settings, peers.
    pub node: Node,
    /// Jobs.
    pub jobs: Jobs,
    /// Which addresses of networks are free.
    pub pools: Pools,
    /// Networks as interfaces need them.
    pub views: Views,
    /// Workers that bring routers to their wanted state.
    pub routers: Routers,
    /// One at a time in this process, by name.
    pub gates: Gates,
}

impl World {
    /// The world of a replica.
    pub fn new(node: Node, jobs: Jobs) -> Arc<World> {
        let routers = Routers::new(node.clone());
        Arc::new(World {
            pools: Pools::default(),
            views: Views::default(),
            gates: Gates::default(),
            routers,
            node,
            jobs,
        })
    }

    /// A network, or what belongs to it, has changed: replicas read it anew. Nothing rests on their hearing of it.
    pub fn changed(&self, network: i64) {
        self.views.forget(network);
        self.node.coord.publish(CHANGED, &network.to_string());
    }

    /// Forgets what other replicas have changed.
    pub async fn follow(&self) {
        let mut changes = self.node.coord.subscribe(CHANGED);
        loop {
            match changes.next().await {
                Notice::Message(id) => id.parse().into_iter().for_each(|id| self.views.forget(id)),
                Notice::Missed => self.views.clear(),
            }
        }
    }

    /// The page that a request asks for.
    ///
    /// # Errors
    /// 431 when page and size don't fit together.
    pub fn page(&self, page: Option<i32>, size: Option<i32>) -> Result<model::Page, ApiError> {
        model::Page::of(page, size, self.node.settings.get(config::keys::DEFAULT_PAGE_SIZE))
    }

    /// Counts one more resource for an account, under a key that names what holds it.
    ///
    /// # Errors
    /// 535 when a limit is reached.
    pub async fn reserve(&self, caller: &Caller, key: &str, account: i64, kind: i32) -> Result<(), ApiError> {
        let message = ReserveRequest {
            reserver: self.node.replica.clone(),
            key: key.to_owned(),
            account_id: account,
            items: vec![ResourceAmount { r#type: kind, amount: 1 }],
        };
        LimitsClient::new(self.node.peers.identity()).reserve(rpc::cx::repeatable(caller, message)).await?;
        Ok(())
    }

    /// Gives back what was counted under a key. A failure is logged only: identity gives back what has no holder.
    pub async fn release(&self, caller: &Caller, key: &str) {
        let message = ReleaseRequest { key: key.to_owned(), items: Vec::new() };
        let released =
            LimitsClient::new(self.node.peers.identity()).release(rpc::cx::repeatable(caller, message)).await;
        if let Err(error) = released {
            tracing::warn!(key, %error, "a reservation could not be given back now");
        }
    }
}

/// Named locks of this process; a lock that nobody holds takes no room.
#[derive(Default)]
pub struct Gates(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Gates {
    /// Waits for the lock of this name.
    pub async fn enter(&self, name: &str) -> OwnedMutexGuard<()> {
        let gate = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() > 1024 {
                all.retain(|_, gate| gate.strong_count() > 0);
            }
            match all.get(name).and_then(Weak::upgrade) {
                Some(gate) => gate,
                None => {
                    let gate = Arc::new(tokio::sync::Mutex::new(()));
                    all.insert(name.to_owned(), Arc::downgrade(&gate));
                    gate
                }
            }
        };
        gate.lock_owned().await
    }
}
