//! Which VMs can't leave a host: told before anything begins (HOST-024).

use super::exit::{self, Exit};
use crate::store::maintenances::{self, Emptying, Way};
use crate::store::{hosts as rows, placement, vms};
use crate::vm::{VmWorld, view};
use contract::ApiError;
use events::{EventRecord, EventState, Level, Record};
use futures::StreamExt as _;
use jobs::Ctx;
use model::state::VmState;
use store::Tx;

/// VMs that are looked at at the same time.
const AT_ONCE: usize = 8;

/// What was found.
pub struct Left {
    host: String,
    name: String,
    /// VMs that can't leave, or can only by being stopped, and why.
    vms: Vec<String>,
}

/// Looks. What can't be found out now is found out when the VM is to leave.
pub async fn look(world: &VmWorld, host: i64) -> Option<Left> {
    match find(world, host).await {
        Ok(left) => left,
        Err(error) => {
            tracing::warn!(host, %error, "which VMs can leave a host can't be told beforehand");
            None
        }
    }
}

async fn find(world: &VmWorld, id: i64) -> Result<Option<Left>, ApiError> {
    let db = &world.node.db;
    let Some(host) = rows::find(db, id).await? else { return Ok(None) };
    let hosts = placement::hosts(db, None).await?;
    let emptying = Emptying {
        host: id,
        uuid: host.uuid.clone(),
        name: host.name.clone(),
        zone: host.zone.0,
        cluster: host.cluster.0,
        hypervisor: host.hypervisor,
        status: host.status,
        state: host.resource_state,
        removed: false,
        job: String::new(),
        begun: 0,
        cleared: None,
        holders: 0,
        routers: 0,
        debts: 0,
    };
    let guests = maintenances::guests(db, id).await?;
    let running = guests.into_iter().filter(|g| g.state == VmState::Running);
    let (emptying, hosts) = (&emptying, &hosts);
    let found: Vec<Result<Option<String>, ApiError>> = futures::stream::iter(running)
        .map(|guest| async move {
            let Some(vm) = vms::find(db, guest.vm).await? else { return Ok(None) };
            let why = match exit::find(world, emptying, hosts, &vm, 0).await? {
                Exit::By(Way::Move, _) => return Ok(None),
                Exit::By(Way::Stop, _) => "no other host can take it: it is stopped".to_owned(),
                Exit::By(Way::Restart, _) => "it is stopped and started on another host".to_owned(),
                Exit::Shut(why) => why,
            };
            Ok::<_, ApiError>(Some(format!("{}: {why}", view::label(&vm))))
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let vms = found.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Left { host: host.uuid, name: host.name, vms }))
}

/// Tells who asked, as part of `tx`.
///
/// # Errors
/// Those of the database.
pub async fn tell(tx: &mut Tx, ctx: &Ctx, left: &Option<Left>) -> Result<(), ApiError> {
    let Some(Left { host, name, vms }) = left.as_ref().filter(|left| !left.vms.is_empty()) else { return Ok(()) };
    let text = format!("VMs that can't move off host {name} ({host}) while they run: {}", vms.join("; "));
    let mut event = EventRecord::new(ctx.caller(), "MAINT.PREPARE", EventState::Started, text).about("Host", host);
    event.level = Level::Warn;
    Ok(events::record(tx, &[Record::Event(event)]).await?)
}
