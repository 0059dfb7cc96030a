//! createDomain, updateDomain, deleteDomain, listDomains.

use super::Answer;
use crate::Identity;
use crate::deletion::DeleteDomain;
use crate::domain::ROOT;
use crate::store::domains::Filter;
use crate::store::{Source, accounts, domains};
use crate::view::Details;
use contract::ApiError;
use contract::api::JobRef;
use contract_identity::domains_server::Domains;
use contract_identity::{
    CreateDomainRequest, DELETE_DOMAIN, DeleteDomainRequest, Domain, ListDomainsRequest, ListDomainsResponse,
    UpdateDomainRequest,
};
use jobs::{Accept, Claim};
use model::Owner;
use tonic::{Request, Response};

#[tonic::async_trait]
impl Domains for Identity {
    async fn create(&self, request: Request<CreateDomainRequest>) -> Answer<Domain> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let parent = cx.refs.id("parentdomainid")?.unwrap_or(ROOT);
        Ok(Response::new(self.create_domain(&cx.caller, parent, &req).await?))
    }

    async fn update(&self, request: Request<UpdateDomainRequest>) -> Answer<Domain> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.update_domain(&cx.caller, cx.refs.need("id")?, &req).await?))
    }

    async fn delete(&self, request: Request<DeleteDomainRequest>) -> Answer<JobRef> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let domain = self.domain(cx.refs.need("id")?).await?;
        self.may_administer(&cx.caller, &domain)?;
        if domain.is_root() {
            return Err(ApiError::permission("Can't delete ROOT domain").into());
        }
        if cx.caller.domain_path.starts_with(&domain.path) {
            return Err(ApiError::param("You can't delete the domain that you are in").into());
        }
        let below = domains::subtree(&mut Source::Db(&self.node.db), &domain.path).await.map_err(ApiError::from)?;
        let inside = accounts::subtree(&mut Source::Db(&self.node.db), &domain.path).await.map_err(ApiError::from)?;
        let claims =
            below.iter().map(|d| format!("domain/{}", d.id)).chain(inside.iter().map(|a| format!("account/{}", a.id)));
        let accept = Accept {
            job: DeleteDomain { domain: domain.id, cleanup: req.cleanup() },
            owner: Owner { account_id: cx.caller.account_id, domain_id: domain.id, domain_path: domain.path.clone() },
            caller: cx.caller.clone(),
            command: Some(&DELETE_DOMAIN),
            instance: Some(("Domain".into(), domain.uuid.clone())),
            claims: claims.map(Claim::Exclusive).collect(),
            custom_id: req.custom_job_id,
            description: format!("deleting domain: {}", domain.uuid),
            entity_id: None,
        };
        Ok(Response::new(self.accept(&cx, "delete-domain", accept).await?))
    }

    async fn list(&self, request: Request<ListDomainsRequest>) -> Answer<ListDomainsResponse> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let filter = Filter {
            id: cx.refs.one("id").map(|e| e.id),
            below: None,
            name: req.name.as_deref().filter(|n| !n.is_empty()),
            level: req.level,
            keyword: req.keyword.as_deref().filter(|k| !k.is_empty()),
        };
        let details = details(&req.details)?;
        let (domain, count) = self.list_domains(&cx.caller, filter, req.list_all(), details, page).await?;
        Ok(Response::new(ListDomainsResponse { count: Some(count), domain }))
    }
}

/// Only `min` alone leaves something out.
fn details(named: &[String]) -> Result<Details, ApiError> {
    let mut details = if named.is_empty() { Details::All } else { Details::Min };
    for name in named {
        match name.to_lowercase().as_str() {
            "min" => {}
            "all" | "resource" => details = Details::All,
            _ => {
                return Err(ApiError::param(format!(
                    "The details parameter contains a non permitted value. The allowed values are [all, resource, min], not {name}"
                )));
            }
        }
    }
    Ok(details)
}
