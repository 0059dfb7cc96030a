//! `arcus.storage.v1.ImageStores`.

use super::{given, named};
use crate::store::images::{self, ImageStoreRow, Query};
use crate::store::templates;
use crate::target::{PoolKind, Target};
use crate::{Storage, view};
use contract::ApiError;
use contract::api::Success;
use contract_storage::image_stores_server::ImageStores;
use contract_storage::{
    AddImageStoreRequest, DeleteImageStoreRequest, ImageStore, ListImageStoresRequest, ListImageStoresResponse,
};
use model::names::{self, Table};
use rpc::Cx;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl ImageStores for Storage {
    async fn add(&self, request: Request<AddImageStoreRequest>) -> Result<Response<ImageStore>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let (row, zone) = order(self, &cx, &req).await?;
        if images::name_taken(db, &row.name).await.map_err(ApiError::from)? {
            let text = format!("The image store with name {} already exists, try creating with another name", row.name);
            return Err(ApiError::param(text).into());
        }
        let zones = names::named(db, Table::Zones, [zone]).await.map_err(ApiError::from)?;
        let answer = jobs::mutate!(*db, cx.caller, "add-image-store", |tx| {
            match images::insert(tx, &row).await {
                Err(e) if e.is_unique("live_key") => {
                    return Err(ApiError::param(format!("the zone has an image store at {} already", row.url)));
                }
                inserted => inserted?,
            }
            templates::offer_builtins(tx, zone, row.id).await?;
            Ok(view::image_store(row.clone(), &zones))
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn delete(&self, request: Request<DeleteImageStoreRequest>) -> Result<Response<Success>, Status> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        let id = named(&cx)?.id;
        let answer = jobs::mutate!(self.node.db, cx.caller, "delete-image-store", |tx| {
            if !images::remove(tx, id).await? {
                return Err(ApiError::failed("Cannot delete image store with active templates backup!"));
            }
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn list(
        &self,
        request: Request<ListImageStoresRequest>,
    ) -> Result<Response<ListImageStoresResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let query = Query {
            id: cx.refs.one("id").map(|e| e.id),
            name: given(&req.name),
            protocol: given(&req.protocol),
            provider: given(&req.provider),
            zone: cx.refs.one("zoneid").map(|e| e.id),
            keyword: given(&req.keyword),
        };
        let (rows, count) = images::list(&self.node.db, &query, page).await?;
        let image_store = view::image_stores(&self.node.db, rows).await?;
        Ok(Response::new(ListImageStoresResponse { count: Some(count), image_store }))
    }
}

/// Checks what addImageStore asks for.
async fn order(s: &Storage, cx: &Cx, req: &AddImageStoreRequest) -> Result<(ImageStoreRow, i64), ApiError> {
    let provider = given(&req.provider).unwrap_or_default();
    if !provider.eq_ignore_ascii_case("NFS") {
        let text = format!("can't find image store provider: {provider}; there is NFS, and the others come later");
        return Err(ApiError::unsupported(text));
    }
    if !req.details.is_empty() {
        return Err(ApiError::unsupported("an NFS image store takes no details: leave them out"));
    }
    let url = given(&req.url).ok_or_else(|| ApiError::param("an NFS image store needs a url: nfs://server/path"))?;
    let target = Target::parse(url)?;
    if target.kind != PoolKind::NetworkFilesystem {
        return Err(ApiError::param(format!("{url} is not a valid uri: an NFS image store is at nfs://server/path")));
    }
    let zone: i64 =
        cx.refs.id("zoneid")?.ok_or_else(|| ApiError::param("an NFS image store belongs to a zone: give zoneid"))?;
    let id = s.node.db.next_id("image_store").await?;
    let uuid = model::new_uuid();
    let row = ImageStoreRow {
        id,
        name: given(&req.name).unwrap_or(&uuid).to_owned(),
        uuid,
        url: url.to_owned(),
        protocol: "nfs".to_owned(),
        provider: "NFS".to_owned(),
        scope: "ZONE".to_owned(),
        zone_id: Some(zone),
    };
    Ok((row, zone))
}
