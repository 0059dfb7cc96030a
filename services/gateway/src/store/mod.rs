//! The gateway's SQL.

pub mod answers;
pub mod consoles;
pub mod sessions;
