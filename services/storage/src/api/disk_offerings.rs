//! `arcus.storage.v1.DiskOfferings`.

use super::{domain_of, done, given, named};
use crate::offering;
use crate::size::Limits;
use crate::store::offerings::{self, Change, Query};
use crate::{Storage, view};
use contract::ApiError;
use contract::api::Success;
use contract_storage::disk_offerings_server::DiskOfferings;
use contract_storage::{
    CreateDiskOfferingRequest, DeleteDiskOfferingRequest, DiskOffering, ListDiskOfferingsRequest,
    ListDiskOfferingsResponse, UpdateDiskOfferingRequest,
};
use model::names;
use tonic::{Request, Response, Status};

const KIND: &str = "DiskOffering";

#[tonic::async_trait]
impl DiskOfferings for Storage {
    async fn create(&self, request: Request<CreateDiskOfferingRequest>) -> Result<Response<DiskOffering>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let domain = domain_of(&cx)?;
        let new = offering::of_request(&cx.caller, &req, domain, Limits::of(&self.node.settings))?;
        let domains = names::domains(db, new.domain.iter().map(|(id, _)| *id)).await.map_err(ApiError::from)?;
        let id = db.next_id("disk_offering").await.map_err(ApiError::from)?;
        let uuid = model::new_uuid();
        let answer = jobs::mutate!(*db, cx.caller, "create-disk-offering", |tx| {
            let row = offerings::insert(tx, id, &uuid, None, &new).await?;
            let text = format!("Disk offering id={id}, name={}", row.name);
            events::record(tx, &[done(&cx.caller, "DISK.OFFERING.CREATE", text, (KIND, &row.uuid), None)]).await?;
            Ok(view::disk_offering(row, &domains))
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn update(&self, request: Request<UpdateDiskOfferingRequest>) -> Result<Response<DiskOffering>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let id: i64 = cx.refs.need("id")?;
        let old = offerings::find(db, id).await.map_err(ApiError::from)?.ok_or_else(gone)?;
        check_reach(&cx.caller, &old)?;
        let domains = names::domains(db, old.domain_id).await.map_err(ApiError::from)?;
        let change = Change {
            name: given(&req.name),
            display_text: given(&req.display_text),
            sort_key: req.sort_key.map(i64::from),
            display: req.display_offering,
        };
        let answer = jobs::mutate!(*db, cx.caller, "update-disk-offering", |tx| {
            let row = offerings::update(tx, id, &change).await?.ok_or_else(gone)?;
            let text = format!("Updated disk offering: {}", row.name);
            events::record(tx, &[done(&cx.caller, "DISK.OFFERING.EDIT", text, (KIND, &row.uuid), None)]).await?;
            Ok(view::disk_offering(row, &domains))
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn delete(&self, request: Request<DeleteDiskOfferingRequest>) -> Result<Response<Success>, Status> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let id = named(&cx)?.id;
        let row = offerings::by_ids(db, &[id]).await.map_err(ApiError::from)?.pop().ok_or_else(gone)?;
        check_reach(&cx.caller, &row)?;
        let answer = jobs::mutate!(*db, cx.caller, "delete-disk-offering", |tx| {
            if !offerings::remove(tx, id).await? {
                return Err(gone());
            }
            let text = format!("Deleted disk offering: {}", row.name);
            events::record(tx, &[done(&cx.caller, "DISK.OFFERING.DELETE", text, (KIND, &row.uuid), None)]).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn list(
        &self,
        request: Request<ListDiskOfferingsRequest>,
    ) -> Result<Response<ListDiskOfferingsResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let domain = domain_of(&cx)?;
        if let Some((_, path)) = &domain
            && !cx.caller.is_root_admin()
            && !(cx.caller.domain_path.starts_with(path.as_str()) || path.starts_with(&cx.caller.domain_path))
        {
            return Err(ApiError::permission("the domain is outside of what you may see").into());
        }
        let query = Query {
            id: cx.refs.one("id").map(|e| e.id),
            name: given(&req.name),
            keyword: given(&req.keyword),
            domain: domain.as_ref().map(|(id, path)| (*id, path.as_str())),
            recursive: req.is_recursive.unwrap_or(false),
        };
        let (rows, count) = offerings::list(&self.node.db, &cx.caller, &query, page).await?;
        let disk_offering = view::disk_offerings(&self.node.db, rows).await?;
        Ok(Response::new(ListDiskOfferingsResponse { count: Some(count), disk_offering }))
    }
}

fn gone() -> ApiError {
    ApiError::param("Unable to find disk offering: it doesn't exist or has been deleted")
}

/// Domain administrators change the offerings of their own subtree only.
fn check_reach(caller: &contract::api::Caller, row: &offerings::OfferingRow) -> Result<(), ApiError> {
    let own = row.domain_path.as_ref().is_some_and(|path| path.starts_with(&caller.domain_path));
    if caller.is_root_admin() || own {
        return Ok(());
    }
    Err(ApiError::permission(format!("disk offering {} is not of your domain", row.name)))
}
