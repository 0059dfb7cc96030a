//! Telling the other services what they must no longer keep in their caches.

use coord::Coord;
use store::Tx;

/// The topic that authority.proto names.
const TOPIC: &str = "identity";

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A user: name, keys, state.
    User(i64),
    /// An account: name, state.
    Account(i64),
    /// A domain: state.
    Domain(i64),
    /// A role or its rules.
    Role(i64),
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Changed::User(id) => write!(f, "user/{id}"),
            Changed::Account(id) => write!(f, "account/{id}"),
            Changed::Domain(id) => write!(f, "domain/{id}"),
            Changed::Role(id) => write!(f, "role/{id}"),
        }
    }
}

/// Publishes the change once `tx` has been committed.
pub fn after(tx: &mut Tx, coord: &Coord, changed: Changed) {
    let coord = coord.clone();
    tx.after_commit(move || coord.publish(TOPIC, &changed.to_string()));
}
