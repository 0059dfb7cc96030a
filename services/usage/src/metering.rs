//! Keeps the facts that accounting is made of.

use crate::store;
use ::store::Tx;
use contract::ApiError;
use events::{Handler, Numbered, Record, UsageRecord};

/// Writes usage records into their table.
pub(crate) struct Metering;

impl Handler for Metering {
    async fn handle(&self, tx: &mut Tx, rows: &[Numbered]) -> Result<(), ApiError> {
        let facts: Vec<(i64, &UsageRecord)> = rows
            .iter()
            .filter_map(|row| match &row.record {
                Record::Usage(usage) => Some((row.seq, usage)),
                _ => None,
            })
            .collect();
        store::usage_events::insert(tx, &facts).await
    }
}
