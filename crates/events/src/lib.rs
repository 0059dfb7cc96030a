//! What happened, told reliably.
//!
//! Facts (events, usage) are rows of the outbox, written by [`record`] in the very transaction that makes them true.
//! One elected sequencer numbers them; every consumer follows that number with its own cursor.

mod record;

pub use record::{EventRecord, EventState, Level, Record, UsageRecord, record};

use store::Migration;

/// The outbox, migrated by whichever service starts first.
pub const MIGRATIONS: &[Migration] =
    &[Migration { owner: "events", file: "0001_outbox.sql", sql: include_str!("../migrations/0001_outbox.sql") }];
