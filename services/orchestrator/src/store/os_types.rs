//! Guest operating systems and their categories.

use super::{lower, paged};
use ::store::{Db, Result, Sql};
use model::Page;

/// A guest operating system.
#[derive(Clone, Debug)]
pub struct OsTypeRow {
    /// UUID.
    pub uuid: String,
    /// UUID of its category.
    pub category_uuid: String,
    /// Name.
    pub name: String,
    /// Whether an administrator added it.
    pub user_defined: bool,
}

/// Which operating systems a list shows.
#[derive(Clone, Debug, Default)]
pub struct OsTypeFilter {
    /// Only this one.
    pub id: Option<i64>,
    /// Only of this category.
    pub category: Option<i64>,
    /// Only with this name.
    pub name: Option<String>,
    /// Only whose name contains it.
    pub keyword: Option<String>,
}

/// A page of operating systems, and how many there are.
pub async fn list(db: &Db, filter: &OsTypeFilter, page: Page) -> Result<(Vec<OsTypeRow>, i64)> {
    let body = |sql: Sql| {
        let sql = sql
            .push(" FROM os_types t JOIN os_categories c ON c.id = t.category_id WHERE t.removed IS NULL")
            .push_if(" AND t.id = ?", filter.id)
            .push_if(" AND t.category_id = ?", filter.category)
            .push_if(" AND t.name_lower = ?", filter.name.as_deref().map(lower));
        match &filter.keyword {
            Some(keyword) => sql.push(" AND ").contains("t.name_lower", &keyword.to_lowercase()),
            None => sql,
        }
    };
    let (rows, count) = paged(db, "t.uuid, c.uuid, t.name, t.user_defined", body, "t.id", page).await?;
    let rows = rows
        .iter()
        .map(|r| Ok(OsTypeRow { uuid: r.at(0)?, category_uuid: r.at(1)?, name: r.at(2)?, user_defined: r.at(3)? }));
    Ok((rows.collect::<Result<_>>()?, count))
}

/// A page of categories (UUID and name), and how many there are.
pub async fn categories(
    db: &Db,
    id: Option<i64>,
    name: Option<&str>,
    keyword: Option<&str>,
    page: Page,
) -> Result<(Vec<(String, String)>, i64)> {
    let body = |sql: Sql| {
        let mut sql = sql.push(" FROM os_categories WHERE removed IS NULL").push_if(" AND id = ?", id);
        for text in [name, keyword].into_iter().flatten() {
            sql = sql.push(" AND ").contains("name_lower", &text.to_lowercase());
        }
        sql
    };
    let (rows, count) = paged(db, "uuid, name", body, "id", page).await?;
    Ok((rows.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect::<Result<_>>()?, count))
}

/// The number of the category "None": a host with it has no preference.
pub async fn is_none(db: &Db, id: i64) -> Result<bool> {
    let row = db.optional(Sql::new("SELECT name FROM os_categories WHERE id = ?").bind(id)).await?;
    row.map_or(Ok(false), |r| Ok(r.at::<String>(0)? == "None"))
}
