//! Keeps events for people.

use crate::store;
use ::store::Tx;
use contract::ApiError;
use events::{EventRecord, Handler, Numbered, Record};

/// Writes event records into the table that `listEvents` reads.
pub(crate) struct Archive;

impl Handler for Archive {
    async fn handle(&self, tx: &mut Tx, rows: &[Numbered]) -> Result<(), ApiError> {
        let events: Vec<(i64, &EventRecord)> = rows
            .iter()
            .filter_map(|row| match &row.record {
                Record::Event(event) => Some((row.seq, event)),
                _ => None,
            })
            .collect();
        store::events::insert(tx, &events).await
    }
}
