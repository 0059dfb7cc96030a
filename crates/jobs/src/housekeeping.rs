//! What ended jobs leave behind, removed in small bites by one replica of each service.

use crate::claims;
use crate::engine::Engine;
use std::sync::Arc;
use std::time::Duration;
use store::{Error, Sql, now_micros};

/// How long effects of an ended job are kept: a late call must meet its tombstone.
const EFFECTS: Duration = Duration::from_secs(3600);
/// How long answers are kept for repeated requests.
const ANSWERS: Duration = Duration::from_secs(24 * 3600);
/// Rows removed by one statement.
const BITE: i64 = 500;

impl Engine {
    pub(crate) async fn keep_house(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.pace().housekeeping);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await; // at once: others come first after a start
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if !self.is_first() {
                continue;
            }
            if let Err(error) = self.clean().await {
                tracing::warn!(service = self.service, %error, "cleaning up after jobs failed");
            }
        }
    }

    /// Whether this is the first living replica of its service; more than one does no harm.
    fn is_first(&self) -> bool {
        let members = self.coord.members();
        let members = members.borrow();
        members.iter().filter(|m| m.service == self.service).map(|m| &m.id).min().is_none_or(|id| *id == self.replica)
    }

    async fn clean(&self) -> Result<(), Error> {
        self.clean_effects().await?;
        self.clean_jobs().await?;
        self.clean_answers().await?;
        let db = &self.db;
        store::tx!(db, "prune-claims", |tx| claims::prune(tx).await).await
    }

    async fn clean_effects(&self) -> Result<(), Error> {
        let before = before(EFFECTS);
        let ended = format!(
            "SELECT DISTINCT e.job_id FROM effects e JOIN jobs j ON j.id = e.job_id \
             WHERE e.created < ? AND j.service = ? AND j.ended < ? LIMIT {BITE}"
        );
        while let Some(ids) = self.ids(Sql::new(&ended).bind(before).bind(self.service).bind(before)).await? {
            self.delete("effects", "job_id", &ids).await?;
        }
        Ok(())
    }

    async fn clean_jobs(&self) -> Result<(), Error> {
        let sql = format!("SELECT id FROM jobs WHERE ended < ? AND service = ? LIMIT {BITE}");
        let before = before(self.pace().keep);
        while let Some(ids) = self.ids(Sql::new(&sql).bind(before).bind(self.service)).await? {
            self.delete("effects", "job_id", &ids).await?;
            self.delete("job_steps", "job_id", &ids).await?;
            self.delete("jobs", "id", &ids).await?;
        }
        Ok(())
    }

    async fn clean_answers(&self) -> Result<(), Error> {
        let before = before(ANSWERS);
        let sql = format!("SELECT account_id, idem_key FROM idempotency WHERE created < ? LIMIT {BITE}");
        loop {
            let rows = self.db.all(Sql::new(&sql).bind(before)).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut keys: std::collections::BTreeMap<i64, Vec<String>> = std::collections::BTreeMap::new();
            for row in &rows {
                keys.entry(row.at(0)?).or_default().push(row.at(1)?);
            }
            for (account, keys) in keys {
                let sql = Sql::new("DELETE FROM idempotency WHERE account_id = ? AND ")
                    .bind(account)
                    .in_list("idem_key", keys);
                let db = &self.db;
                store::tx!(db, "prune-answers", |tx| tx.exec(sql.clone()).await).await?;
            }
        }
    }

    async fn ids(&self, sql: Sql) -> Result<Option<Vec<i64>>, Error> {
        let ids: Vec<i64> = self.db.all(sql).await?.iter().map(|r| r.at(0)).collect::<Result<_, _>>()?;
        Ok((!ids.is_empty()).then_some(ids))
    }

    async fn delete(&self, table: &str, column: &str, ids: &[i64]) -> Result<(), Error> {
        let db = &self.db;
        let sql = Sql::new(&format!("DELETE FROM {table} WHERE ")).in_list(column, ids.iter().copied());
        store::tx!(db, "prune-jobs", |tx| tx.exec(sql.clone()).await).await.map(drop)
    }
}

fn before(age: Duration) -> i64 {
    now_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}
