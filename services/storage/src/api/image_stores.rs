//! `arcus.storage.v1.ImageStores`.

use super::{given, named};
use crate::images::{nudge, reach, rooms};
use crate::store::copies::{self, NewCopy};
use crate::store::images::{self, ImageStoreRow, Query};
use crate::store::{template_writes, templates};
use crate::target::place::{self, Place};
use crate::{Storage, view};
use contract::ApiError;
use contract::api::Success;
use contract_storage::image_stores_server::ImageStores;
use contract_storage::{
    AddImageStoreRequest, AddImageStoreS3Request, AddSecondaryStorageRequest, DeleteImageStoreRequest, ImageStore,
    ListImageStoresRequest, ListImageStoresResponse,
};
use model::names::{self, Table};
use rpc::Cx;
use std::collections::BTreeMap;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl ImageStores for Storage {
    async fn add(&self, request: Request<AddImageStoreRequest>) -> Result<Response<ImageStore>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let mut details = BTreeMap::new();
        for d in &req.details {
            let (Some(key), Some(value)) = (given(&d.key), given(&d.value)) else {
                return Err(ApiError::param("each detail needs a key and a value").into());
            };
            details.insert(key.to_lowercase(), value.to_owned());
        }
        let place = Place::of(given(&req.provider).unwrap_or_default(), given(&req.url), details)?;
        Ok(Response::new(self.add_store(&cx, place, given(&req.name)).await?))
    }

    async fn add_secondary_storage(
        &self,
        request: Request<AddSecondaryStorageRequest>,
    ) -> Result<Response<ImageStore>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let url = given(&req.url);
        let provider =
            if url.is_some_and(|u| u.to_lowercase().starts_with("file:")) { place::DIRECTORY } else { place::NFS };
        let place = Place::of(provider, url, BTreeMap::new())?;
        Ok(Response::new(self.add_store(&cx, place, None).await?))
    }

    async fn add_s3(&self, request: Request<AddImageStoreS3Request>) -> Result<Response<ImageStore>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let mut details = BTreeMap::new();
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value.filter(|v| !v.trim().is_empty()) {
                details.insert(key.to_owned(), value.trim().to_owned());
            }
        };
        put("accesskey", req.access_key.clone());
        put("secretkey", req.secret_key.clone());
        put("endpoint", req.endpoint.clone());
        put("bucket", req.bucket.clone());
        put("s3signer", req.s3_signer.clone());
        put("usehttps", req.use_https.map(|b| b.to_string()));
        put("connectiontimeout", req.connection_timeout.map(|n| n.to_string()));
        put("maxerrorretry", req.max_error_retry.map(|n| n.to_string()));
        put("sockettimeout", req.socket_timeout.map(|n| n.to_string()));
        put("connectionttl", req.connection_ttl.map(|n| n.to_string()));
        put("usetcpkeepalive", req.use_tcp_keep_alive.map(|b| b.to_string()));
        let place = Place::of(place::S3, None, details)?;
        Ok(Response::new(self.add_store(&cx, place, None).await?))
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

impl Storage {
    /// Adds a store, and puts into it what every store of its zone has.
    async fn add_store(&self, cx: &Cx, place: Place, name: Option<&str>) -> Result<ImageStore, ApiError> {
        let db = &self.node.db;
        let zone: Option<i64> = cx.refs.id("zoneid")?;
        if place.of_a_zone() && zone.is_none() {
            return Err(ApiError::param(format!("an image store at {} belongs to a zone: give zoneid", place.url)));
        }
        let zone = zone.filter(|_| place.of_a_zone());
        let uuid = model::new_uuid();
        let row = ImageStoreRow {
            id: db.next_id("image_store").await?,
            name: name.unwrap_or(&uuid).to_owned(),
            url: place.url.clone(),
            protocol: place.protocol.clone(),
            provider: place.provider.to_owned(),
            scope: if zone.is_some() { "ZONE" } else { "REGION" }.to_owned(),
            zone_id: zone,
            uuid,
        };
        if images::name_taken(db, &row.name).await? {
            let text = format!("The image store with name {} already exists, try creating with another name", row.name);
            return Err(ApiError::param(text));
        }
        let sealed = reach::seal(self, &row.uuid, &place.secrets)?;
        let zones = names::named(db, Table::Zones, zone).await?;
        let answer = jobs::mutate!(*db, cx.caller, "add-image-store", |tx| {
            match images::insert(tx, &row, &place.key, sealed.as_deref()).await {
                Err(e) if e.is_unique("live_key") => {
                    return Err(ApiError::param(format!("there is an image store at {} already", row.url)));
                }
                inserted => inserted?,
            }
            if let Some(zone) = zone {
                templates::offer_builtins(tx, zone, row.id).await?;
                for t in template_writes::for_store(tx, zone).await? {
                    // One that all zones have comes to a zone with its first store; a public one lies on every store.
                    if t.is_public || !copies::any_for(tx, t.id, zone).await? {
                        templates::offer(tx, t.id, zone).await?;
                        let path = rooms::path(t.account_id, t.id, &t.format);
                        let copy = NewCopy { store_id: row.id, zone_id: Some(zone), path };
                        copies::insert(tx, t.id, &copy, false).await?;
                    }
                }
            }
            Ok(view::image_store(row.clone(), &zones))
        })
        .await?;
        nudge(self);
        Ok(answer)
    }
}
