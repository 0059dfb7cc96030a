//! The gateway's SQL.

pub mod answers;
pub mod sessions;
