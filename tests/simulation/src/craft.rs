//! The job of the simulation: steps of every sort, in an order that the seed decides, whose effects can be counted.

use crate::network::Wire;
use crate::sim::Sim;
use contract::ApiError;
use contract::api::Success;
use contract_identity::limits_client::LimitsClient;
use contract_identity::{ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse};
use jobs::{AbortCx, Call, Claim, Ctx, Finished, Job, Tx, UndoCx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::{Migration, Sql};

/// Tables of the simulation. None has a key that would refuse what mustn't be: the checks are to find it.
pub const TABLES: &[Migration] = &[Migration {
    owner: "simulation",
    file: "0001_simulation.sql",
    sql: "CREATE TABLE crafts (number BIGINT NOT NULL, job BIGINT NOT NULL, state VARCHAR(16) NOT NULL);\n\
          CREATE TABLE marks (number BIGINT NOT NULL, step VARCHAR(64) NOT NULL);\n\
          CREATE TABLE parts (number BIGINT NOT NULL, step VARCHAR(64) NOT NULL);\n\
          CREATE TABLE things (name VARCHAR(64) NOT NULL PRIMARY KEY, busy BIGINT NOT NULL, readers BIGINT NOT NULL, total BIGINT NOT NULL);\n\
          CREATE TABLE duty_log (n BIGINT NOT NULL PRIMARY KEY, duty VARCHAR(64) NOT NULL, epoch BIGINT NOT NULL, writer BIGINT NOT NULL, at BIGINT NOT NULL);\n",
}];

/// Handles of the steps.
pub struct World {
    /// The run.
    pub sim: Arc<Sim>,
    /// The receivers.
    pub receivers: Vec<LimitsClient<Wire>>,
}

/// A step.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Step {
    /// A write here.
    Local,
    /// A keyed call to a receiver, which may refuse it for good.
    Remote {
        /// The receiver.
        to: usize,
        /// Whether it refuses.
        fails: bool,
    },
    /// Two keyed calls at the same time.
    Both {
        /// A receiver.
        left: usize,
        /// A receiver.
        right: usize,
        /// Whether the right one refuses.
        fails: bool,
    },
    /// Time outside of any step.
    Rest {
        /// How much.
        millis: u64,
    },
    /// The job fails.
    Fail,
    /// The job panics.
    Panic,
}

/// The job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Craft {
    /// Tells it from the others, whatever its id.
    pub number: i64,
    /// What it claims for itself.
    pub exclusive: Vec<String>,
    /// What it claims with others.
    pub shared: Vec<String>,
    /// What it does.
    pub steps: Vec<Step>,
    /// Whether the acceptance is undone as a step is, and not by the abort.
    pub accepted: bool,
}

/// How a step is undone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Undo {
    /// The row of the acceptance.
    Accepted,
    /// The marks on things.
    Lock,
    /// A mark.
    Mark(String),
    /// A part at a receiver.
    Part {
        /// The step.
        step: String,
        /// The receiver.
        to: usize,
    },
}

impl Craft {
    /// What it claims.
    pub fn claims(&self) -> Vec<Claim> {
        let exclusive = self.exclusive.iter().cloned().map(Claim::Exclusive);
        exclusive.chain(self.shared.iter().cloned().map(Claim::Shared)).collect()
    }

    /// Whether it is to fail.
    pub fn fails(&self) -> bool {
        self.steps.iter().any(|s| {
            matches!(s, Step::Fail | Step::Panic | Step::Remote { fails: true, .. } | Step::Both { fails: true, .. })
        })
    }

    /// Names of its local steps.
    pub fn marks(&self) -> Vec<String> {
        let steps = self.steps.iter().enumerate();
        steps.filter(|(_, s)| **s == Step::Local).map(|(n, _)| format!("{n}")).collect()
    }

    /// Names of its remote steps.
    pub fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        for (n, step) in self.steps.iter().enumerate() {
            match step {
                Step::Remote { .. } => parts.push(format!("{n}")),
                Step::Both { .. } => parts.extend([format!("{n}l"), format!("{n}r")]),
                _ => {}
            }
        }
        parts
    }

    async fn lock(&self, world: &World, tx: &mut Tx, lock: bool) -> Result<(), ApiError> {
        for name in &self.exclusive {
            let sql = if lock {
                "UPDATE things SET busy = ? WHERE name = ? AND busy = 0 AND readers = 0"
            } else {
                "UPDATE things SET busy = busy - ? WHERE name = ? AND busy > 0"
            };
            if tx.exec(Sql::new(sql).bind(self.number).bind(name)).await? != 1 {
                world.sim.wrong(format!("craft {} isn't alone on {name} (lock: {lock})", self.number));
            }
        }
        for name in &self.shared {
            let sql = if lock {
                "UPDATE things SET readers = readers + 1 WHERE name = ? AND busy = 0"
            } else {
                "UPDATE things SET readers = readers - 1 WHERE name = ? AND busy = 0 AND readers > 0"
            };
            if tx.exec(Sql::new(sql).bind(name)).await? != 1 {
                world.sim.wrong(format!("craft {} shares {name} with an exclusive one (lock: {lock})", self.number));
            }
        }
        Ok(())
    }

    async fn part(&self, world: &World, ctx: &Ctx, step: &str, to: usize, fails: bool) -> Result<(), ApiError> {
        let client = world.receivers.get(to).cloned().ok_or_else(|| ApiError::internal("there is no such receiver"))?;
        let key = format!("{}/{step}/{}", self.number, if fails { "fails" } else { "works" });
        let make = |call: Call| {
            let (mut client, message) = (client.clone(), ReserveRequest { key: key.clone(), ..Default::default() });
            async move { client.reserve(call.request(message)).await }
        };
        let undo = Undo::Part { step: step.to_owned(), to };
        let _: ReserveResponse = ctx.call(step, Some(undo), make).await?;
        Ok(())
    }

    /// Takes the row of the acceptance away.
    async fn forget(&self, world: &World, tx: &mut Tx) -> Result<(), ApiError> {
        let gone = tx.exec(Sql::new("DELETE FROM crafts WHERE number = ?").bind(self.number)).await?;
        if gone != 1 {
            world.sim.wrong(format!("the acceptance of craft {} was undone {gone} times", self.number));
        }
        Ok(())
    }
}

impl Job for Craft {
    const KIND: &'static str = "craft";
    type World = World;
    type Undo = Undo;

    fn accepted(&self) -> Option<Undo> {
        self.accepted.then_some(Undo::Accepted)
    }

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::step!(ctx, "lock", undo: Undo::Lock, |tx| {
            self.lock(&world, tx, true).await?;
            Ok(())
        })
        .await?;
        for (n, step) in self.steps.iter().enumerate() {
            let name = n.to_string();
            match step {
                Step::Local => {
                    let number = self.number;
                    let mark = Undo::Mark(name.clone());
                    let value: i64 = jobs::step!(ctx, &name, undo: mark, |tx| {
                        tx.exec(Sql::new("INSERT INTO marks (number, step) VALUES (?, ?)").bind(number).bind(&name))
                            .await?;
                        tx.exec("UPDATE things SET total = total + 1 WHERE name = 'thing/0'").await?;
                        Ok(number + 1)
                    })
                    .await?;
                    if value != number + 1 {
                        world.sim.wrong(format!("step {name} of craft {number} returned {value}"));
                    }
                }
                Step::Remote { to, fails } => self.part(&world, &ctx, &name, *to, *fails).await?,
                Step::Both { left, right, fails } => {
                    let (l, r) = (format!("{name}l"), format!("{name}r"));
                    let left = self.part(&world, &ctx, &l, *left, false);
                    let right = self.part(&world, &ctx, &r, *right, *fails);
                    futures::future::try_join(left, right).await?;
                }
                Step::Rest { millis } => tokio::time::sleep(Duration::from_millis(*millis)).await,
                Step::Fail => return Err(ApiError::in_use("it was to fail")),
                #[allow(clippy::panic)] // the engine must bear it
                Step::Panic => std::panic::resume_unwind(Box::new("it was to panic")),
            }
        }
        jobs::finish!(ctx, |tx| {
            self.lock(&world, tx, false).await?;
            tx.exec(Sql::new("UPDATE crafts SET state = 'Ready' WHERE number = ?").bind(self.number)).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, world: Arc<World>, undo: Undo, cx: UndoCx) -> Result<(), ApiError> {
        match undo {
            Undo::Accepted => jobs::undo_step!(cx, |tx| self.forget(&world, tx).await).await,
            Undo::Lock => jobs::undo_step!(cx, |tx| self.lock(&world, tx, false).await).await,
            Undo::Mark(step) => {
                jobs::undo_step!(cx, |tx| {
                    let sql = "DELETE FROM marks WHERE number = ? AND step = ?";
                    let gone = tx.exec(Sql::new(sql).bind(self.number).bind(&step)).await?;
                    if gone != 1 {
                        world.sim.wrong(format!("step {step} of craft {} is undone {gone} times", self.number));
                    }
                    tx.exec("UPDATE things SET total = total - 1 WHERE name = 'thing/0'").await?;
                    Ok(())
                })
                .await
            }
            Undo::Part { step, to } => {
                let client = world.receivers.get(to).cloned();
                let mut client = client.ok_or_else(|| ApiError::internal("there is no such receiver"))?;
                let message = ReleaseRequest { key: format!("{}/{step}/works", self.number), ..Default::default() };
                let _: ReleaseResponse =
                    cx.call(|call| async move { client.release(call.request(message)).await }).await?;
                Ok(())
            }
        }
    }

    async fn abort(self, world: Arc<World>, _: &ApiError, tx: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        if self.accepted { Ok(()) } else { self.forget(&world, tx).await }
    }
}
