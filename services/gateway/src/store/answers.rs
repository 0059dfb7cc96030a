//! Table `idempotency`: what keyed requests were answered. Services write it, with what they change (`jobs::mutate!`).

use contract::ApiError;
use store::{Db, Sql};

/// The encoded message that a keyed request of this account was answered with.
///
/// # Errors
/// When the database doesn't answer.
pub async fn find(db: &Db, account_id: i64, key: &str, request_hash: &[u8]) -> Result<Option<Vec<u8>>, ApiError> {
    let sql = Sql::new("SELECT request_hash, answer FROM idempotency WHERE account_id = ? AND idem_key = ?")
        .bind(account_id)
        .bind(format!("={key}"));
    let Some(row) = db.optional(sql).await? else { return Ok(None) };
    let (hash, answer): (Vec<u8>, Option<Vec<u8>>) = (row.at(0)?, row.at(1)?);
    Ok(answer.filter(|_| hash == request_hash))
}
