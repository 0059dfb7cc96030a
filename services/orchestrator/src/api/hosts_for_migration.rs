//! `arcus.infra.v1.HostsForMigration`.

use crate::host;
use crate::vm::VmWorld;
use contract_infra::hosts_for_migration_server::HostsForMigration;
use contract_infra::{FindHostsForMigrationRequest, FindHostsForMigrationResponse};
use tonic::{Request, Response, Status};

/// The handlers.
pub struct Api {
    world: VmWorld,
}

impl Api {
    /// Handlers that work with `world`.
    pub fn new(world: VmWorld) -> Api {
        Api { world }
    }
}

#[tonic::async_trait]
impl HostsForMigration for Api {
    async fn find(
        &self,
        request: Request<FindHostsForMigrationRequest>,
    ) -> Result<Response<FindHostsForMigrationResponse>, Status> {
        let (cx, request) = self.world.node.rpc.enter(request).await?;
        Ok(Response::new(host::for_migration::find(&self.world, &cx, request).await?))
    }
}
