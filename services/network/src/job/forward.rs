//! Port forwarding to another machine or port.

use super::rule::taken;
use super::{followed, wake_after};
use crate::present;
use crate::rule::{self, RuleState};
use crate::store::routers::{self, Section};
use crate::store::rules::{self, Target};
use crate::world::World;
use contract::ApiError;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use store::Tx;

/// updatePortForwardingRule.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct UpdateForward {
    /// The rule.
    pub id: i64,
    /// Its network.
    pub network: i64,
    /// Its zone.
    pub zone: i64,
    /// Machine and address, when they change.
    pub machine: Option<(i64, String)>,
    /// Its ports, when they change.
    pub ports: Option<(i64, i64)>,
    /// Whether its owner sees it.
    pub display: Option<bool>,
    /// Another UUID.
    pub uuid: Option<String>,
}

/// What a change did.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Changed {
    /// The target that the step gave isn't the rule's any more.
    Target,
}

fn gone() -> ApiError {
    ApiError::param("the rule has been removed meanwhile".to_owned())
}

impl UpdateForward {
    fn target(&self, old: &Target) -> Target {
        let mut new = old.clone();
        if let Some((vm, ip)) = &self.machine {
            (new.vm_id, new.ip) = (*vm, ip.clone());
        }
        if let Some((start, end)) = self.ports {
            (new.start_port, new.end_port) = (start, end);
        }
        new
    }
}

impl Job for UpdateForward {
    const KIND: &'static str = "network.rule.forward";
    type World = World;
    type Undo = Changed;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        if self.machine.is_some() || self.ports.is_some() {
            let _old: Target = jobs::step!(ctx, "target", undo: Changed::Target, |tx| {
                routers::raise_for(tx, self.network, &[Section::Nat]).await?;
                let rule = rules::one_in(tx, self.id).await?.ok_or_else(gone)?;
                let old = rule.target.ok_or_else(gone)?;
                let new = self.target(&old);
                rule::pin(tx, new.vm_id, self.network, &new.ip).await?;
                if !rules::set_target(tx, self.id, &new, RuleState::Add).await? {
                    return Err(gone());
                }
                Ok(old)
            })
            .await?;
            followed(&world, self.network, &["nat"]).await?;
        }
        let mut shown = rules::one(db, self.id).await?.ok_or_else(gone)?;
        shown.state = RuleState::Active;
        shown.display = self.display.unwrap_or(shown.display);
        shown.uuid = self.uuid.clone().unwrap_or(shown.uuid);
        let answer = present::port_forwarding_rules(db, std::slice::from_ref(&shown)).await?.pop().ok_or_else(gone)?;
        jobs::finish!(ctx, |tx| {
            rules::set_state(tx, &[self.id], &[RuleState::Add], RuleState::Active).await?;
            if !rules::update(tx, self.id, self.display, self.uuid.as_deref()).await.map_err(taken)? {
                return Err(gone());
            }
            Ok(answer.clone())
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Changed, cx: UndoCx) -> Result<(), ApiError> {
        let old = cx.value::<Target>();
        jobs::undo_step!(cx, |tx| {
            let Some(old) = &old else { return Ok(()) };
            routers::raise_for(tx, self.network, &[Section::Nat, Section::Firewall]).await?;
            wake_after(tx, &world, self.network);
            // Its VM may have gone meanwhile, and didn't take the rule with it, which was another's by then.
            if crate::store::nics::pin(tx, old.vm_id, self.network, &old.ip).await? {
                rules::set_target(tx, self.id, old, RuleState::Active).await?;
            } else {
                let gone = rules::with_related_in(tx, self.id).await?;
                rule::drop_all(tx, &gone, self.zone).await?;
            }
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
