//! `arcus.storage.v1.Templates`.

use super::{domain_of, given, named_ids};
use crate::filter::Filter;
use crate::store::template_writes as rows;
use crate::store::templates::{self, Query, TemplateRow};
use crate::tasks::{self, CopyTemplate, DeleteTemplate, ExtractImage};
use crate::templates::{self as concept, capture, change, register, warm};
use crate::{Storage, downloads, limits, view};
use contract::api::{JobRef, Success};
use contract::{ApiError, Page, Request as _};
use contract_storage::templates_server::Templates;
use contract_storage::{
    CopyIsoRequest, CopyTemplateRequest, CreateTemplateRequest, DeleteIsoRequest, DeleteTemplateRequest,
    ExtractIsoRequest, ExtractTemplateRequest, ListIsoPermissionsRequest, ListIsosRequest, ListIsosResponse,
    ListTemplatePermissionsRequest, ListTemplatesRequest, ListTemplatesResponse, PrepareTemplateRequest,
    RegisterIsoRequest, RegisterTemplateRequest, Template, TemplatePermissions, UpdateIsoPermissionsRequest,
    UpdateIsoRequest, UpdateTemplatePermissionsRequest, UpdateTemplateRequest,
};
use jobs::{Accept, Claim};
use model::entity;
use model::scope::{ListScope, ScopeRequest, widest};
use rpc::Cx;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Templates for Storage {
    async fn list(&self, request: Request<ListTemplatesRequest>) -> Result<Response<ListTemplatesResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let filter = Filter::parse(given(&req.template_filter).unwrap_or_default(), &cx.caller, "template")?;
        let owner = OwnerParams {
            account: given(&req.account),
            list_all: req.list_all.unwrap_or(false),
            recursive: req.is_recursive.unwrap_or(false),
        };
        let mut query = self.query(&cx, filter, owner).await?;
        query.name = given(&req.name);
        query.keyword = given(&req.keyword);
        query.hypervisor = given(&req.hypervisor);
        query.show_removed = req.show_removed.unwrap_or(false);
        query.tags = view::tag_filter(&req.tags);
        let (count, template) = self.templates(&cx, &query, page).await?;
        Ok(Response::new(ListTemplatesResponse { count: Some(count), template }))
    }

    async fn list_isos(&self, request: Request<ListIsosRequest>) -> Result<Response<ListIsosResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let filter = Filter::parse(given(&req.iso_filter).unwrap_or("selfexecutable"), &cx.caller, "ISO")?;
        let owner = OwnerParams {
            account: given(&req.account),
            list_all: req.list_all.unwrap_or(false),
            recursive: req.is_recursive.unwrap_or(false),
        };
        let mut query = self.query(&cx, filter, owner).await?;
        query.iso = true;
        query.name = given(&req.name);
        query.keyword = given(&req.keyword);
        query.show_removed = req.show_removed.unwrap_or(false);
        query.bootable = req.bootable;
        query.public = req.is_public;
        query.ready = req.is_ready;
        query.tags = view::tag_filter(&req.tags);
        let (count, iso) = self.templates(&cx, &query, page).await?;
        Ok(Response::new(ListIsosResponse { count: Some(count), iso }))
    }

    async fn register(
        &self,
        request: Request<RegisterTemplateRequest>,
    ) -> Result<Response<ListTemplatesResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let order = register::template(self, &cx, &req).await?;
        let uuid = register::run(self, &cx, &order).await?;
        let template = self.registered(&cx, &uuid, false).await?;
        Ok(Response::new(ListTemplatesResponse { count: Some(count(&template)), template }))
    }

    async fn register_iso(&self, request: Request<RegisterIsoRequest>) -> Result<Response<ListIsosResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let order = register::iso(self, &cx, &req).await?;
        let uuid = register::run(self, &cx, &order).await?;
        let iso = self.registered(&cx, &uuid, true).await?;
        Ok(Response::new(ListIsosResponse { count: Some(count(&iso)), iso }))
    }

    async fn update(&self, request: Request<UpdateTemplateRequest>) -> Result<Response<Template>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let id = change::update(self, &cx, &req, false).await?;
        Ok(Response::new(self.one(&cx, id, false).await?))
    }

    async fn update_iso(&self, request: Request<UpdateIsoRequest>) -> Result<Response<Template>, Status> {
        let (cx, r) = self.node.rpc.enter(request).await?;
        let req = UpdateTemplateRequest {
            bootable: r.bootable,
            requires_hvm: r.requires_hvm,
            display_text: r.display_text,
            id: r.id,
            name: r.name,
            os_type_id: r.os_type_id,
            format: r.format,
            password_enabled: r.password_enabled,
            sort_key: r.sort_key,
            is_dynamically_scalable: r.is_dynamically_scalable,
            is_routing: r.is_routing,
            details: r.details,
            cleanup_details: r.cleanup_details,
        };
        let id = change::update(self, &cx, &req, true).await?;
        Ok(Response::new(self.one(&cx, id, true).await?))
    }

    async fn update_permissions(
        &self,
        request: Request<UpdateTemplatePermissionsRequest>,
    ) -> Result<Response<Success>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(change::permissions(self, &cx, &req, false).await?))
    }

    async fn update_iso_permissions(
        &self,
        request: Request<UpdateIsoPermissionsRequest>,
    ) -> Result<Response<Success>, Status> {
        let (cx, r) = self.node.rpc.enter(request).await?;
        let req = UpdateTemplatePermissionsRequest {
            accounts: r.accounts,
            id: r.id,
            is_featured: r.is_featured,
            is_public: r.is_public,
            is_extractable: r.is_extractable,
            op: r.op,
            project_ids: r.project_ids,
        };
        Ok(Response::new(change::permissions(self, &cx, &req, true).await?))
    }

    async fn list_permissions(
        &self,
        request: Request<ListTemplatePermissionsRequest>,
    ) -> Result<Response<TemplatePermissions>, Status> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        Ok(Response::new(change::list_permissions(self, &cx, false).await?))
    }

    async fn list_iso_permissions(
        &self,
        request: Request<ListIsoPermissionsRequest>,
    ) -> Result<Response<TemplatePermissions>, Status> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        Ok(Response::new(change::list_permissions(self, &cx, true).await?))
    }

    async fn create(&self, request: Request<CreateTemplateRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let capture::Order { row, job, bytes } = capture::check(self, &cx, &req).await?;
        let ticket = self.jobs.ticket().await?;
        limits::reserve_template(self, &cx.caller, &row.uuid, row.owner.account_id, bytes).await?;
        let accept = Accept {
            claims: job.claims(),
            caller: cx.caller.clone(),
            command: CreateTemplateRequest::COMMAND,
            owner: row.owner.clone(),
            instance: Some(("Template".to_owned(), row.uuid.clone())),
            custom_id: req.custom_job_id,
            description: format!("creating template: {}", row.name),
            entity_id: Some(row.uuid.clone()),
            job,
        };
        let answer = jobs::mutate!(self.node.db, cx.caller, "create-template", |tx| {
            rows::insert(tx, &row).await?;
            templates::offer(tx, row.id, accept.job.zone).await?;
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await;
        // Counted for nothing: refused, or the same request with the same idempotency key made another template before.
        let made = answer.as_ref().is_ok_and(|answer| answer.id.as_ref() == Some(&row.uuid));
        if !made && rows::find(&self.node.db, row.id).await.is_ok_and(|found| found.is_none()) {
            limits::give_back_template(self, &cx.caller, &row.uuid).await;
        }
        Ok(Response::new(answer?))
    }

    async fn delete(&self, request: Request<DeleteTemplateRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let job = self.deletion(&cx, req.forced.unwrap_or(false), false).await?;
        let command = DeleteTemplateRequest::COMMAND;
        Ok(Response::new(self.accept_deletion(&cx, command, job, req.custom_job_id).await?))
    }

    async fn delete_iso(&self, request: Request<DeleteIsoRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let job = self.deletion(&cx, false, true).await?;
        let command = DeleteIsoRequest::COMMAND;
        Ok(Response::new(self.accept_deletion(&cx, command, job, req.custom_job_id).await?))
    }

    async fn copy(&self, request: Request<CopyTemplateRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.accept_copy(&cx, CopyTemplateRequest::COMMAND, false, req.custom_job_id).await?))
    }

    async fn copy_iso(&self, request: Request<CopyIsoRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.accept_copy(&cx, CopyIsoRequest::COMMAND, true, req.custom_job_id).await?))
    }

    async fn extract(&self, request: Request<ExtractTemplateRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let found = downloads::check_image(self, &cx, req.mode.as_deref(), false).await?;
        Ok(Response::new(self.accept_extract(&cx, ExtractTemplateRequest::COMMAND, found, req.custom_job_id).await?))
    }

    async fn extract_iso(&self, request: Request<ExtractIsoRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let found = downloads::check_image(self, &cx, req.mode.as_deref(), true).await?;
        Ok(Response::new(self.accept_extract(&cx, ExtractIsoRequest::COMMAND, found, req.custom_job_id).await?))
    }

    async fn prepare(
        &self,
        request: Request<PrepareTemplateRequest>,
    ) -> Result<Response<ListTemplatesResponse>, Status> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        let row = warm::prepare(self, &cx).await?;
        let template = view::templates(&self.node.db, &cx.caller, vec![row]).await?;
        Ok(Response::new(ListTemplatesResponse { count: Some(count(&template)), template }))
    }
}

fn count(shown: &[Template]) -> i64 {
    i64::try_from(shown.len()).unwrap_or(i64::MAX)
}

/// What a job on a template needs.
fn claims(template: i64) -> Vec<Claim> {
    vec![Claim::Exclusive(format!("template/{template}"))]
}

impl Storage {
    /// A template as its registration answers it: once for each of its zones.
    async fn registered(&self, cx: &Cx, uuid: &str, iso: bool) -> Result<Vec<Template>, ApiError> {
        let db = &self.node.db;
        let id = rows::number(db, uuid).await?.ok_or_else(|| concept::gone(iso))?;
        let zones = rows::zones(db, id).await?;
        view::templates(db, &cx.caller, templates::in_zones(db, id, &zones).await?).await
    }

    /// A template in the first of its zones.
    async fn one(&self, cx: &Cx, id: i64, iso: bool) -> Result<Template, ApiError> {
        let db = &self.node.db;
        let mut zones = rows::zones(db, id).await?;
        zones.truncate(1);
        if zones.is_empty() {
            zones.push(0);
        }
        let shown = view::templates(db, &cx.caller, templates::in_zones(db, id, &zones).await?).await?;
        shown.into_iter().next().ok_or_else(|| concept::gone(iso))
    }

    async fn deletion(&self, cx: &Cx, forced: bool, iso: bool) -> Result<(TemplateRow, DeleteTemplate), ApiError> {
        let row = change::named(self, cx, iso).await?;
        let mut zone: Option<i64> = cx.refs.id("zoneid")?;
        // What ships with the system is the same everywhere (TPL-082).
        if row.template_type == "BUILTIN" {
            zone = None;
        }
        let job = DeleteTemplate { template: row.id, zone, forced, iso };
        Ok((row, job))
    }

    async fn accept_deletion(
        &self,
        cx: &Cx,
        command: Option<&'static contract::CommandInfo>,
        (row, job): (TemplateRow, DeleteTemplate),
        custom_id: Option<String>,
    ) -> Result<JobRef, ApiError> {
        let ticket = self.jobs.ticket().await?;
        let accept = Accept {
            job: job.clone(),
            caller: cx.caller.clone(),
            command,
            owner: concept::owner(&row),
            instance: Some((concept::kind(job.iso).to_owned(), row.uuid.clone())),
            claims: claims(row.id),
            custom_id,
            description: tasks::delete_template::description(self, &row.name, &job).await?,
            entity_id: None,
        };
        jobs::mutate!(self.node.db, cx.caller, "accept-template-deletion", |tx| {
            jobs::free(tx, &claims(row.id)).await?;
            // Refused at once, as in 4.11; the job looks again.
            job.check(tx).await?;
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await
    }

    async fn accept_extract(
        &self,
        cx: &Cx,
        command: Option<&'static contract::CommandInfo>,
        (row, job): (TemplateRow, ExtractImage),
        custom_id: Option<String>,
    ) -> Result<JobRef, ApiError> {
        let ticket = self.jobs.ticket().await?;
        let kind = concept::kind(job.iso);
        let accept = Accept {
            job,
            caller: cx.caller.clone(),
            command,
            owner: concept::owner(&row),
            instance: Some((kind.to_owned(), row.uuid.clone())),
            claims: vec![Claim::Shared(format!("template/{}", row.id))],
            custom_id,
            description: format!("extracting {} {}", kind.to_lowercase(), row.uuid),
            entity_id: None,
        };
        jobs::mutate!(self.node.db, cx.caller, "accept-template-extract", |tx| {
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await
    }

    async fn accept_copy(
        &self,
        cx: &Cx,
        command: Option<&'static contract::CommandInfo>,
        iso: bool,
        custom_id: Option<String>,
    ) -> Result<JobRef, ApiError> {
        let row = change::named(self, cx, iso).await?;
        let job: CopyTemplate = tasks::copy_template::check(self, cx, &row, iso).await?;
        let ticket = self.jobs.ticket().await?;
        let accept = Accept {
            job,
            caller: cx.caller.clone(),
            command,
            owner: concept::owner(&row),
            // Both commands' jobs are on a Template, as in 4.11.
            instance: Some((concept::kind(false).to_owned(), row.uuid.clone())),
            claims: claims(row.id),
            custom_id,
            description: format!("copying {} {} to other zones", concept::kind(iso).to_lowercase(), row.name),
            entity_id: None,
        };
        jobs::mutate!(self.node.db, cx.caller, "accept-template-copy", |tx| {
            jobs::free(tx, &claims(row.id)).await?;
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await
    }
}

struct OwnerParams<'a> {
    account: Option<&'a str>,
    list_all: bool,
    recursive: bool,
}

impl Storage {
    /// What both lists have in common.
    async fn query<'a>(&self, cx: &Cx, filter: Filter, owner: OwnerParams<'a>) -> Result<Query<'a>, ApiError> {
        let ids = named_ids(cx)?;
        for entity in cx.refs.all("id").iter().chain(cx.refs.all("ids")) {
            let own = entity.public || entity::allowed(&cx.caller, entity, contract::Access::Use);
            if !own && !entity::shared(&self.node.db, &cx.caller, entity).await? {
                return Err(ApiError::permission("you may not see a template that the request names"));
            }
        }
        let domain = domain_of(cx)?;
        let owner_named = owner.account.is_some() || domain.is_some();
        let request = ScopeRequest {
            account: owner.account,
            domain: domain.as_ref().map(|(id, path)| (*id, path.as_str())),
            list_all: owner.list_all,
            recursive: owner.recursive,
            by_id: !ids.is_empty(),
        };
        let scope = match filter {
            Filter::All if !owner_named => widest(&cx.caller),
            _ => ListScope::of(&self.node.db, &cx.caller, &request).await?,
        };
        Ok(Query {
            iso: false,
            filter,
            scope,
            owner_named,
            ids,
            name: None,
            keyword: None,
            zone: cx.refs.one("zoneid").map(|e| e.id),
            hypervisor: None,
            show_removed: false,
            bootable: None,
            public: None,
            ready: None,
            tags: Vec::new(),
        })
    }

    async fn templates(&self, cx: &Cx, query: &Query<'_>, page: Page) -> Result<(i64, Vec<Template>), ApiError> {
        let (rows, count) = templates::list(&self.node.db, &cx.caller, query, page).await?;
        Ok((count, view::templates(&self.node.db, &cx.caller, rows).await?))
    }
}
