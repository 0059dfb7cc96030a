//! SSH key pairs: their public halves.

use super::{Reader, lower, paged};
use ::store::{Db, Error, Result, Row, Sql, Tx, now_micros};
use model::{ListScope, Owner, Page};

/// A key pair.
#[derive(Clone, Debug)]
pub struct KeyPairRow {
    /// Name.
    pub name: String,
    /// MD5 of the key, in pairs of digits.
    pub fingerprint: String,
    /// Name of the account.
    pub account: String,
    /// UUID of the domain.
    pub domain_uuid: String,
    /// Name of the domain.
    pub domain: String,
}

const COLUMNS: &str = "k.name, k.fingerprint, a.name AS account, d.uuid AS domain_uuid, d.name AS domain";
const FROM: &str = " FROM ssh_keypairs k JOIN accounts a ON a.id = k.account_id JOIN domains d ON d.id = k.domain_id";

fn read(r: &Row) -> Result<KeyPairRow> {
    Ok(KeyPairRow { name: r.at(0)?, fingerprint: r.at(1)?, account: r.at(2)?, domain_uuid: r.at(3)?, domain: r.at(4)? })
}

/// What stood in the way of a new key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The account has one of this name.
    Name,
    /// The account has the very key.
    Key,
}

/// Writes a key pair, unless the account has its name or its key.
pub async fn insert(
    tx: &mut Tx,
    id: i64,
    owner: &Owner,
    name: &str,
    fingerprint: &str,
    public_key: &str,
) -> Result<Option<Taken>> {
    let sql = Sql::new(
        "INSERT INTO ssh_keypairs (id, uuid, name, name_lower, fingerprint, public_key, account_id, domain_id, domain_path, created) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(model::new_uuid())
    .bind(name)
    .bind(lower(name))
    .bind(fingerprint)
    .bind(public_key)
    .bind(owner.account_id)
    .bind(owner.domain_id)
    .bind(&owner.domain_path)
    .bind(now_micros());
    match tx.exec(sql).await {
        Ok(_) => Ok(None),
        Err(Error::Unique { key }) if key.contains("fingerprint") => Ok(Some(Taken::Key)),
        Err(Error::Unique { key }) if key.contains("name") => Ok(Some(Taken::Name)),
        Err(e) => Err(e),
    }
}

/// A key pair of an account.
pub async fn find(from: impl Reader, account: i64, name: &str) -> Result<Option<KeyPairRow>> {
    let sql =
        Sql::new(&format!("SELECT {COLUMNS}{FROM} WHERE k.account_id = ? AND k.name = ?")).bind(account).bind(name);
    from.rows(sql).await?.first().map(read).transpose()
}

/// Deletes a key pair; whether there was one.
pub async fn delete(tx: &mut Tx, account: i64, name: &str) -> Result<bool> {
    let sql = Sql::new("DELETE FROM ssh_keypairs WHERE account_id = ? AND name = ?").bind(account).bind(name);
    Ok(tx.exec(sql).await? == 1)
}

/// Key pairs whose account is gone.
pub async fn orphaned(db: &Db) -> Result<Vec<i64>> {
    let sql = "SELECT k.id FROM ssh_keypairs k JOIN accounts a ON a.id = k.account_id WHERE a.removed IS NOT NULL";
    db.all(Sql::new(sql)).await?.iter().map(|r| r.at(0)).collect()
}

/// Deletes a key pair by number.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM ssh_keypairs WHERE id = ?").bind(id)).await.map(drop)
}

/// A page of key pairs, and how many there are.
pub async fn list(
    db: &Db,
    scope: &ListScope,
    name: Option<&str>,
    fingerprint: Option<&str>,
    keyword: Option<&str>,
    page: Page,
) -> Result<(Vec<KeyPairRow>, i64)> {
    let body = |sql: Sql| {
        let sql = scope
            .and(sql.push(FROM).push(" WHERE k.removed IS NULL"), "k.")
            .push_if(" AND k.name = ?", name)
            .push_if(" AND k.fingerprint = ?", fingerprint);
        match keyword.map(str::to_lowercase) {
            Some(keyword) => sql
                .push(" AND (")
                .contains("k.name_lower", &keyword)
                .push(" OR ")
                .contains("k.fingerprint", &keyword)
                .push(")"),
            None => sql,
        }
    };
    let (rows, count) = paged(db, COLUMNS, body, "k.id", page).await?;
    Ok((rows.iter().map(read).collect::<Result<_>>()?, count))
}
