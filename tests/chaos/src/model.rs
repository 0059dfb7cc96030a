//! Sequential models of what clients use, and the search for an order of a history that a model allows.

pub mod machine;
pub mod network;
pub mod order;
pub mod volume;
