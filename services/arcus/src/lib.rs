//! Wires the services into programs. No logic of the cloud lives here.

pub mod agent_process;
pub mod api_client;
pub mod audit_command;
pub mod dev;
pub mod limits;
mod metrics_port;
pub mod operator;
pub mod replica;
pub mod schema;
pub mod settings;
mod signals;
pub mod stack;
pub mod zone;
