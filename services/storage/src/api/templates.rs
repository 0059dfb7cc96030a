//! `arcus.storage.v1.Templates`.

use super::{domain_of, given, named_ids};
use crate::filter::Filter;
use crate::store::templates::{self, Query};
use crate::{Storage, view};
use contract::{ApiError, Page};
use contract_storage::templates_server::Templates;
use contract_storage::{ListIsosRequest, ListIsosResponse, ListTemplatesRequest, ListTemplatesResponse, Template};
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
            if !entity.public && !entity::allowed(&cx.caller, entity, contract::Access::Use) {
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
