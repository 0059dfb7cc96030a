//! The orchestrator: zones, pods, clusters, hosts, the catalogue of compute offerings and operating systems, virtual
//! machines and where they go, tags, settings, jobs as the API shows them, and the agents' connections.
//!
//! * [`api`]: handlers, one file a proto service; they let a request in and call a concept.
//! * Concepts, without SQL: [`zone`], [`pod`], [`cluster`], [`host`], [`offering`], [`key_pair`], [`tag`], [`capacity`], [`certificate`],
//!   [`configuration`], [`console`], [`mock`], [`pick`], [`region`].
//! * `store`: the SQL.
//! * [`install`]: what a fresh installation has.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // a test that can't go on has failed

pub mod affinity;
pub mod alert;
pub mod annotation;
pub mod api;
pub mod async_job;
pub mod audit;
pub mod capacity;
pub mod certificate;
pub mod cluster;
pub mod configuration;
pub mod console;
pub mod dedication;
mod fact;
pub mod host;
pub mod hypervisor;
pub mod install;
pub mod instance_group;
pub mod key_pair;
pub mod metrics;
pub mod mock;
pub mod offering;
pub mod os_type;
pub mod pick;
pub mod placement;
pub mod pod;
mod reach;
pub mod region;
mod store;
pub mod subnet;
pub mod tag;
pub mod vm;
pub mod world;
pub mod zone;

pub use world::World;

use contract::ApiError;
use hub::{Hub, HubOptions};
use jobs::Jobs;
use node::Node;
use pki::Pki;
use std::sync::Arc;
use tonic::service::Routes;

/// The tables that this service owns.
pub const MIGRATIONS: &[::store::Migration] = &[
    migration("0001_topology.sql", include_str!("../migrations/0001_topology.sql")),
    migration("0002_hosts.sql", include_str!("../migrations/0002_hosts.sql")),
    migration("0003_catalogue.sql", include_str!("../migrations/0003_catalogue.sql")),
    migration("0004_changes.sql", include_str!("../migrations/0004_changes.sql")),
    migration("0010_vms.sql", include_str!("../migrations/0010_vms.sql")),
    migration("0020_ha.sql", include_str!("../migrations/0020_ha.sql")),
    migration("0021_violations.sql", include_str!("../migrations/0021_violations.sql")),
    migration("0022_recoveries.sql", include_str!("../migrations/0022_recoveries.sql")),
    migration("0023_waiting_agents.sql", include_str!("../migrations/0023_waiting_agents.sql")),
    migration("0024_vm_passwords.sql", include_str!("../migrations/0024_vm_passwords.sql")),
    migration("0026_vm_moves.sql", include_str!("../migrations/0026_vm_moves.sql")),
    migration("0030_host_watch.sql", include_str!("../migrations/0030_host_watch.sql")),
    migration("0031_affinity.sql", include_str!("../migrations/0031_affinity.sql")),
    migration("0032_dedications.sql", include_str!("../migrations/0032_dedications.sql")),
    migration("0033_instance_groups.sql", include_str!("../migrations/0033_instance_groups.sql")),
    migration("0035_maintenance.sql", include_str!("../migrations/0035_maintenance.sql")),
    migration("0036_annotations.sql", include_str!("../migrations/0036_annotations.sql")),
    migration("0037_regions.sql", include_str!("../migrations/0037_regions.sql")),
    migration("0039_passwords_taken.sql", include_str!("../migrations/0039_passwords_taken.sql")),
    migration("0042_isos.sql", include_str!("../migrations/0042_isos.sql")),
    migration("0040_planners.sql", include_str!("../migrations/0040_planners.sql")),
];

const fn migration(file: &'static str, sql: &'static str) -> ::store::Migration {
    ::store::Migration { owner: "orchestrator", file, sql }
}

/// A replica whose job engine isn't started yet.
pub struct Orchestrator {
    /// Handles of the infrastructure's handlers and jobs.
    pub world: World,
    /// Handles of the jobs of VMs.
    pub vms: Arc<vm::VmWorld>,
    builder: jobs::Builder,
}

impl Orchestrator {
    /// Writes first-install data and assembles the replica around a job engine under construction.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn assemble(node: Node, pki: Arc<Pki>, builder: jobs::Builder) -> Result<Orchestrator, ApiError> {
        Orchestrator::assemble_with(node, pki, builder, HubOptions::default()).await
    }

    /// The same with a hub that isn't the usual one.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn assemble_with(
        node: Node,
        pki: Arc<Pki>,
        builder: jobs::Builder,
        options: HubOptions,
    ) -> Result<Orchestrator, ApiError> {
        install::run(&node).await?;
        let hub = Hub::with(node.clone(), pki.clone(), options);
        let world = World { node: node.clone(), jobs: builder.handle(), hub: hub.clone(), pki };
        let index = placement::Index::default();
        index.load(&node.db).await?;
        let vms = Arc::new(vm::VmWorld {
            node,
            jobs: builder.handle(),
            hub,
            index,
            names: vm::name_cache::NameCache::default(),
        });
        let own = Arc::new(world.clone());
        let builder = certificate::register(builder, &own);
        let builder = builder
            .register::<alert::Generate>(own.clone())
            .register::<tag::ChangeTags>(own.clone())
            .register::<host::reconnect::Reconnect>(own);
        let builder = host::maintenance::register(builder, &vms);
        Ok(Orchestrator { world, builder: vm::register(builder, &vms), vms })
    }

    /// Begins background work, and gives what other services and agents in this process call.
    pub fn serve(&self) -> Routes {
        host::sweep::start(&self.world);
        host::facts::start(&self.world);
        host::routers::start(&self.world);
        let leases = host::investigate::Leases::new(self.world.clone());
        host::absence::start(&self.world, vec![Arc::new(leases)]);
        audit::start(&self.world);
        vm::start(&self.vms);
        host::maintenance::start(&self.vms);
        api::routes(&self.world, &self.vms)
    }

    /// Starts the job engine.
    pub fn run_jobs(self) -> Jobs {
        let node = &self.world.node;
        self.builder.start(node.stop.clone(), &node.tasks)
    }
}

/// Starts a replica. Gives what it serves, and its hub, whose part for agents is served on a port of its own.
///
/// # Errors
/// When the database doesn't answer.
pub async fn start(node: Node, pki: Arc<Pki>) -> Result<(Routes, Hub), ApiError> {
    start_with(node, pki, HubOptions::default()).await
}

/// Starts a replica whose hub isn't the usual one: among several replicas it must know how to dial the others.
///
/// # Errors
/// When the database doesn't answer.
pub async fn start_with(node: Node, pki: Arc<Pki>, options: HubOptions) -> Result<(Routes, Hub), ApiError> {
    let builder = Jobs::builder(node.db.clone(), node.coord.clone(), "orchestrator", node.replica.clone());
    let orchestrator = Orchestrator::assemble_with(node, pki, builder, options).await?;
    let (routes, hub) = (orchestrator.serve(), orchestrator.world.hub.clone());
    orchestrator.run_jobs();
    Ok((routes, hub))
}
