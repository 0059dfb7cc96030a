//! `arcus.storage.v1.Volumes`.

use super::{domain_of, done, given, named, named_ids};
use crate::disks::{HEAD_START, owe, usage};
use crate::store::deletions::Deletion;
use crate::store::volumes::{self, Query, VolumeRow};
use crate::tasks::{self, Create, Detach, Resize};
use crate::{Storage, bytes, limits, view};
use contract::api::{JobRef, Success};
use contract::{ApiError, Request as _};
use contract_storage::volumes_server::Volumes;
use contract_storage::{
    AttachVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, DetachVolumeRequest, ExtractVolumeRequest,
    ListVolumesRequest, ListVolumesResponse, ResizeVolumeRequest,
};
use jobs::{Accept, Claim};
use model::scope::{ListScope, ScopeRequest};
use rpc::Cx;
use tonic::{Request, Response, Status};

const KIND: &str = "Volume";

#[tonic::async_trait]
impl Volumes for Storage {
    async fn create(&self, request: Request<CreateVolumeRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let order = tasks::create::check(self, &cx, &req).await?;
        let ticket = self.jobs.ticket().await?;
        let row = &order.row;
        let mut claims = claims(row.id, order.attach_to);
        // Nobody deletes it meanwhile.
        claims.extend(order.snapshot.map(|id| Claim::Shared(crate::snapshots::claim(id))));
        limits::reserve(self, &cx.caller, &row.uuid, row.owner.account_id, row.size).await?;
        let accept = Accept {
            job: Create { volume: row.id, attach_to: order.attach_to, snapshot: order.snapshot },
            caller: cx.caller.clone(),
            command: CreateVolumeRequest::COMMAND,
            owner: row.owner.clone(),
            instance: Some((KIND.to_owned(), row.uuid.clone())),
            claims,
            custom_id: req.custom_job_id.clone(),
            description: format!("creating volume: {} in zone: {}", row.name, row.zone_id),
            entity_id: Some(row.uuid.clone()),
        };
        let answer = jobs::mutate!(*db, cx.caller, "create-volume", |tx| {
            match volumes::insert(tx, std::slice::from_ref(row)).await {
                Err(e) if e.is_unique("uuid") => {
                    return Err(ApiError::param(format!("customid {} is in use", row.uuid)));
                }
                inserted => inserted?,
            }
            events::record(tx, &[usage(row, "VOLUME.CREATE")]).await?;
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await;
        match answer {
            Ok(answer) => {
                // The same request with the same idempotency key made another volume before.
                if answer.id.as_ref() != Some(&row.uuid) {
                    limits::give_back(self, &cx.caller, std::slice::from_ref(&row.uuid)).await;
                }
                Ok(Response::new(answer))
            }
            Err(error) => {
                // Another volume may have taken a custom id meanwhile: what is counted is its then.
                if !volumes::uuid_taken(db, &row.uuid).await.unwrap_or(true) {
                    limits::give_back(self, &cx.caller, std::slice::from_ref(&row.uuid)).await;
                }
                Err(error.into())
            }
        }
    }

    async fn attach(&self, request: Request<AttachVolumeRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let (row, job) = tasks::attach::check(self, &cx, &req).await?;
        let description = format!("attaching volume: {} to vm: {}", row.name, job.vm);
        let claims = claims(row.id, Some(job.vm));
        let answer =
            self.accept(&cx, AttachVolumeRequest::COMMAND, &row, job, claims, req.custom_job_id, description).await?;
        Ok(Response::new(answer))
    }

    async fn detach(&self, request: Request<DetachVolumeRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let (row, vm) = tasks::detach::check(self, &cx, &req).await?;
        let description = format!("detaching volume: {} from vm: {vm}", row.name);
        let job = Detach { volume: row.id, vm };
        let claims = claims(row.id, Some(vm));
        let answer =
            self.accept(&cx, DetachVolumeRequest::COMMAND, &row, job, claims, req.custom_job_id, description).await?;
        Ok(Response::new(answer))
    }

    async fn delete(&self, request: Request<DeleteVolumeRequest>) -> Result<Response<Success>, Status> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        let db = &self.node.db;
        let entity = named(&cx)?;
        let id = entity.id;
        let mut owed: Option<Deletion> = None;
        let answer = jobs::mutate!(*db, cx.caller, "delete-volume", |tx| {
            jobs::free(tx, &claims(id, None)).await?;
            let now = volumes::find_in(tx, id).await?.filter(|v| !v.removed).ok_or_else(tasks::gone)?;
            if now.vm_id.is_some() {
                let text = "Please specify a volume that is not attached to any VM.";
                return Err(ApiError::param(text).with_entity(&now.uuid, "id"));
            }
            if !volumes::remove(tx, &now).await? {
                return Err(ApiError::concurrent("the volume was changed by somebody else; try again"));
            }
            owed = owe(tx, &now, HEAD_START).await?;
            let event = done(
                &cx.caller,
                "VOLUME.DELETE",
                format!("deleting volume: {}", now.name),
                (KIND, &now.uuid),
                Some(&now.owner),
            );
            events::record(tx, &[event, usage(&now, "VOLUME.DELETE")]).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        limits::give_back(self, &cx.caller, std::slice::from_ref(&entity.uuid)).await;
        if let Some(d) = owed {
            let (s, caller) = (self.clone(), cx.caller.clone());
            self.node.spawn("volume-bytes", async move { bytes::settle(&s, &caller, None, None, vec![d]).await });
        }
        Ok(Response::new(answer))
    }

    async fn resize(&self, request: Request<ResizeVolumeRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let (row, job): (VolumeRow, Resize) = tasks::resize::check(self, &cx, &req).await?;
        let claims = claims(row.id, row.vm_id);
        let description = format!("resizing volume: {} to {} bytes", row.name, job.size);
        let answer =
            self.accept(&cx, ResizeVolumeRequest::COMMAND, &row, job, claims, req.custom_job_id, description).await?;
        Ok(Response::new(answer))
    }

    async fn extract(&self, request: Request<ExtractVolumeRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let (row, job) = tasks::extract::check(self, &cx, req.mode.as_deref()).await?;
        // The machine may not start meanwhile.
        let mut claims = vec![Claim::Exclusive(format!("volume/{}", row.id))];
        claims.extend(row.vm_id.map(|vm| Claim::Shared(format!("vm/{vm}"))));
        let description = format!("extracting volume: {}", row.uuid);
        let answer =
            self.accept(&cx, ExtractVolumeRequest::COMMAND, &row, job, claims, req.custom_job_id, description).await?;
        Ok(Response::new(answer))
    }

    async fn list(&self, request: Request<ListVolumesRequest>) -> Result<Response<ListVolumesResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.listed_volumes(&cx, req).await?))
    }
}

impl Storage {
    /// A page of volumes, whichever command asks.
    pub(super) async fn listed_volumes(&self, cx: &Cx, req: ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
        let page = self.page(req.page, req.page_size)?;
        let ids = named_ids(cx)?;
        let domain = domain_of(cx)?;
        let scope = ScopeRequest {
            account: given(&req.account),
            domain: domain.as_ref().map(|(id, path)| (*id, path.as_str())),
            list_all: req.list_all.unwrap_or(false),
            recursive: req.is_recursive.unwrap_or(false),
            by_id: !ids.is_empty(),
        };
        let kind = given(&req.r#type).map(str::to_uppercase);
        let query = Query {
            scope: ListScope::of(&self.node.db, &cx.caller, &scope).await?,
            ids,
            name: given(&req.name),
            keyword: given(&req.keyword),
            kind,
            vm: cx.refs.one("virtualmachineid").map(|e| e.id),
            zone: cx.refs.one("zoneid").map(|e| e.id),
            host: cx.refs.one("hostid").map(|e| e.id),
            pod: cx.refs.one("podid").map(|e| e.id),
            cluster: cx.refs.one("clusterid").map(|e| e.id),
            pool: cx.refs.one("storageid").map(|e| e.id),
            offering: cx.refs.one("diskofferingid").map(|e| e.id),
            display: if cx.caller.is_root_admin() { req.display_volume } else { Some(true) },
            tags: view::tag_filter(&req.tags),
        };
        let (rows, count) = volumes::list(&self.node.db, &query, page).await?;
        let volume = view::volumes(&self.node.db, &cx.caller, rows).await?;
        Ok(ListVolumesResponse { count: Some(count), volume })
    }
}

/// What a job on a volume needs: the volume, and the VM that has or gets it.
fn claims(volume: i64, vm: Option<i64>) -> Vec<Claim> {
    let mut claims = vec![Claim::Exclusive(format!("volume/{volume}"))];
    claims.extend(vm.map(|vm| Claim::Exclusive(format!("vm/{vm}"))));
    claims
}

impl Storage {
    #[allow(clippy::too_many_arguments)] // the fields of one acceptance
    async fn accept<J: jobs::Job>(
        &self,
        cx: &Cx,
        command: Option<&'static contract::CommandInfo>,
        row: &VolumeRow,
        job: J,
        claims: Vec<Claim>,
        custom_id: Option<String>,
        description: String,
    ) -> Result<JobRef, ApiError> {
        let ticket = self.jobs.ticket().await?;
        let accept = Accept {
            job,
            caller: cx.caller.clone(),
            command,
            owner: row.owner.clone(),
            instance: Some((KIND.to_owned(), row.uuid.clone())),
            claims,
            custom_id,
            description,
            entity_id: None,
        };
        jobs::mutate!(self.node.db, cx.caller, "accept-volume-job", |tx| {
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await
    }
}
