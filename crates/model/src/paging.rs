//! Pages of lists, as SQL.

use contract::Page;
use store::Sql;

/// What a checked page means to a query.
pub trait Paged {
    /// Appends LIMIT and OFFSET.
    #[must_use]
    fn apply(&self, sql: Sql) -> Sql;

    /// The number of all matches when the page's rows alone prove it: no COUNT is needed then.
    fn proves_count(&self, rows: usize) -> Option<i64>;
}

impl Paged for Page {
    fn apply(&self, sql: Sql) -> Sql {
        match self.limit {
            Some(n) => sql.push(" LIMIT ? OFFSET ?").bind(n).bind(self.offset),
            None => sql,
        }
    }

    fn proves_count(&self, rows: usize) -> Option<i64> {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        match self.limit {
            None => Some(rows),
            Some(n) if rows < n && (rows > 0 || self.offset == 0) => Some(self.offset + rows),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_page_proves_the_count() {
        let p = Page { offset: 20, limit: Some(20) };
        assert_eq!(p.proves_count(3), Some(23));
        assert_eq!(p.proves_count(20), None);
        assert_eq!(p.proves_count(0), None);
        assert_eq!(Page { offset: 0, limit: Some(20) }.proves_count(0), Some(0));
        assert_eq!(Page { offset: 0, limit: None }.proves_count(7), Some(7));
    }
}
