//! Where a read happens: outside of any transaction, or within one, seeing what it wrote.

use store::{Db, Result, Row, Sql, Tx};

/// A database or an open transaction.
pub enum Source<'a> {
    /// Outside.
    Db(&'a Db),
    /// Inside.
    Tx(&'a mut Tx),
}

impl Source<'_> {
    /// All rows of a SELECT.
    pub async fn all(&mut self, sql: Sql) -> Result<Vec<Row>> {
        match self {
            Source::Db(db) => db.all(sql).await,
            Source::Tx(tx) => tx.all(sql).await,
        }
    }

    /// The first row of a SELECT, if any.
    pub async fn optional(&mut self, sql: Sql) -> Result<Option<Row>> {
        Ok(self.all(sql).await?.into_iter().next())
    }
}

impl<'a> From<&'a Db> for Source<'a> {
    fn from(db: &'a Db) -> Self {
        Source::Db(db)
    }
}

impl<'a> From<&'a mut Tx> for Source<'a> {
    fn from(tx: &'a mut Tx) -> Self {
        Source::Tx(tx)
    }
}

/// Appends a condition that `column` lies in the subtree of `path`: one index range on both databases ('0' follows '/').
pub fn within(sql: Sql, column: &str, path: &str) -> Sql {
    sql.push(&format!("{column} >= ? AND {column} < ?")).bind(path).bind(format!("{}0", path.trim_end_matches('/')))
}
