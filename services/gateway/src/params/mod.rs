//! From HTTP parameters to a request message: names, types and static checks as the contract says.

pub mod dates;
mod encode;
mod names;
#[cfg(test)]
mod tests;
mod values;

use contract::{ApiError, RoleType};

use crate::catalogue::Entry;
use crate::query::Query;
use names::Given;

use values::Arguments;

/// Parameters that belong to the request itself, in any case: no command declares them.
const CONTROL: &[&str] = &[
    "command",
    "response",
    "apikey",
    "signature",
    "signatureversion",
    "expires",
    "sessionkey",
    "idempotencykey",
    // Cache busters of browsers.
    "_",
];

/// A request that has been read.
pub struct Read {
    /// The encoded request message.
    pub message: Vec<u8>,
    /// Names that the command doesn't have.
    pub unknown: Vec<String>,
}

/// Reads the parameters of a command for a caller of this role type, and makes all static checks.
///
/// # Errors
/// 430 for malformed map names, 431 for values, 531 for what the integration port refuses.
pub fn read(entry: &Entry, query: &Query, role: RoleType, integration: bool) -> Result<Read, ApiError> {
    printable(entry, query)?;
    let given = Given::of(query)?;
    let info = &entry.info;
    if integration {
        let refused = info.params.iter().find(|p| p.not_on_integration_port && given.has(&p.name));
        if let Some(param) = refused {
            return Err(ApiError::permission(format!(
                "Parameter {} can't be passed through the API integration port",
                param.name
            )));
        }
    }
    let arguments = Arguments::read(&info.name, &info.params, &entry.request, &given, role)?;
    contract::check(&info.name, &info.params, &arguments, role)?;
    let mut message = Vec::with_capacity(128);
    encode::message(&mut message, &entry.request, &arguments);
    Ok(Read { message, unknown: given.unknown(&entry.request) })
}

/// Refuses ASCII control characters other than line breaks.
fn printable(entry: &Entry, query: &Query) -> Result<(), ApiError> {
    for (name, value) in query.pairs() {
        let bad = value.bytes().any(|b| (b < 0x20 || b == 0x7f) && b != b'\n' && b != b'\r');
        if bad && name != "command" {
            let secret = entry.info.param(&name.to_lowercase()).is_some_and(|p| p.sensitive);
            let value = if secret { "" } else { value };
            return Err(ApiError::request(format!(
                "Received value {value} for parameter {name} is invalid, contains illegal ASCII non-printable characters"
            )));
        }
    }
    Ok(())
}

/// Whether a parameter belongs to the request itself.
pub fn is_control(lower_name: &str) -> bool {
    CONTROL.contains(&lower_name)
}
