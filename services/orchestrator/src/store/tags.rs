//! Resource tags.

use super::paged;
use ::store::{Db, Error, Result, Row, Sql, Tx, Value, now_micros};
use model::{ListScope, Page};
use serde::{Deserialize, Serialize};

/// A resource that is tagged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Kind, "UserVm".
    pub kind: String,
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Who owns it.
    pub owner: model::Owner,
}

/// Puts `tags` on each of `targets`, in one statement. Gives whether none of the keys was there.
pub async fn insert(
    tx: &mut Tx,
    targets: &[Target],
    tags: &[(String, String)],
    customer: Option<&str>,
) -> Result<bool> {
    let mut sql = Sql::new(
        "INSERT INTO tags (uuid, resource_type, resource_id, resource_uuid, tag_key, tag_value, customer, account_id, domain_id, \
         domain_path, created) VALUES ",
    );
    let now = now_micros();
    let mut first = true;
    for target in targets {
        for (key, value) in tags {
            sql = sql.push(if first { "" } else { ", " }).tuple([
                Value::from(model::new_uuid()),
                Value::from(&target.kind),
                Value::from(target.id),
                Value::from(&target.uuid),
                Value::from(key),
                Value::from(value),
                Value::from(customer),
                Value::from(target.owner.account_id),
                Value::from(target.owner.domain_id),
                Value::from(&target.owner.domain_path),
                Value::from(now),
            ]);
            first = false;
        }
    }
    match tx.exec(sql).await {
        Ok(_) => Ok(true),
        Err(Error::Unique { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes tags off `targets`: those with these keys (and values, where given), all when none is given. Gives how many.
pub async fn delete(tx: &mut Tx, targets: &[Target], tags: &[(String, Option<String>)]) -> Result<u64> {
    let Some(kind) = targets.first().map(|t| t.kind.clone()) else { return Ok(0) };
    let mut sql = Sql::new("DELETE FROM tags WHERE resource_type = ? AND ")
        .bind(kind)
        .in_list("resource_id", targets.iter().map(|t| t.id));
    for (i, (key, value)) in tags.iter().enumerate() {
        sql = sql.push(if i == 0 { " AND (" } else { " OR " }).push("(tag_key = ?").bind(key);
        sql = sql.push_if(" AND tag_value = ?", value.as_deref()).push(")");
    }
    if !tags.is_empty() {
        sql = sql.push(")");
    }
    tx.exec(sql).await
}

/// A tag as a list shows it.
#[derive(Clone, Debug)]
pub struct TagRow {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Kind of resource.
    pub kind: String,
    /// UUID of the resource.
    pub resource_uuid: String,
    /// Who asked for it.
    pub customer: Option<String>,
    /// Name of the account.
    pub account: Option<String>,
    /// UUID of the domain.
    pub domain_uuid: Option<String>,
    /// Name of the domain.
    pub domain: Option<String>,
}

/// Which tags a list shows.
#[derive(Clone, Debug)]
pub struct TagFilter<'a> {
    /// Whose.
    pub scope: &'a ListScope,
    /// Only of this kind of resource.
    pub kind: Option<&'a str>,
    /// Only of this resource: UUID or number.
    pub resource: Option<&'a str>,
    /// Only with this key.
    pub key: Option<&'a str>,
    /// Only with this value.
    pub value: Option<&'a str>,
    /// Only for this customer.
    pub customer: Option<&'a str>,
    /// Only whose key or value contains it.
    pub keyword: Option<&'a str>,
}

/// A page of tags, and how many there are.
pub async fn list(db: &Db, filter: &TagFilter<'_>, page: Page) -> Result<(Vec<TagRow>, i64)> {
    let body = |sql: Sql| {
        let from = " FROM tags t LEFT JOIN accounts a ON a.id = t.account_id LEFT JOIN domains d ON d.id = t.domain_id WHERE 1 = 1";
        let mut sql = filter
            .scope
            .and(sql.push(from), "t.")
            .push_if(" AND t.resource_type = ?", filter.kind)
            .push_if(" AND t.tag_key = ?", filter.key)
            .push_if(" AND t.tag_value = ?", filter.value)
            .push_if(" AND t.customer = ?", filter.customer);
        if let Some(resource) = filter.resource {
            sql = match resource.parse::<i64>() {
                Ok(id) => sql.push(" AND t.resource_id = ?").bind(id),
                Err(_) => sql.push(" AND t.resource_uuid = ?").bind(resource),
            };
        }
        match filter.keyword.map(str::to_lowercase) {
            Some(keyword) => sql
                .push(" AND (")
                .contains("LOWER(t.tag_key)", &keyword)
                .push(" OR ")
                .contains("LOWER(t.tag_value)", &keyword)
                .push(")"),
            None => sql,
        }
    };
    let columns = "t.tag_key, t.tag_value, t.resource_type, t.resource_uuid, t.customer, a.name, d.uuid, d.name";
    let (rows, count) = paged(db, columns, body, "t.created, t.uuid", page).await?;
    let read = |r: &Row| {
        Ok(TagRow {
            key: r.at(0)?,
            value: r.at(1)?,
            kind: r.at(2)?,
            resource_uuid: r.at(3)?,
            customer: r.at(4)?,
            account: r.at(5)?,
            domain_uuid: r.at(6)?,
            domain: r.at(7)?,
        })
    };
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}
