//! Typed, scoped settings.
//!
//! The [`registry`] knows every setting of CloudStack 4.11.1 that is stored, with type, default, range and scope. The
//! database holds only what differs from it. [`Settings`] keeps that in memory, and follows changes made by any replica:
//! by a nudge at once, by reading a version number in less than a second otherwise.

pub mod keys;
mod registry;
mod scope;
mod settings;
mod store;
mod validate;
mod value;

pub use keys::Key;
pub use registry::{Kind, ScopeKind, Setting, aliased, find};
pub use scope::Scope;
pub use settings::{Seal, Settings};
pub use value::SettingValue;

/// The tables of settings, migrated by whichever service starts first.
pub const MIGRATIONS: &[::store::Migration] = &[::store::Migration {
    owner: "config",
    file: "0001_settings.sql",
    sql: include_str!("../migrations/0001_settings.sql"),
}];
