//! Consoles of VMs: who may look at which, and what the event log says of it.

use crate::store::vms::{self, VmRow};
use crate::vm::{VmWorld, view};
use contract::ApiError;
use contract::api::Caller;
use events::{EventRecord, EventState, Record};
use hub::Console;
use model::HostId;
use model::state::VmState;

/// A console opens.
const CONNECT: &str = "VNC.CONNECT";
/// A console closes.
const DISCONNECT: &str = "VNC.DISCONNECT";

/// The VM, when it shows something: it runs on a host.
///
/// # Errors
/// 431 when there is no such VM any more; 530 when it doesn't run.
pub async fn running(world: &VmWorld, id: i64) -> Result<(VmRow, HostId), ApiError> {
    let vm = vms::find(&world.node.db, id).await?.filter(|vm| !vm.removed);
    let vm = vm.ok_or_else(|| ApiError::param("Unable to find a virtual machine with specified vmId"))?;
    match (vm.state, vm.host_id) {
        (VmState::Running, Some(host)) => Ok((vm, HostId(host))),
        (state, _) => Err(ApiError::failed(format!(
            "The virtual machine {} is {state}: only a running one has a console",
            view::label(&vm)
        ))),
    }
}

/// What a viewer's window is called: the host name, and the display name when that is another one (as in 4.11).
pub fn title(vm: &VmRow) -> String {
    match vm.display_name.is_empty() || vm.display_name == vm.name {
        true => vm.name.clone(),
        false => format!("{}({})", vm.name, vm.display_name),
    }
}

/// Opens the console of a VM whose scope was checked, and notes when it opens and closes.
///
/// # Errors
/// As [`hub::Hub::console`]; the failure is an event, too.
pub async fn open(world: &VmWorld, caller: &Caller, vm: VmRow, host: HostId) -> Result<Console, ApiError> {
    let opened = world.hub.console(host, &vm.uuid).await;
    let console = match opened {
        Ok(console) => console,
        Err(error) => {
            note(world, event(caller, CONNECT, &vm, "couldn't be opened").failed()).await;
            return Err(error);
        }
    };
    note(world, event(caller, CONNECT, &vm, "was opened")).await;
    let (ended, world_, caller) = (console.ended.clone(), world.clone(), caller.clone());
    world.node.spawn("console", async move {
        ended.cancelled().await;
        note(&world_, event(&caller, DISCONNECT, &vm, "was closed")).await;
    });
    Ok(console)
}

fn event(caller: &Caller, kind: &str, vm: &VmRow, what: &str) -> EventRecord {
    let text = format!("The console of VM {} {what}", view::label(vm));
    EventRecord::new(caller, kind, EventState::Completed, text).about("VirtualMachine", &vm.uuid).owned_by(&vm.owner)
}

/// A console isn't refused, nor kept open, because the log can't be written.
async fn note(world: &VmWorld, event: EventRecord) {
    let kind = event.kind.clone();
    let records = [Record::Event(event)];
    let noted = store::tx!(world.node.db, "console-event", |tx| {
        events::record(tx, &records).await?;
        Ok::<_, ApiError>(())
    });
    if let Err(error) = noted.await {
        tracing::warn!(kind, %error, "an event of a console can't be noted");
    }
}
