//! What happened, told reliably.
//!
//! Facts (events, usage, changes) are rows of the outbox, written by [`record`] in the very transaction that makes them
//! true. One elected sequencer ([`run_sequencer`]) numbers them, and everybody follows that number:
//!
//! * a [`Consumer`] with a cursor in the database, moved in the consumer's own transaction: nothing is lost or doubled;
//! * a [`Feed`] with a cursor in memory, for indexes that are built anew at each start.
//!
//! An [`Alert`] is an event, too.
//!
//! Rows become visible in another order than their ids or times say; that is why only the number, given to rows that
//! have committed, may be followed.

mod alert;
mod consumer;
mod feed;
mod nudge;
mod record;
mod sequencer;
mod store;

pub use self::store::{forget, lags};
pub use alert::{ALERT_TYPES, Alert, alert_number};
pub use consumer::{Batch, Consumer, Handler};
pub use feed::{Feed, News};
pub use nudge::forward as forward_nudges;
pub use record::{EventRecord, EventState, Level, Numbered, Record, UsageRecord, record};
pub use sequencer::{DUTY, run_sequencer};

use ::store::Migration;

/// The outbox, migrated by whichever service starts first.
pub const MIGRATIONS: &[Migration] = &[
    Migration { owner: "events", file: "0001_outbox.sql", sql: include_str!("../migrations/0001_outbox.sql") },
    Migration {
        owner: "events",
        file: "0002_outbox_head.sql",
        sql: include_str!("../migrations/0002_outbox_head.sql"),
    },
];
