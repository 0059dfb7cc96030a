//! Guest networks: making, implementing, changing, shutting down; and what interfaces need to know of them.

pub mod access;
pub mod change;
pub mod create;
pub mod gc;
pub mod implement;
pub mod pools;
pub mod ranges;
pub mod shutdown;
pub mod system;
pub mod view;

pub use pools::{Pools, Proposal};
pub use view::{View, Views};
