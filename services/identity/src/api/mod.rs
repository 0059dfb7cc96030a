//! Handlers: one file a proto service. They let requests in, name the concept's function, and shape the answer.

mod accounts;
mod authority;
mod domains;
mod limits;
mod resource_limits;
mod roles;
mod users;

use crate::Identity;
use contract_identity::accounts_server::AccountsServer;
use contract_identity::authority_server::AuthorityServer;
use contract_identity::domains_server::DomainsServer;
use contract_identity::limit_transfers_server::LimitTransfersServer;
use contract_identity::limits_server::LimitsServer;
use contract_identity::resource_limits_server::ResourceLimitsServer;
use contract_identity::roles_server::RolesServer;
use contract_identity::users_server::UsersServer;
use tonic::service::Routes;

/// What a handler gives.
type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

/// The gRPC services of identity.
pub fn routes(identity: Identity) -> Routes {
    Routes::new(AccountsServer::new(identity.clone()))
        .add_service(AuthorityServer::new(identity.clone()))
        .add_service(DomainsServer::new(identity.clone()))
        .add_service(LimitsServer::new(identity.clone()))
        .add_service(LimitTransfersServer::new(identity.clone()))
        .add_service(ResourceLimitsServer::new(identity.clone()))
        .add_service(RolesServer::new(identity.clone()))
        .add_service(UsersServer::new(identity))
}

impl Identity {
    /// The page that a list request asks for.
    fn page(&self, page: Option<i32>, size: Option<i32>) -> Result<model::Page, contract::ApiError> {
        model::Page::of(page, size, self.node.settings.get(config::keys::DEFAULT_PAGE_SIZE))
    }
}
