//! What was seeded once, removed or not.

use store::{Db, Result, Sql};

/// Unique names of seeded rows.
pub async fn unique_names(db: &Db) -> Result<Vec<String>> {
    let sql = "SELECT unique_name FROM disk_offerings WHERE unique_name IS NOT NULL \
               UNION ALL SELECT unique_name FROM templates WHERE unique_name IS NOT NULL";
    db.all(Sql::new(sql)).await?.iter().map(|r| r.at(0)).collect()
}
