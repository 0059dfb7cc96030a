//! Public addresses that stand for one VM.

use super::rule::restore;
use super::{followed, wake_after};
use crate::rule::{self, RuleState, with_static_nat};
use crate::store::routers::{self, Section};
use crate::store::rules::{self, Rule};
use crate::store::{ips, networks, nics};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use events::{EventRecord, EventState, Level, Record};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::Owner;
use std::sync::Arc;
use store::Tx;

/// enableStaticNat: the command is answered at once in 4.11, so it waits for this job's end.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct EnableStaticNat {
    /// The address.
    pub ip: i64,
    /// The network of both.
    pub network: i64,
    /// The VM.
    pub vm: i64,
    /// Its address.
    pub vm_ip: String,
    /// Whose the address is.
    pub owner: Owner,
    /// What its event says.
    pub text: String,
    /// Whether the VM's default route goes by another network.
    pub aside: bool,
}

/// What it did.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Enabled {
    /// The address stands for the VM.
    Stands,
}

impl EnableStaticNat {
    async fn enable(&self, tx: &mut Tx) -> Result<(), ApiError> {
        if !networks::touch(tx, self.network).await? {
            return Err(ApiError::param("the network has been removed".to_owned()));
        }
        routers::raise_for_spec(tx, self.network).await?;
        let ip = rule::serving(tx, self.ip, self.network).await?;
        rule::check_static(&ip, &rules::of_ip_in(tx, ip.id).await?)?;
        if ip.is_static_nat && ip.vm_id != Some(self.vm) {
            return Err(ApiError::conflict(format!(
                "Failed to enable static for the ip address {} as it's already assigned to another vm",
                ip.ip
            ))
            .with_entity(&ip.uuid, "ipaddressid"));
        }
        let same = |other: &ips::PublicIp| other.vm_ip.as_deref() == Some(self.vm_ip.as_str());
        if let Some(other) = ips::of_vm_in(tx, self.vm).await?.into_iter().find(same) {
            return Err(ApiError::param(format!(
                "Failed to enable static nat on the ip {} with Id {} as the vm is already associated with another public ip {} \
                 with id {}",
                ip.ip, ip.uuid, other.ip, other.uuid
            ))
            .with_entity(&other.uuid, "ipaddressid"));
        }
        rule::pin(tx, self.vm, self.network, &self.vm_ip).await?;
        if !ips::set_static(tx, ip.id, self.network, Some((self.vm, &self.vm_ip))).await? {
            return Err(ApiError::concurrent("the address was released meanwhile".to_owned()));
        }
        // It is told its public address.
        nics::tell_at(tx, self.network, &self.vm_ip).await?;
        Ok(())
    }
}

impl Job for EnableStaticNat {
    const KIND: &'static str = "network.static_nat.enable";
    type World = World;
    type Undo = Enabled;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::step!(ctx, "enable", undo: Enabled::Stands, |tx| self.enable(tx).await).await?;
        followed(&world, self.network, &["nat", "interfaces"]).await?;
        let caller = ctx.caller().clone();
        jobs::finish!(ctx, |tx| {
            // It may have gone with its VM.
            if ips::one_in(tx, self.ip).await?.is_none_or(|ip| ip.vm_id != Some(self.vm)) {
                return Err(ApiError::param("the virtual machine has been removed meanwhile".to_owned()));
            }
            let mut event = EventRecord::new(&caller, "STATICNAT.ENABLE", EventState::Completed, self.text.clone());
            if self.aside {
                event.level = Level::Warn;
                event.description.push_str(
                    "; the machine's default route goes by another of its networks: answers don't leave by this address",
                );
            }
            events::record(tx, &[Record::Event(event.owned_by(&self.owner))]).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Enabled, cx: UndoCx) -> Result<(), ApiError> {
        let took_place = cx.value::<()>().is_some();
        jobs::undo_step!(cx, |tx| {
            if took_place && ips::one_in(tx, self.ip).await?.is_some_and(|ip| ip.vm_id == Some(self.vm)) {
                ips::set_static(tx, self.ip, self.network, None).await?;
                routers::raise_for_spec(tx, self.network).await?;
                nics::tell_at(tx, self.network, &self.vm_ip).await?;
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

/// disableStaticNat: with it go the address's firewall and IP forwarding rules, as in 4.11.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DisableStaticNat {
    /// The address.
    pub ip: i64,
    /// The network that it serves.
    pub network: i64,
    /// Its zone.
    pub zone: i64,
}

/// What it did: the step gave VM, address and rules.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Disabled {
    /// The address stands for nobody.
    Free,
}

/// What an address had.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Had {
    vm: i64,
    vm_ip: String,
    rules: Vec<i64>,
}

impl DisableStaticNat {
    async fn disable(&self, tx: &mut Tx) -> Result<Had, ApiError> {
        if !networks::touch(tx, self.network).await? {
            return Err(ApiError::param("the network has been removed".to_owned()));
        }
        routers::raise_for_spec(tx, self.network).await?;
        let ip = rule::serving(tx, self.ip, self.network).await?;
        let (true, Some(vm), Some(vm_ip)) = (ip.is_static_nat, ip.vm_id, ip.vm_ip.clone()) else {
            return Err(ApiError::param("One to one nat is not enabled for the specified ip id".to_owned())
                .with_entity(&ip.uuid, "ipaddressid"));
        };
        let going = rules::of_ip_in(tx, ip.id).await?.into_iter().filter(with_static_nat);
        let rules: Vec<i64> = going.map(|r| r.id).collect();
        rules::set_state(tx, &rules, &[RuleState::Add, RuleState::Active], RuleState::Revoke).await?;
        ips::set_static(tx, ip.id, self.network, None).await?;
        nics::tell_at(tx, self.network, &vm_ip).await?;
        Ok(Had { vm, vm_ip, rules })
    }
}

impl Job for DisableStaticNat {
    const KIND: &'static str = "network.static_nat.disable";
    type World = World;
    type Undo = Disabled;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let had: Had = jobs::step!(ctx, "disable", undo: Disabled::Free, |tx| self.disable(tx).await).await?;
        followed(&world, self.network, &["nat", "firewall"]).await?;
        jobs::finish!(ctx, |tx| {
            let gone: Vec<Rule> = rules::by_ids_in(tx, &had.rules).await?;
            rule::drop_all(tx, &gone, self.zone).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, world: Arc<World>, _: Disabled, cx: UndoCx) -> Result<(), ApiError> {
        let had = cx.value::<Had>();
        jobs::undo_step!(cx, |tx| {
            let Some(had) = &had else { return Ok(()) };
            // Its VM may have gone meanwhile: then there is nothing that it could stand for.
            if nics::pin(tx, had.vm, self.network, &had.vm_ip).await?
                && ips::set_static(tx, self.ip, self.network, Some((had.vm, &had.vm_ip))).await?
            {
                restore(tx, &world, self.network, &had.rules, &[Section::Firewall]).await?;
            } else {
                let gone: Vec<Rule> = rules::by_ids_in(tx, &had.rules).await?;
                rule::drop_all(tx, &gone, self.zone).await?;
            }
            routers::raise_for_spec(tx, self.network).await?;
            nics::tell_at(tx, self.network, &had.vm_ip).await?;
            wake_after(tx, &world, self.network);
            Ok(())
        })
        .await
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
