//! The metrics commands of storage: the plain lists, with figures (plugin metrics of 4.11). The messages have the plain ones'
//! fields under the same numbers (a test holds that), so that one is read as the other.

use crate::Storage;
use config::{Scope, Settings, keys};
use contract_storage::storage_metrics_server::StorageMetrics;
use contract_storage::{
    ListStoragePoolsMetricsRequest, ListStoragePoolsMetricsResponse, ListVolumesMetricsRequest,
    ListVolumesMetricsResponse, StoragePoolMetrics,
};
use prost::Message;
use tonic::{Request, Response, Status};

const GB: f64 = 1024.0 * 1024.0 * 1024.0;

/// The same message under another name.
fn read_as<A: Message, B: Message + Default>(message: &A) -> Result<B, Status> {
    B::decode(message.encode_to_vec().as_slice()).map_err(|e| Status::internal(format!("unlike messages: {e}")))
}

#[tonic::async_trait]
impl StorageMetrics for Storage {
    async fn pools(
        &self,
        request: Request<ListStoragePoolsMetricsRequest>,
    ) -> Result<Response<ListStoragePoolsMetricsResponse>, Status> {
        let (cx, r) = self.node.rpc.enter(request).await?;
        let listed = self.listed_pools(&cx, read_as(&r)?).await?;
        let mut answer: ListStoragePoolsMetricsResponse = read_as(&listed)?;
        for pool in &mut answer.storage_pool {
            figures(&self.node.settings, pool);
        }
        Ok(Response::new(answer))
    }

    async fn volumes(
        &self,
        request: Request<ListVolumesMetricsRequest>,
    ) -> Result<Response<ListVolumesMetricsResponse>, Status> {
        let (cx, r) = self.node.rpc.enter(request).await?;
        let listed = self.listed_volumes(&cx, read_as(&r)?).await?;
        let mut answer: ListVolumesMetricsResponse = read_as(&listed)?;
        for volume in &mut answer.volume {
            volume.size_gb = volume.size.map(gb);
        }
        Ok(Response::new(answer))
    }
}

#[allow(clippy::cast_precision_loss)] // sizes are far below 2^53
fn figures(settings: &Settings, pool: &mut StoragePoolMetrics) {
    let (total, given, used) =
        (pool.disk_size_total.unwrap_or(0), pool.disk_size_allocated.unwrap_or(0), pool.disk_size_used);
    let factor: f64 = pool.overprovision_factor.as_deref().and_then(|f| f.parse().ok()).unwrap_or(1.0);
    let room = total as f64 * factor;
    pool.disk_size_used_gb = used.map(gb);
    pool.disk_size_total_gb =
        Some(format!("{} (x{})", gb(total), pool.overprovision_factor.as_deref().unwrap_or("1.0")));
    pool.disk_size_allocated_gb = Some(gb(given));
    pool.disk_size_unallocated_gb = Some(format!("{:.2} GB", (room - given as f64) / GB));
    let above = |part: i64, of: f64, bound: f64| Some(of > 0.0 && part as f64 / of > bound);
    let bound = |key| settings.get_in(key, Scope::Global);
    let used = used.unwrap_or(0);
    pool.storage_usage_threshold = above(used, total as f64, bound(keys::CLUSTER_STORAGE_NOTIFICATION_THRESHOLD));
    pool.storage_usage_disable_threshold = above(used, total as f64, bound(keys::POOL_USED_DISABLE_THRESHOLD));
    pool.storage_allocated_threshold =
        above(given, room, bound(keys::CLUSTER_STORAGE_ALLOCATED_NOTIFICATION_THRESHOLD));
    pool.storage_allocated_disable_threshold = above(given, room, bound(keys::POOL_ALLOCATED_DISABLE_THRESHOLD));
}

#[allow(clippy::cast_precision_loss)] // sizes are far below 2^53
fn gb(bytes: i64) -> String {
    format!("{:.2} GB", bytes as f64 / GB)
}
