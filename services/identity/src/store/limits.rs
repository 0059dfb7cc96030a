//! Limits, counts and reservations.

use super::source::{Source, within};
use std::collections::HashMap;
use store::{Db, Result, Sql, Tx, Value, now_micros};

/// Whose limit or count it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Of {
    /// An account.
    Account(i64),
    /// A domain.
    Domain(i64),
}

impl Of {
    fn kind(self) -> &'static str {
        match self {
            Of::Account(_) => "account",
            Of::Domain(_) => "domain",
        }
    }

    fn id(self) -> i64 {
        match self {
            Of::Account(id) | Of::Domain(id) => id,
        }
    }

    fn read(kind: &str, id: i64) -> Of {
        if kind == "domain" { Of::Domain(id) } else { Of::Account(id) }
    }

    fn slot(self, kind: i32) -> String {
        format!("{}/{}/{kind}", self.kind(), self.id())
    }
}

/// Owner and type of resource.
pub type Slot = (Of, i32);

/// What is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How much.
    pub used: i64,
    /// Rises when a domain above the account begins to be counted.
    pub epoch: i64,
}

/// The type of the row that says that a holder gave everything back.
const TOMBSTONE: i32 = -1;

/// Limits that were set for some owners (-1 is one, too), and what they use.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Limits that were set.
    pub limits: HashMap<Slot, i64>,
    /// Counts: of domains only where they are kept.
    pub counts: HashMap<Slot, Count>,
}

/// Limits and counts of these owners, in one query.
pub async fn figures(from: &mut Source<'_>, owners: &[Of]) -> Result<Figures> {
    let (mut accounts, mut domains) = (Vec::new(), Vec::new());
    for of in owners {
        match of {
            Of::Account(id) => accounts.push(*id),
            Of::Domain(id) => domains.push(*id),
        }
    }
    // One index range each instead of an OR, which the optimizer would answer with a scan.
    let mut sql = Sql::new("");
    for (kind, ids) in [("account", accounts), ("domain", domains)] {
        if ids.is_empty() {
            continue;
        }
        for (tag, table, columns) in [(0, "resource_limits", "max, 0"), (1, "resource_counts", "used, epoch")] {
            let more = if sql.text().is_empty() { "" } else { " UNION ALL " };
            sql = sql
                .push(&format!("{more}SELECT {tag}, owner_kind, owner_id, type, {columns} FROM {table} WHERE owner_kind = '{kind}' AND "))
                .in_list("owner_id", ids.iter().copied());
        }
    }
    let mut figures = Figures::default();
    if owners.is_empty() {
        return Ok(figures);
    }
    for r in from.all(sql).await? {
        let slot = (Of::read(&r.at::<String>(1)?, r.at(2)?), r.at(3)?);
        if r.at::<i64>(0)? == 0 {
            figures.limits.insert(slot, r.at(4)?);
        } else {
            figures.counts.insert(slot, Count { used: r.at(4)?, epoch: r.at(5)? });
        }
    }
    Ok(figures)
}

/// Sets a limit.
pub async fn set_limit(tx: &mut Tx, (of, kind): Slot, max: i64) -> Result<()> {
    let slot = of.slot(kind);
    let sql = Sql::new("UPDATE resource_limits SET max = ? WHERE slot = ?").bind(max).bind(&slot);
    if tx.exec(sql).await? > 0 {
        return Ok(());
    }
    let sql = Sql::new("INSERT INTO resource_limits (slot, owner_kind, owner_id, type, max) VALUES ").tuple([
        slot.into(),
        of.kind().into(),
        of.id().into(),
        kind.into(),
        max.into(),
    ]);
    tx.exec(sql).await.map(drop)
}

/// Begins to count for a new account.
pub async fn open_account(tx: &mut Tx, account: i64, kinds: impl IntoIterator<Item = i32>) -> Result<()> {
    let of = Of::Account(account);
    let mut sql = Sql::new("INSERT INTO resource_counts (slot, owner_kind, owner_id, type, used, epoch) VALUES ");
    for (n, kind) in kinds.into_iter().enumerate() {
        sql = sql.push(if n == 0 { "" } else { ", " }).tuple([
            of.slot(kind).into(),
            of.kind().into(),
            of.id().into(),
            kind.into(),
            0i64.into(),
            0i64.into(),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// Forgets limits, counts and reservations of an owner that is gone.
pub async fn forget(tx: &mut Tx, of: Of) -> Result<()> {
    for table in ["resource_limits", "resource_counts"] {
        let sql = Sql::new(&format!("DELETE FROM {table} WHERE owner_kind = ? AND owner_id = ?"));
        tx.exec(sql.bind(of.kind()).bind(of.id())).await?;
    }
    if let Of::Account(id) = of {
        let sql = Sql::new("DELETE FROM limit_reservations WHERE account_id = ? AND type >= 0").bind(id);
        tx.exec(sql).await?;
    }
    Ok(())
}

/// Begins to count for a domain, from what its accounts have now. Reservations that were decided before fail and decide anew.
pub async fn open_domain(tx: &mut Tx, domain: i64, path: &str, kind: i32) -> Result<()> {
    let accounts = within(
        Sql::new(
            "UPDATE resource_counts SET epoch = epoch + 1 WHERE owner_kind = 'account' AND type = ? \
         AND owner_id IN (SELECT id FROM accounts WHERE ",
        )
        .bind(kind),
        "domain_path",
        path,
    )
    .push(")");
    tx.exec(accounts).await?;
    let used = sum(tx, path, kind).await?;
    let of = Of::Domain(domain);
    let sql = Sql::new("INSERT INTO resource_counts (slot, owner_kind, owner_id, type, used, epoch) VALUES ").tuple([
        of.slot(kind).into(),
        of.kind().into(),
        of.id().into(),
        kind.into(),
        used.into(),
        0i64.into(),
    ]);
    tx.exec(sql).await.map(drop)
}

/// Stops to count for a domain.
pub async fn close_domain(tx: &mut Tx, domain: i64, kind: i32) -> Result<()> {
    tx.exec(Sql::new("DELETE FROM resource_counts WHERE slot = ?").bind(Of::Domain(domain).slot(kind))).await.map(drop)
}

/// Types for which a domain is counted.
pub async fn counted(tx: &mut Tx, domain: i64) -> Result<Vec<i32>> {
    let sql = Sql::new("SELECT type FROM resource_counts WHERE owner_kind = 'domain' AND owner_id = ? ORDER BY type");
    tx.all(sql.bind(domain)).await?.iter().map(|r| r.at(0)).collect()
}

/// Counts a domain again, from what its accounts have.
pub async fn recount_domain(tx: &mut Tx, domain: i64, path: &str, kind: i32) -> Result<()> {
    // The row first, so that no reservation comes between.
    let slot = Of::Domain(domain).slot(kind);
    let sql = Sql::new("UPDATE resource_counts SET epoch = epoch + 1 WHERE slot = ?").bind(&slot);
    if tx.exec(sql).await? > 0 {
        let used = sum(tx, path, kind).await?;
        tx.exec(Sql::new("UPDATE resource_counts SET used = ? WHERE slot = ?").bind(used).bind(slot)).await?;
    }
    Ok(())
}

/// Counts an account again, from its reservations.
pub async fn recount_account(tx: &mut Tx, account: i64, kind: i32) -> Result<()> {
    let slot = Of::Account(account).slot(kind);
    let sql = Sql::new("UPDATE resource_counts SET epoch = epoch + 1 WHERE slot = ?").bind(&slot);
    if tx.exec(sql).await? > 0 {
        let sql = Sql::new(
            "SELECT CAST(COALESCE(SUM(amount), 0) AS SIGNED) FROM limit_reservations WHERE account_id = ? AND type = ?",
        );
        let used: i64 = tx.one(sql.bind(account).bind(kind)).await?.at(0)?;
        tx.exec(Sql::new("UPDATE resource_counts SET used = ? WHERE slot = ?").bind(used).bind(slot)).await?;
    }
    Ok(())
}

async fn sum(tx: &mut Tx, path: &str, kind: i32) -> Result<i64> {
    let sql = Sql::new(
        "SELECT CAST(COALESCE(SUM(c.used), 0) AS SIGNED) FROM resource_counts c JOIN accounts a ON a.id = c.owner_id \
         WHERE c.owner_kind = 'account' AND c.type = ? AND ",
    )
    .bind(kind);
    tx.one(within(sql, "a.domain_path", path)).await?.at(0)
}

/// What the accounts of subtrees use: by the domain path of the accounts and type.
pub async fn sums(from: &mut Source<'_>, paths: &[&str]) -> Result<Vec<(String, i32, i64)>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new(
        "SELECT a.domain_path, c.type, CAST(SUM(c.used) AS SIGNED) FROM resource_counts c JOIN accounts a ON a.id = c.owner_id \
         WHERE c.owner_kind = 'account' AND c.used > 0 AND (",
    );
    for (n, path) in paths.iter().enumerate() {
        sql = within(sql.push(if n == 0 { "(" } else { " OR (" }), "a.domain_path", path).push(")");
    }
    from.all(sql.push(") GROUP BY a.domain_path, c.type"))
        .await?
        .iter()
        .map(|r| Ok((r.at(0)?, r.at(1)?, r.at(2)?)))
        .collect()
}

/// What a holder is counted with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// By type.
    pub amounts: HashMap<i32, i64>,
    /// Of which account.
    pub account: Option<i64>,
    /// Whether it gave everything back for good.
    pub ended: bool,
}

/// What a holder is counted with.
pub async fn held(db: &Db, holder: &str) -> Result<Held> {
    let sql = Sql::new("SELECT type, amount, account_id FROM limit_reservations WHERE holder = ?").bind(holder);
    let mut held = Held::default();
    for r in db.all(sql).await? {
        match r.at(0)? {
            TOMBSTONE => held.ended = true,
            kind => {
                held.amounts.insert(kind, r.at(1)?);
                held.account = Some(r.at(2)?);
            }
        }
    }
    Ok(held)
}

/// One amount of a holder, and whose count it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The holder.
    pub holder: String,
    /// Type of resource.
    pub kind: i32,
    /// How much.
    pub amount: i64,
    /// Account.
    pub account: i64,
}

/// All that some holders are counted with.
pub async fn shares(db: &Db, holders: &[String]) -> Result<Vec<Share>> {
    let sql = Sql::new("SELECT holder, type, amount, account_id FROM limit_reservations WHERE type >= 0 AND ")
        .in_list("holder", holders.iter().map(String::as_str))
        .push(" ORDER BY holder, type");
    let read = |r: &store::Row| Ok(Share { holder: r.at(0)?, kind: r.at(1)?, amount: r.at(2)?, account: r.at(3)? });
    db.all(sql).await?.iter().map(read).collect()
}

/// Lets each of these amounts be counted for another account, if all still are what was read: one statement.
pub async fn hand_over(tx: &mut Tx, shares: &[(&Share, i64)]) -> Result<bool> {
    let mut sql = Sql::new("UPDATE limit_reservations SET account_id = CASE");
    for (share, to) in shares {
        sql = sql.push(" WHEN holder = ? AND type = ? THEN ?").bind(&share.holder).bind(share.kind).bind(*to);
    }
    sql = sql.push(" ELSE account_id END WHERE ").in_list("holder", shares.iter().map(|(s, _)| s.holder.as_str()));
    for (n, (share, _)) in shares.iter().enumerate() {
        sql = sql
            .push(if n == 0 { " AND (" } else { " OR " })
            .push("(holder = ? AND type = ? AND amount = ? AND account_id = ?)");
        sql = sql.bind(&share.holder).bind(share.kind).bind(share.amount).bind(share.account);
    }
    let changed = tx.exec(sql.push(")")).await?;
    Ok(usize::try_from(changed).is_ok_and(|n| n == shares.len()))
}

/// Notes what a holder is counted with, and which replica is about to make it.
pub async fn hold(tx: &mut Tx, holder: &str, account: i64, amounts: &[(i32, i64)], reserver: &str) -> Result<()> {
    let mut sql =
        Sql::new("INSERT INTO limit_reservations (holder, type, account_id, amount, reserved_by, created) VALUES ");
    for (n, (kind, amount)) in amounts.iter().enumerate() {
        sql = sql.push(if n == 0 { "" } else { ", " }).tuple([
            Value::from(holder),
            Value::from(*kind),
            Value::from(account),
            Value::from(*amount),
            Value::from(reserver),
            Value::from(now_micros()),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// Notes another amount, if it still is what was read.
pub async fn hold_instead(tx: &mut Tx, holder: &str, kind: i32, old: i64, new: i64) -> Result<bool> {
    let sql = Sql::new("UPDATE limit_reservations SET amount = ? WHERE holder = ? AND type = ? AND amount = ?");
    Ok(tx.exec(sql.bind(new).bind(holder).bind(kind).bind(old)).await? > 0)
}

/// Forgets what a holder is counted with, if it still is what was read.
pub async fn let_go(tx: &mut Tx, holder: &str, amounts: &[(i32, i64)]) -> Result<bool> {
    let mut sql = Sql::new("DELETE FROM limit_reservations WHERE holder = ? AND (").bind(holder);
    for (n, (kind, amount)) in amounts.iter().enumerate() {
        let or = if n == 0 { "" } else { " OR " };
        sql = sql.push(&format!("{or}(type = ? AND amount = ?)")).bind(*kind).bind(*amount);
    }
    let gone = tx.exec(sql.push(")")).await?;
    Ok(usize::try_from(gone).is_ok_and(|n| n == amounts.len()))
}

/// Refuses later reservations of the holder.
pub async fn end(tx: &mut Tx, holder: &str, account: i64) -> Result<()> {
    hold(tx, holder, account, &[(TOMBSTONE, 0)], "").await
}

/// One counter and what is to happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub slot: Slot,
    /// What to add; below 0: to give back.
    pub add: i64,
    /// The limit, where it counts for this move.
    pub max: Option<i64>,
    /// The epoch on which the decision rests.
    pub epoch: i64,
}

/// Moves counters, all or none: one statement. Tells whether all were moved; if not, the transaction must be given up.
pub async fn apply(tx: &mut Tx, moves: &[Move]) -> Result<bool> {
    let slots: Vec<String> = moves.iter().map(|m| m.slot.0.slot(m.slot.1)).collect();
    let mut sql = Sql::new("UPDATE resource_counts SET used = CASE slot");
    for (m, slot) in moves.iter().zip(&slots) {
        sql = if m.add < 0 {
            // A count that was lost must not go below nothing.
            sql.push(" WHEN ? THEN CASE WHEN used < ? THEN 0 ELSE used - ? END").bind(slot).bind(-m.add).bind(-m.add)
        } else {
            sql.push(" WHEN ? THEN used + ?").bind(slot).bind(m.add)
        };
    }
    sql = sql.push(" ELSE used END WHERE ").in_list("slot", slots.iter()).push(" AND (");
    for (n, (m, slot)) in moves.iter().zip(&slots).enumerate() {
        sql = sql.push(if n == 0 { "(" } else { " OR (" }).push("slot = ? AND epoch = ?").bind(slot).bind(m.epoch);
        if let Some(max) = m.max.filter(|_| m.add > 0) {
            sql = sql.push(" AND used + ? <= ?").bind(m.add).bind(max);
        }
        sql = sql.push(")");
    }
    let moved = tx.exec(sql.push(")")).await?;
    Ok(usize::try_from(moved).is_ok_and(|n| n == moves.len()))
}

/// Holders whose reservation is older than `before`, some at a time, after a name.
pub async fn old_holders(db: &Db, before: i64, after: &str, account: Option<i64>, most: i64) -> Result<Vec<String>> {
    let sql = Sql::new("SELECT DISTINCT holder FROM limit_reservations WHERE type >= 0 AND created < ? AND holder > ?")
        .bind(before)
        .bind(after)
        .push_if(" AND account_id = ?", account)
        .push(" ORDER BY holder LIMIT ?")
        .bind(most);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// Holders that nobody has seen in their tables yet: of replicas other than `live` when they are older than `dead`, of
/// any when they are older than `fresh`. Some at a time, after a name.
pub async fn unseen_holders(
    db: &Db,
    live: &[String],
    dead: i64,
    fresh: i64,
    after: &str,
    most: i64,
) -> Result<Vec<String>> {
    let sql = Sql::new(
        "SELECT DISTINCT holder FROM limit_reservations WHERE reserved_by > '' AND type >= 0 AND holder > ? AND (created < ? \
         OR (created < ? AND NOT ",
    )
    .bind(after)
    .bind(fresh)
    .bind(dead)
    .in_list("reserved_by", live.iter().map(String::as_str))
    .push(")) ORDER BY holder LIMIT ?")
    .bind(most);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// These holders have been seen: from now on they are given back by whoever ends them.
pub async fn seen(tx: &mut Tx, holders: &[String]) -> Result<()> {
    let sql = Sql::new("UPDATE limit_reservations SET reserved_by = '' WHERE ");
    tx.exec(sql.in_list("holder", holders.iter().map(String::as_str))).await.map(drop)
}

/// Forgets that holders ended before `before`: their late requests are past by then.
pub async fn forget_ended(tx: &mut Tx, before: i64) -> Result<()> {
    let sql = Sql::new("DELETE FROM limit_reservations WHERE type = ? AND created < ?").bind(TOMBSTONE).bind(before);
    tx.exec(sql).await.map(drop)
}
