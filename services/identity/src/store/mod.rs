//! The SQL of identity: its tables, and what it reads of others'.

pub mod accounts;
pub mod domains;
pub mod holdings;
pub mod limits;
pub mod roles;
pub mod source;
pub mod users;

pub use source::Source;
