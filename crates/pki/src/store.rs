//! The authority's tables.

use crate::agents::{Agent, AgentKind};
use crate::authority::Issued;
use ::store::{Db, Result, Sql, Tx, now_micros};

/// The one root.
const ROOT: i64 = 1;

pub struct RootRow {
    pub certificate_pem: String,
    pub key_sealed: String,
}

pub async fn root(db: &Db) -> Result<Option<RootRow>> {
    let sql = Sql::new("SELECT certificate_pem, key_sealed FROM ca_certificates WHERE id = ?").bind(ROOT);
    let row = db.optional(sql).await?;
    row.map(|r| Ok(RootRow { certificate_pem: r.at(0)?, key_sealed: r.at(1)? })).transpose()
}

/// Fails with a unique violation when another replica was faster.
pub async fn insert_root(db: &Db, root: &RootRow, not_after: i64) -> Result<()> {
    ::store::tx!(db, "insert-root", |tx| {
        tx.exec(
            Sql::new("INSERT INTO ca_certificates (id, certificate_pem, key_sealed, not_after, created) VALUES (?, ?, ?, ?, ?)")
                .bind(ROOT)
                .bind(&root.certificate_pem)
                .bind(&root.key_sealed)
                .bind(not_after)
                .bind(now_micros()),
        )
        .await?;
        Ok::<_, ::store::Error>(())
    })
    .await
}

pub async fn record(tx: &mut Tx, issued: &Issued) -> Result<()> {
    record_as(tx, &issued.serial, &issued.subject.uri(), issued.not_after).await
}

/// `subject`: a URI name, or `named:` and a common name.
pub async fn record_as(tx: &mut Tx, serial: &str, subject: &str, not_after: i64) -> Result<()> {
    tx.exec(
        Sql::new("INSERT INTO issued_certificates (serial, subject, not_after, issued) VALUES (?, ?, ?, ?)")
            .bind(serial)
            .bind(subject)
            .bind(not_after)
            .bind(now_micros()),
    )
    .await
    .map(drop)
}

/// Serial and time of all that was revoked and hasn't expired.
pub async fn revoked(db: &Db) -> Result<Vec<(String, i64)>> {
    let sql = Sql::new("SELECT serial, revoked FROM issued_certificates WHERE revoked IS NOT NULL AND not_after > ?");
    db.all(sql.bind(now_micros())).await?.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

pub async fn revoke_serial(tx: &mut Tx, serial: &str, reason: &str) -> Result<u64> {
    tx.exec(
        Sql::new("UPDATE issued_certificates SET revoked = ?, reason = ? WHERE serial = ? AND revoked IS NULL")
            .bind(now_micros())
            .bind(reason)
            .bind(serial),
    )
    .await
}

pub async fn revoke_subject(tx: &mut Tx, subject: &str, reason: &str) -> Result<u64> {
    tx.exec(
        Sql::new("UPDATE issued_certificates SET revoked = ?, reason = ? WHERE subject = ? AND revoked IS NULL")
            .bind(now_micros())
            .bind(reason)
            .bind(subject),
    )
    .await
}

/// Drops expired certificates and tokens.
pub async fn purge(db: &Db) -> Result<()> {
    let now = now_micros();
    ::store::tx!(db, "purge-certificates", |tx| {
        tx.exec(Sql::new("DELETE FROM issued_certificates WHERE not_after < ?").bind(now)).await?;
        tx.exec(Sql::new("DELETE FROM enrolment_tokens WHERE expires < ?").bind(now)).await?;
        Ok::<_, ::store::Error>(())
    })
    .await
}

pub struct TokenRow<'a> {
    pub uuid: &'a str,
    pub hash: &'a str,
    pub kind: AgentKind,
    pub uses: Option<i64>,
    pub expires: i64,
    pub created_by: &'a str,
}

pub async fn insert_token(tx: &mut Tx, token: &TokenRow<'_>) -> Result<()> {
    tx.exec(
        Sql::new(
            "INSERT INTO enrolment_tokens (uuid, token_hash, kind, uses_left, expires, created, created_by) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(token.uuid)
        .bind(token.hash)
        .bind(token.kind.as_str())
        .bind(token.uses)
        .bind(token.expires)
        .bind(now_micros())
        .bind(token.created_by),
    )
    .await
    .map(drop)
}

pub async fn revoke_token(tx: &mut Tx, uuid: &str) -> Result<u64> {
    let sql = Sql::new("UPDATE enrolment_tokens SET revoked = ? WHERE uuid = ? AND revoked IS NULL");
    tx.exec(sql.bind(now_micros()).bind(uuid)).await
}

/// Uses a token once. The kind of agent that it lets in, unless it is unknown, expired, revoked or used up.
pub async fn use_token(tx: &mut Tx, hash: &str) -> Result<Option<AgentKind>> {
    let used = tx
        .exec(
            Sql::new(
                "UPDATE enrolment_tokens SET uses_left = uses_left - 1 \
                 WHERE token_hash = ? AND revoked IS NULL AND expires > ? AND (uses_left IS NULL OR uses_left > 0)",
            )
            .bind(hash)
            .bind(now_micros()),
        )
        .await?;
    if used == 0 { Ok(None) } else { token_kind(tx, hash).await }
}

async fn token_kind(tx: &mut Tx, hash: &str) -> Result<Option<AgentKind>> {
    let row = tx.optional(Sql::new("SELECT kind FROM enrolment_tokens WHERE token_hash = ?").bind(hash)).await?;
    row.map(|r| r.at::<String>(0)).transpose().map(|kind| kind.as_deref().and_then(AgentKind::parse))
}

const AGENT: &str = "SELECT uuid, kind, name, revoked FROM agents WHERE ";

fn agent(row: &::store::Row) -> Result<Agent> {
    let kind: String = row.at(1)?;
    Ok(Agent {
        uuid: row.at(0)?,
        kind: AgentKind::parse(&kind)
            .ok_or_else(|| ::store::Error::Column { column: "kind".into(), reason: format!("unknown kind {kind}") })?,
        name: row.at(2)?,
        revoked: row.at::<Option<i64>>(3)?.is_some(),
    })
}

pub async fn find_agent(db: &Db, uuid: &str) -> Result<Option<Agent>> {
    db.optional(Sql::new(AGENT).push("uuid = ?").bind(uuid)).await?.as_ref().map(agent).transpose()
}

pub async fn agent_by_key(tx: &mut Tx, enrolment_key: &str) -> Result<Option<Agent>> {
    tx.optional(Sql::new(AGENT).push("enrolment_key = ?").bind(enrolment_key)).await?.as_ref().map(agent).transpose()
}

pub async fn insert_agent(tx: &mut Tx, agent: &Agent, enrolment_key: &str) -> Result<()> {
    tx.exec(
        Sql::new("INSERT INTO agents (uuid, kind, name, enrolment_key, enrolled) VALUES (?, ?, ?, ?, ?)")
            .bind(&agent.uuid)
            .bind(agent.kind.as_str())
            .bind(&agent.name)
            .bind(enrolment_key)
            .bind(now_micros()),
    )
    .await
    .map(drop)
}

pub async fn revoke_agent(tx: &mut Tx, uuid: &str) -> Result<u64> {
    let sql = Sql::new("UPDATE agents SET revoked = ? WHERE uuid = ? AND revoked IS NULL");
    tx.exec(sql.bind(now_micros()).bind(uuid)).await
}
