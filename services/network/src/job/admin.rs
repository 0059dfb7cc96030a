//! Physical networks, traffic types, providers, elements: one local step each, which is also the last.

use crate::job::Nothing;
use crate::present;
use crate::store::physical::{self, Physical};
use crate::store::providers::{self, NetworkProvider};
use crate::store::traffic::{self, Traffic};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use store::Tx;

/// One such command.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct AdminJob {
    /// What to do.
    pub action: Action,
}

/// What to do; the numbers name rows.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Action {
    /// Answers a physical network that acceptance wrote.
    CreatePhysical { id: i64 },
    /// Changes one.
    UpdatePhysical { id: i64, state: Option<String>, vlan: Option<String>, speed: Option<String>, tags: Option<String> },
    /// Deletes one.
    DeletePhysical { id: i64 },
    /// Answers a traffic type that acceptance wrote.
    AddTraffic { id: i64 },
    /// Changes labels.
    UpdateTraffic { id: i64, labels: [Option<String>; 5] },
    /// Deletes one.
    DeleteTraffic { id: i64 },
    /// Answers a provider that acceptance wrote.
    AddProvider { id: i64 },
    /// Changes one.
    UpdateProvider { id: i64, state: Option<String>, services: Option<String> },
    /// Deletes one.
    DeleteProvider { id: i64 },
    /// Enables or disables an element.
    ConfigureElement { id: i64, enabled: bool },
}

fn gone(what: &str) -> ApiError {
    ApiError::param(format!("the {what} has been removed meanwhile"))
}

fn success() -> Success {
    Success { success: true, display_text: None }
}

impl Job for AdminJob {
    const KIND: &'static str = "network.admin";
    type World = World;
    type Undo = Nothing;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        match self.action {
            Action::CreatePhysical { id } => {
                let row = physical::one(db, id).await?.ok_or_else(|| gone("physical network"))?;
                let answer = present::physical(db, &row).await?;
                jobs::finish!(ctx, |tx| {
                    let _ = tx;
                    Ok(answer.clone())
                })
                .await
            }
            Action::UpdatePhysical { id, state, vlan, speed, tags } => {
                let mut row = physical::one(db, id).await?.ok_or_else(|| gone("physical network"))?;
                row.state = state.unwrap_or(row.state);
                row.vlan = vlan.or(row.vlan);
                row.speed = speed.or(row.speed);
                row.tags = tags.unwrap_or(row.tags);
                let answer = present::physical(db, &row).await?;
                jobs::finish!(ctx, |tx| {
                    update_physical(tx, &row).await?;
                    Ok(answer.clone())
                })
                .await
            }
            Action::DeletePhysical { id } => {
                jobs::finish!(ctx, |tx| {
                    delete_physical(tx, id).await?;
                    Ok(success())
                })
                .await
            }
            Action::AddTraffic { id } => {
                let row = traffic::one(db, id).await?.ok_or_else(|| gone("traffic type"))?;
                let answer = present::traffic(db, &row).await?;
                jobs::finish!(ctx, |tx| {
                    let _ = tx;
                    Ok(answer.clone())
                })
                .await
            }
            Action::UpdateTraffic { id, labels } => {
                let mut row = traffic::one(db, id).await?.ok_or_else(|| gone("traffic type"))?;
                for (old, new) in row.labels.iter_mut().zip(labels) {
                    // An empty label takes the old one away.
                    *old = new.or(old.take()).filter(|l| !l.is_empty());
                }
                let answer = present::traffic(db, &row).await?;
                jobs::finish!(ctx, |tx| {
                    if !traffic::set_labels(tx, id, &row.labels).await? {
                        return Err(gone("traffic type"));
                    }
                    Ok(answer.clone())
                })
                .await
            }
            Action::DeleteTraffic { id } => {
                let row = traffic::one(db, id).await?.ok_or_else(|| gone("traffic type"))?;
                jobs::finish!(ctx, |tx| {
                    delete_traffic(tx, &row).await?;
                    Ok(success())
                })
                .await
            }
            action => provider_action(&world, ctx, action).await,
        }
    }

    async fn undo(self, _: Arc<World>, undo: Nothing, _: UndoCx) -> Result<(), ApiError> {
        match undo {}
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, tx: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        // What acceptance wrote goes again.
        match self.action {
            Action::CreatePhysical { id } => physical::remove(tx, id).await?,
            Action::AddTraffic { id } => traffic::remove(tx, id).await?,
            Action::AddProvider { id } => providers::remove(tx, id).await?,
            _ => {}
        }
        Ok(())
    }
}

async fn update_physical(tx: &mut Tx, row: &Physical) -> Result<(), ApiError> {
    let vlans = crate::address::VlanRanges::stored(row.vlan.as_deref());
    // A network would lose its VLAN, or meet another's, without knowing.
    if let Some(lost) = physical::vnet_outside(tx, row.id, &vlans).await? {
        return Err(ApiError::param(format!(
            "VLAN {lost} of physical network {} is in use by a guest network: it can't be taken out of the range",
            row.name
        )));
    }
    if !physical::update(tx, row).await? {
        return Err(gone("physical network"));
    }
    Ok(())
}

async fn delete_physical(tx: &mut Tx, id: i64) -> Result<(), ApiError> {
    let (networks, ranges) = physical::uses(tx, id).await?;
    if networks + ranges > 0 {
        return Err(ApiError::failed(format!(
            "The Physical Network is not deletable as there are {networks} networks and {ranges} IP ranges associated to it"
        )));
    }
    physical::remove(tx, id).await?;
    Ok(())
}

async fn delete_traffic(tx: &mut Tx, row: &Traffic) -> Result<(), ApiError> {
    let uses = traffic::uses(tx, row).await?;
    if uses > 0 {
        return Err(ApiError::failed(format!(
            "The Traffic Type {} is not deletable because there are {uses} networks or IP ranges with this traffic",
            row.kind
        )));
    }
    traffic::remove(tx, row.id).await?;
    Ok(())
}

async fn provider_action(world: &World, ctx: Ctx, action: Action) -> Result<Finished, ApiError> {
    let db = &world.node.db;
    match action {
        Action::AddProvider { id } => {
            let row = providers::one(db, id).await?.ok_or_else(|| gone("network service provider"))?;
            let answer = present::provider(db, &row).await?;
            jobs::finish!(ctx, |tx| {
                let _ = tx;
                Ok(answer.clone())
            })
            .await
        }
        Action::UpdateProvider { id, state, services } => {
            let mut row = providers::one(db, id).await?.ok_or_else(|| gone("network service provider"))?;
            row.state = state.unwrap_or(row.state);
            row.services = services.unwrap_or(row.services);
            check_ready(world, &row).await?;
            let answer = present::provider(db, &row).await?;
            jobs::finish!(ctx, |tx| {
                if !providers::update(tx, id, &row.state, &row.services).await? {
                    return Err(gone("network service provider"));
                }
                Ok(answer.clone())
            })
            .await
        }
        Action::DeleteProvider { id } => {
            let row = providers::one(db, id).await?.ok_or_else(|| gone("network service provider"))?;
            jobs::finish!(ctx, |tx| {
                let (networks, _) = physical::uses(tx, row.physical_network_id).await?;
                if networks > 0 {
                    return Err(ApiError::failed(format!(
                        "Provider {} is not deletable because there are active networks using this provider, please upgrade \
                         these networks to new network offerings",
                        row.name
                    )));
                }
                providers::remove(tx, id).await?;
                Ok(success())
            })
            .await
        }
        Action::ConfigureElement { id, enabled } => {
            let page = model::Page { offset: 0, limit: Some(1) };
            let (mut found, _) = providers::elements(db, Some(id), None, None, &page).await?;
            let mut row = found.pop().ok_or_else(|| gone("virtual router element"))?;
            row.enabled = enabled;
            jobs::finish!(ctx, |tx| {
                if !providers::set_element(tx, id, enabled).await? {
                    return Err(gone("virtual router element"));
                }
                Ok(present::element(&row))
            })
            .await
        }
        // The others are told apart before.
        _ => Err(ApiError::internal("not an action on a provider".to_owned())),
    }
}

async fn check_ready(world: &World, row: &NetworkProvider) -> Result<(), ApiError> {
    if row.state == "Enabled" && !providers::element_enabled(&world.node.db, row.id).await? {
        return Err(ApiError::failed(
            "Provider is not ready, cannot Enable the provider, please configure the provider first: configureVirtualRouterElement \
             with enabled=true",
        ));
    }
    Ok(())
}
