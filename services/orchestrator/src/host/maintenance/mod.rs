//! Maintenance of hosts (HOST-010 and others). A job asks for it and waits ([`Prepare`]), a duty empties the host
//! ([`evacuate`]): whoever dies, the wish is in the database, and whoever leads next goes on with it.
//!
//! From the commit that begins it no VM and no router is placed on the host, by whatever replica: `accepting` of its
//! capacity is 0, and every placement is a conditional update of that row. Each VM leaves by a job of its own, by the ways of
//! [`exit`]; routers are moved by the network service, which follows the host's state. An empty host is in Maintenance. One
//! whose VMs have all failed to leave is in ErrorInMaintenance: they are tried on, slowly, until it is empty or somebody
//! cancels.

mod evacuate;
mod exit;
mod preflight;

pub use evacuate::start;

use super::view::{Details, shown};
use super::{gone, ha_tag};
use crate::store::hosts::{self as rows, HostRow};
use crate::store::maintenances;
use crate::vm::VmWorld;
use crate::world::World;
use ::store::{Db, Tx};
use contract::api::{JobRef, Success};
use contract::{ApiError, CommandInfo, Request as _};
use contract_infra::{CancelHostMaintenanceRequest, Host, PrepareHostForMaintenanceRequest};
use jobs::{AbortCx, Accept, Claim, Ctx, Finished, Job, UndoCx};
use model::Owner;
use model::state::{HostStatus, ResourceState};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Between looks of a job that waits for its host to be empty.
const LOOK: Duration = Duration::from_millis(500);
/// Longest that it waits. The host goes on being emptied after that.
const PATIENCE: Duration = Duration::from_secs(30 * 86_400);

/// Empties a host, and waits for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prepare {
    /// The host.
    pub host: i64,
}

/// What [`Prepare`] takes back when it fails while the host is still being emptied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The host is Enabled again, if the wish is still this job's.
    Enabled {
        /// The job.
        job: String,
    },
}

/// Ends a host's maintenance, or takes the wish for it back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cancel {
    /// The host.
    pub host: i64,
}

/// Makes an engine run the jobs of maintenance.
pub fn register(builder: jobs::Builder, world: &Arc<VmWorld>) -> jobs::Builder {
    builder.register::<Prepare>(world.clone()).register::<Cancel>(world.clone())
}

/// Accepts prepareHostForMaintenance. It claims nothing: a host may be cancelled and deleted by force while it is emptied,
/// and that there is one host of a cluster at a time is a unique key's business.
///
/// # Errors
/// Those of the database.
pub async fn prepare(world: &World, cx: &Cx, r: PrepareHostForMaintenanceRequest) -> Result<JobRef, ApiError> {
    let host = cx.refs.living("id")?.ok_or_else(gone)?;
    let what = format!("preparing for maintenance: {}", host.uuid);
    let command = PrepareHostForMaintenanceRequest::COMMAND;
    accept(world, cx, Prepare { host: host.id }, command, r.custom_job_id, what, Vec::new()).await
}

/// Accepts cancelHostMaintenance.
///
/// # Errors
/// Those of the database.
pub async fn cancel(world: &World, cx: &Cx, r: CancelHostMaintenanceRequest) -> Result<JobRef, ApiError> {
    let host = cx.refs.living("id")?.ok_or_else(gone)?;
    let what = format!("canceling maintenance for host: {}", host.uuid);
    let command = CancelHostMaintenanceRequest::COMMAND;
    let claims = vec![Claim::Shared(format!("host/{}", host.id))];
    accept(world, cx, Cancel { host: host.id }, command, r.custom_job_id, what, claims).await
}

async fn accept<J: Job>(
    world: &World,
    cx: &Cx,
    job: J,
    command: Option<&'static CommandInfo>,
    custom_id: Option<String>,
    description: String,
    claims: Vec<Claim>,
) -> Result<JobRef, ApiError> {
    let uuid = cx.refs.living("id")?.ok_or_else(gone)?.uuid.clone();
    let ticket = world.jobs.ticket().await?;
    let custom_id = custom_id.filter(|id| !id.is_empty());
    jobs::mutate!(world.node.db, cx.caller, J::KIND, |tx| {
        let accept = Accept {
            job: job.clone(),
            caller: cx.caller.clone(),
            command,
            owner: Owner::caller(&cx.caller),
            instance: Some(("Host".to_owned(), uuid.clone())),
            claims: claims.clone(),
            custom_id: custom_id.clone(),
            description: description.clone(),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}

/// Refuses what users ask to be done to a VM while its host is being emptied (REL-157): it would be in the way of the VM's
/// move. `what` begins the refusal.
///
/// # Errors
/// 530 while the host of the VM prepares for maintenance.
pub async fn undisturbed(db: &Db, vm: (i64, &str), what: &str) -> Result<(), ApiError> {
    match maintenances::state_around(db, vm.0).await? {
        Some(state @ ResourceState::PrepareForMaintenance) => Err(ApiError::failed(format!(
            "{what} VM operation on the VM id: {} is not allowed as host is preparing for maintenance mode ({state})",
            vm.1
        ))),
        _ => Ok(()),
    }
}

impl Job for Prepare {
    const KIND: &'static str = "host.maintenance";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        // Counts only when the step below is new.
        let left = preflight::look(&world, self.host).await;
        let job = ctx.job_uuid().to_owned();
        jobs::step!(ctx, "prepare", undo: Undo::Enabled { job: job.clone() }, |tx| {
            self.begin(&world, tx, &job).await?;
            preflight::tell(tx, &ctx, &left).await
        })
        .await?;
        let waiting = ctx.deadline(PATIENCE);
        waiting
            .call("wait", jobs::NO_UNDO, |_call| {
                let (world, ctx, job, host) = (world.clone(), ctx.clone(), job.clone(), self.host);
                async move {
                    ctx.idle(emptied(&world, host, &job)).await?;
                    Ok::<_, ApiError>(Success { success: true, display_text: None })
                }
            })
            .await?;
        jobs::finish!(ctx, |tx| shown_now(&world, tx, self.host).await).await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let Undo::Enabled { job } = undo;
        jobs::undo_step!(cx, |tx| {
            if maintenances::is_wanted(tx, self.host, &job).await?
                && maintenances::transit(tx, self.host, &[ResourceState::PrepareForMaintenance], ResourceState::Enabled)
                    .await?
            {
                maintenances::forget(tx, self.host).await?;
                tell_placement(&world, tx, self.host);
            }
            Ok::<_, ApiError>(())
        })
        .await
    }

    async fn abort(self, _: Arc<VmWorld>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undo of its first step did all
    }
}

impl Prepare {
    /// The host takes nothing more and is to be emptied.
    async fn begin(&self, world: &VmWorld, tx: &mut Tx, job: &str) -> Result<(), ApiError> {
        let host = living(tx, self.host).await?;
        if !maintenances::begin(tx, self.host, host.cluster.0, job).await? {
            return Err(ApiError::param(format!(
                "There are other servers in PrepareForMaintenance OR ErrorInMaintenance STATUS in cluster {}",
                host.cluster.1
            )));
        }
        if host.resource_state != ResourceState::Enabled {
            return Err(ApiError::failed(format!(
                "Cannot transit resource state of host {} to Maintenance: it is {}",
                host.uuid, host.resource_state
            )));
        }
        if host.status != HostStatus::Up {
            return Err(ApiError::failed(format!(
                "Unable to prepare for maintenance host {}: its agent is {}",
                host.uuid, host.status
            )));
        }
        let local = maintenances::local_guests(tx, self.host).await?;
        if !local.is_empty() {
            let names: Vec<String> = local.iter().map(|(uuid, name)| format!("{uuid} ({name})")).collect();
            return Err(ApiError::param(format!(
                "There are active VMs using the host's local storage pool. Please stop all VMs on this host that use local \
                 storage: {}",
                names.join(", ")
            )));
        }
        let (from, to) = ([ResourceState::Enabled], ResourceState::PrepareForMaintenance);
        if !maintenances::transit(tx, self.host, &from, to).await? {
            return Err(ApiError::concurrent("the host's state has just changed"));
        }
        tell_placement(world, tx, self.host);
        Ok(())
    }
}

impl Job for Cancel {
    const KIND: &'static str = "host.maintenance.cancel";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::finish!(ctx, |tx| {
            let host = living(tx, self.host).await?;
            let from =
                [ResourceState::PrepareForMaintenance, ResourceState::Maintenance, ResourceState::ErrorInMaintenance];
            if !maintenances::transit(tx, self.host, &from, ResourceState::Enabled).await? {
                return Err(ApiError::failed(format!(
                    "Cannot perform cancelMaintenance when resource state is {}, hostId = {}",
                    host.resource_state, host.uuid
                )));
            }
            maintenances::forget(tx, self.host).await?;
            tell_placement(&world, tx, self.host);
            shown_now(&world, tx, self.host).await
        })
        .await
    }

    async fn undo(self, _: Arc<VmWorld>, (): (), _: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _: Arc<VmWorld>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

async fn living(tx: &mut Tx, host: i64) -> Result<HostRow, ApiError> {
    rows::find(tx, host).await?.filter(|h| h.removed.is_none()).ok_or_else(gone)
}

async fn shown_now(world: &VmWorld, tx: &mut Tx, host: i64) -> Result<Host, ApiError> {
    let host = living(tx, host).await?;
    Ok(shown(host, Details::all(), ha_tag(&world.node.settings).as_deref()))
}

/// Whoever keeps hosts in memory, and the network service, look at the host after the commit.
fn tell_placement(world: &VmWorld, tx: &mut Tx, host: i64) {
    let coord = world.node.coord.clone();
    tx.after_commit(move || coord.publish("placement", &format!("host/{host}")));
}

/// Waits until the host is in maintenance.
async fn emptied(world: &VmWorld, host: i64, job: &str) -> Result<(), ApiError> {
    loop {
        match maintenances::standing(&world.node.db, host).await {
            Ok(Some(now)) => match now.state {
                ResourceState::Maintenance => return Ok(()),
                ResourceState::PrepareForMaintenance if now.job.as_deref() == Some(job) => {}
                ResourceState::ErrorInMaintenance if now.job.as_deref() == Some(job) => {
                    let problem = now.problem.unwrap_or_else(|| "not all VMs could leave".to_owned());
                    return Err(ApiError::failed(format!("The host is in ErrorInMaintenance: {problem}")));
                }
                state => {
                    return Err(ApiError::failed(format!("The maintenance was cancelled: the host is {state}")));
                }
            },
            Ok(None) => return Err(gone()),
            Err(error) => tracing::debug!(host, %error, "whether a host is empty can't be read now"),
        }
        tokio::time::sleep(LOOK).await;
    }
}
