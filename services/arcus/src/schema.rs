//! The tables of all crates and services: every replica carries them all, and the first to start makes what is missing.

use store::Migration;

/// All tables, in the order in which they are made.
pub fn migrations() -> Vec<Migration> {
    [
        coord::MIGRATIONS,
        config::MIGRATIONS,
        jobs::MIGRATIONS,
        events::MIGRATIONS,
        model::tags::MIGRATIONS,
        pki::MIGRATIONS,
        identity::MIGRATIONS,
        orchestrator::MIGRATIONS,
        network::MIGRATIONS,
        storage::MIGRATIONS,
        usage::MIGRATIONS,
        gateway::MIGRATIONS,
    ]
    .concat()
}
