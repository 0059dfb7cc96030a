//! `arcus audit`: whether the books agree. Reads only; safe beside a running system, where it looks twice before it tells
//! of something that a job may just be doing.

mod checks;

use std::collections::BTreeSet;
use std::time::Duration;
use store::{Db, Sql};

pub use checks::CHECKS;

/// One invariant, as a query for what breaks it: each row's first column says what is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Name, for people and metrics.
    pub name: &'static str,
    /// The query.
    pub sql: &'static str,
}

/// Something that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The check.
    pub check: &'static str,
    /// What is wrong.
    pub what: String,
}

/// How long what a look found must last: longer than any transaction.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Runs all checks. What is found must be found twice: checks read several tables without a common snapshot.
///
/// # Errors
/// When a check couldn't run.
pub async fn run(db: &Db) -> store::Result<Vec<Violation>> {
    let first = look(db).await?;
    if first.is_empty() {
        return Ok(Vec::new());
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let second = look(db).await?;
    Ok(first.intersection(&second).cloned().collect())
}

async fn look(db: &Db) -> store::Result<BTreeSet<Violation>> {
    let mut found = BTreeSet::new();
    for check in CHECKS {
        for row in db.all(Sql::new(check.sql)).await? {
            found.insert(Violation { check: check.name, what: row.at(0)? });
        }
    }
    Ok(found)
}
