//! Rules that come, change and go.

use super::{Nothing, rules_followed, wake_after};
use crate::present;
use crate::rule::{self, RuleState, rule_usage};
use crate::store::routers::{self, Section};
use crate::store::rules::{self, Rule};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use events::Record;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use store::Tx;

/// As what a rule is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Shown {
    /// A firewall rule.
    Firewall,
    /// A port forwarding rule.
    PortForwarding,
    /// A rule of an address that stands for a VM.
    IpForwarding,
}

/// The sections of a spec that rules are in: theirs, and the firewall's with a rule that was made for them.
fn sections(shown: Shown, related: bool) -> &'static [&'static str] {
    match (shown, related) {
        (Shown::Firewall, _) | (Shown::IpForwarding, true) => &["firewall"],
        (Shown::PortForwarding, false) => &["nat"],
        (Shown::PortForwarding, true) => &["nat", "firewall"],
        // Static NAT forwards all ports anyway.
        (Shown::IpForwarding, false) => &[],
    }
}

/// What the router is told anew when such rules come or go.
fn told(shown: Shown, related: bool) -> &'static [Section] {
    match (shown, related) {
        (Shown::Firewall | Shown::IpForwarding, _) => &[Section::Firewall],
        (Shown::PortForwarding, false) => &[Section::Nat],
        (Shown::PortForwarding, true) => &[Section::Nat, Section::Firewall],
    }
}

fn gone() -> ApiError {
    ApiError::param("the rule has been removed meanwhile".to_owned())
}

/// Takes back rules that never were in force.
async fn take_back(tx: &mut Tx, world: &Arc<World>, rule: &CreateRule) -> Result<(), ApiError> {
    if rules::delete(tx, &rule.ids(), &[RuleState::Staged, RuleState::Add]).await? > 0 {
        routers::raise_for(tx, rule.network, rule.told()).await?;
        wake_after(tx, world, rule.network);
    }
    Ok(())
}

/// createFirewallRule, createEgressFirewallRule, createPortForwardingRule, createIpForwardingRule: acceptance has written
/// the rules, Staged.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct CreateRule {
    /// The rule.
    pub id: i64,
    /// The firewall rule that comes with it.
    pub related: Option<i64>,
    /// Their network.
    pub network: i64,
    /// Its zone.
    pub zone: i64,
    /// As what it is answered.
    pub shown: Shown,
}

/// What a creation did.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Created {
    /// The rules became wanted.
    Wanted,
}

impl CreateRule {
    fn ids(&self) -> Vec<i64> {
        std::iter::once(self.id).chain(self.related).collect()
    }

    fn told(&self) -> &'static [Section] {
        told(self.shown, self.related.is_some())
    }

    async fn activate(&self, tx: &mut Tx, shown: &Rule) -> Result<(), ApiError> {
        let ids = self.ids();
        if rules::set_state(tx, &ids, &[RuleState::Add], RuleState::Active).await? != ids.len() as u64 {
            return Err(gone());
        }
        let records: Vec<Record> = rule_usage("NET.RULEADD", shown, self.zone).into_iter().collect();
        Ok(events::record(tx, &records).await?)
    }
}

impl Job for CreateRule {
    const KIND: &'static str = "network.rule.create";
    type World = World;
    type Undo = Created;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let ids = self.ids();
        jobs::step!(ctx, "want", undo: Created::Wanted, |tx| {
            routers::raise_for(tx, self.network, self.told()).await?;
            if rules::set_state(tx, &ids, &[RuleState::Staged], RuleState::Add).await? != ids.len() as u64 {
                return Err(gone());
            }
            Ok(())
        })
        .await?;
        let concerned: Vec<String> = rules::uuids(db, &ids).await?;
        rules_followed(&world, self.network, sections(self.shown, self.related.is_some()), &concerned).await?;
        let mut shown = rules::one(db, self.id).await?.ok_or_else(gone)?;
        shown.state = RuleState::Active;
        let row = std::slice::from_ref(&shown);
        match self.shown {
            Shown::Firewall => {
                let answer = present::firewall_rules(db, row).await?.pop().ok_or_else(gone)?;
                jobs::finish!(ctx, |tx| {
                    self.activate(tx, &shown).await?;
                    Ok(answer.clone())
                })
                .await
            }
            Shown::PortForwarding => {
                let answer = present::port_forwarding_rules(db, row).await?.pop().ok_or_else(gone)?;
                jobs::finish!(ctx, |tx| {
                    self.activate(tx, &shown).await?;
                    Ok(answer.clone())
                })
                .await
            }
            Shown::IpForwarding => {
                let answer = present::ip_forwarding_rules(db, row).await?.pop().ok_or_else(gone)?;
                jobs::finish!(ctx, |tx| {
                    self.activate(tx, &shown).await?;
                    Ok(answer.clone())
                })
                .await
            }
        }
    }

    async fn undo(self, world: Arc<World>, _: Created, cx: UndoCx) -> Result<(), ApiError> {
        jobs::undo_step!(cx, |tx| take_back(tx, &world, &self).await).await
    }

    async fn abort(self, world: Arc<World>, _: &ApiError, tx: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        take_back(tx, &world, &self).await
    }
}

/// deleteFirewallRule, deleteEgressFirewallRule, deletePortForwardingRule, deleteIpForwardingRule.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DeleteRule {
    /// The rule.
    pub id: i64,
    /// Its network.
    pub network: i64,
    /// Its zone.
    pub zone: i64,
    /// As what it was answered.
    pub shown: Shown,
}

/// What a deletion did.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Deleted {
    /// The rules whose numbers the step gave are no longer wanted.
    Revoked,
}

impl Job for DeleteRule {
    const KIND: &'static str = "network.rule.delete";
    type World = World;
    type Undo = Deleted;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let ids: Vec<i64> = jobs::step!(ctx, "revoke", undo: Deleted::Revoked, |tx| {
            routers::raise_for(tx, self.network, told(self.shown, true)).await?;
            let all = rules::with_related_in(tx, self.id).await?;
            if !all.iter().any(|r| r.id == self.id) {
                return Err(gone());
            }
            let ids: Vec<i64> = all.iter().map(|r| r.id).collect();
            rules::set_state(tx, &ids, &[RuleState::Add, RuleState::Active], RuleState::Revoke).await?;
            Ok(ids)
        })
        .await?;
        // That it couldn't be in force, nor others can, doesn't keep it.
        rules_followed(&world, self.network, sections(self.shown, ids.len() > 1), &[]).await?;
        jobs::finish!(ctx, |tx| {
            let gone: Vec<Rule> = rules::by_ids_in(tx, &ids).await?;
            rule::drop_all(tx, &gone, self.zone).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Deleted, cx: UndoCx) -> Result<(), ApiError> {
        let ids = cx.value::<Vec<i64>>().unwrap_or_default();
        jobs::undo_step!(cx, |tx| restore(tx, &world, self.network, &ids, told(self.shown, true)).await).await
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Rules that were on their way out stay. What went for another reason meanwhile is gone.
pub(super) async fn restore(
    tx: &mut Tx,
    world: &Arc<World>,
    network: i64,
    ids: &[i64],
    sections: &[Section],
) -> Result<(), ApiError> {
    if rules::set_state(tx, ids, &[RuleState::Revoke], RuleState::Active).await? > 0 {
        routers::raise_for(tx, network, sections).await?;
        wake_after(tx, world, network);
    }
    Ok(())
}

/// updateFirewallRule, updateEgressFirewallRule: nothing that the router sees.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct UpdateRule {
    /// The rule.
    pub id: i64,
    /// Whether its owner sees it.
    pub display: Option<bool>,
    /// Another UUID.
    pub uuid: Option<String>,
}

impl Job for UpdateRule {
    const KIND: &'static str = "network.rule.update";
    type World = World;
    type Undo = Nothing;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let mut shown = rules::one(db, self.id).await?.ok_or_else(gone)?;
        shown.display = self.display.unwrap_or(shown.display);
        shown.uuid = self.uuid.clone().unwrap_or(shown.uuid);
        let answer = present::firewall_rules(db, std::slice::from_ref(&shown)).await?.pop().ok_or_else(gone)?;
        jobs::finish!(ctx, |tx| {
            if !rules::update(tx, self.id, self.display, self.uuid.as_deref()).await.map_err(taken)? {
                return Err(gone());
            }
            Ok(answer.clone())
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

/// A UUID that another has is the caller's mistake.
pub(super) fn taken(error: store::Error) -> ApiError {
    match error {
        store::Error::Unique { .. } => ApiError::param("customid is the id of another one already".to_owned()),
        other => other.into(),
    }
}
