//! The gateway's SQL.

pub mod sessions;
