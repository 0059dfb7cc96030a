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
        let applied = self.applied().await?;
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

/// How the tables of a database compare with the migrations of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// All of them were applied, and no others.
    Same,
    /// Nothing was: this is no database of an installation.
    Absent,
    /// Some are missing, the named file first: an older version made it.
    Older(String),
    /// Others were applied, the named file among them: a newer version made it.
    Newer(String),
    /// A file has another text here than the one that was applied.
    Other(String),
}

impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Schema::Same => write!(f, "the schema is this version's"),
            Schema::Absent => write!(f, "the database has no tables of Arcus"),
            Schema::Older(file) => write!(f, "the schema is an older version's: {file} wasn't applied"),
            Schema::Newer(file) => write!(f, "the schema is a newer version's: {file} is unknown here"),
            Schema::Other(file) => write!(f, "the schema is another version's: {file} was applied with another text"),
        }
    }
}

impl Db {
    /// Compares the tables with `migrations` and changes nothing.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn schema(&self, migrations: &[Migration]) -> Result<Schema> {
        let mut applied = match self.applied().await {
            Ok(applied) => applied,
            Err(Error::Other(why)) if why.contains("no such table") || why.contains("doesn't exist") => {
                return Ok(Schema::Absent);
            }
            Err(e) => return Err(e),
        };
        if applied.is_empty() {
            return Ok(Schema::Absent);
        }
        let mut missing = None;
        for m in migrations {
            for (step, text) in (0i64..).zip(statements(m.sql)) {
                let file = || format!("{}/{}", m.owner, m.file);
                match applied.remove(&(m.owner.to_owned(), m.file.to_owned(), step)) {
                    Some(known) if known == checksum(text) => {}
                    Some(_) => return Ok(Schema::Other(file())),
                    None => missing = missing.or_else(|| Some(file())),
                }
            }
        }
        let unknown = applied.into_keys().min().map(|(owner, file, _)| format!("{owner}/{file}"));
        Ok(unknown.map(Schema::Newer).or(missing.map(Schema::Older)).unwrap_or(Schema::Same))
    }

    /// The checksums of the steps that were applied.
    async fn applied(&self) -> Result<HashMap<(String, String, i64), String>> {
        let rows = self.all(Sql::new("SELECT owner, file, step, checksum FROM schema_steps")).await?;
        rows.iter().map(|r| Ok(((r.at(0)?, r.at(1)?, r.at(2)?), r.at(3)?))).collect()
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
