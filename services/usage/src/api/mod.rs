//! gRPC handlers.

mod alerts;
mod events;

pub(crate) use alerts::Alerts;
pub(crate) use events::Events;
