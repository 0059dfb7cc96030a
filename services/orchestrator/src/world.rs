//! What handlers and jobs of the infrastructure work with.

use contract::ApiError;
use hub::Hub;
use jobs::Jobs;
use node::Node;
use pki::Pki;
use std::sync::Arc;

/// Handles of one replica. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// The service's surroundings.
    pub node: Node,
    /// Accepts jobs.
    pub jobs: Jobs,
    /// Connections with hosts.
    pub hub: Hub,
    /// The certificate authority.
    pub pki: Arc<Pki>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("replica", &self.node.replica).finish_non_exhaustive()
    }
}

impl World {
    /// The page that a list command asks for.
    ///
    /// # Errors
    /// 431 when `page` and `pagesize` don't fit together.
    pub fn page(&self, page: Option<i32>, page_size: Option<i32>) -> Result<contract::Page, ApiError> {
        contract::Page::of(page, page_size, self.node.settings.get(config::keys::DEFAULT_PAGE_SIZE))
    }

    /// Tells everybody who keeps hosts in memory that one has changed.
    pub fn host_changed(&self, host: i64) {
        self.node.coord.publish("placement", &format!("host/{host}"));
    }

    /// Tells everybody who keeps hosts in memory that many may have changed.
    pub fn hosts_changed(&self) {
        self.node.coord.publish("placement", "all");
    }
}
