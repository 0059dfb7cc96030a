//! The SQL of this service.

pub mod copies;
pub mod deletions;
pub mod images;
pub mod infra;
pub mod mounts;
pub mod offerings;
pub mod policies;
pub mod pools;
pub mod seeded;
pub mod shares;
pub mod snapshots;
pub mod template_copies;
pub mod template_writes;
pub mod templates;
pub mod vms;
pub mod volumes;

use contract::{ApiError, Page};
use model::Paged;
use store::{Db, Row, Sql};

/// A page of rows and the number of all matches. `body` appends everything after the columns (FROM, WHERE); it is used
/// again for the count when the page doesn't prove it.
pub(crate) async fn page(
    db: &Db,
    columns: &str,
    body: impl Fn(Sql) -> Sql,
    order: &str,
    page: Page,
) -> Result<(Vec<Row>, i64), ApiError> {
    let select = body(Sql::new(&format!("SELECT {columns}"))).push(" ORDER BY ").push(order);
    let rows = db.all(page.apply(select)).await?;
    let count = match page.proves_count(rows.len()) {
        Some(count) => count,
        None => db.one(body(Sql::new("SELECT COUNT(*)"))).await?.at(0)?,
    };
    Ok((rows, count))
}
