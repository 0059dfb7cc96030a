//! What the last audit found.

use ::store::{Result, Sql, Tx, Value, now_micros};
use audit::Violation;
use std::collections::HashSet;

/// Longest name of a resource that is kept.
const LONGEST: usize = 255;
/// Rows of a statement.
const CHUNK: usize = 100;

/// Names a violation: check and resource.
pub type Name = (String, String);

/// The name under which a violation is kept.
pub fn name(violation: &Violation) -> Name {
    let end = violation.resource.floor_char_boundary(LONGEST);
    (violation.check.to_owned(), violation.resource.get(..end).unwrap_or_default().to_owned())
}

/// Those that are known, with what was wrong.
pub async fn known(tx: &mut Tx) -> Result<Vec<(Name, String)>> {
    let sql = Sql::new("SELECT check_name, resource, what FROM violations ORDER BY check_name, resource");
    tx.all(sql).await?.iter().map(|r| Ok(((r.at(0)?, r.at(1)?), r.at(2)?))).collect()
}

/// Notes new ones.
pub async fn add(tx: &mut Tx, violations: &[&Violation]) -> Result<()> {
    let now = now_micros();
    let mut written = HashSet::new();
    for chunk in violations.chunks(CHUNK) {
        let mut sql = Sql::new("INSERT INTO violations (check_name, resource, severity, what, found) VALUES ");
        let mut any = false;
        for violation in chunk {
            let (check, resource) = name(violation);
            if !written.insert((check.clone(), resource.clone())) {
                continue;
            }
            sql = sql.push(if any { ", " } else { "" }).tuple([
                Value::from(check),
                resource.into(),
                violation.severity.as_str().into(),
                (&violation.what).into(),
                now.into(),
            ]);
            any = true;
        }
        if any {
            tx.exec(sql).await?;
        }
    }
    Ok(())
}

/// Forgets one that is no more.
pub async fn forget(tx: &mut Tx, (check, resource): &Name) -> Result<()> {
    let sql = Sql::new("DELETE FROM violations WHERE check_name = ? AND resource = ?");
    tx.exec(sql.bind(check).bind(resource)).await.map(drop)
}
