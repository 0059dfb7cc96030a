//! Takes the snapshots that policies want, and deletes those beyond what they keep. One replica at a time.
//!
//! A snapshot's row, its job and the policy's next time are one commit, under the duty's term: whoever is killed, each time is
//! taken once (STO-167). A time that was missed because nobody led is made up for once. What can't be taken now (a machine that
//! is just starting, a store that is away) is tried again until the next time comes; an account that may have no more snapshots
//! misses this one, with an alert (OPS-064). A volume that has been at rest since its last snapshot gets none (STO-165).

use super::policies::{self, told};
use super::{Order, claim, deletion, order};
use crate::store::policies::{self as rows, PolicyRow};
use crate::store::{snapshots, volumes};
use crate::{Storage, limits};
use contract::ApiError;
use coord::Term;
use events::{Alert, EventRecord, EventState, Record};
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use jobs::Claim;
use model::names::{self, Table};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const DUTY: &str = "storage/policies";
/// How often it looks when it hears nothing and nothing is due before.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest rest.
const LEAST: Duration = Duration::from_millis(100);
/// The wait before what couldn't be taken is tried again.
const AGAIN: Duration = Duration::from_secs(20);
/// Policies of one look.
const BATCH: i64 = 64;
/// Policies at the same time.
const PARALLEL: usize = 8;

/// Starts the duty.
pub fn start(s: &Storage) {
    let storage = s.clone();
    s.node.duty(DUTY, move |term| serve(storage.clone(), term));
}

async fn serve(s: Storage, term: Term) {
    let mut told = told(&s);
    // Policies that are tried again later.
    let mut off: BTreeMap<i64, Instant> = BTreeMap::new();
    loop {
        let rest = match round(&s, &term, &mut off).await {
            Ok(rest) => rest,
            Err(error) => {
                tracing::warn!(%error, "taking the snapshots of policies");
                AGAIN
            }
        };
        tokio::select! {
            _ = told.next() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// One look; gives how long to rest after it.
async fn round(s: &Storage, term: &Term, off: &mut BTreeMap<i64, Instant>) -> Result<Duration, ApiError> {
    let now = Instant::now();
    off.retain(|_, until| *until > now);
    let but: Vec<i64> = off.keys().copied().collect();
    let due = rows::due(&s.node.db, &but, BATCH).await?;
    let more = due.len() == usize::try_from(BATCH).unwrap_or(usize::MAX);
    let failed: Vec<i64> = stream::iter(due)
        .map(|policy| async move {
            match fire(s, term, &policy).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::info!(policy = policy.uuid, %error, "the snapshot of a policy is tried again");
                    Some(policy.id)
                }
            }
        })
        .buffer_unordered(PARALLEL)
        .filter_map(std::future::ready)
        .collect()
        .await;
    off.extend(failed.into_iter().map(|id| (id, Instant::now() + AGAIN)));
    if term.is_lost() {
        return Ok(INTERVAL);
    }
    retain(s, term).await?;
    if more {
        return Ok(LEAST);
    }
    let next = rows::next(&s.node.db).await?.map(|micros| Duration::from_micros(micros.unsigned_abs()));
    let again = off.values().min().map(|until| until.saturating_duration_since(Instant::now()));
    Ok(next.unwrap_or(INTERVAL).min(again.unwrap_or(INTERVAL)).clamp(LEAST, INTERVAL))
}

/// What comes of a policy that is due.
enum Due {
    /// A snapshot.
    Take(Box<Order>),
    /// Nothing, and why where somebody is told.
    Skip(Vec<Record>),
    /// The volume is gone, and the policy goes.
    End,
}

/// Takes the snapshot of a policy that is due, or misses it, or ends the policy.
async fn fire(s: &Storage, term: &Term, p: &PolicyRow) -> Result<(), ApiError> {
    let next = policies::schedule(p)?.next(Timestamp::now())?.as_microsecond();
    let caller = rpc::cx::system_caller();
    let mut due = match decide(s, p).await {
        Ok(due) => due,
        Err(error) if over(p)? || error.cs_code == 4390 => {
            let text = format!("no snapshot of policy {}: {}", p.uuid, error.text);
            Due::Skip(vec![failure(p, text)])
        }
        Err(error) => return Err(error),
    };
    if let Due::Take(order) = &due {
        let row = &order.row;
        let reserved = limits::reserve_snapshot(s, &caller, &row.uuid, row.owner.account_id, row.held_bytes).await;
        match reserved {
            Ok(_) => {}
            Err(error) if error.code == 535 => due = Due::Skip(exceeded(s, p, &error).await?),
            Err(error) => return Err(error),
        }
    }
    let ticket = s.jobs.ticket().await?;
    let taken = store::tx!(s.node.db, "policy", |tx| {
        term.fence(tx).await?;
        if let Due::End = &due {
            rows::remove(tx, p.id).await?;
            return Ok(false);
        }
        if !rows::advance(tx, p.id, p.next_run, next).await? {
            return Ok(false); // it was changed meanwhile: it is looked at anew
        }
        match &due {
            Due::Take(order) => {
                snapshots::insert(tx, &order.row).await?;
                s.jobs.accept(tx, ticket.clone(), order.accept(&caller, None)).await?;
                Ok::<_, ApiError>(true)
            }
            Due::Skip(records) => {
                events::record(tx, records).await?;
                Ok(false)
            }
            Due::End => Ok(false),
        }
    })
    .await;
    // Counted for nothing.
    if let Due::Take(order) = &due
        && !matches!(taken, Ok(true))
        && snapshots::find(&s.node.db, order.row.id).await.is_ok_and(|found| found.is_none())
    {
        limits::give_back_snapshot(s, &caller, &order.row.uuid).await;
    }
    taken.map(drop)
}

/// What is to be done now.
async fn decide(s: &Storage, p: &PolicyRow) -> Result<Due, ApiError> {
    let db = &s.node.db;
    let Some(v) = volumes::find(db, p.volume_id).await?.filter(|v| !v.removed) else { return Ok(Due::End) };
    if rows::at_rest_since_snapshot(db, v.id).await? {
        return Ok(Due::Skip(Vec::new()));
    }
    Ok(Due::Take(Box::new(order(s, v, None, Some((&p.kind, p.id))).await?)))
}

/// Whether the time after the one that is due has come already: this one is missed then.
fn over(p: &PolicyRow) -> Result<bool, ApiError> {
    let due = Timestamp::from_microsecond(p.next_run).map_err(|e| ApiError::internal(e.to_string()))?;
    Ok(policies::schedule(p)?.next(due)? <= Timestamp::now())
}

fn failure(p: &PolicyRow, text: String) -> Record {
    let caller = rpc::cx::system_caller();
    let event = EventRecord::new(&caller, "SNAPSHOT.CREATE", EventState::Completed, text);
    Record::Event(event.about(policies::ENTITY, &p.uuid).owned_by(&p.owner).failed())
}

/// What is told when the account may have no more snapshots.
async fn exceeded(s: &Storage, p: &PolicyRow, error: &ApiError) -> Result<Vec<Record>, ApiError> {
    let accounts = names::named(&s.node.db, Table::Accounts, [p.owner.account_id]).await?;
    let account = accounts.get(&p.owner.account_id);
    let (uuid, name) = account.map_or(("", ""), |a| (a.uuid.as_str(), a.name.as_str()));
    let text = format!("Account {name}: no snapshot of policy {} was taken: {}", p.uuid, error.text);
    Ok(vec![failure(p, text.clone()), Alert::limit(uuid).raise(text)])
}

/// Accepts the deletion of snapshots beyond what their policies keep, the oldest first. One that is used now, or deleted
/// already, is left for the next look.
async fn retain(s: &Storage, term: &Term) -> Result<(), ApiError> {
    let caller = rpc::cx::system_caller();
    for (policy, more) in rows::over(&s.node.db, BATCH).await? {
        for id in rows::oldest(&s.node.db, policy, more).await? {
            let ticket = s.jobs.ticket().await?;
            let accepted = store::tx!(s.node.db, "policy-retention", |tx| {
                term.fence(tx).await?;
                let Some(row) = snapshots::find_in(tx, id).await? else { return Ok(()) };
                jobs::free(tx, &[Claim::Exclusive(claim(id))]).await?;
                let accept = deletion(&row, &caller, None)?;
                s.jobs.accept(tx, ticket.clone(), accept).await.map(drop)
            })
            .await;
            if let Err(error) = accepted {
                if term.is_lost() {
                    return Err(error);
                }
                tracing::debug!(snapshot = id, %error, "a snapshot beyond its policy stays for now");
            }
        }
    }
    Ok(())
}
