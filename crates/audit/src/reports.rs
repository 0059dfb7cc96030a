//! How hosts are asked.

use contract::ApiError;
use contract_agent::{DiskState, Report};

/// What a host runs.
pub type HostReport = Report;

/// The way to hosts. What can't be asked is an error, and no violation.
#[async_trait::async_trait]
pub trait Reports: Send + Sync {
    /// What the host with this number runs at this moment.
    async fn host(&self, host: i64) -> Result<HostReport, ApiError>;

    /// A page of what lies on a pool, by volume UUID, as a host that reaches it sees it; and whether there is more.
    async fn disks(&self, host: i64, pool: &str, after: &str) -> Result<(Vec<DiskState>, bool), ApiError>;
}
