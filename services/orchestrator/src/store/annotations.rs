//! Rows of `annotations`. A host's newest one is on its own row as well, so that lists of hosts needn't look for it.

use super::{Reader, paged};
use ::store::{Db, Result, Row, Sql, Tx, now_micros};
use model::Page;

/// The only type of entity that has notes.
pub const HOST: &str = "HOST";

/// A note.
#[derive(Clone, Debug)]
pub struct AnnotationRow {
    /// UUID.
    pub uuid: String,
    /// What it is on.
    pub entity_type: String,
    /// UUID of that.
    pub entity: String,
    /// The text.
    pub text: String,
    /// UUID of the user who made it; empty when it isn't known.
    pub user: String,
    /// When it was made, UTC µs.
    pub created: i64,
    /// When it was removed, UTC µs.
    pub removed: Option<i64>,
}

const COLUMNS: &str = "a.uuid, a.entity_type, a.entity_uuid, a.annotation, a.user_uuid, a.created, a.removed";

fn read(r: &Row) -> Result<AnnotationRow> {
    Ok(AnnotationRow {
        uuid: r.at(0)?,
        entity_type: r.at(1)?,
        entity: r.at(2)?,
        text: r.at(3)?,
        user: r.at(4)?,
        created: r.at(5)?,
        removed: r.at(6)?,
    })
}

/// A note with this UUID, removed ones included.
pub async fn find(from: impl Reader, uuid: &str) -> Result<Option<AnnotationRow>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM annotations a WHERE a.uuid = ?")).bind(uuid);
    from.rows(sql).await?.first().map(read).transpose()
}

/// Writes a note on a host. `user_name` is shown with the host.
pub async fn add_to_host(tx: &mut Tx, id: i64, note: &AnnotationRow, user_name: &str) -> Result<()> {
    let sql = Sql::new(
        "INSERT INTO annotations (id, uuid, entity_type, entity_uuid, annotation, user_uuid, user_name, created) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(&note.uuid)
    .bind(HOST)
    .bind(&note.entity)
    .bind(&note.text)
    .bind(&note.user)
    .bind(user_name)
    .bind(note.created);
    tx.exec(sql).await?;
    show_newest(tx, &note.entity).await
}

/// Removes a note on a host. Gives whether it was there.
pub async fn remove_from_host(tx: &mut Tx, note: &AnnotationRow) -> Result<bool> {
    let sql = Sql::new("UPDATE annotations SET removed = ? WHERE uuid = ? AND removed IS NULL");
    if tx.exec(sql.bind(now_micros()).bind(&note.uuid)).await? == 0 {
        return Ok(false);
    }
    show_newest(tx, &note.entity).await?;
    Ok(true)
}

async fn show_newest(tx: &mut Tx, host: &str) -> Result<()> {
    // Takes the host's row first: whoever else notes something at the same time comes before or after.
    let sql = Sql::new("UPDATE hosts SET annotation = NULL, last_annotated = NULL, annotated_by = NULL WHERE uuid = ?");
    tx.exec(sql.bind(host)).await?;
    let sql = Sql::new(
        "SELECT annotation, created, user_name FROM annotations WHERE entity_type = ? AND entity_uuid = ? AND removed IS NULL \
         ORDER BY created DESC, id DESC LIMIT 1",
    );
    let Some(r) = tx.optional(sql.bind(HOST).bind(host)).await? else { return Ok(()) };
    let (text, at, by): (String, i64, String) = (r.at(0)?, r.at(1)?, r.at(2)?);
    let sql = Sql::new("UPDATE hosts SET annotation = ?, last_annotated = ?, annotated_by = ? WHERE uuid = ?");
    tx.exec(sql.bind(text).bind(at).bind(by).bind(host)).await.map(drop)
}

/// Which notes a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this one.
    pub uuid: Option<String>,
    /// Only on this entity.
    pub entity: Option<String>,
    /// Only whose text contains it.
    pub keyword: Option<String>,
}

/// A page of notes that aren't removed, and how many there are.
pub async fn list(db: &Db, filter: &Filter, page: Page) -> Result<(Vec<AnnotationRow>, i64)> {
    let body = |sql: Sql| {
        let sql = sql
            .push(" FROM annotations a WHERE a.removed IS NULL")
            .push_if(" AND a.uuid = ?", filter.uuid.as_deref())
            .push_if(" AND a.entity_uuid = ?", filter.entity.as_deref());
        match filter.keyword.as_deref().map(str::to_lowercase) {
            Some(keyword) => sql.push(" AND ").contains("LOWER(a.annotation)", &keyword),
            None => sql,
        }
    };
    let (rows, count) = paged(db, COLUMNS, body, "a.created, a.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}
