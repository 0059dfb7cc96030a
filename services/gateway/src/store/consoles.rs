//! Table `console_tokens`: tokens that opened a console.

use contract::ApiError;
use store::{Db, Sql};

/// Notes that a token is used. False when it was before, at whatever replica.
///
/// # Errors
/// Those of the database.
pub async fn take(db: &Db, nonce: &str, expires: i64) -> Result<bool, ApiError> {
    store::tx!(db, "console-token", |tx| {
        let sql = Sql::new("INSERT INTO console_tokens (nonce, expires) VALUES (?, ?)").bind(nonce).bind(expires);
        match tx.exec(sql).await {
            Ok(_) => Ok::<_, ApiError>(true),
            Err(store::Error::Unique { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Removes those that ended before.
///
/// # Errors
/// Those of the database.
pub async fn forget(db: &Db, before: i64) -> Result<(), ApiError> {
    store::tx!(db, "console-sweep", |tx| {
        tx.exec(Sql::new("DELETE FROM console_tokens WHERE expires < ?").bind(before)).await?;
        Ok::<_, ApiError>(())
    })
    .await
}
