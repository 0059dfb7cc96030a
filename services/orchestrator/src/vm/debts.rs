//! What hosts owe: orders that they missed while they were away. They do them before they take anything new.

use super::VmWorld;
use crate::store::vms;
use contract::ApiError;
use contract_agent::{Command, PowerState, StopVm, VmState as Reported, command};
use futures::StreamExt as _;
use jobs::UndoCx;
use prost::Message as _;
use std::time::Duration;

/// Between looks for debts that could not be paid, or came into being while their host was connecting.
const PAUSE: Duration = Duration::from_secs(5);
/// Hosts that pay at the same time.
const AT_ONCE: usize = 32;

/// Has the hosts that are connected with this replica pay, until the node stops.
pub async fn collect(world: VmWorld) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let debtors = match vms::debtors(&world.node.db, &world.node.replica).await {
            Ok(debtors) => debtors,
            Err(error) => {
                tracing::warn!(%error, "what hosts owe can't be read");
                continue;
            }
        };
        let pay = |host: i64| {
            let world = &world;
            async move {
                if let Err(error) = pay(world, host).await {
                    tracing::warn!(host, %error, "a host still owes; it is asked again");
                }
            }
        };
        futures::stream::iter(debtors).for_each_concurrent(AT_ONCE, pay).await;
    }
}

/// Has a host take back what a step had it do to a VM; one that is away owes it.
///
/// # Errors
/// Those of the host and of the database.
pub async fn undo_or_owe(
    world: &VmWorld,
    host: i64,
    vm_uuid: &str,
    body: command::Body,
    cx: &UndoCx,
) -> Result<(), ApiError> {
    if crate::store::placement::is_up(&world.node.db, host).await? {
        return cx
            .call(|call| {
                let (world, body) = (world.clone(), body.clone());
                async move { world.on_host(host, Some(call.key()), true, body).await }
            })
            .await
            .map(drop);
    }
    let debt = world.node.db.next_id("host_debt").await?;
    let encoded = Command { body: Some(body) }.encode_to_vec();
    jobs::undo_step!(cx, |tx| Ok::<_, ApiError>(vms::owe(tx, debt, host, vm_uuid, encoded.clone()).await?)).await
}

/// Has a host do what it owes, the oldest first. Then it takes VMs again.
///
/// # Errors
/// When it can't be reached, or fails.
pub async fn pay(world: &VmWorld, host: i64) -> Result<(), ApiError> {
    let db = &world.node.db;
    let debts = vms::debts(db, host).await?;
    if debts.is_empty() {
        return Ok(());
    }
    for debt in debts {
        if let Some(body) = Command::decode(debt.command.as_slice())?.body {
            // A VM that ended there meanwhile can't be let go on: the host says so, and owes no more.
            let may_be_refused = matches!(body, command::Body::ConfirmMigration(_));
            match world.on_host(host, None, false, body).await {
                Err(error) if may_be_refused && !error.is_transient() => {
                    tracing::info!(host, %error, "a VM that was to go on at its host has ended there");
                }
                told => drop(told?),
            }
        }
        store::tx!(db, "pay-debt", |tx| Ok::<_, ApiError>(vms::paid(tx, debt.id).await?)).await?;
    }
    tracing::info!(host, "a host has done what it owed");
    world.node.coord.publish("placement", &format!("host/{host}"));
    world.index.refresh(db, &[host]).await
}

/// Stops copies of VMs that have been started elsewhere since. Nobody can want them back: generations only rise.
pub async fn stop_stale(world: &VmWorld, host: i64, stale: Vec<Reported>) {
    for copy in stale.into_iter().filter(|c| matches!(c.power(), PowerState::On | PowerState::Paused)) {
        tracing::warn!(
            host,
            vm = copy.uuid,
            generation = copy.generation,
            "stopping a copy of a VM that has been started elsewhere since"
        );
        let stop = StopVm { uuid: copy.uuid.clone(), forced: true, generation: copy.generation };
        if let Err(error) = world.on_host(host, None, false, command::Body::StopVm(stop)).await {
            tracing::warn!(host, vm = copy.uuid, %error, "the copy is stopped at the host's next report");
        }
    }
}
