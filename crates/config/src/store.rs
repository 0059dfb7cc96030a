//! The SQL of settings.

use crate::settings::{Change, Seal, Values};
use crate::{Scope, Setting, find};
use contract::ApiError;
use store::{Db, Error, Sql, Tx};

/// Makes sure that the version's row exists: changes then queue up at it.
pub(crate) async fn prepare(db: &Db) -> Result<(), ApiError> {
    if db.optional(Sql::new("SELECT version FROM settings_version WHERE id = 1")).await?.is_some() {
        return Ok(());
    }
    let made = store::tx!(db, "settings-version", |tx| {
        tx.exec("INSERT INTO settings_version (id, version) VALUES (1, 0)").await
    })
    .await;
    match made {
        Ok(_) | Err(Error::Unique { .. }) => Ok(()), // another replica made it
        Err(e) => Err(e.into()),
    }
}

/// The number that rises with each change.
pub(crate) async fn version(db: &Db) -> Result<i64, ApiError> {
    let row = db.optional(Sql::new("SELECT version FROM settings_version WHERE id = 1")).await?;
    Ok(row.map_or(Ok(0), |r| r.at(0))?)
}

/// All values. The version is read first: a change in between makes the next look find another one.
pub(crate) async fn read(db: &Db, seal: Option<&dyn Seal>) -> Result<Values, ApiError> {
    let mut values = Values { version: version(db).await?, ..Values::default() };
    for row in db.all(Sql::new("SELECT name, scope, scope_id, value FROM settings")).await? {
        let (name, kind, id): (String, String, i64) = (row.at(0)?, row.at(1)?, row.at(2)?);
        // A newer replica may know more settings than this one.
        let (Some(setting), Some(scope)) = (find(&name), Scope::from_row(&kind, id)) else {
            continue;
        };
        let mut value: Option<String> = row.at(3)?;
        if setting.encrypted
            && let (Some(sealed), Some(seal)) = (&value, seal)
        {
            value = Some(seal.open(&context(setting, scope), sealed)?);
        }
        values.by_scope.entry(scope).or_default().insert(setting.name, value);
    }
    Ok(values)
}

/// Writes a change, and raises the version.
pub(crate) async fn write(
    tx: &mut Tx,
    setting: &Setting,
    scope: Scope,
    change: &Change,
    seal: Option<&dyn Seal>,
) -> Result<(), ApiError> {
    tx.exec("UPDATE settings_version SET version = version + 1 WHERE id = 1").await?;
    let value = match change {
        Change::Default => {
            let delete = Sql::new("DELETE FROM settings WHERE name = ? AND scope = ? AND scope_id = ?");
            tx.exec(delete.bind(setting.name).bind(scope.kind().as_str()).bind(scope.id())).await?;
            return Ok(());
        }
        Change::Clear => None,
        Change::Set(value) => match seal {
            Some(seal) if setting.encrypted => Some(seal.seal(&context(setting, scope), value)),
            _ => Some(value.clone()),
        },
    };
    let update = Sql::new("UPDATE settings SET value = ? WHERE name = ? AND scope = ? AND scope_id = ?")
        .bind(value.clone())
        .bind(setting.name)
        .bind(scope.kind().as_str())
        .bind(scope.id());
    if tx.exec(update).await? == 0 {
        let insert = Sql::new("INSERT INTO settings (name, scope, scope_id, value) VALUES (?, ?, ?, ?)")
            .bind(setting.name)
            .bind(scope.kind().as_str())
            .bind(scope.id())
            .bind(value);
        tx.exec(insert).await?;
    }
    Ok(())
}

/// Whether a global setting has a value. Until the transaction's end nobody else changes any.
pub(crate) async fn lock_and_look(tx: &mut Tx, name: &str) -> Result<bool, ApiError> {
    tx.exec("UPDATE settings_version SET version = version + 1 WHERE id = 1").await?;
    let sql = Sql::new("SELECT value FROM settings WHERE name = ? AND scope = ? AND scope_id = ?");
    let sql = sql.bind(name).bind(Scope::Global.kind().as_str()).bind(Scope::Global.id());
    let row = tx.optional(sql).await?;
    Ok(row.map_or(Ok(None), |r| r.at::<Option<String>>(0))?.is_some())
}

fn context(setting: &Setting, scope: Scope) -> String {
    format!("settings.value:{}/{}/{}", setting.name, scope.kind().as_str(), scope.id())
}
