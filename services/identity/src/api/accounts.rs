//! createAccount, updateAccount, deleteAccount, listAccounts, disableAccount, enableAccount, lockAccount.

use super::Answer;
use crate::Identity;
use crate::deletion::DeleteAccount;
use crate::disabling::DisableAccount;
use crate::store::accounts::{AccountRow, Filter};
use crate::store::{Source, accounts};
use crate::view;
use contract::api::{JobRef, Success};
use contract::{ApiError, RoleType};
use contract_identity::accounts_server::Accounts;
use contract_identity::{
    Account, CreateAccountRequest, DELETE_ACCOUNT, DISABLE_ACCOUNT, DeleteAccountRequest, DisableAccountRequest,
    EnableAccountRequest, ListAccountsRequest, ListAccountsResponse, LockAccountRequest, UpdateAccountRequest,
};
use jobs::{Accept, Claim};
use model::{ListScope, ScopeRequest};
use rpc::Cx;
use tonic::{Request, Response};

#[tonic::async_trait]
impl Accounts for Identity {
    async fn create(&self, request: Request<CreateAccountRequest>) -> Answer<Account> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let (domain, role) = (cx.refs.id("domainid")?, cx.refs.id("roleid")?);
        Ok(Response::new(self.create_account(&cx.caller, domain, role, &req).await?))
    }

    async fn update(&self, request: Request<UpdateAccountRequest>) -> Answer<Account> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let account = self.target(&cx, req.account.as_deref()).await?;
        Ok(Response::new(self.update_account(&cx.caller, &account, &req).await?))
    }

    async fn delete(&self, request: Request<DeleteAccountRequest>) -> Answer<JobRef> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let account = self.target(&cx, None).await?;
        self.may_change_account(&cx.caller, &account, "delete").await?;
        if account.is_default {
            return Err(ApiError::param("The account is default and can't be removed").into());
        }
        if account.id == cx.caller.account_id {
            return Err(ApiError::param("You can't remove the account that you belong to").into());
        }
        let job = DeleteAccount { account: account.id, state: account.state.clone() };
        let accept = Accept {
            job,
            caller: cx.caller.clone(),
            command: Some(&DELETE_ACCOUNT),
            owner: account.owner(),
            instance: Some(("Account".into(), account.uuid.clone())),
            claims: vec![Claim::Exclusive(format!("account/{}", account.id))],
            custom_id: req.custom_job_id,
            description: format!("deleting Account. Account Id: {}", account.uuid),
            entity_id: None,
        };
        Ok(Response::new(self.accept(&cx, "delete-account", accept).await?))
    }

    async fn list(&self, request: Request<ListAccountsRequest>) -> Answer<ListAccountsResponse> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let id: Option<i64> = cx.refs.one("id").map(|e| e.id);
        let domain = self.named_domain(&cx).await?;
        let wanted = ScopeRequest {
            account: None,
            domain: domain.as_ref().map(|(id, path)| (*id, path.as_str())),
            list_all: req.list_all(),
            recursive: req.is_recursive(),
            by_id: id.is_some(),
        };
        if let Some(id) = id {
            self.may_see_account(&cx, id).await?;
        }
        let filter = Filter {
            scope: ListScope::of(&self.node.db, &cx.caller, &wanted).await?,
            id,
            kind: req.account_type,
            name: req.name.as_deref().filter(|n| !n.is_empty()),
            state: req.state.as_deref().filter(|s| !s.is_empty()),
            cleanup_needed: req.is_cleanup_required,
            keyword: req.keyword.as_deref().filter(|k| !k.is_empty()),
        };
        let (rows, count) = accounts::page(&self.node.db, &filter, page).await.map_err(ApiError::from)?;
        let mut account = view::accounts(self, &mut Source::Db(&self.node.db), &rows).await?;
        let uuids: Vec<String> = rows.iter().map(|r| r.uuid.clone()).collect();
        let mut pending = jobs::view::pending(&self.node.db, &uuids).await?;
        for (shown, uuid) in account.iter_mut().zip(&uuids) {
            (shown.job_id, shown.job_status) = pending.remove(uuid).unzip();
        }
        Ok(Response::new(ListAccountsResponse { count: Some(count), account }))
    }

    async fn disable(&self, request: Request<DisableAccountRequest>) -> Answer<JobRef> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let account = self.target(&cx, req.account.as_deref()).await?;
        self.may_change_account(&cx.caller, &account, "disabling").await?;
        if account.is_default {
            return Err(ApiError::param("The account is default and can't be disabled").into());
        }
        let lock = req.lock();
        let doing = if lock { "locking" } else { "disabling" };
        let accept = Accept {
            job: DisableAccount { account: account.id, lock, state: account.state.clone() },
            caller: cx.caller.clone(),
            command: Some(&DISABLE_ACCOUNT),
            owner: account.owner(),
            instance: Some(("Account".into(), account.uuid.clone())),
            claims: vec![Claim::Exclusive(format!("account/{}", account.id))],
            custom_id: req.custom_job_id,
            description: format!("{doing} Account. Account Id: {}", account.uuid),
            entity_id: None,
        };
        Ok(Response::new(self.accept(&cx, "disable-account", accept).await?))
    }

    async fn enable(&self, request: Request<EnableAccountRequest>) -> Answer<Account> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let account = self.target(&cx, req.account.as_deref()).await?;
        Ok(Response::new(self.enable_account(&cx.caller, &account).await?))
    }

    /// As in 4.11, it does nothing.
    async fn lock(&self, request: Request<LockAccountRequest>) -> Answer<Success> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let account = self.target(&cx, req.account.as_deref()).await?;
        self.may_change_account(&cx.caller, &account, "locking").await?;
        Ok(Response::new(Success { success: true, display_text: None }))
    }
}

impl Identity {
    async fn target(&self, cx: &Cx, name: Option<&str>) -> Result<AccountRow, ApiError> {
        let (id, domain) = (cx.refs.id("id")?, cx.refs.id("domainid")?);
        self.named_account(&cx.caller, id, name, domain).await
    }

    async fn may_see_account(&self, cx: &Cx, id: i64) -> Result<(), ApiError> {
        let row = accounts::find(&self.node.db, id).await?.filter(|a| a.id != accounts::SYSTEM);
        let row = row.ok_or_else(|| ApiError::param(format!("Unable to find account by id {id}")))?;
        if model::scope::may_act_for(&cx.caller, &row.owner()) {
            return Ok(());
        }
        let text =
            format!("{} does not have permission to operate with the account that id names", cx.caller.account_name);
        Err(ApiError::permission(text))
    }

    /// The number and path of the domain that `domainid` names.
    pub(super) async fn named_domain(&self, cx: &Cx) -> Result<Option<(i64, String)>, ApiError> {
        let found = cx.refs.living("domainid")?;
        Ok(found.and_then(|e| e.owner.as_ref().map(|o| (e.id, o.domain_path.clone()))))
    }

    /// Accepts a job, once for all repeats of the request.
    pub(super) async fn accept<J: jobs::Job>(
        &self,
        cx: &Cx,
        name: &'static str,
        accept: Accept<J>,
    ) -> Result<JobRef, ApiError> {
        let ticket = self.jobs.ticket().await?;
        jobs::mutate!(self.node.db, cx.caller, name, |tx| self.jobs.accept(tx, ticket.clone(), accept.clone()).await)
            .await
    }

    /// Whether the caller sees more than its own account.
    pub(super) fn is_plain_user(cx: &Cx) -> bool {
        !matches!(cx.caller.role(), RoleType::Admin | RoleType::ResourceAdmin | RoleType::DomainAdmin)
    }
}
