//! Rows as answers show them: a constant number of queries however many rows.

mod account;
mod domain;
mod usage;
mod user;

pub use account::accounts;
pub use domain::{Details, domains, totals};
pub use user::user;
