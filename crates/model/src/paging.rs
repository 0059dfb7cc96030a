//! Pages of lists.

use store::Sql;

/// A page, already checked by the contract (page and pagesize come together, neither is over the limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Rows to skip.
    pub offset: i64,
    /// Most rows; `None` is all.
    pub limit: Option<i64>,
}

impl Page {
    /// From the request's parameters; `default_size` is `default.page.size` (-1: no limit).
    pub fn of(page: Option<i32>, size: Option<i32>, default_size: i64) -> Page {
        let all = |n: i64| if n < 0 { None } else { Some(n) };
        match (page, size) {
            (Some(p), Some(s)) => {
                let size = i64::from(s);
                Page { offset: size * (i64::from(p).max(1) - 1), limit: all(size) }
            }
            (None, Some(s)) => Page { offset: 0, limit: all(i64::from(s)) },
            _ => Page { offset: 0, limit: all(default_size) },
        }
    }

    /// Appends LIMIT and OFFSET.
    #[must_use]
    pub fn apply(&self, sql: Sql) -> Sql {
        match self.limit {
            Some(n) => sql.push(" LIMIT ? OFFSET ?").bind(n).bind(self.offset),
            None if self.offset > 0 => sql.push(" LIMIT ? OFFSET ?").bind(i64::MAX).bind(self.offset),
            None => sql,
        }
    }

    /// The number of all matches when this page's rows alone prove it: no COUNT is needed then.
    pub fn proves_count(&self, rows: usize) -> Option<i64> {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        match self.limit {
            None => Some(self.offset + rows),
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
        let p = Page::of(Some(2), Some(20), 500);
        assert_eq!((p.offset, p.limit), (20, Some(20)));
        assert_eq!(p.proves_count(3), Some(23));
        assert_eq!(p.proves_count(20), None);
        assert_eq!(p.proves_count(0), None);
        assert_eq!(Page::of(None, None, 500).proves_count(0), Some(0));
    }
}
