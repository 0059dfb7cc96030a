//! The hub's gRPC services.

mod host_commands;
mod host_consoles;
mod hub;

pub(crate) use host_commands::HostCommandsApi;
pub(crate) use host_consoles::HostConsolesApi;
pub(crate) use hub::HubApi;
