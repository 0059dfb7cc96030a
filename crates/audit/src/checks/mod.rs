//! What must hold, by the part of the system whose tables it is about. What unique keys of the database enforce isn't
//! here: it can't be broken.

mod address;
mod affinity;
mod balance;
mod facts;
mod host;
mod identity;
mod image;
mod jobs;
mod limits;
mod network;
mod place;
mod rule;
mod snapshot;
mod vm;
mod volume;

pub use host::{HOST_CHECKS, HostCheck};

pub(crate) use host::Kind;

use crate::check::{Check, Over, Settle, Severity};
use std::sync::LazyLock;

/// All checks over the database.
pub static CHECKS: LazyLock<Vec<Check>> = LazyLock::new(|| {
    [
        jobs::CHECKS,
        facts::CHECKS,
        identity::CHECKS,
        limits::CHECKS,
        place::CHECKS,
        affinity::CHECKS,
        vm::CHECKS,
        network::CHECKS,
        address::CHECKS,
        rule::CHECKS,
        balance::CHECKS,
        volume::CHECKS,
        image::CHECKS,
        snapshot::CHECKS,
    ]
    .concat()
});

/// Goes through a table by its number.
const fn ids(table: &'static str) -> Option<Over> {
    Some(Over { table, key: "id", text: false })
}

/// Goes through a table by another column of numbers.
const fn numbers(table: &'static str, key: &'static str) -> Option<Over> {
    Some(Over { table, key, text: false })
}

/// Goes through a table by a column of texts.
const fn texts(table: &'static str, key: &'static str) -> Option<Over> {
    Some(Over { table, key, text: true })
}

const fn check(
    name: &'static str,
    severity: Severity,
    settle: Settle,
    over: Option<Over>,
    means: &'static str,
    repair: &'static str,
    sql: &'static str,
) -> Check {
    Check { name, severity, settle, over, means, repair, sql }
}
