//! startRouter, stopRouter, rebootRouter, destroyRouter. All claim the router's network alone.

use super::ROUTER_TIME;
use crate::network::shutdown::drop_router;
use crate::present;
use crate::router::{give_up, place, rests};
use crate::store::networks;
use crate::store::power::{self, STOPPED, STOPPING};
use crate::store::routers::{self, RUNNING, Router};
use crate::world::World;
use contract::ApiError;
use events::{EventRecord, EventState, Level, Record};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use std::sync::Arc;
use store::Tx;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Power {
    /// startRouter.
    Start,
    /// stopRouter; `forced`: also when its host can't be told.
    Stop { forced: bool },
    /// rebootRouter.
    Reboot,
    /// destroyRouter.
    Destroy,
}

/// One of these commands.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct PowerRouter {
    /// The router.
    pub id: i64,
    /// Its network.
    pub network: i64,
    /// What is asked for.
    pub power: Power,
}

/// What a step did that its failure takes back.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Undo {
    /// The router was on its way down: it is wanted again.
    Down,
    /// The router was stopped, and was to come up: it is stopped again, unless it runs by now.
    Up,
}

fn gone() -> ApiError {
    ApiError::param("the router has been removed meanwhile".to_owned())
}

pub(super) async fn living(tx: &mut Tx, id: i64) -> Result<Router, ApiError> {
    routers::by_id_in(tx, id).await?.ok_or_else(gone)
}

/// The first commit of a way down. `None`: it is down.
pub(super) async fn begin_down(tx: &mut Tx, id: i64) -> Result<Option<i64>, ApiError> {
    let began = power::stopping(tx, id).await?;
    let router = living(tx, id).await?;
    if !began && router.state != STOPPED {
        return Err(ApiError::unavailable(format!("router {} is {}: try again", router.name, router.state)));
    }
    Ok(began.then_some(router.id))
}

/// A way down that failed: the router is wanted again, and follows after the commit.
pub(super) async fn back_up(tx: &mut Tx, world: &Arc<World>, id: i64, network: i64) -> Result<(), ApiError> {
    if power::unstop(tx, id).await? {
        super::wake_after(tx, world, network);
    }
    Ok(())
}

impl PowerRouter {
    async fn down(&self, world: &Arc<World>, ctx: &Ctx, forced: bool) -> Result<(), ApiError> {
        let began: Option<i64> = jobs::step!(ctx, "stopping", undo: Undo::Down, |tx| {
            if self.power == Power::Reboot {
                let router = living(tx, self.id).await?;
                if router.state != RUNNING {
                    return Err(ApiError::failed(format!(
                        "Unable to reboot domR, it is not in right state {}",
                        router.state
                    )));
                }
            }
            begin_down(tx, self.id).await
        })
        .await?;
        world.changed(self.network);
        let router = routers::one(&world.node.db, self.id).await?.ok_or_else(gone)?;
        // After a kill it may be on its way up by now.
        if began.is_some() && router.state == STOPPING {
            give_up(world, &router, forced).await?;
        }
        Ok(())
    }

    /// From Stopped or Stopping.
    async fn up(&self, world: &Arc<World>, ctx: &Ctx) -> Result<(), ApiError> {
        let router = routers::one(&world.node.db, self.id).await?.ok_or_else(gone)?;
        // One that runs, or that another is starting, needs waiting only.
        let host = if rests(&router) { Some(place(world, &router).await?) } else { None };
        let undo = if self.power == Power::Reboot { Undo::Down } else { Undo::Up };
        let _started: bool = jobs::step!(ctx, "starting", undo: undo.clone(), |tx| {
            Ok(match &host {
                Some(host) => power::starting(tx, &router, host).await?,
                None => false,
            })
        })
        .await?;
        world.changed(self.network);
        world.routers.applied_with(self.id, ROUTER_TIME, &["interfaces"]).await
    }

    async fn answer(&self, world: &World, state: &str) -> Result<contract_network::Router, ApiError> {
        let db = &world.node.db;
        let mut router = routers::one(db, self.id).await?.ok_or_else(gone)?;
        router.state = state.to_owned();
        if state != RUNNING {
            router.host_id = None;
        }
        present::routers(db, &[router]).await?.pop().ok_or_else(gone)
    }
}

impl Job for PowerRouter {
    const KIND: &'static str = "network.router.power";
    type World = World;
    type Undo = Undo;

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        match self.power {
            Power::Start => self.up(&world, &ctx).await?,
            Power::Stop { forced } => self.down(&world, &ctx, forced).await?,
            Power::Reboot => {
                self.down(&world, &ctx, false).await?;
                self.up(&world, &ctx).await?;
            }
            Power::Destroy => self.down(&world, &ctx, false).await?,
        }
        let state = match self.power {
            Power::Start | Power::Reboot => RUNNING,
            Power::Stop { .. } => STOPPED,
            Power::Destroy => "Expunging",
        };
        let answer = self.answer(&world, state).await?;
        let caller = ctx.caller().clone();
        let finished = jobs::finish!(ctx, |tx| {
            match self.power {
                Power::Start | Power::Reboot => {}
                Power::Stop { .. } => {
                    let router = living(tx, self.id).await?;
                    power::stopped(tx, &router).await?;
                    clear_after(tx, &world);
                }
                Power::Destroy => {
                    let router = drop_router(tx, self.network).await?.filter(|r| r.id == self.id).ok_or_else(gone)?;
                    let network = networks::one_in(tx, self.network).await?.ok_or_else(gone)?;
                    let text = format!(
                        "Network {} has no router any more. The next VM that starts in it gets it a new one, as does restartNetwork",
                        network.title()
                    );
                    let mut event = EventRecord::new(&caller, "ROUTER.DESTROY", EventState::Completed, text);
                    event.level = Level::Warn;
                    let event = event.about("DomainRouter", &router.uuid).owned_by(&router.owner);
                    events::record(tx, &[Record::Event(event)]).await?;
                    clear_after(tx, &world);
                }
            }
            Ok(answer.clone())
        })
        .await;
        world.changed(self.network);
        finished
    }

    async fn undo(self, world: Arc<World>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        let began = cx.value::<bool>().unwrap_or_default();
        jobs::undo_step!(cx, |tx| {
            match undo {
                Undo::Down => back_up(tx, &world, self.id, self.network).await?,
                Undo::Up if began => {
                    if let Some(router) = routers::by_id_in(tx, self.id).await? {
                        power::unstart(tx, &router).await?;
                        clear_after(tx, &world);
                    }
                }
                Undo::Up => {}
            }
            Ok(())
        })
        .await?;
        world.changed(self.network);
        Ok(())
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Asks hosts to drop what is left, after the commit. What they don't do now is the duty's.
pub(super) fn clear_after(tx: &mut Tx, world: &Arc<World>) {
    let world = world.clone();
    tx.after_commit(move || {
        let node = world.node.clone();
        node.spawn("clear-leftovers", async move {
            if let Err(error) = crate::router::clear_leftovers(&world.node).await {
                tracing::debug!(%error, "a router goes from its host later");
            }
        });
    });
}
