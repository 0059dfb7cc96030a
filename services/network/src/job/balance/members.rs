//! Putting VMs behind load balancing rules, and taking them out.

use super::{BALANCE, TOLD, back, gone, success};
use crate::job::followed;
use crate::rule::RuleState::{Active, Add, Revoke, Staged};

use crate::rule::pin;
use crate::store::members::{self, Member};
use crate::store::{routers, rules};
use crate::world::World;
use contract::ApiError;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use store::{Error, Tx};

/// assignToLoadBalancerRule.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Assign {
    /// The rule.
    pub rule: i64,
    /// Its network.
    pub network: i64,
    /// Who is put behind it, with numbers of their own.
    pub members: Vec<Member>,
}

/// What the jobs on members owe when they fail.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Undo {
    /// The new ones go.
    Out,
    /// Those on their way out stay.
    Back,
}

impl Job for Assign {
    const KIND: &'static str = "network.lb.assign";
    type World = World;
    type Undo = Undo;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let ids: Vec<i64> = self.members.iter().map(|m| m.id).collect();
        jobs::step!(ctx, "assign", undo: Undo::Out, |tx| {
            let rule = rules::one_in(tx, self.rule).await?.ok_or_else(gone)?;
            if matches!(rule.state, Revoke | Staged) {
                return Err(gone());
            }
            for member in &self.members {
                pin(tx, member.vm_id, self.network, &member.ip).await?;
            }
            members::insert(tx, &self.members).await.map_err(|error| match error {
                Error::Unique { .. } => ApiError::param("VM is already mapped to load balancer.".to_owned()),
                other => other.into(),
            })?;
            routers::raise_for(tx, self.network, TOLD).await?;
            Ok(())
        })
        .await?;
        followed(&world, self.network, BALANCE).await?;
        jobs::finish!(ctx, |tx| {
            // One whose VM was expunged meanwhile has no row any more.
            if members::set_state(tx, &ids, &[members::ADD], members::ACTIVE).await? > 0 {
                rules::set_state(tx, &[self.rule], &[Add], Active).await?;
            }
            Ok(success())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let ids: Vec<i64> = self.members.iter().map(|m| m.id).collect();
        jobs::undo_step!(cx, |tx| {
            if members::delete(tx, &ids, members::ADD).await? > 0 {
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

/// removeFromLoadBalancerRule.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Unassign {
    /// The rule.
    pub rule: i64,
    /// Its network.
    pub network: i64,
    /// Numbers of the members that go.
    pub members: Vec<i64>,
}

impl Job for Unassign {
    const KIND: &'static str = "network.lb.unassign";
    type World = World;
    type Undo = Undo;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::step!(ctx, "revoke", undo: Undo::Back, |tx| {
            members::set_state(tx, &self.members, &[members::ADD, members::ACTIVE], members::REVOKE).await?;
            routers::raise_for(tx, self.network, TOLD).await?;
            Ok(())
        })
        .await?;
        followed(&world, self.network, BALANCE).await?;
        jobs::finish!(ctx, |tx| {
            members::delete(tx, &self.members, members::REVOKE).await?;
            if !members::any(tx, self.rule).await? {
                rules::set_state(tx, &[self.rule], &[Active], Add).await?;
            }
            Ok(success())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Undo, cx: UndoCx) -> Result<(), ApiError> {
        jobs::undo_step!(cx, |tx| {
            if members::set_state(tx, &self.members, &[members::REVOKE], members::ACTIVE).await? > 0 {
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
