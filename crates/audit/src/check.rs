//! What a check is.

use std::fmt;
use std::time::Duration;
use store::{Sql, now_micros};

/// How grave it is when an invariant is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something is given twice, is missing, or is about to be lost: look at once.
    Grave,
    /// Something is held by nobody: it is lost to others until it is given back.
    Leak,
    /// Something lasts longer than it should.
    Late,
}

impl Severity {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Grave => "grave",
            Severity::Leak => "leak",
            Severity::Late => "late",
        }
    }
}

/// For how long something must be found before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Both sides are written in one commit, or are the job's that holds the claim.
    Moment,
    /// Several commits in a row, without a claim.
    Work,
    /// A duty has to come round first, or a request under way may still make it true.
    Round,
}

impl Settle {
    /// The time.
    pub const fn time(self) -> Duration {
        match self {
            Settle::Moment => Duration::from_secs(1),
            Settle::Work => Duration::from_secs(10),
            Settle::Round => Duration::from_secs(60),
        }
    }
}

/// The table that a check goes through, page by page.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    /// The table.
    pub table: &'static str,
    /// An indexed column; pages are ranges of it.
    pub key: &'static str,
    /// Whether it is text.
    pub text: bool,
}

/// One invariant over the database, as a query for what breaks it.
///
/// Columns of the query: the resource ("vm/UUID", stays the same from look to look), what is wrong, and the stamp (what
/// changes whenever the resource does; NULL when the finding needs none). In the text, `{page:c}` stands for "column c is
/// within this page", `{free:e}` for "no job holds the claim that e names", `{live:j}` for "job j hasn't ended", `{held:j}` for
/// "job j has its claims", `{now-60s}` for a time in µs.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Name, for people and metrics.
    pub name: &'static str,
    /// How grave.
    pub severity: Severity,
    /// For how long.
    pub settle: Settle,
    /// What it goes through; `None`: small tables, read at once.
    pub over: Option<Over>,
    /// What is broken.
    pub means: &'static str,
    /// What to do.
    pub repair: &'static str,
    /// The query.
    pub sql: &'static str,
}

/// Something that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// How grave.
    pub severity: Severity,
    /// The check.
    pub check: &'static str,
    /// The resource.
    pub resource: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} ({})", self.check, self.resource, self.what, self.severity.as_str())
    }
}

/// A page: a range of keys, the first bound not included.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub low: store::Value,
    pub high: store::Value,
}

impl Check {
    /// The statement for a page.
    pub(crate) fn statement(&self, page: Option<&Page>) -> Sql {
        let now = now_micros();
        let mut sql = Sql::new("");
        let mut rest = self.sql;
        while let Some((before, after)) = rest.split_once('{') {
            let (hole, after) = after.split_once('}').unwrap_or((after, ""));
            sql = fill(sql.push(before), hole, page, now);
            rest = after;
        }
        sql.push(rest)
    }
}

/// Those that have jobs.
const SERVICES: &str = "'gateway', 'identity', 'network', 'orchestrator', 'storage', 'usage'";

fn fill(sql: Sql, hole: &str, page: Option<&Page>, now: i64) -> Sql {
    if let Some(column) = hole.strip_prefix("page:") {
        return match page {
            Some(page) => {
                sql.push(&format!("({column} > ? AND {column} <= ?)")).bind(page.low.clone()).bind(page.high.clone())
            }
            None => sql.push("1 = 1"),
        };
    }
    if let Some(claim) = hole.strip_prefix("free:") {
        return sql.push(&format!(
            "NOT EXISTS (SELECT 1 FROM claims zc WHERE zc.resource = {claim} AND (zc.exclusive <> 0 OR zc.shared <> 0))"
        ));
    }
    // By service, too: that is what the index begins with.
    let at_work = |job: &str, states: &str| format!("{job}.service IN ({SERVICES}) AND {job}.state IN ({states})");
    if let Some(job) = hole.strip_prefix("live:") {
        return sql.push(&at_work(job, "'Waiting', 'Running', 'Undoing', 'Parked'"));
    }
    if let Some(job) = hole.strip_prefix("held:") {
        return sql.push(&at_work(job, "'Running', 'Undoing', 'Parked'"));
    }
    let age = hole.strip_prefix("now-").and_then(|t| t.strip_suffix('s')).and_then(|t| t.parse::<i64>().ok());
    match age {
        Some(seconds) => sql.push(&(now - seconds * 1_000_000).to_string()),
        None => sql.push(&format!("{{{hole}}}")), // no database takes it
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on has failed
mod tests {
    use super::*;
    use crate::{CHECKS, HOST_CHECKS};
    use std::collections::HashSet;

    #[test]
    fn holes_are_filled() {
        let check =
            Check { sql: "SELECT 1 FROM x WHERE {page:x.id} AND {free:'vm/' || x.id} AND t < {now-5s}", ..CHECKS[0] };
        let page = Page { low: 1i64.into(), high: 9i64.into() };
        let text = check.statement(Some(&page)).text().to_owned();
        assert!(text.starts_with("SELECT 1 FROM x WHERE (x.id > ? AND x.id <= ?) AND NOT EXISTS ("), "{text}");
        assert!(text.contains("zc.resource = 'vm/' || x.id AND") && !text.contains('{'), "{text}");
    }

    #[test]
    fn every_check_says_what_it_is() {
        let mut names = HashSet::new();
        for check in CHECKS.iter() {
            assert!(names.insert(check.name), "{} is there twice", check.name);
            assert!(!check.means.is_empty() && !check.repair.is_empty(), "{}", check.name);
            assert_eq!(check.over.is_some(), check.sql.contains("{page:"), "{}: pages", check.name);
            let text = check.statement(None).text().to_owned();
            assert!(!text.contains(['{', '}']), "{}: an unknown hole in {text}", check.name);
            assert!(check.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", check.name);
        }
        for check in HOST_CHECKS {
            assert!(names.insert(check.name), "{} is there twice", check.name);
        }
    }
}
