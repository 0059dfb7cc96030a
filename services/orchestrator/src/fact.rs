//! Events of synchronous commands.

use ::store::Tx;
use contract::ApiError;
use contract::api::Caller;
use events::{EventRecord, EventState, Record};

/// Records that a command has done what it says, as part of `tx`.
///
/// `what` completes "Successfully completed …": "creating zone. Zone Name: x".
pub async fn completed(
    tx: &mut Tx,
    caller: &Caller,
    kind: &str,
    what: &str,
    about: (&str, &str),
) -> Result<(), ApiError> {
    let text = format!("Successfully completed {what}");
    let event = EventRecord::new(caller, kind, EventState::Completed, text).about(about.0, about.1);
    Ok(events::record(tx, &[Record::Event(event)]).await?)
}
