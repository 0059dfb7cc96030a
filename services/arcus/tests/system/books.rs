//! All that the database says, to see whether anything changed.

use std::collections::BTreeMap;
use store::{Db, Sql};

/// Tables that change by themselves, or that only say how far something has got.
const RESTLESS: &[&str] = &[
    "duties",
    "host_watch",
    "ids",
    "idempotency",
    "outbox",
    "outbox_cursors",
    "outbox_head",
    "schema_steps",
    "sessions",
    "sqlite_sequence",
];
/// Columns that change by themselves.
const RESTLESS_COLUMNS: &[(&str, &str)] = &[("hosts", "last_ping"), ("hosts", "disconnected"), ("agents", "last_seen")];

/// Rows that are swept away some time after nobody needs them any more.
const SWEPT: &[(&str, &str)] = &[("claims", "exclusive = 0 AND shared = 0 AND waiting = 0")];

/// The rows of each table, as texts, sorted.
#[derive(PartialEq, Eq)]
pub struct Books(BTreeMap<String, Vec<String>>);

impl Books {
    /// Reads all tables (SQLite).
    pub async fn read(db: &Db) -> Books {
        let mut tables = BTreeMap::new();
        let all = db.all(Sql::new("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")).await.unwrap();
        for row in all {
            let table: String = row.at(0).unwrap();
            if RESTLESS.contains(&table.as_str()) {
                continue;
            }
            let columns = db.all(Sql::new("SELECT name FROM pragma_table_info(?)").bind(table.as_str())).await.unwrap();
            let columns: Vec<String> = columns
                .iter()
                .map(|c| c.at::<String>(0).unwrap())
                .filter(|c| !RESTLESS_COLUMNS.contains(&(table.as_str(), c.as_str())))
                .map(|c| format!("'{c}=' || quote(\"{c}\")"))
                .collect();
            let swept = SWEPT.iter().find(|(of, _)| *of == table).map_or("1 = 0", |(_, condition)| condition);
            let sql = format!("SELECT {} FROM \"{table}\" WHERE NOT ({swept})", columns.join(" || ', ' || "));
            let mut rows: Vec<String> =
                db.all(Sql::new(&sql)).await.unwrap().iter().map(|r| r.at(0).unwrap()).collect();
            rows.sort_unstable();
            tables.insert(table, rows);
        }
        Books(tables)
    }

    /// The rows that are only in one of the two: "table - old row", "table + new row".
    pub fn changes(&self, later: &Books) -> Vec<String> {
        let mut out = Vec::new();
        let none = Vec::new();
        for (table, after) in &later.0 {
            let before = self.0.get(table).unwrap_or(&none);
            let gone = before.iter().filter(|r| after.binary_search(r).is_err()).map(|r| format!("{table} - {r}"));
            let new = after.iter().filter(|r| before.binary_search(r).is_err()).map(|r| format!("{table} + {r}"));
            out.extend(gone.chain(new));
        }
        out
    }

    /// Waits until what has happened is written down everywhere: no event is under way, and two readings are the same.
    pub async fn settled(db: &Db) -> Books {
        let last = tokio::sync::Mutex::new(Books::read(db).await);
        let still = || async {
            let under_way = Sql::new(
                "SELECT (SELECT COUNT(*) FROM outbox WHERE seq IS NULL) + \
                 (SELECT COUNT(*) FROM outbox_cursors c, outbox_head h WHERE c.seq < h.seq)",
            );
            let drained = db.one(under_way).await.unwrap().at::<i64>(0).unwrap() == 0;
            let now = Books::read(db).await;
            let mut last = last.lock().await;
            let same = *last == now;
            *last = now;
            drained && same
        };
        testkit::wait_until(still, std::time::Duration::from_secs(60)).await;
        last.into_inner()
    }
}
