//! A stopped VM, with its volumes, becomes another account's ([`Assign`]; IAM-038 to 040). Whether that may be is [`rules`].
//!
//! ```text
//! limits ─ a first network ─ the volumes' owner ─ the VM's owner and names ─ the NICs are exchanged ─ old names go
//! ```
//! What fails before the exchange is taken back. The exchange is one commit of the network service, and nothing after it can fail:
//! addresses that were given up can't be had again, so once it has happened the VM is the new owner's. Whoever undoes a step
//! looks at that first: the NICs' owner says it.

mod rules;

pub use rules::{Order, at_rest, check};

use super::deploy::row;
use super::{VmWorld, names, usage, view};
use crate::store::vm_assign as rows;
use crate::store::vms::{self, VmRow};
use crate::store::{affinity, vm_nics};
use contract::ApiError;
use contract_identity::TransferRequest;
use contract_identity::limit_transfers_client::LimitTransfersClient;
use contract_network::{AllocateNicsRequest, DefaultNetworkRequest};
use contract_storage::AssignDisksRequest;
use events::{EventRecord, EventState, Record};
use jobs::{AbortCx, Ctx, Finished, Job, NO_UNDO, UndoCx};
use model::Owner;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// Gives a stopped VM to another account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assign {
    /// The VM.
    pub vm: i64,
    /// The account that has it.
    pub from: i64,
    /// Who gets it.
    pub to: Owner,
    /// The networks that it gets, the default one first; none: the new owner's first one is made.
    pub networks: Vec<i64>,
    /// Its volumes, which the job has claimed.
    pub volumes: Vec<i64>,
}

/// What it takes back when it fails, as long as the NICs aren't exchanged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// Whose limits it counts against.
    Limits,
    /// Whose the volumes are.
    Disks,
    /// Whose the VM is.
    Owner(Box<Found>),
    /// The exchange, if it hasn't happened.
    Nics,
}

/// What the first step found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    owner: Owner,
    /// Names of what it is counted with.
    holders: Vec<String>,
    group: Option<i64>,
    /// Affinity groups that the new owner's VMs can't be in.
    affinity: Vec<i64>,
    /// Networks in which its name is taken.
    named_in: Vec<i64>,
}

impl Assign {
    async fn find(&self, tx: &mut Tx) -> Result<Found, ApiError> {
        let vm = vms::find_in(tx, self.vm).await?.filter(|vm| !vm.removed);
        let vm = vm.ok_or_else(|| ApiError::param("There is no vm by that id"))?;
        rules::at_rest(&vm)?;
        if vm.owner.account_id != self.from {
            return Err(ApiError::param(format!("The virtual machine {} has another owner by now", view::label(&vm))));
        }
        let volumes = rows::volumes_in(tx, vm.id).await?;
        if !volumes.iter().map(|v| v.id).eq(self.volumes.iter().copied()) {
            return Err(ApiError::concurrent("volumes were attached or detached meanwhile: try again"));
        }
        let mut holders = vec![vm.limits_key.clone()];
        holders.extend(volumes.iter().map(|v| format!("volume:{}", v.uuid)));
        let groups = affinity::of_vm(&mut *tx, vm.id).await?;
        Ok(Found {
            holders,
            group: rows::group(tx, vm.id).await?,
            affinity: groups.iter().filter(|g| !g.admits(&self.to)).map(|g| g.id).collect(),
            named_in: rows::named_in(tx, vm.id).await?,
            owner: vm.owner,
        })
    }

    /// The networks that it gets: those that were named or found, else the account's first one, made now.
    async fn networks(&self, world: &Arc<VmWorld>, ctx: &Ctx, zone: i64) -> Result<Vec<i64>, ApiError> {
        if !self.networks.is_empty() {
            return Ok(self.networks.clone());
        }
        let wish = DefaultNetworkRequest {
            zone_id: zone,
            account_id: self.to.account_id,
            domain_id: self.to.domain_id,
            domain_path: self.to.domain_path.clone(),
        };
        let made = ctx
            .call("network", NO_UNDO, |call| {
                let (mut client, request) = (world.attachments(), call.request(wish.clone()));
                async move { client.default_network(request).await }
            })
            .await?;
        Ok(vec![made.network_id])
    }

    /// The row says the new owner. Its old names stay taken as long as there is a way back to them.
    async fn hand_over(&self, tx: &mut Tx, vm: &VmRow, found: &Found, networks: &[i64]) -> Result<(), ApiError> {
        if !rows::hand_over(tx, vm.id, self.from, &self.to).await? {
            return Err(ApiError::concurrent("the virtual machine is no longer Stopped, or another's"));
        }
        for network in networks.iter().filter(|n| !found.named_in.contains(n)) {
            vm_nics::take_name(tx, *network, vm.id, &vm.name).await.map_err(|e| match e {
                store::Error::Unique { .. } => names::taken(&vm.name, "of the new owner"),
                other => other.into(),
            })?;
        }
        rows::leave_affinity(tx, vm.id, &found.affinity).await?;
        rows::hand_over_tags(tx, vm.id, &self.volumes, &self.to).await?;
        self.account(tx, vm, &found.owner, &self.to).await
    }

    /// For accounting it ends as one's and begins as another's.
    async fn account(&self, tx: &mut Tx, vm: &VmRow, from: &Owner, to: &Owner) -> Result<(), ApiError> {
        let of = |owner: &Owner, kind| usage::record(&VmRow { owner: owner.clone(), ..vm.clone() }, kind);
        events::record(tx, &[of(from, "VM.DESTROY"), of(to, "VM.CREATE")]).await?;
        Ok(())
    }

    async fn take_back(&self, tx: &mut Tx, vm: &VmRow, found: &Found) -> Result<(), ApiError> {
        if !rows::hand_over(tx, vm.id, self.to.account_id, &found.owner).await? {
            return Err(ApiError::concurrent("the virtual machine has changed"));
        }
        for network in rows::named_in(tx, vm.id).await?.into_iter().filter(|n| !found.named_in.contains(n)) {
            vm_nics::leave_name(tx, network, vm.id).await?;
        }
        if let Some(group) = found.group {
            rows::rejoin(tx, vm.id, group).await?;
        }
        for group in &found.affinity {
            // One that was deleted meanwhile isn't missed.
            if affinity::hold(tx, &[*group]).await? {
                affinity::join(tx, vm.id, &[*group]).await?;
            }
        }
        rows::hand_over_tags(tx, vm.id, &self.volumes, &found.owner).await?;
        self.account(tx, vm, &self.to, &found.owner).await
    }

    /// Whether the NICs were exchanged: then the VM is the new owner's for good.
    async fn settled(&self, world: &VmWorld) -> Result<bool, ApiError> {
        Ok(rows::has_nics_of(&world.node.db, self.vm, self.to.account_id).await?)
    }

    fn disks(&self) -> AssignDisksRequest {
        AssignDisksRequest {
            vm_id: self.vm,
            account_id: self.to.account_id,
            domain_id: self.to.domain_id,
            domain_path: self.to.domain_path.clone(),
        }
    }
}

/// The names in networks where it isn't any more.
async fn leave_old_names(tx: &mut Tx, vm: i64, networks: &[i64]) -> Result<(), ApiError> {
    for network in rows::named_in(tx, vm).await?.into_iter().filter(|n| !networks.contains(n)) {
        vm_nics::leave_name(tx, network, vm).await?;
    }
    Ok(())
}

fn transfers(world: &VmWorld) -> LimitTransfersClient<rpc::PeerChannel> {
    LimitTransfersClient::new(world.node.peers.identity())
}

impl Job for Assign {
    const KIND: &'static str = "vm.assign";
    type World = VmWorld;
    type Undo = Undo;

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let found = jobs::step!(ctx, "check", |tx| self.find(tx).await).await?;
        let vm = row(&world, self.vm).await?;
        let transfer = TransferRequest { keys: found.holders.clone(), account_id: self.to.account_id };
        ctx.call("limits", Some(Undo::Limits), |call| {
            let (mut client, request) = (transfers(&world), call.request(transfer.clone()));
            async move { client.transfer(request).await }
        })
        .await?;
        let networks = self.networks(&world, &ctx, vm.zone_id).await?;
        ctx.call("disks", Some(Undo::Disks), |call| {
            let (mut client, request) = (world.disks(), call.request(self.disks()));
            async move { client.assign(request).await }
        })
        .await?;
        jobs::step!(ctx, "owner", undo: Undo::Owner(Box::new(found.clone())), |tx| {
            self.hand_over(tx, &vm, &found, &networks).await
        })
        .await?;
        let nics = rules::nics(&vm, &self.to, &networks);
        ctx.call("nics", Some(Undo::Nics), |call| {
            let (mut client, request) = (world.attachments(), call.request(nics.clone()));
            async move { client.exchange(request).await }
        })
        .await?;
        let shown = view::one(&world, vm.id, ctx.caller()).await?;
        // The command's own: its job has none.
        let text = format!("Successfully completed moving VM to another user: {}", view::label(&vm));
        let event = EventRecord::new(ctx.caller(), "VM.MOVE", EventState::Completed, text);
        let event = Record::Event(event.about("VirtualMachine", &vm.uuid).owned_by(&self.to));
        jobs::finish!(ctx, |tx| {
            leave_old_names(tx, vm.id, &networks).await?;
            events::record(tx, std::slice::from_ref(&event)).await?;
            Ok::<_, ApiError>(shown.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<VmWorld>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        if let Undo::Nics = undo {
            let mut client = world.attachments();
            let request = AllocateNicsRequest { vm_id: self.vm, ..AllocateNicsRequest::default() };
            return cx.call(|call| async move { client.exchange(call.request(request)).await }).await.map(drop);
        }
        let settled = self.settled(&world).await?;
        match undo {
            Undo::Owner(found) => {
                let took_place = cx.value::<()>().is_some();
                let vm = row(&world, self.vm).await?;
                let networks: Vec<i64> =
                    vm_nics::of_vm(&world.node.db, self.vm).await?.iter().map(|nic| nic.network_id).collect();
                jobs::undo_step!(cx, |tx| {
                    match (took_place, settled) {
                        (false, _) => Ok(()),
                        (true, false) => self.take_back(tx, &vm, &found).await,
                        (true, true) => leave_old_names(tx, self.vm, &networks).await,
                    }
                })
                .await
            }
            _ if settled => jobs::undo_step!(cx, |_tx| Ok::<_, ApiError>(())).await,
            Undo::Disks => {
                let (mut client, request) = (world.disks(), self.disks());
                cx.call(|call| async move { client.assign(call.request(request)).await }).await.map(drop)
            }
            Undo::Limits => {
                let (mut client, request) = (transfers(&world), TransferRequest::default());
                cx.call(|call| async move { client.transfer(call.request(request)).await }).await.map(drop)
            }
            Undo::Nics => Ok(()), // above
        }
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(()) // the undos did all
    }
}
