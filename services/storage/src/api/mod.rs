//! Handlers, one file a proto service.

mod disk_offerings;
mod disks;
mod downloads;
mod image_stores;
mod metrics;
mod snapshots;
mod storage_pools;
mod templates;
mod volumes;

use crate::Storage;
use config::keys;
use contract::api::Caller;
use contract::{ApiError, Page};
use contract_storage::disk_offerings_server::DiskOfferingsServer;
use contract_storage::disks_server::DisksServer;
use contract_storage::downloads_server::DownloadsServer;
use contract_storage::image_stores_server::ImageStoresServer;
use contract_storage::snapshots_server::SnapshotsServer;
use contract_storage::storage_metrics_server::StorageMetricsServer;
use contract_storage::storage_pools_server::StoragePoolsServer;
use contract_storage::templates_server::TemplatesServer;
use contract_storage::volumes_server::VolumesServer;
use events::{EventRecord, EventState, Record};
use model::{Entity, Owner};
use rpc::Cx;
use tonic::service::Routes;

/// All proto services of storage.
pub fn routes(s: Storage) -> Routes {
    Routes::new(DiskOfferingsServer::new(s.clone()))
        .add_service(StoragePoolsServer::new(s.clone()))
        .add_service(StorageMetricsServer::new(s.clone()))
        .add_service(ImageStoresServer::new(s.clone()))
        .add_service(TemplatesServer::new(s.clone()))
        .add_service(VolumesServer::new(s.clone()))
        .add_service(SnapshotsServer::new(s.clone()))
        .add_service(DownloadsServer::new(s.clone()))
        .add_service(DisksServer::new(s))
}

impl Storage {
    fn page(&self, page: Option<i32>, size: Option<i32>) -> Result<Page, ApiError> {
        Page::of(page, size, self.node.settings.get(keys::DEFAULT_PAGE_SIZE))
    }
}

/// The event of a synchronous command.
fn done(caller: &Caller, kind: &str, text: String, about: (&str, &str), owner: Option<&Owner>) -> Record {
    let event = EventRecord::new(caller, kind, EventState::Completed, text).about(about.0, about.1);
    Record::Event(match owner {
        Some(owner) => event.owned_by(owner),
        None => event,
    })
}

/// A text that is there and not empty.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|t| !t.is_empty())
}

/// The domain that `domainid` names: number and id path.
fn domain_of(cx: &Cx) -> Result<Option<(i64, String)>, ApiError> {
    let entity = cx.refs.living("domainid")?;
    Ok(entity.map(|e| (e.id, e.owner.as_ref().map(|o| o.domain_path.clone()).unwrap_or_default())))
}

/// What `id` names, dead or alive: the mutation itself tells whether it lives, so that a repeat of a deletion with the same
/// idempotency key gets the first answer.
fn named(cx: &Cx) -> Result<&Entity, ApiError> {
    cx.refs.one("id").ok_or_else(|| ApiError::param("parameter id is missing"))
}

/// What `id` and `ids` name; both at once is a fault.
fn named_ids(cx: &Cx) -> Result<Vec<i64>, ApiError> {
    let one: Option<i64> = cx.refs.one("id").map(|e| e.id);
    let many: Vec<i64> = cx.refs.all("ids").iter().map(|e| e.id).collect();
    match one {
        Some(_) if !many.is_empty() => Err(ApiError::param("Specify either id or ids but not both parameters")),
        Some(id) => Ok(vec![id]),
        None => Ok(many),
    }
}
