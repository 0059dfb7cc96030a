//! Who may work on what: exclusive on leaves (a VM, a volume), shared on containers (a network, a host).
//!
//! A job gets all its claims at once or none: then it takes a ticket on each resource, in one transaction, and is granted
//! when on every resource nobody holds it in conflict and no earlier ticket conflicts. Two requests conflict when one of
//! them is exclusive; so shared requests pass each other, and nothing passes an exclusive one. Tickets of two jobs stand in
//! the same order on every resource, hence no deadlock and no starvation.
//!
//! A resource's row in `claims` is written by every change to its holders or queue: that is what serialises them. Rows are
//! always visited in the same order, exclusive ones first: those are leaves, and the rows of busy containers are locked last.

use contract::ApiError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::{Error, Result, Sql, Tx, Value};

/// A claim on a resource, named "kind/number".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// Nobody else may work on it.
    #[serde(rename = "x")]
    Exclusive(String),
    /// Nobody may work on it exclusively.
    #[serde(rename = "s")]
    Shared(String),
}

impl Claim {
    /// The resource.
    pub fn resource(&self) -> &str {
        match self {
            Claim::Exclusive(r) | Claim::Shared(r) => r,
        }
    }

    fn is_exclusive(&self) -> bool {
        matches!(self, Claim::Exclusive(_))
    }
}

/// Each resource once, exclusive where either is; in the order in which rows are visited: exclusive ones, then shared ones,
/// by name (as the database visits the rows of an IN list).
pub(crate) fn ordered(claims: Vec<Claim>) -> Vec<Claim> {
    let mut all: BTreeMap<String, bool> = BTreeMap::new();
    for claim in claims {
        let exclusive = claim.is_exclusive();
        *all.entry(claim.resource().to_owned()).or_default() |= exclusive;
    }
    let (exclusive, shared): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, exclusive)| *exclusive);
    let exclusive = exclusive.into_iter().map(|(r, _)| Claim::Exclusive(r));
    exclusive.chain(shared.into_iter().map(|(r, _)| Claim::Shared(r))).collect()
}

/// Splits ordered claims into the names of the exclusive ones and those of the shared ones.
fn split(claims: &[Claim]) -> (Vec<&str>, Vec<&str>) {
    let (exclusive, shared): (Vec<_>, Vec<_>) = claims.iter().partition(|c| c.is_exclusive());
    (exclusive.into_iter().map(Claim::resource).collect(), shared.into_iter().map(Claim::resource).collect())
}

/// Takes all of `claims` for the job, or a ticket on each. Tells whether it has them.
pub(crate) async fn take(tx: &mut Tx, job: i64, claims: &[Claim]) -> Result<bool> {
    if store::chance::is_broken("claims") {
        return Ok(true);
    }
    let (exclusive, shared) = split(claims);
    let mut taken = Vec::new();
    let all =
        take_exclusive(tx, job, &exclusive, &mut taken).await? && take_shared(tx, job, &shared, &mut taken).await?;
    if all {
        return Ok(true);
    }
    for claim in &taken {
        untake(tx, job, claim).await?;
    }
    enqueue(tx, job, claims).await?;
    // The holder may have left between the attempt and the ticket, and not have seen the ticket.
    let resources = claims.iter().map(|c| c.resource().to_owned()).collect();
    Ok(grant(tx, resources).await?.contains(&job))
}

async fn take_exclusive(tx: &mut Tx, job: i64, names: &[&str], taken: &mut Vec<Claim>) -> Result<bool> {
    for name in names {
        // Leaves rarely have a row.
        if !insert(tx, name, [job, 0, 0, 0, 1]).await? {
            let free =
                "UPDATE claims SET exclusive = ? WHERE resource = ? AND exclusive = 0 AND shared = 0 AND waiting = 0";
            if tx.exec(Sql::new(free).bind(job).bind(*name)).await? == 0 {
                return Ok(false);
            }
        }
        taken.push(Claim::Exclusive((*name).to_owned()));
    }
    Ok(true)
}

async fn take_shared(tx: &mut Tx, job: i64, names: &[&str], taken: &mut Vec<Claim>) -> Result<bool> {
    if names.is_empty() {
        return Ok(true);
    }
    let free = || {
        let sql = "UPDATE claims SET shared = shared + 1, stamp = ? WHERE exclusive = 0 AND waiting_x = 0 AND ";
        Sql::new(sql).bind(stamp(job, false))
    };
    if tx.exec(free().in_list("resource", names.iter().copied())).await? == names.len() as u64 {
        return Ok(true);
    }
    let got = stamped(tx, names, stamp(job, false)).await?;
    taken.extend(got.iter().cloned().map(Claim::Shared));
    for name in names.iter().filter(|n| !got.iter().any(|g| g == *n)) {
        // Another transaction may have made the row in between.
        if !insert(tx, name, [0, 1, 0, 0, 1]).await? && tx.exec(free().in_list("resource", [*name])).await? == 0 {
            return Ok(false);
        }
        taken.push(Claim::Shared((*name).to_owned()));
    }
    Ok(true)
}

/// What marks the rows that a job's taking or release has written.
fn stamp(job: i64, release: bool) -> i64 {
    2 * job + i64::from(release)
}

async fn stamped(tx: &mut Tx, names: &[&str], stamp: i64) -> Result<Vec<String>> {
    let sql = Sql::new("SELECT resource FROM claims WHERE stamp = ? AND ").bind(stamp);
    tx.all(sql.in_list("resource", names.iter().copied())).await?.iter().map(|r| r.at(0)).collect()
}

async fn insert(tx: &mut Tx, resource: &str, numbers: [i64; 5]) -> Result<bool> {
    let sql = "INSERT INTO claims (resource, exclusive, shared, waiting, waiting_x, next_ticket, version, stamp) \
               VALUES (?, ?, ?, ?, ?, ?, 0, 0)";
    match tx.exec(Sql::new(sql).bind(resource).bind_all(numbers)).await {
        Ok(_) => Ok(true),
        Err(Error::Unique { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

async fn untake(tx: &mut Tx, job: i64, claim: &Claim) -> Result<()> {
    let sql = match claim {
        Claim::Exclusive(r) => {
            Sql::new("UPDATE claims SET exclusive = 0 WHERE resource = ? AND exclusive = ?").bind(r).bind(job)
        }
        Claim::Shared(r) => Sql::new("UPDATE claims SET shared = shared - 1 WHERE resource = ?").bind(r),
    };
    tx.exec(sql).await.map(drop)
}

async fn enqueue(tx: &mut Tx, job: i64, claims: &[Claim]) -> Result<()> {
    for claim in claims {
        let x = i64::from(claim.is_exclusive());
        let wait = "UPDATE claims SET waiting = waiting + 1, waiting_x = waiting_x + ?, next_ticket = next_ticket + 1 WHERE resource = ?";
        let wait = Sql::new(wait).bind(x).bind(claim.resource());
        if tx.exec(wait.clone()).await? == 0 && !insert(tx, claim.resource(), [0, 0, 1, x, 2]).await? {
            tx.exec(wait).await?;
        }
        // The row is locked by what was just written, so the number is this transaction's own.
        let ticket = Sql::new(
            "INSERT INTO claim_queue (resource, ticket, job_id, is_exclusive) \
             SELECT resource, next_ticket - 1, ?, ? FROM claims WHERE resource = ?",
        );
        tx.exec(ticket.bind(job).bind(x).bind(claim.resource())).await?;
    }
    Ok(())
}

/// Gives up what a job holds. Returns the jobs that got theirs by it.
pub(crate) async fn release(tx: &mut Tx, job: i64, claims: &[Claim]) -> Result<Vec<i64>> {
    let (exclusive, shared) = split(claims);
    let mut contended: Vec<String> = Vec::new();
    if !exclusive.is_empty() {
        let sql = Sql::new("DELETE FROM claims WHERE exclusive = ? AND waiting = 0 AND ").bind(job);
        let gone = tx.exec(sql.in_list("resource", exclusive.iter().copied())).await?;
        if gone < exclusive.len() as u64 {
            let sql = Sql::new("UPDATE claims SET exclusive = 0 WHERE exclusive = ? AND ").bind(job);
            tx.exec(sql.in_list("resource", exclusive.iter().copied())).await?;
            contended.extend(exclusive.iter().map(|n| (*n).to_owned()));
        }
    }
    if !shared.is_empty() {
        // Shared claims hold up nobody but exclusive requests.
        let less = |condition: &str| {
            let sql = format!("UPDATE claims SET shared = shared - 1, stamp = ? WHERE {condition}");
            Sql::new(&sql).bind(stamp(job, true))
        };
        let given = tx.exec(less("waiting_x = 0 AND ").in_list("resource", shared.iter().copied())).await?;
        if given < shared.len() as u64 {
            let given = stamped(tx, &shared, stamp(job, true)).await?;
            let rest: Vec<&str> = shared.iter().copied().filter(|n| !given.iter().any(|g| g == n)).collect();
            tx.exec(less("").in_list("resource", rest.iter().copied())).await?;
            contended.extend(rest.into_iter().map(str::to_owned));
        }
    }
    if contended.is_empty() { Ok(Vec::new()) } else { grant(tx, contended).await }
}

/// Grants what can be granted to those who wait for `resources`, whose rows this transaction has written.
pub(crate) async fn grant(tx: &mut Tx, resources: Vec<String>) -> Result<Vec<i64>> {
    let heads = Queues::read(tx, &resources).await?.heads();
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let sql = Sql::new("SELECT DISTINCT resource FROM claim_queue WHERE ").in_list("job_id", heads.iter().copied());
    let mut all: BTreeSet<String> = resources.into_iter().collect();
    for row in tx.all(sql).await? {
        all.insert(row.at(0)?);
    }
    let all: Vec<String> = all.into_iter().collect();
    // Locks the rows; on a cluster, certifies what is read below.
    tx.exec(Sql::new("UPDATE claims SET version = version + 1 WHERE ").in_list("resource", &all)).await?;
    let queues = Queues::read(tx, &all).await?;
    let granted: Vec<i64> = heads.into_iter().filter(|job| queues.grantable(*job)).collect();
    for job in &granted {
        for (resource, exclusive) in queues.wanted(*job) {
            let sql = if exclusive {
                let sql = "UPDATE claims SET exclusive = ?, waiting = waiting - 1, waiting_x = waiting_x - 1 WHERE resource = ?";
                Sql::new(sql).bind(*job)
            } else {
                Sql::new("UPDATE claims SET shared = shared + 1, waiting = waiting - 1 WHERE resource = ?")
            };
            tx.exec(sql.bind(resource)).await?;
        }
    }
    if !granted.is_empty() {
        tx.exec(Sql::new("DELETE FROM claim_queue WHERE ").in_list("job_id", granted.iter().copied())).await?;
    }
    Ok(granted)
}

/// Resources that somebody waits for and nobody holds exclusively: where a wake-up may have been missed.
pub(crate) async fn idle(tx: &mut Tx) -> Result<Vec<String>> {
    let rows = tx.all("SELECT resource FROM claims WHERE waiting > 0 AND exclusive = 0 ORDER BY resource").await?;
    let names = rows.iter().map(|r| r.at(0)).collect::<Result<Vec<String>>>()?;
    if !names.is_empty() {
        tx.exec(Sql::new("UPDATE claims SET version = version + 1 WHERE ").in_list("resource", &names)).await?;
    }
    Ok(names)
}

#[derive(Debug, Default)]
struct Holders {
    exclusive: bool,
    shared: bool,
}

#[derive(Debug)]
struct Waiter {
    ticket: i64,
    job: i64,
    exclusive: bool,
}

/// Holders and queues of some resources: what decides who is next.
#[derive(Debug, Default)]
struct Queues(BTreeMap<String, (Holders, Vec<Waiter>)>);

impl Queues {
    async fn read(tx: &mut Tx, resources: &[String]) -> Result<Queues> {
        let mut queues = Queues::default();
        let sql = Sql::new("SELECT resource, exclusive, shared FROM claims WHERE ").in_list("resource", resources);
        for row in tx.all(sql).await? {
            let holders = Holders { exclusive: row.at(1)?, shared: row.at::<i64>(2)? > 0 };
            queues.0.insert(row.at(0)?, (holders, Vec::new()));
        }
        let sql = Sql::new("SELECT resource, ticket, job_id, is_exclusive FROM claim_queue WHERE ")
            .in_list("resource", resources)
            .push(" ORDER BY resource, ticket");
        for row in tx.all(sql).await? {
            let waiter = Waiter { ticket: row.at(1)?, job: row.at(2)?, exclusive: row.at(3)? };
            queues.0.entry(row.at(0)?).or_default().1.push(waiter);
        }
        Ok(queues)
    }

    /// Jobs that are not behind a conflicting one on at least one of the resources.
    fn heads(&self) -> BTreeSet<i64> {
        let mut heads = BTreeSet::new();
        for (_, queue) in self.0.values() {
            for (n, waiter) in queue.iter().enumerate() {
                if !waiter.exclusive || n == 0 {
                    heads.insert(waiter.job);
                }
                if waiter.exclusive {
                    break;
                }
            }
        }
        heads
    }

    /// Whether the job may have all that it waits for now.
    fn grantable(&self, job: i64) -> bool {
        self.0.values().all(|(holders, queue)| {
            let Some(me) = queue.iter().find(|w| w.job == job) else {
                return true;
            };
            let held = holders.exclusive || (me.exclusive && holders.shared);
            !held && !queue.iter().any(|w| w.ticket < me.ticket && (w.exclusive || me.exclusive))
        })
    }

    fn wanted(&self, job: i64) -> Vec<(&str, bool)> {
        self.0
            .iter()
            .filter_map(|(r, (_, queue))| queue.iter().find(|w| w.job == job).map(|w| (r.as_str(), w.exclusive)))
            .collect()
    }
}

/// For a synchronous command: makes sure, until `tx` ends, that no job holds any of `claims` in conflict and none gets it.
///
/// # Errors
/// 530/4300 when one has a job under way.
pub async fn free(tx: &mut Tx, claims: &[Claim]) -> std::result::Result<(), ApiError> {
    for claim in ordered(claims.to_vec()) {
        let resource = claim.resource();
        let idle = match &claim {
            Claim::Exclusive(_) => {
                if insert(tx, resource, [-1, 0, 0, 0, 1]).await? {
                    // The lock stays until the end of the transaction; the row needn't.
                    tx.exec(Sql::new("DELETE FROM claims WHERE resource = ?").bind(resource)).await?;
                    true
                } else {
                    touch(tx, resource, "exclusive = 0 AND shared = 0").await?
                }
            }
            Claim::Shared(_) => {
                touch(tx, resource, "exclusive = 0").await? || insert(tx, resource, [0, 0, 0, 0, 1]).await?
            }
        };
        if !idle {
            return Err(ApiError::concurrent(format!("{resource} has a job under way; try again when it has ended")));
        }
    }
    Ok(())
}

async fn touch(tx: &mut Tx, resource: &str, condition: &str) -> Result<bool> {
    let sql = format!("UPDATE claims SET version = version + 1 WHERE resource = ? AND {condition}");
    Ok(tx.exec(Sql::new(&sql).bind(resource)).await? == 1)
}

/// Removes rows of resources that nobody holds or wants.
pub(crate) async fn prune(tx: &mut Tx) -> Result<()> {
    let unused = "exclusive = 0 AND shared = 0 AND waiting = 0";
    let rows = tx.all(Sql::new(&format!("SELECT resource FROM claims WHERE {unused} LIMIT 500"))).await?;
    let names: Vec<Value> = rows.iter().map(|r| r.at::<String>(0).map(Value::from)).collect::<Result<_>>()?;
    if !names.is_empty() {
        tx.exec(Sql::new(&format!("DELETE FROM claims WHERE {unused} AND ")).in_list("resource", names)).await?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
