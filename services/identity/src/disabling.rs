//! Jobs that shut accounts and users out.

use crate::Identity;
use crate::notify::{self, Changed};
use crate::store::{accounts, holdings, users};
use crate::view;
use ::store::Tx;
use contract::ApiError;
use contract_compute::StopVirtualMachineRequest;
use contract_compute::virtual_machines_client::VirtualMachinesClient;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The account or user gets this state again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Readmit(String);

/// Locks an account, or disables it and stops its virtual machines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DisableAccount {
    /// The account.
    pub account: i64,
    /// Whether to lock only.
    pub lock: bool,
    /// Its state when the job was accepted.
    pub state: String,
}

impl Job for DisableAccount {
    const KIND: &'static str = "account.disable";
    type World = Identity;
    type Undo = Readmit;

    async fn run(self, world: Arc<Identity>, ctx: Ctx) -> Result<Finished, ApiError> {
        let undo = Readmit(self.state.clone());
        jobs::step!(ctx, "shut-out", undo: undo, |tx| self.shut_out(&world, tx).await).await?;
        if !self.lock {
            // Those that can't be stopped now are left to the administrator: the account is shut out anyway.
            for vm in holdings::running_vms(&world.node.db, &world.tables, self.account).await? {
                let mut client = VirtualMachinesClient::new(world.node.peers.orchestrator());
                let request =
                    StopVirtualMachineRequest { id: Some(vm.clone()), ..StopVirtualMachineRequest::default() };
                if let Err(error) = client.stop(rpc::cx::request(&rpc::cx::system_caller(), request)).await {
                    tracing::warn!(vm, %error, "a virtual machine of a disabled account can't be stopped");
                }
            }
        }
        jobs::finish!(ctx, |tx| world.account_again(tx, self.account).await).await
    }

    async fn undo(self, world: Arc<Identity>, undo: Readmit, cx: UndoCx) -> Result<(), ApiError> {
        jobs::undo_step!(cx, |tx| {
            accounts::set_state(tx, self.account, &undo.0).await?;
            notify::after(tx, &world.node.coord, Changed::Account(self.account));
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<Identity>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

impl DisableAccount {
    async fn shut_out(&self, world: &Identity, tx: &mut Tx) -> Result<(), ApiError> {
        let account = accounts::find(&mut *tx, self.account).await?.filter(|a| !a.removed);
        let account = account.ok_or_else(|| ApiError::param("Unable to find active account"))?;
        match (self.lock, account.state.as_str()) {
            (true, "disabled") => return Err(ApiError::failed("A disabled account can't be locked")),
            (true, _) => accounts::set_state(tx, account.id, "locked").await?,
            (false, _) => accounts::set_state(tx, account.id, "disabled").await?,
        };
        notify::after(tx, &world.node.coord, Changed::Account(account.id));
        Ok(())
    }
}

/// Disables a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DisableUser {
    /// The user.
    pub user: i64,
    /// Its state when the job was accepted.
    pub state: String,
}

impl Job for DisableUser {
    const KIND: &'static str = "user.disable";
    type World = Identity;
    type Undo = Readmit;

    async fn run(self, world: Arc<Identity>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::step!(ctx, "shut-out", undo: Readmit(self.state.clone()), |tx| {
            users::set_state(tx, self.user, "disabled").await?;
            notify::after(tx, &world.node.coord, Changed::User(self.user));
            Ok(())
        })
        .await?;
        jobs::finish!(ctx, |tx| Ok(view::user(&world.user_again(tx, self.user).await?, None))).await
    }

    async fn undo(self, world: Arc<Identity>, undo: Readmit, cx: UndoCx) -> Result<(), ApiError> {
        jobs::undo_step!(cx, |tx| {
            users::set_state(tx, self.user, &undo.0).await?;
            notify::after(tx, &world.node.coord, Changed::User(self.user));
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<Identity>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
