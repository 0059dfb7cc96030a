//! What is still to be deleted: bytes of volumes on pools, and images on secondary storage. A debt is written with the commit
//! that makes it true, is paid by a duty, and is named by a path that is used once.

use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// The first wait after a failure, and the longest, in seconds.
const WAITS: (i64, i64) = (10, 3600);

/// A kind of debts.
pub trait Debt: Sized {
    /// Its table.
    const TABLE: &'static str;
    /// The columns beside the path that say what is to be deleted.
    const COLUMNS: &'static [&'static str];

    /// The path.
    fn path(&self) -> &str;
    /// How often it was tried.
    fn tries(&self) -> i64;
    /// The values of [`Debt::COLUMNS`].
    fn values(&self) -> Vec<Value>;
    /// Reads path, tries, and the columns.
    ///
    /// # Errors
    /// Those of the database.
    fn read(row: &Row) -> Result<Self>;
}

/// Bytes of a volume that are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub volume_uuid: String,
    pub pool_id: i64,
    pub path: String,
    /// The VM whose root disk it was, and which is no more.
    pub ended_vm: Option<String>,
    pub tries: i64,
}

impl Debt for Deletion {
    const TABLE: &'static str = "pending_deletions";
    const COLUMNS: &'static [&'static str] = &["volume_uuid", "pool_id", "ended_vm"];

    fn path(&self) -> &str {
        &self.path
    }

    fn tries(&self) -> i64 {
        self.tries
    }

    fn values(&self) -> Vec<Value> {
        vec![Value::from(&self.volume_uuid), self.pool_id.into(), self.ended_vm.clone().into()]
    }

    fn read(r: &Row) -> Result<Deletion> {
        let (volume_uuid, pool_id, ended_vm) = (r.at(2)?, r.at(3)?, r.at(4)?);
        Ok(Deletion { path: r.at(0)?, tries: r.at(1)?, volume_uuid, pool_id, ended_vm })
    }
}

/// An image that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDeletion {
    pub path: String,
    pub store_id: i64,
    /// Whose hosts can delete it; none: any.
    pub hypervisor: Option<String>,
    pub tries: i64,
}

impl Debt for ImageDeletion {
    const TABLE: &'static str = "image_deletions";
    const COLUMNS: &'static [&'static str] = &["store_id", "hypervisor"];

    fn path(&self) -> &str {
        &self.path
    }

    fn tries(&self) -> i64 {
        self.tries
    }

    fn values(&self) -> Vec<Value> {
        vec![self.store_id.into(), self.hypervisor.clone().into()]
    }

    fn read(r: &Row) -> Result<ImageDeletion> {
        Ok(ImageDeletion { path: r.at(0)?, tries: r.at(1)?, store_id: r.at(2)?, hypervisor: r.at(3)? })
    }
}

/// Notes that something is to be deleted, not before `wait` µs have passed; once is enough.
pub async fn owe<D: Debt>(tx: &mut Tx, debt: &D, wait: i64) -> Result<()> {
    let now = now_micros();
    let columns = D::COLUMNS.join(", ");
    let text = format!("INSERT INTO {} (path, tries, not_before, created, {columns}) VALUES ", D::TABLE);
    let mut values = vec![Value::from(debt.path()), 0i64.into(), (now + wait).into(), now.into()];
    values.extend(debt.values());
    let sql = Sql::new(&text).tuple(values);
    match tx.exec(sql).await {
        Ok(_) | Err(store::Error::Unique { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Notes that an image is to be deleted.
pub async fn owe_image(tx: &mut Tx, store: i64, path: &str, hypervisor: Option<&str>, wait: i64) -> Result<()> {
    let hypervisor = hypervisor.map(str::to_owned);
    owe(tx, &ImageDeletion { path: path.to_owned(), store_id: store, hypervisor, tries: 0 }, wait).await
}

/// The debts that are due, oldest first.
pub async fn due<D: Debt>(db: &Db, limit: i64) -> Result<Vec<D>> {
    let columns = D::COLUMNS.join(", ");
    let text =
        format!("SELECT path, tries, {columns} FROM {} WHERE not_before <= ? ORDER BY not_before LIMIT ?", D::TABLE);
    db.all(Sql::new(&text).bind(now_micros()).bind(limit)).await?.iter().map(D::read).collect()
}

/// The µs until another debt is due; none: there is none.
pub async fn next<D: Debt>(db: &Db) -> Result<Option<i64>> {
    let now = now_micros();
    let text = format!("SELECT MIN(not_before) FROM {} WHERE not_before > ?", D::TABLE);
    let at: Option<i64> = db.one(Sql::new(&text).bind(now)).await?.at(0)?;
    Ok(at.map(|at| at - now))
}

/// Forgets a debt that was paid.
pub async fn done<D: Debt>(tx: &mut Tx, path: &str) -> Result<()> {
    tx.exec(Sql::new(&format!("DELETE FROM {} WHERE path = ?", D::TABLE)).bind(path)).await.map(drop)
}

/// Puts a debt off after a failure: each time twice as long, up to an hour.
pub async fn put_off<D: Debt>(tx: &mut Tx, debt: &D, error: &str) -> Result<()> {
    let error: String = error.chars().take(500).collect();
    let text = format!("UPDATE {} SET tries = tries + 1, not_before = ?, last_error = ? WHERE path = ?", D::TABLE);
    let sql = Sql::new(&text).bind(now_micros() + wait(debt.tries())).bind(error).bind(debt.path());
    tx.exec(sql).await.map(drop)
}

/// The wait after the failure that follows `tries` others, in µs.
fn wait(tries: i64) -> i64 {
    let (first, last) = WAITS;
    first.saturating_mul(1i64 << tries.clamp(0, 16)).min(last) * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        assert_eq!([wait(0), wait(1), wait(9), wait(i64::MAX)], [10_000_000, 20_000_000, 3_600_000_000, 3_600_000_000]);
    }
}
