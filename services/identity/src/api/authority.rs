//! Look-ups for authentication. Internal: only services of the installation may call, in nobody's name.

use super::Answer;
use crate::store::roles;
use crate::{Identity, role_type};
use contract::{ApiError, RoleType};
use contract_identity::authority_server::Authority;
use contract_identity::{
    ByApiKeyRequest, ByUserRequest, CredentialsAnswer, PasswordLogin, PasswordLoginAnswer, RoleRule, RoleRules,
    RoleRulesAnswer, RoleRulesRequest,
};
use rpc::Peer;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Authority for Identity {
    async fn by_api_key(&self, request: Request<ByApiKeyRequest>) -> Answer<CredentialsAnswer> {
        let key = of_ours(request)?.api_key;
        let credentials = Identity::by_api_key(self, &key).await?;
        Ok(Response::new(CredentialsAnswer { credentials }))
    }

    async fn by_user(&self, request: Request<ByUserRequest>) -> Answer<CredentialsAnswer> {
        let id = of_ours(request)?.user_id;
        let credentials = Identity::by_user(self, id).await?;
        Ok(Response::new(CredentialsAnswer { credentials }))
    }

    async fn login(&self, request: Request<PasswordLogin>) -> Answer<PasswordLoginAnswer> {
        let request = of_ours(request)?;
        Ok(Response::new(Identity::login(self, &request).await?))
    }

    async fn role_rules(&self, request: Request<RoleRulesRequest>) -> Answer<RoleRulesAnswer> {
        let id = of_ours(request)?.role_id;
        let found = roles::find(&self.node.db, id).await.map_err(ApiError::from)?.filter(|r| !r.removed);
        let Some(role) = found else {
            return Ok(Response::new(RoleRulesAnswer { role: None }));
        };
        let rules = roles::rules(&self.node.db, Some(id)).await.map_err(ApiError::from)?;
        let rules = rules.into_iter().map(|r| RoleRule { allow: r.permission == "allow", rule: r.rule }).collect();
        let kind = role_type::parse(&role.kind).unwrap_or(RoleType::Unspecified);
        Ok(Response::new(RoleRulesAnswer { role: Some(RoleRules { id, name: role.name, r#type: kind.into(), rules }) }))
    }
}

/// The message, when one of our services sent it.
fn of_ours<T>(request: Request<T>) -> Result<T, Status> {
    if Peer::of(&request).may_assert_caller() {
        return Ok(request.into_inner());
    }
    Err(Status::unauthenticated("only services of this installation may call"))
}
