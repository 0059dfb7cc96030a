//! The SQL of this service: its own tables, and the reads of others' that only it needs.

pub mod balancers;
pub mod ips;
pub mod members;
pub mod networks;
pub mod nics;
pub mod offerings;
pub mod physical;
pub mod power;
pub mod providers;
pub mod ranges;
pub mod rates;
pub mod routers;
pub mod rules;
pub mod snapshot;
pub mod stickiness;
pub mod traffic;
pub mod vms;
pub mod zones;

use store::{Db, Row, Sql};

/// Rows of a page and how many there are in all: one statement when the page proves the count, else two. `query` puts
/// what it is given before its own " FROM …".
pub(crate) async fn page<T>(
    db: &Db,
    page: &model::Page,
    columns: &str,
    query: impl Fn(&str) -> Sql,
    order: &str,
    read: impl Fn(&Row) -> store::Result<T>,
) -> store::Result<(Vec<T>, i64)> {
    use model::Paged as _;
    let rows = db.all(page.apply(query(&format!("SELECT {columns}")).push(order))).await?;
    let count = match page.proves_count(rows.len()) {
        Some(n) => n,
        None => db.one(query("SELECT COUNT(*)")).await?.at(0)?,
    };
    Ok((rows.iter().map(read).collect::<store::Result<_>>()?, count))
}
