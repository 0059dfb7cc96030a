//! Making, changing and deleting load balancing rules.

use super::{BALANCE, BALANCE_AND_FIREWALL, RULE_TOLD, TOLD, back, gone, success};
use crate::balance::usage;
use crate::job::{followed, wake_after};
use crate::present;
use crate::rule::RuleState;
use crate::rule::RuleState::{Active, Add, Revoke, Staged};
use crate::store::balancers::{self, Says};
use crate::store::{routers, rules};
use crate::world::World;
use contract::ApiError;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use store::{Error, Tx};

const ANY: &[RuleState] = &[Staged, Add, Active, Revoke];

/// The rule's number and those of the rules that were made for it.
async fn numbers(tx: &mut Tx, id: i64) -> Result<Vec<(i64, RuleState)>, ApiError> {
    Ok(rules::with_related_in(tx, id).await?.iter().map(|r| (r.id, r.state)).collect())
}

/// Deletes a rule with all that belongs to it, in whatever state.
async fn drop_rule(tx: &mut Tx, world: &Arc<World>, id: i64, network: i64) -> Result<(), ApiError> {
    let ids: Vec<i64> = numbers(tx, id).await?.into_iter().map(|(id, _)| id).collect();
    if rules::delete(tx, &ids, ANY).await? > 0 {
        back(tx, world, network, RULE_TOLD).await?;
    }
    balancers::sweep(tx, &[id]).await?;
    Ok(())
}

/// createLoadBalancerRule: acceptance has placed the rule, in state Staged.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct CreateBalancer {
    /// The rule.
    pub id: i64,
    /// Its network.
    pub network: i64,
}

/// What a creation owes when it fails.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Made {
    /// The rule goes.
    Drop,
}

impl Job for CreateBalancer {
    const KIND: &'static str = "network.lb.create";
    type World = World;
    type Undo = Made;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        jobs::step!(ctx, "apply", undo: Made::Drop, |tx| {
            let all = numbers(tx, self.id).await?;
            if all.is_empty() {
                return Err(gone());
            }
            let ids: Vec<i64> = all.into_iter().map(|(id, _)| id).collect();
            rules::set_state(tx, &ids, &[Staged], Add).await?;
            routers::raise_for(tx, self.network, RULE_TOLD).await?;
            Ok(())
        })
        .await?;
        followed(&world, self.network, BALANCE_AND_FIREWALL).await?;
        let made = balancers::one(db, self.id).await?.ok_or_else(gone)?;
        let answer = present::balancers(db, std::slice::from_ref(&made)).await?.pop().ok_or_else(gone)?;
        jobs::finish!(ctx, |tx| {
            // Itself it stays Add until somebody is behind it, as in 4.11.
            let all = numbers(tx, self.id).await?;
            let opened: Vec<i64> = all.into_iter().map(|(id, _)| id).filter(|id| *id != self.id).collect();
            rules::set_state(tx, &opened, &[Add], Active).await?;
            events::record(tx, &[usage("LB.CREATE", &made.rule, made.zone_id)]).await?;
            Ok(answer.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, undo: Made, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Made::Drop => jobs::undo_step!(cx, |tx| drop_rule(tx, &world, self.id, self.network).await).await?,
        }
        Ok(())
    }

    async fn abort(self, world: Arc<World>, _: &ApiError, tx: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        drop_rule(tx, &world, self.id, self.network).await
    }
}

/// What updateLoadBalancerRule asks for; none: left alone.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// Name.
    pub name: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// Algorithm.
    pub algorithm: Option<String>,
    /// Protocol.
    pub protocol: Option<String>,
    /// Whether its owner sees it.
    pub display: Option<bool>,
    /// UUID.
    pub uuid: Option<String>,
}

impl Change {
    fn of(&self, old: &Says) -> Says {
        Says {
            name: self.name.clone().unwrap_or_else(|| old.name.clone()),
            description: self.description.clone().or_else(|| old.description.clone()),
            algorithm: self.algorithm.clone().unwrap_or_else(|| old.algorithm.clone()),
            protocol: self.protocol.clone().or_else(|| old.protocol.clone()),
            display: self.display.unwrap_or(old.display),
            uuid: self.uuid.clone().unwrap_or_else(|| old.uuid.clone()),
        }
    }
}

/// Writes what a rule says. Whether routers have to follow.
async fn say(tx: &mut Tx, id: i64, network: i64, old: &Says, new: &Says) -> Result<bool, ApiError> {
    balancers::update(tx, id, new).await.map_err(|error| match error {
        Error::Unique { .. } => ApiError::param(format!("customid {} is taken", new.uuid)),
        other => other.into(),
    })?;
    let follow = old.algorithm != new.algorithm || old.protocol != new.protocol || old.uuid != new.uuid;
    if follow {
        routers::raise_for(tx, network, TOLD).await?;
    }
    Ok(follow)
}

/// updateLoadBalancerRule.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct UpdateBalancer {
    /// The rule.
    pub id: i64,
    /// Its network.
    pub network: i64,
    /// What is asked for.
    pub change: Change,
}

/// What a change owes when it fails.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Changed {
    /// What the rule said, which the step gave.
    Restore,
}

impl Job for UpdateBalancer {
    const KIND: &'static str = "network.lb.update";
    type World = World;
    type Undo = Changed;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let old: Says = jobs::step!(ctx, "change", undo: Changed::Restore, |tx| {
            let rule = balancers::one_in(tx, self.id).await?.ok_or_else(gone)?;
            say(tx, self.id, self.network, &rule.says, &self.change.of(&rule.says)).await?;
            Ok(rule.says)
        })
        .await?;
        let rule = balancers::one(db, self.id).await?.ok_or_else(gone)?;
        if rule.says.algorithm != old.algorithm || rule.says.protocol != old.protocol || rule.says.uuid != old.uuid {
            followed(&world, self.network, BALANCE).await?;
        }
        let answer = present::balancers(db, std::slice::from_ref(&rule)).await?.pop().ok_or_else(gone)?;
        jobs::finish!(ctx, |tx| {
            let _ = tx;
            Ok(answer.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, undo: Changed, cx: UndoCx) -> Result<(), ApiError> {
        let Changed::Restore = undo;
        // `value` is there when the step's commit is.
        let old = cx.value::<Says>();
        jobs::undo_step!(cx, |tx| {
            if let (Some(old), Some(now)) = (&old, balancers::one_in(tx, self.id).await?)
                && say(tx, self.id, self.network, &now.says, old).await?
            {
                wake_after(tx, &world, self.network);
            }
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// deleteLoadBalancerRule.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DeleteBalancer {
    /// The rule.
    pub id: i64,
    /// Its network.
    pub network: i64,
}

/// What a deletion owes when it fails.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Revoked {
    /// The rules come back, in the states that the step gave.
    Back,
}

impl Job for DeleteBalancer {
    const KIND: &'static str = "network.lb.delete";
    type World = World;
    type Undo = Revoked;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let states: Vec<(i64, RuleState)> = jobs::step!(ctx, "revoke", undo: Revoked::Back, |tx| {
            let all = numbers(tx, self.id).await?;
            if !all.iter().any(|(id, _)| *id == self.id) {
                return Err(gone());
            }
            let ids: Vec<i64> = all.iter().map(|(id, _)| *id).collect();
            rules::set_state(tx, &ids, &[Staged, Add, Active], Revoke).await?;
            routers::raise_for(tx, self.network, RULE_TOLD).await?;
            Ok(all)
        })
        .await?;
        followed(&world, self.network, BALANCE_AND_FIREWALL).await?;
        let rule = balancers::one(&world.node.db, self.id).await?.ok_or_else(gone)?;
        let ids: Vec<i64> = states.iter().map(|(id, _)| *id).collect();
        jobs::finish!(ctx, |tx| {
            rules::delete(tx, &ids, &[Revoke]).await?;
            balancers::sweep(tx, &[self.id]).await?;
            events::record(tx, &[usage("LB.DELETE", &rule.rule, rule.zone_id)]).await?;
            Ok(success())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, undo: Revoked, cx: UndoCx) -> Result<(), ApiError> {
        let Revoked::Back = undo;
        let states = cx.value::<Vec<(i64, RuleState)>>().unwrap_or_default();
        jobs::undo_step!(cx, |tx| {
            for (id, state) in &states {
                rules::set_state(tx, &[*id], &[Revoke], *state).await?;
            }
            if !states.is_empty() {
                back(tx, &world, self.network, RULE_TOLD).await?;
            }
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
