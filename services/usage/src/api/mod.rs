//! gRPC handlers.

mod events;

pub(crate) use events::Events;
