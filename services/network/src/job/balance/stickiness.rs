//! Stickiness policies of load balancing rules.

use super::{BALANCE, TOLD, back, gone, success};
use crate::job::{Nothing, followed};
use crate::present;

use crate::store::stickiness::{self as policies, ACTIVE, ADD, REVOKE, STAGED};
use crate::store::{balancers, routers};
use crate::world::World;
use contract::ApiError;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use store::{Error, Tx};

fn lost() -> ApiError {
    ApiError::param("the stickiness policy has been removed meanwhile".to_owned())
}

/// createLBStickinessPolicy: acceptance has written the policy, in state Staged.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct CreatePolicy {
    /// The policy.
    pub id: i64,
    /// Its rule.
    pub rule: i64,
    /// The rule's network.
    pub network: i64,
}

/// What the jobs on policies owe when they fail.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Undo {
    /// The new one goes.
    Drop,
    /// The one on its way out stays.
    Back,
}

async fn drop_policy(tx: &mut Tx, world: &Arc<World>, id: i64, network: i64) -> Result<(), ApiError> {
    if policies::delete(tx, id, &[STAGED, ADD]).await? {
        back(tx, world, network, TOLD).await?;
    }
    Ok(())
}

impl Job for CreatePolicy {
    const KIND: &'static str = "network.lb.stickiness.create";
    type World = World;
    type Undo = Undo;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        jobs::step!(ctx, "apply", undo: Undo::Drop, |tx| {
            if !policies::set_state(tx, self.id, &[STAGED], ADD).await? {
                return Err(lost());
            }
            routers::raise_for(tx, self.network, TOLD).await?;
            Ok(())
        })
        .await?;
        followed(&world, self.network, BALANCE).await?;
        let rule = balancers::one(db, self.rule).await?.ok_or_else(gone)?;
        let policy = policies::one(db, self.id).await?.ok_or_else(lost)?;
        let answer = present::stickiness(db, &rule, std::slice::from_ref(&policy)).await?;
        jobs::finish!(ctx, |tx| {
            if !policies::set_state(tx, self.id, &[ADD], ACTIVE).await? {
                return Err(lost());
            }
            Ok(answer.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Undo, cx: UndoCx) -> Result<(), ApiError> {
        jobs::undo_step!(cx, |tx| drop_policy(tx, &world, self.id, self.network).await).await
    }

    async fn abort(self, world: Arc<World>, _: &ApiError, tx: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        drop_policy(tx, &world, self.id, self.network).await
    }
}

/// updateLBStickinessPolicy: how it is shown.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct UpdatePolicy {
    /// The policy.
    pub id: i64,
    /// Whether its owner sees it.
    pub display: Option<bool>,
    /// UUID.
    pub uuid: Option<String>,
}

impl Job for UpdatePolicy {
    const KIND: &'static str = "network.lb.stickiness.update";
    type World = World;
    type Undo = Nothing;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let mut policy = policies::one(db, self.id).await?.ok_or_else(lost)?;
        let rule = balancers::one(db, policy.rule_id).await?.ok_or_else(gone)?;
        policy.display = self.display.unwrap_or(policy.display);
        policy.uuid = self.uuid.clone().unwrap_or(policy.uuid);
        let answer = present::stickiness(db, &rule, std::slice::from_ref(&policy)).await?;
        jobs::finish!(ctx, |tx| {
            let written = policies::update(tx, self.id, policy.display, &policy.uuid).await;
            match written {
                Ok(true) => Ok(answer.clone()),
                Ok(false) => Err(lost()),
                Err(Error::Unique { .. }) => Err(ApiError::param(format!("customid {} is taken", policy.uuid))),
                Err(other) => Err(other.into()),
            }
        })
        .await
    }

    async fn undo(self, _: Arc<World>, undo: Nothing, _: UndoCx) -> Result<(), ApiError> {
        match undo {}
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// deleteLBStickinessPolicy.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DeletePolicy {
    /// The policy.
    pub id: i64,
    /// The rule's network.
    pub network: i64,
}

impl Job for DeletePolicy {
    const KIND: &'static str = "network.lb.stickiness.delete";
    type World = World;
    type Undo = Undo;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::step!(ctx, "revoke", undo: Undo::Back, |tx| {
            if !policies::set_state(tx, self.id, &[ADD, ACTIVE], REVOKE).await? {
                return Err(lost());
            }
            routers::raise_for(tx, self.network, TOLD).await?;
            Ok(())
        })
        .await?;
        followed(&world, self.network, BALANCE).await?;
        jobs::finish!(ctx, |tx| {
            policies::delete(tx, self.id, &[REVOKE]).await?;
            Ok(success())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Undo, cx: UndoCx) -> Result<(), ApiError> {
        jobs::undo_step!(cx, |tx| {
            if policies::set_state(tx, self.id, &[REVOKE], ACTIVE).await? {
                back(tx, &world, self.network, TOLD).await?;
            }
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
