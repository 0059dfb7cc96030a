//! Resource tags: read for responses and filters. Written by the orchestrator's tag commands.

use std::collections::HashMap;
use store::{Db, Migration, Result, Sql};

/// The table, migrated by whichever service starts first.
pub const MIGRATIONS: &[Migration] =
    &[Migration { owner: "model", file: "0001_tags.sql", sql: include_str!("../migrations/0001_tags.sql") }];

/// One tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// UUID of the tagged resource.
    pub resource_uuid: String,
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Kind of resource, "UserVm".
    pub resource_type: String,
    /// Owner.
    pub account_id: i64,
    /// Owner's domain.
    pub domain_id: i64,
}

/// The tags of resources of one type, by resource number.
pub async fn of(db: &Db, resource_type: &str, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Vec<Tag>>> {
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut tags: HashMap<i64, Vec<Tag>> = HashMap::new();
    if ids.is_empty() {
        return Ok(tags);
    }
    let sql = Sql::new(
        "SELECT resource_id, resource_uuid, tag_key, tag_value, account_id, domain_id FROM tags WHERE resource_type = ? AND ",
    )
    .bind(resource_type)
    .in_list("resource_id", ids)
    .push(" ORDER BY tag_key");
    for r in db.all(sql).await? {
        tags.entry(r.at(0)?).or_default().push(Tag {
            resource_uuid: r.at(1)?,
            key: r.at(2)?,
            value: r.at(3)?,
            resource_type: resource_type.to_owned(),
            account_id: r.at(4)?,
            domain_id: r.at(5)?,
        });
    }
    Ok(tags)
}

/// Appends a filter: the row's resource has all of `tags`.
#[must_use]
pub fn filter(mut sql: Sql, resource_type: &str, id_column: &str, tags: &[(String, String)]) -> Sql {
    for (key, value) in tags {
        sql = sql
            .push(&format!(
                " AND EXISTS (SELECT 1 FROM tags t WHERE t.resource_type = ? AND t.resource_id = {id_column} \
                 AND t.tag_key = ? AND t.tag_value = ?)"
            ))
            .bind(resource_type)
            .bind(key.as_str())
            .bind(value.as_str());
    }
    sql
}
