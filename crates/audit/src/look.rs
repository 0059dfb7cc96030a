//! One look: what a check finds now.

use crate::check::{Check, Over, Page};
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Db, Result, Sql, Value};
use tokio::time::Instant;

/// Keys of a page.
const PAGE: i64 = 1000;
/// Most findings that are kept of one check: whoever has more has one problem, not thousands.
pub(crate) const MOST: usize = 1000;
/// Longest rest between two statements.
const REST: Duration = Duration::from_millis(250);

/// What a look found about a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub what: String,
    pub stamp: Option<String>,
}

/// Findings of one check, by resource.
pub(crate) type Findings = BTreeMap<String, Found>;

/// Reads at a pace that leaves the database to others.
pub(crate) struct Looker<'a> {
    pub db: &'a Db,
    /// Rest as long as was worked.
    pub gently: bool,
}

impl Looker<'_> {
    /// What breaks the invariant now.
    pub async fn look(&self, check: &Check) -> Result<Findings> {
        let mut findings = Findings::new();
        let Some(over) = check.over else {
            self.read(check, None, &mut findings).await?;
            return Ok(findings);
        };
        let mut low: Value = if over.text { "".into() } else { i64::MIN.into() };
        while findings.len() < MOST
            && let Some(high) = self.end_of_page(over, &low).await?
        {
            let page = Page { low, high };
            self.read(check, Some(&page), &mut findings).await?;
            low = page.high;
        }
        Ok(findings)
    }

    async fn end_of_page(&self, over: Over, low: &Value) -> Result<Option<Value>> {
        let Over { table, key, text } = over;
        let sql = Sql::new(&format!(
            "SELECT MAX(k) FROM (SELECT {key} AS k FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {PAGE}) p"
        ))
        .bind(low.clone());
        let row = self.db.one(sql).await?;
        Ok(if text {
            row.at::<Option<String>>(0)?.map(Value::from)
        } else {
            row.at::<Option<i64>>(0)?.map(Value::from)
        })
    }

    async fn read(&self, check: &Check, page: Option<&Page>, into: &mut Findings) -> Result<()> {
        let begun = Instant::now();
        let rows = self.db.all(check.statement(page)).await.inspect_err(|error| {
            tracing::warn!(check = check.name, %error, "a check can't run");
        })?;
        for row in rows.iter().take(MOST.saturating_sub(into.len())) {
            into.insert(row.at(0)?, Found { what: row.at(1)?, stamp: row.at(2)? });
        }
        self.rest(begun.elapsed()).await;
        Ok(())
    }

    /// Leaves the database alone for as long as it was busy with this.
    pub async fn rest(&self, busy: Duration) {
        if self.gently {
            tokio::time::sleep(busy.min(REST)).await;
        }
    }
}
