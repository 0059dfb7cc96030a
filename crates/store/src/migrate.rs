//! Expanding migrations: one statement a step, recorded, resumable after a kill.

use crate::{Db, Error, Result, Sql, now_micros};
use std::collections::HashMap;

/// One numbered file of a service or crate. Statements end with `;` at the end of a line, each harmless when run again.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Who ships it: `"orchestrator"`, `"jobs"`.
    pub owner: &'static str,
    /// File name: `"0001_zones.sql"`. Files run in the order given.
    pub file: &'static str,
    /// Its text.
    pub sql: &'static str,
}

const OWN: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS schema_steps (owner VARCHAR(64) NOT NULL, file VARCHAR(128) NOT NULL, step BIGINT NOT NULL, \
     checksum VARCHAR(64) NOT NULL, applied BIGINT NOT NULL, PRIMARY KEY (owner, file, step))",
    "CREATE TABLE IF NOT EXISTS ids (kind VARCHAR(64) NOT NULL PRIMARY KEY, next BIGINT NOT NULL)",
];

impl Db {
    /// Applies what is missing of `migrations`.
    ///
    /// # Errors
    /// [`Error::Migration`] when a step that was applied has since changed, or a statement fails.
    pub async fn migrate(&self, migrations: &[Migration]) -> Result<()> {
        for text in OWN {
            self.define(text).await?;
        }
        let applied: HashMap<(String, String, i64), String> = self
            .all(Sql::new("SELECT owner, file, step, checksum FROM schema_steps"))
            .await?
            .iter()
            .map(|r| Ok(((r.at(0)?, r.at(1)?, r.at(2)?), r.at(3)?)))
            .collect::<Result<_>>()?;
        let mut missing = Vec::new();
        for m in migrations {
            for (step, text) in (0i64..).zip(statements(m.sql)) {
                let sum = checksum(text);
                match applied.get(&(m.owner.to_owned(), m.file.to_owned(), step)) {
                    Some(known) if *known == sum => {}
                    Some(_) => {
                        return Err(Error::Migration {
                            file: format!("{}/{} step {step}", m.owner, m.file),
                            reason: "was applied with another text; add a new file instead of changing one".into(),
                        });
                    }
                    None => missing.push((*m, step, text, sum)),
                }
            }
        }
        if self.is_sqlite() {
            // DDL is transactional there: all or nothing, and one flush.
            crate::tx!(self, "migrate", |tx| {
                for (m, step, text, sum) in &missing {
                    tolerate(tx.exec(*text).await, m, *step)?;
                    record(tx, m, *step, sum).await?;
                }
                Ok::<_, Error>(())
            })
            .await
        } else {
            for (m, step, text, sum) in &missing {
                tolerate(self.define(text).await, m, *step)?;
                crate::tx!(self, "migrate", |tx| record(tx, m, *step, sum).await).await?;
            }
            Ok(())
        }
    }
}

fn tolerate(outcome: Result<u64>, m: &Migration, step: i64) -> Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        // CREATE INDEX has no IF NOT EXISTS on MySQL: an index or column that a killed run made is as good.
        Err(Error::Other(why)) if why.starts_with("Duplicate key name") || why.starts_with("Duplicate column name") => {
            Ok(())
        }
        Err(Error::Other(why)) if why.contains("already exists") => Ok(()),
        Err(e) => Err(Error::Migration { file: format!("{}/{} step {step}", m.owner, m.file), reason: e.to_string() }),
    }
}

async fn record(tx: &mut crate::Tx, m: &Migration, step: i64, sum: &str) -> Result<()> {
    let record = Sql::new("INSERT INTO schema_steps (owner, file, step, checksum, applied) VALUES (?, ?, ?, ?, ?)")
        .bind(m.owner)
        .bind(m.file)
        .bind(step)
        .bind(sum)
        .bind(now_micros());
    match tx.exec(record).await {
        Ok(_) | Err(Error::Unique { .. }) => Ok(()), // another replica recorded it first
        Err(e) => Err(e),
    }
}

fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(";\n").map(|s| s.trim().trim_end_matches(';').trim()).filter(|s| {
        s.lines().any(|l| {
            let l = l.trim();
            !l.is_empty() && !l.starts_with("--")
        })
    })
}

fn checksum(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect()
}
