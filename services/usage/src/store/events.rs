//! The archive of events.

use contract::{ApiError, Page};
use coord::Term;
use events::{EventRecord, EventState, Level};
use model::{ListScope, Paged};
use std::collections::HashMap;
use store::{Db, Row, Sql, Tx, Value, now_micros};

/// Rows of one statement.
const CHUNK: usize = 64;
/// Rows that one purge deletes.
const PURGE: i64 = 1000;
const MICROS: i64 = 1_000_000;

const COLUMNS: &str = "id, uuid, type, state, level, description, account_id, domain_id, user_id, start_uuid, created";

/// An event as it is stored.
#[derive(Debug)]
pub(crate) struct EventRow {
    pub uuid: String,
    pub kind: String,
    pub state: String,
    pub level: String,
    pub description: String,
    pub account_id: i64,
    pub domain_id: i64,
    pub user_id: i64,
    pub start_uuid: Option<String>,
    pub created: i64,
}

/// Which events are wanted.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub id: Option<i64>,
    /// The event that began a chain, and what followed from it.
    pub chain: Option<String>,
    pub kind: Option<String>,
    pub level: Option<String>,
    pub from: Option<i64>,
    pub until: Option<i64>,
    pub keyword: Option<String>,
    /// Operations that began at most so many seconds ago, at least so many, and haven't completed.
    pub pending: Option<(i64, i64)>,
}

/// Writes events under their numbers.
pub(crate) async fn insert(tx: &mut Tx, events: &[(i64, &EventRecord)]) -> Result<(), ApiError> {
    for chunk in events.chunks(CHUNK) {
        let mut sql = Sql::new(
            "INSERT INTO events (id, uuid, type, state, level, description, search, account_id, domain_id, domain_path, \
             user_id, start_uuid, resource_type, resource_uuid, request_id, remote_address, archived, created) VALUES ",
        );
        for (i, (seq, event)) in chunk.iter().enumerate() {
            let description = cut(&event.description, 8000);
            sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
                Value::from(*seq),
                Value::from(&event.uuid),
                Value::from(&event.kind),
                Value::from(state(event.state)),
                Value::from(level(event.level)),
                Value::from(description),
                Value::from(format!("{}\n{}\n{description}", event.kind, level(event.level)).to_lowercase()),
                Value::from(event.owner.account_id),
                Value::from(event.owner.domain_id),
                Value::from(&event.owner.domain_path),
                Value::from(event.user_id),
                Value::from(event.start.as_deref()),
                Value::from(event.resource_type.as_deref()),
                Value::from(event.resource_uuid.as_deref()),
                Value::from(cut(&event.request_id, 64)),
                Value::from(cut(&event.remote_address, 64)),
                Value::from(0),
                Value::from(event.created),
            ]);
        }
        tx.exec(sql).await?;
    }
    Ok(())
}

/// A page of the events that match, the newest first, and how many there are.
pub(crate) async fn list(
    db: &Db,
    scope: &ListScope,
    filter: &Filter,
    page: Page,
) -> Result<(Vec<EventRow>, i64), ApiError> {
    let select = matching(Sql::new(&format!("SELECT {COLUMNS} FROM events WHERE archived = 0")), scope, filter);
    let rows = db.all(page.apply(select.push(" ORDER BY created DESC, id DESC"))).await?;
    let count = match page.proves_count(rows.len()) {
        Some(count) => count,
        None => {
            db.one(matching(Sql::new("SELECT COUNT(*) FROM events WHERE archived = 0"), scope, filter)).await?.at(0)?
        }
    };
    let rows = rows.iter().map(read).collect::<store::Result<_>>()?;
    Ok((rows, count))
}

/// Which alerts are wanted.
#[derive(Debug, Default)]
pub(crate) struct AlertFilter {
    pub id: Option<i64>,
    /// Types; none: none.
    pub kinds: Vec<&'static str>,
    pub keyword: Option<String>,
}

/// A page of the alerts that match, the newest first, and how many there are.
pub(crate) async fn alerts(db: &Db, filter: &AlertFilter, page: Page) -> Result<(Vec<EventRow>, i64), ApiError> {
    let body = |head: &str| {
        let sql = Sql::new(head).push(" FROM events WHERE archived = 0 AND ");
        let sql = sql.in_list("type", filter.kinds.iter().copied()).push_if(" AND id = ?", filter.id);
        match &filter.keyword {
            Some(keyword) => sql.push(" AND ").contains("search", &keyword.to_lowercase()),
            None => sql,
        }
    };
    let select = body(&format!("SELECT {COLUMNS}")).push(" ORDER BY created DESC, id DESC");
    let rows = db.all(page.apply(select)).await?;
    let count = match page.proves_count(rows.len()) {
        Some(count) => count,
        None => db.one(body("SELECT COUNT(*)")).await?.at(0)?,
    };
    Ok((rows.iter().map(read).collect::<store::Result<_>>()?, count))
}

/// What becomes of events that are tidied away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tidied {
    /// Lists don't show them any more.
    Archived,
    /// They are gone.
    Deleted,
}

/// Which events are to be tidied away.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// These; empty: whichever fit the rest.
    pub ids: Vec<i64>,
    /// Types; none: all.
    pub types: Option<Vec<String>>,
    /// Not of these types.
    pub not_types: Vec<&'static str>,
    pub from: Option<i64>,
    pub until: Option<i64>,
}

impl Wanted {
    /// How many ids are named, each counted once.
    pub fn distinct_ids(&self) -> u64 {
        self.ids.iter().collect::<std::collections::BTreeSet<_>>().len() as u64
    }
}

/// Tidies events away that aren't archived and are within `scope`. Gives how many.
pub(crate) async fn tidy(
    tx: &mut Tx,
    scope: Option<&ListScope>,
    wanted: &Wanted,
    how: Tidied,
) -> Result<u64, ApiError> {
    let head = match how {
        Tidied::Archived => "UPDATE events SET archived = 1 WHERE archived = 0",
        Tidied::Deleted => "DELETE FROM events WHERE archived = 0",
    };
    let mut sql = Sql::new(head);
    if let Some(scope) = scope {
        sql = scope.and(sql, "");
    }
    if !wanted.ids.is_empty() {
        sql = sql.push(" AND ").in_list("id", wanted.ids.iter().copied());
    }
    if let Some(types) = &wanted.types {
        sql = sql.push(" AND ").in_list("type", types.iter().map(String::as_str));
    }
    if !wanted.not_types.is_empty() {
        sql = sql.push(" AND NOT (").in_list("type", wanted.not_types.iter().copied()).push(")");
    }
    let sql = sql.push_if(" AND created >= ?", wanted.from).push_if(" AND created <= ?", wanted.until);
    Ok(tx.exec(sql).await?)
}

fn matching(sql: Sql, scope: &ListScope, filter: &Filter) -> Sql {
    let mut sql = scope
        .and(sql, "")
        .push_if(" AND id = ?", filter.id)
        .push_if(" AND type = ?", filter.kind.as_deref())
        .push_if(" AND level = ?", filter.level.as_deref())
        .push_if(" AND created >= ?", filter.from)
        .push_if(" AND created <= ?", filter.until);
    if let Some(start) = &filter.chain {
        sql = sql.push(" AND (start_uuid = ? OR uuid = ?)").bind(start).bind(start);
    }
    if let Some(keyword) = &filter.keyword {
        sql = sql.push(" AND ").contains("search", &keyword.to_lowercase());
    }
    if let Some((entry, duration)) = filter.pending {
        let now = now_micros();
        sql = sql
            .push(
                " AND created >= ? AND created <= ? AND state <> 'Completed' AND NOT EXISTS (SELECT 1 FROM events c \
                 WHERE c.start_uuid = COALESCE(events.start_uuid, events.uuid) AND c.state = 'Completed')",
            )
            .bind(now.saturating_sub(entry.saturating_mul(MICROS)))
            .bind(now.saturating_sub(duration.saturating_mul(MICROS)));
    }
    sql
}

fn read(row: &Row) -> store::Result<EventRow> {
    Ok(EventRow {
        uuid: row.get("uuid")?,
        kind: row.get("type")?,
        state: row.get("state")?,
        level: row.get("level")?,
        description: row.get("description")?,
        account_id: row.get("account_id")?,
        domain_id: row.get("domain_id")?,
        user_id: row.get("user_id")?,
        start_uuid: row.get("start_uuid")?,
        created: row.get("created")?,
    })
}

/// Names of users, removed ones included.
pub(crate) async fn user_names(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, String>, ApiError> {
    let mut ids: Vec<i64> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = db.all(Sql::new("SELECT id, username FROM users WHERE ").in_list("id", ids)).await?;
    Ok(rows.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect::<store::Result<_>>()?)
}

/// Deletes some of the events from before `before`; gives how many.
pub(crate) async fn purge(db: &Db, term: &Term, before: i64) -> Result<u64, ApiError> {
    let old = Sql::new("SELECT id FROM events WHERE created < ? ORDER BY created LIMIT ?").bind(before).bind(PURGE);
    let ids: Vec<i64> = db.all(old).await?.iter().map(|r| r.at(0)).collect::<store::Result<_>>()?;
    if ids.is_empty() {
        return Ok(0);
    }
    store::tx!(db, "purge-events", |tx| {
        term.fence(tx).await?;
        Ok::<_, ApiError>(tx.exec(Sql::new("DELETE FROM events WHERE ").in_list("id", ids.iter().copied())).await?)
    })
    .await
}

fn state(state: EventState) -> &'static str {
    match state {
        EventState::Created => "Created",
        EventState::Scheduled => "Scheduled",
        EventState::Started => "Started",
        EventState::Completed => "Completed",
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    }
}

/// At most `longest` bytes of the text: a fact is never refused for its length.
pub(super) fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}
