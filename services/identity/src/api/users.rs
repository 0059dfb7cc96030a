//! createUser, updateUser, deleteUser, listUsers, disableUser, enableUser, lockUser, registerUserKeys, getUserKeys, getUser.

use super::Answer;
use crate::Identity;
use crate::disabling::DisableUser;
use crate::store::users::{self, Filter};
use crate::view;
use contract::ApiError;
use contract::api::{JobRef, Success};
use contract_identity::users_server::Users;
use contract_identity::{
    CreateUserRequest, DISABLE_USER, DeleteUserRequest, DisableUserRequest, EnableUserRequest, GetUserKeysRequest,
    GetUserRequest, ListUsersRequest, ListUsersResponse, LockUserRequest, MoveUserRequest, RegisterUserKeysRequest,
    UpdateUserRequest, User, UserKeys,
};
use jobs::{Accept, Claim};
use model::{ListScope, ScopeRequest};
use tonic::{Request, Response};

#[tonic::async_trait]
impl Users for Identity {
    async fn create(&self, request: Request<CreateUserRequest>) -> Answer<User> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let domain = cx.refs.id("domainid")?;
        Ok(Response::new(self.create_user(&cx.caller, domain, &req).await?))
    }

    async fn update(&self, request: Request<UpdateUserRequest>) -> Answer<User> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let id = cx.refs.need("id")?;
        Ok(Response::new(self.update_user(&cx.caller, id, &req).await?))
    }

    async fn delete(&self, request: Request<DeleteUserRequest>) -> Answer<Success> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        self.delete_user(&cx.caller, cx.refs.need("id")?).await?;
        Ok(Response::new(Success { success: true, display_text: None }))
    }

    async fn r#move(&self, request: Request<MoveUserRequest>) -> Answer<Success> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let (id, account) = (cx.refs.need("id")?, cx.refs.id("accountid")?);
        Ok(Response::new(self.move_user(&cx.caller, id, account, req.account.as_deref()).await?))
    }

    async fn list(&self, request: Request<ListUsersRequest>) -> Answer<ListUsersResponse> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let mut id: Option<i64> = cx.refs.one("id").map(|e| e.id);
        if Identity::is_plain_user(&cx) {
            if id.is_some_and(|id| id != cx.caller.user_id) {
                return Err(
                    ApiError::permission("Calling user is not authorized to see the user requested by id").into()
                );
            }
            id = Some(cx.caller.user_id);
        }
        let domain = self.named_domain(&cx).await?;
        let wanted = ScopeRequest {
            account: req.account.as_deref().filter(|a| !a.is_empty()),
            domain: domain.as_ref().map(|(id, path)| (*id, path.as_str())),
            list_all: req.list_all(),
            recursive: req.is_recursive(),
            by_id: id.is_some(),
        };
        let filter = Filter {
            scope: ListScope::of(&self.node.db, &cx.caller, &wanted).await?,
            id,
            account_type: req.account_type,
            username: req.username.as_deref().filter(|n| !n.is_empty()),
            state: req.state.as_deref().filter(|s| !s.is_empty()),
            keyword: req.keyword.as_deref().filter(|k| !k.is_empty()),
        };
        let (rows, count) = users::page(&self.node.db, &filter, page).await.map_err(ApiError::from)?;
        let uuids: Vec<String> = rows.iter().map(|r| r.uuid.clone()).collect();
        let mut pending = jobs::view::pending(&self.node.db, &uuids).await?;
        let shown = rows.iter().map(|r| {
            let (job_id, job_status) = pending.remove(&r.uuid).unzip();
            User { job_id, job_status, ..view::user(r, Some(cx.caller.domain_id)) }
        });
        let user = shown.collect();
        Ok(Response::new(ListUsersResponse { count: Some(count), user }))
    }

    async fn disable(&self, request: Request<DisableUserRequest>) -> Answer<JobRef> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let user = self.user_row(cx.refs.need("id")?).await?;
        self.may_change_user(&cx.caller, &user, "disabling").await?;
        if user.is_default {
            return Err(ApiError::param("The user is default and can't be disabled").into());
        }
        let accept = Accept {
            job: DisableUser { user: user.id, state: user.state.clone() },
            caller: cx.caller.clone(),
            command: Some(&DISABLE_USER),
            owner: user.owner(),
            instance: Some(("User".into(), user.uuid.clone())),
            claims: vec![Claim::Exclusive(format!("user/{}", user.id))],
            custom_id: req.custom_job_id,
            description: format!("disabling user: {}", user.uuid),
            entity_id: None,
        };
        Ok(Response::new(self.accept(&cx, "disable-user", accept).await?))
    }

    async fn enable(&self, request: Request<EnableUserRequest>) -> Answer<User> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.enable_user(&cx.caller, cx.refs.need("id")?).await?))
    }

    async fn lock(&self, request: Request<LockUserRequest>) -> Answer<User> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.lock_user(&cx.caller, cx.refs.need("id")?).await?))
    }

    async fn register_keys(&self, request: Request<RegisterUserKeysRequest>) -> Answer<UserKeys> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.register_keys(&cx.caller, cx.refs.need("id")?).await?))
    }

    async fn get_keys(&self, request: Request<GetUserKeysRequest>) -> Answer<UserKeys> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.user_keys(&cx.caller, cx.refs.need("id")?).await?))
    }

    async fn get(&self, request: Request<GetUserRequest>) -> Answer<User> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let found = users::by_api_key(&self.node.db, req.user_api_key()).await.map_err(ApiError::from)?;
        let user = found.ok_or_else(|| ApiError::param("User with the API key given doesn't exist"))?;
        if user.id != cx.caller.user_id && !model::scope::may_act_for(&cx.caller, &user.owner()) {
            return Err(ApiError::param("User with the API key given doesn't exist").into());
        }
        Ok(Response::new(view::user(&user, None)))
    }
}
