//! The SQL of the usage service.

pub(crate) mod database_nodes;
pub(crate) mod events;
pub(crate) mod usage_events;
