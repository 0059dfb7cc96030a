//! The hub's gRPC services.

mod host_commands;
mod hub;

pub(crate) use host_commands::HostCommandsApi;
pub(crate) use hub::HubApi;
