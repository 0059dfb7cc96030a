//! createRole, updateRole, deleteRole, listRoles, and the same for their rules.

use super::Answer;
use crate::Identity;
use contract::ApiError;
use contract::api::Success;
use contract_identity::roles_server::Roles;
use contract_identity::{
    CreateRolePermissionRequest, CreateRoleRequest, DeleteRolePermissionRequest, DeleteRoleRequest,
    ListRolePermissionsRequest, ListRolePermissionsResponse, ListRolesRequest, ListRolesResponse, Role, RolePermission,
    UpdateRolePermissionRequest, UpdateRoleRequest,
};
use tonic::{Request, Response};

#[tonic::async_trait]
impl Roles for Identity {
    async fn create(&self, request: Request<CreateRoleRequest>) -> Answer<Role> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.create_role(&cx.caller, &req).await?))
    }

    async fn update(&self, request: Request<UpdateRoleRequest>) -> Answer<Role> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.update_role(&cx.caller, cx.refs.need("id")?, &req).await?))
    }

    async fn delete(&self, request: Request<DeleteRoleRequest>) -> Answer<Success> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.delete_role(&cx.caller, cx.refs.need("id")?).await?))
    }

    async fn list(&self, request: Request<ListRolesRequest>) -> Answer<ListRolesResponse> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let id = cx.refs.one("id").map(|e| e.id);
        let role = self.list_roles(&cx.caller, id, req.name.as_deref(), req.r#type.as_deref()).await?;
        Ok(Response::new(ListRolesResponse { count: i64::try_from(role.len()).ok(), role }))
    }

    async fn create_permission(&self, request: Request<CreateRolePermissionRequest>) -> Answer<RolePermission> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.create_rule(&cx.caller, cx.refs.need("roleid")?, &req).await?))
    }

    async fn update_permission(&self, request: Request<UpdateRolePermissionRequest>) -> Answer<Success> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let role = cx.refs.need("roleid")?;
        let order: Vec<i64> = cx.refs.ids("ruleorder")?;
        let rule: Option<i64> = cx.refs.id("ruleid")?;
        let done = match (rule, req.permission.as_deref().filter(|p| !p.is_empty())) {
            (None, None) if !order.is_empty() => self.order_rules(&cx.caller, role, &order).await?,
            (Some(rule), Some(to)) if order.is_empty() => self.set_permission(&cx.caller, role, rule, to).await?,
            _ if !order.is_empty() => {
                return Err(ApiError::param(
                    "Parameters permission and ruleid must be mutually exclusive with ruleorder",
                )
                .into());
            }
            _ => return Err(ApiError::param("Give either ruleorder, or ruleid and permission").into()),
        };
        Ok(Response::new(done))
    }

    async fn delete_permission(&self, request: Request<DeleteRolePermissionRequest>) -> Answer<Success> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.delete_rule(&cx.caller, cx.refs.need("id")?).await?))
    }

    async fn list_permissions(
        &self,
        request: Request<ListRolePermissionsRequest>,
    ) -> Answer<ListRolePermissionsResponse> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        let role_permission = self.list_rules(&cx.caller, cx.refs.id("roleid")?).await?;
        Ok(Response::new(ListRolePermissionsResponse {
            count: i64::try_from(role_permission.len()).ok(),
            role_permission,
        }))
    }
}
