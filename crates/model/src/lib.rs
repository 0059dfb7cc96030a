//! What services share about data: typed ids, states, the caller-scope filter, where entities live, and the reads that
//! cross services (names, paths, owners). Any service may read any table through this crate; only the owner writes.

pub mod entity;
pub mod ids;
pub mod names;
pub mod paging;
pub mod scope;
pub mod state;
pub mod tags;

pub use contract::Page;
pub use entity::{Entity, EntitySource, Ownership};
pub use ids::*;
pub use paging::Paged;
pub use scope::{ListScope, Owner, ScopeRequest};

/// A new random UUID in the text form that the API shows.
pub fn new_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
