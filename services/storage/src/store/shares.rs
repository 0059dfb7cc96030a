//! Accounts that may use a template that isn't theirs nor public.

use store::{Db, Result, Sql, Tx, now_micros};

/// Names of the accounts, in order.
pub async fn names(db: &Db, template: i64) -> Result<Vec<String>> {
    let sql = Sql::new(
        "SELECT a.name FROM template_shares s JOIN accounts a ON a.id = s.account_id \
         WHERE s.template_id = ? AND a.removed IS NULL ORDER BY a.name",
    )
    .bind(template);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Lets an account use a template; once is enough.
pub async fn add(tx: &mut Tx, template: i64, account: i64) -> Result<()> {
    let sql = Sql::new("INSERT INTO template_shares (template_id, account_id, created) VALUES (?, ?, ?)")
        .bind(template)
        .bind(account)
        .bind(now_micros());
    match tx.exec(sql).await {
        Ok(_) | Err(store::Error::Unique { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Takes that back.
pub async fn remove(tx: &mut Tx, template: i64, account: i64) -> Result<()> {
    let sql = Sql::new("DELETE FROM template_shares WHERE template_id = ? AND account_id = ?");
    tx.exec(sql.bind(template).bind(account)).await.map(drop)
}

/// Takes it back from all.
pub async fn clear(tx: &mut Tx, template: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM template_shares WHERE template_id = ?").bind(template)).await.map(drop)
}
