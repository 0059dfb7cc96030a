//! Events of commands that are done at once.

use contract::Caller;
use events::{EventRecord, EventState, Record};
use model::Owner;
use store::{Result, Tx};

/// Notes that something was done to an entity, as part of the transaction that does it.
pub async fn completed(
    tx: &mut Tx,
    caller: &Caller,
    event: &str,
    text: String,
    owner: &Owner,
    (kind, uuid): (&str, &str),
) -> Result<()> {
    let record = EventRecord::new(caller, event, EventState::Completed, text).owned_by(owner).about(kind, uuid);
    events::record(tx, &[Record::Event(record)]).await
}
