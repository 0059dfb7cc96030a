//! What services share about data: typed ids, states, the caller-scope filter, where entities live, and the reads that
//! cross services (names, paths, owners). Any service may read any table through this crate; only the owner writes.

pub mod entity;
pub mod ids;
pub mod names;
pub mod paging;
pub mod scope;
pub mod sealed;
pub mod state;
pub mod tags;

pub use contract::Page;
pub use entity::{Entity, EntitySource, Ownership};
pub use ids::*;
pub use paging::Paged;
pub use scope::{ListScope, Owner, ScopeRequest};

/// A new random UUID in the text form that the API shows.
pub fn new_uuid() -> String {
    match store::chance::simulated_bits() {
        Some(bits) => uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

/// A new UUID that is greater than the earlier ones of this process: inserts go to an index's end.
pub fn new_ordered_uuid() -> String {
    let Some(bits) = store::chance::simulated_bits() else { return uuid::Uuid::now_v7().to_string() };
    let [_, _, _, _, _, _, rest @ ..] = bits.to_be_bytes();
    let millis = u64::try_from(store::now_micros() / 1000).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid().to_string()
}
