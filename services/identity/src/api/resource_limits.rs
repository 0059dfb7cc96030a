//! listResourceLimits, updateResourceLimit, updateResourceCount.

use super::Answer;
use crate::Identity;
use crate::domain::ROOT;
use crate::limits::{Ceilings, chain};
use crate::resource::{self, Resource};
use crate::store::accounts::{self, AccountRow};
use crate::store::domains::DomainRow;
use crate::store::limits::Of;
use crate::store::{Source, domains};
use crate::view;
use contract::{ApiError, Caller, RoleType};
use contract_identity::resource_limits_server::ResourceLimits;
use contract_identity::{
    ListResourceCountsResponse, ListResourceLimitsRequest, ListResourceLimitsResponse, ResourceCount, ResourceLimit,
    UpdateResourceCountRequest, UpdateResourceLimitRequest,
};
use rpc::Cx;
use tonic::{Request, Response};

/// Whose limits and counts a request is about.
enum Subject {
    Account(AccountRow, DomainRow),
    Domain(DomainRow),
}

#[tonic::async_trait]
impl ResourceLimits for Identity {
    async fn list(&self, request: Request<ListResourceLimitsRequest>) -> Answer<ListResourceLimitsResponse> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let subject = self.listed(&cx, req.account.as_deref()).await?;
        let mut wanted = kinds(req.resource_type)?;
        if let Some(name) = req.resource_type_name.as_deref().filter(|n| !n.is_empty()) {
            let named =
                Resource::named(name).ok_or_else(|| ApiError::param("Please specify a valid resource type name."))?;
            wanted.retain(|r| *r == named);
        }
        if req.id.is_some() {
            wanted.clear(); // limits have no numbers of their own here: none has this one
        }
        let ceilings = self.ceilings_of(&subject).await?;
        let all: Vec<ResourceLimit> =
            wanted.iter().map(|r| shown_limit(&subject, *r, max(&ceilings, &subject, *r))).collect();
        let count = i64::try_from(all.len()).ok();
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let limit = page.limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(usize::MAX);
        let resource_limit = all.into_iter().skip(offset).take(limit).collect();
        Ok(Response::new(ListResourceLimitsResponse { count, resource_limit }))
    }

    async fn update(&self, request: Request<UpdateResourceLimitRequest>) -> Answer<ResourceLimit> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let max = req.max.unwrap_or(-1);
        if max < -1 {
            let text = "Please specify either '-1' for an infinite limit, or a limit that is at least '0'.";
            return Err(ApiError::param(text).into());
        }
        let resource =
            Resource::of(req.resource_type()).ok_or_else(|| ApiError::param("Please specify valid resource type"))?;
        let subject = self.named(&cx, req.account.as_deref()).await?;
        let counted = resource.counted(max);
        match &subject {
            Subject::Account(account, _) => self.may_limit_account(&cx.caller, account, max).await?,
            Subject::Domain(domain) => self.may_limit_domain(&cx.caller, domain, resource, counted).await?,
        }
        let limit = jobs::mutate!(self.node.db, cx.caller, "update-resource-limit", |tx| {
            match &subject {
                Subject::Account(account, _) => self.limits.set_account(tx, account.id, resource, counted).await?,
                Subject::Domain(domain) => self.limits.set_domain(tx, domain, resource, counted).await?,
            }
            Ok(shown_limit(&subject, resource, resource::finite(counted)))
        })
        .await?;
        Ok(Response::new(limit))
    }

    async fn update_count(&self, request: Request<UpdateResourceCountRequest>) -> Answer<ListResourceCountsResponse> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let kinds = kinds(req.resource_type)?;
        let subject = self.named(&cx, req.account.as_deref()).await?;
        let counts: Vec<(Resource, i64)> = match &subject {
            Subject::Account(account, _) => {
                self.may_change_account(&cx.caller, account, "counting").await?;
                self.limits.recount_account(account, &kinds).await?;
                let ceilings = self.ceilings_of(&subject).await?;
                let used = |r: Resource| ceilings.count(Of::Account(account.id), r).map_or(0, |c| c.used);
                kinds.iter().map(|r| (*r, used(*r))).collect()
            }
            Subject::Domain(domain) => {
                self.may_administer(&cx.caller, domain)?;
                self.limits.recount_domain(domain, &kinds).await?;
                let rows = std::slice::from_ref(domain);
                let totals = view::totals(&mut Source::Db(&self.node.db), rows).await?;
                kinds.iter().map(|r| (*r, totals.get(&(domain.id, r.number())).copied().unwrap_or(0))).collect()
            }
        };
        let resource_count: Vec<_> = counts.into_iter().map(|(r, used)| shown_count(&subject, r, used)).collect();
        Ok(Response::new(ListResourceCountsResponse {
            count: i64::try_from(resource_count.len()).ok(),
            resource_count,
        }))
    }
}

impl Identity {
    /// Whose limits a list shows: those of plain users are their own.
    async fn listed(&self, cx: &Cx, account: Option<&str>) -> Result<Subject, ApiError> {
        let account = account.filter(|a| !a.is_empty());
        let domain: Option<i64> = cx.refs.id("domainid")?;
        if !Identity::is_plain_user(cx) && (account.is_some() || domain.is_some()) {
            let subject = self.subject(cx, account, domain.unwrap_or(cx.caller.domain_id)).await?;
            match &subject {
                Subject::Domain(domain) => self.may_administer(&cx.caller, domain)?,
                Subject::Account(row, domain) => {
                    self.may_administer(&cx.caller, domain)?;
                    if row.id == accounts::SYSTEM {
                        return Err(ApiError::param("Unable to find account by name"));
                    }
                }
            }
            return Ok(subject);
        }
        let own = self.account_row(cx.caller.account_id).await?;
        if account.is_some_and(|a| !a.eq_ignore_ascii_case(&own.name)) || domain.is_some_and(|d| d != own.domain_id) {
            return Err(ApiError::permission("you may see the limits of your own account only"));
        }
        let domain = self.domain(own.domain_id).await?;
        Ok(Subject::Account(own, domain))
    }

    /// Whose limit or count a request changes.
    async fn named(&self, cx: &Cx, account: Option<&str>) -> Result<Subject, ApiError> {
        let account = account.filter(|a| !a.is_empty());
        match (account, cx.refs.id("domainid")?) {
            (_, Some(domain)) => self.subject(cx, account, domain).await,
            (Some(_), None) => Err(ApiError::param("Account must be specified with domainid parameter")),
            (None, None) => {
                let text = "AccountId or domainId have to be specified in order to update resource limit";
                Err(ApiError::param(text))
            }
        }
    }

    async fn subject(&self, cx: &Cx, account: Option<&str>, domain: i64) -> Result<Subject, ApiError> {
        let row = self.domain(domain).await?;
        match account {
            Some(name) => {
                let account = self.named_account(&cx.caller, None, Some(name), Some(domain)).await?;
                Ok(Subject::Account(account, row))
            }
            None => Ok(Subject::Domain(row)),
        }
    }

    async fn ceilings_of(&self, subject: &Subject) -> Result<Ceilings, ApiError> {
        let owners: Vec<Of> = match subject {
            Subject::Account(account, _) => vec![Of::Account(account.id)],
            Subject::Domain(domain) => chain(&domain.path).into_iter().map(Of::Domain).collect(),
        };
        self.limits.ceilings(&mut Source::Db(&self.node.db), &owners).await
    }

    async fn may_limit_account(&self, caller: &Caller, account: &AccountRow, max: i64) -> Result<(), ApiError> {
        if account.id == accounts::SYSTEM {
            return Err(ApiError::param("Can't update system account"));
        }
        if account.id == caller.account_id && caller.role() != RoleType::Admin {
            let text =
                format!("Unable to update resource limit for his own account {}, permission denied", account.uuid);
            return Err(ApiError::permission(text));
        }
        self.may_change_account(caller, account, "update").await?;
        if account.kind == 1 && max != -1 {
            return Err(ApiError::param("Only -1 limit is supported for Root Admin accounts"));
        }
        Ok(())
    }

    async fn may_limit_domain(
        &self,
        caller: &Caller,
        domain: &DomainRow,
        resource: Resource,
        counted: i64,
    ) -> Result<(), ApiError> {
        self.may_administer(caller, domain)?;
        if caller.role() != RoleType::Admin && caller.domain_id == domain.id {
            let text = format!("Unable to update resource limit for domain {}, permission denied", domain.uuid);
            return Err(ApiError::permission(text));
        }
        let Some(parent) = domain.parent.filter(|p| *p != ROOT) else {
            return Ok(());
        };
        let parent = self.domain(parent).await?;
        let owners: Vec<Of> = chain(&parent.path).into_iter().map(Of::Domain).collect();
        let ceilings = self.limits.ceilings(&mut Source::Db(&self.node.db), &owners).await?;
        match ceilings.domain(&chain(&parent.path), resource) {
            Some(above) if counted > above => {
                let above = resource.to_api(Some(above));
                Err(ApiError::param(format!(
                    "Domain {}(id: {}) has maximum allowed resource limit {above} for {}, please specify a value less than or equal \
                     to {above}",
                    parent.name,
                    parent.uuid,
                    resource.name()
                )))
            }
            _ => Ok(()),
        }
    }
}

fn kinds(named: Option<i32>) -> Result<Vec<Resource>, ApiError> {
    match named {
        None => Ok(resource::ALL.to_vec()),
        Some(n) => Ok(vec![Resource::of(n).ok_or_else(|| ApiError::param("Please specify a valid resource type."))?]),
    }
}

fn max(ceilings: &Ceilings, subject: &Subject, resource: Resource) -> Option<i64> {
    match subject {
        Subject::Account(account, _) => ceilings.account(account.id, account.kind == 1, resource),
        Subject::Domain(domain) => ceilings.domain(&chain(&domain.path), resource),
    }
}

fn owner(subject: &Subject) -> (Option<String>, &domains::DomainRow) {
    match subject {
        Subject::Account(account, domain) => (Some(account.name.clone()), domain),
        Subject::Domain(domain) => (None, domain),
    }
}

fn shown_limit(subject: &Subject, resource: Resource, max: Option<i64>) -> ResourceLimit {
    let (account, domain) = owner(subject);
    ResourceLimit {
        account,
        domain_id: Some(domain.uuid.clone()),
        domain: Some(domain.name.clone()),
        resource_type: Some(resource.number().to_string()),
        resource_type_name: Some(resource.name().to_owned()),
        max: Some(resource.to_api(max)),
        ..ResourceLimit::default()
    }
}

fn shown_count(subject: &Subject, resource: Resource, used: i64) -> ResourceCount {
    let (account, domain) = owner(subject);
    ResourceCount {
        account,
        domain_id: Some(domain.uuid.clone()),
        domain: Some(domain.name.clone()),
        resource_type: Some(resource.number().to_string()),
        resource_type_name: Some(resource.name().to_owned()),
        resource_count: Some(used),
        ..ResourceCount::default()
    }
}
