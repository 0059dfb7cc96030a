//! Who asks for jobs: insists with the same idempotency key until there is an answer, and cancels some.

use crate::cast::{Cast, Serving};
use crate::craft::{Craft, Step};
use crate::dice::Dice;
use crate::sim::{Purpose, lock};
use contract::ApiError;
use contract::api::{Caller, RoleType};
use futures::future::BoxFuture;
use jobs::Accept;
use model::Owner;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Sql;
use tokio::sync::oneshot;

/// A job that was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it does.
    pub craft: Craft,
    /// Its UUID, once told.
    pub uuid: Option<String>,
    /// Whether somebody asked for its end.
    pub cancelled: bool,
}

/// All that was asked for, by the number of the craft.
pub type Book = Arc<Mutex<BTreeMap<i64, Asked>>>;

/// A job as the seed wants it.
fn craft(number: i64, things: u64, receivers: u64, dice: &mut Dice) -> Craft {
    let mut craft =
        Craft { number, exclusive: Vec::new(), shared: Vec::new(), steps: Vec::new(), accepted: dice.per_mille(500) };
    for thing in 0..things {
        match dice.within(0, 5) {
            0 => craft.exclusive.push(format!("thing/{thing}")),
            1 | 2 => craft.shared.push(format!("thing/{thing}")),
            _ => {}
        }
    }
    let receiver = |dice: &mut Dice| dice.within(0, receivers) as usize;
    for _ in 0..dice.within(0, 6) {
        let fails = dice.per_mille(50);
        craft.steps.push(match dice.within(0, 20) {
            0..7 => Step::Local,
            7..12 => Step::Remote { to: receiver(dice), fails },
            12..16 => Step::Both { left: receiver(dice), right: receiver(dice), fails },
            16..19 => Step::Rest { millis: *dice.one(&[1, 100, 1_000, 4_000]) },
            _ if dice.per_mille(300) => Step::Panic,
            _ => Step::Fail,
        });
    }
    craft
}

/// Asks for all jobs of the plan, each in a task of its own.
pub fn ask_for_all(cast: &Arc<Cast>) -> Book {
    let plan = &cast.sim.plan;
    let mut dice = Dice::new(cast.sim.seed, 10);
    let book = Book::default();
    let chaos = plan.chaos.as_millis() as u64;
    // Some come one by one, some all at once.
    let burst = dice.per_mille(300).then(|| dice.within(0, chaos));
    for number in 1..=plan.jobs as i64 {
        let craft = craft(number, plan.things as u64, plan.receivers as u64, &mut dice);
        let when = burst.unwrap_or_else(|| dice.within(0, chaos));
        let cancel = dice.per_mille(150).then(|| Duration::from_millis(dice.within(0, 5_000)));
        lock(&book).insert(number, Asked { craft: craft.clone(), uuid: None, cancelled: cancel.is_some() });
        let (cast, book) = (cast.clone(), book.clone());
        cast.sim.clone().spawn(async move {
            tokio::time::sleep(Duration::from_millis(when)).await;
            let uuid = insist(&cast, |serving| Box::pin(submit(serving, craft.clone()))).await;
            cast.sim.event("accepted", &[number.unsigned_abs()], || format!("craft {number} is job {uuid}"));
            if let Some(asked) = lock(&book).get_mut(&number) {
                asked.uuid = Some(uuid.clone());
            }
            if let Some(wait) = cancel {
                tokio::time::sleep(wait).await;
                insist(&cast, |serving| {
                    let uuid = uuid.clone();
                    Box::pin(async move { serving.jobs.cancel(&uuid).await })
                })
                .await;
                cast.sim.event("cancelled", &[number.unsigned_abs()], || format!("craft {number}"));
            }
        });
    }
    book
}

/// Has any replica do it, until one has answered that it did.
pub async fn insist<T: Send + 'static>(
    cast: &Arc<Cast>,
    request: impl Fn(Serving) -> BoxFuture<'static, Result<T, ApiError>>,
) -> T {
    loop {
        let n = cast.sim.dice(Purpose::Network).within(0, cast.replicas.len() as u64) as usize;
        if let Some(serving) = cast.replicas[n].serving() {
            cast.sim.hop(Purpose::Network, |r| r.network_delay).await;
            let (sender, receiver) = oneshot::channel();
            let work = request(serving.clone());
            if !serving.host.network.is_cut() {
                serving.host.spawn(async move {
                    let _ = sender.send(work.await); // who asked may have given up
                });
            }
            let patience = Duration::from_millis(cast.sim.dice(Purpose::Network).within(1_000, 20_000));
            let answer = tokio::time::timeout(patience, receiver).await;
            let lost = serving.host.network.is_cut() || cast.sim.happens(Purpose::Network, |r| r.answer_lost);
            match answer {
                Ok(Ok(Ok(answer))) if !lost => return answer,
                Ok(Ok(Err(error))) if !error.is_transient() => {
                    cast.sim.wrong(format!("a request was refused: {error}"));
                }
                _ => {}
            }
        }
        let wait = cast.sim.dice(Purpose::Network).within(50, 1_000);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

async fn submit(serving: Serving, craft: Craft) -> Result<String, ApiError> {
    let caller = Caller {
        user_id: 2,
        account_id: 2,
        domain_id: 1,
        domain_path: "/1/".into(),
        role_type: RoleType::User.into(),
        idempotency_key: Some(format!("craft-{}", craft.number)),
        ..Caller::default()
    };
    let number = craft.number;
    let accept = Accept {
        description: format!("craft {number}"),
        instance: Some(("Craft".into(), format!("craft-{number}"))),
        claims: craft.claims(),
        job: craft,
        caller: caller.clone(),
        command: None,
        owner: Owner { account_id: 2, domain_id: 1, domain_path: "/1/".into() },
        custom_id: None,
        entity_id: None,
    };
    let ticket = serving.jobs.ticket().await?;
    let accepted = jobs::mutate!(serving.db, caller, "craft", |tx| {
        let sql = "INSERT INTO crafts (number, job, state) VALUES (?, ?, 'New')";
        tx.exec(Sql::new(sql).bind(number).bind(ticket.id())).await?;
        serving.jobs.accept(tx, ticket.clone(), accept.clone()).await
    })
    .await?;
    Ok(accepted.job_id)
}
