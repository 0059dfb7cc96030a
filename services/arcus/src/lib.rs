//! Wires the services into programs. No logic of the cloud lives here.

pub mod agent_check;
pub mod agent_process;
pub mod api_client;
pub mod audit_command;
pub mod console_command;
pub mod dev;
pub mod dev_machine;
pub mod kvm_settings;
pub mod limits;
pub mod machine_zone;
mod metrics_port;
pub mod open_files;
pub mod operator;
pub mod replica;
pub mod schema;
pub mod settings;
mod signals;
pub mod stack;
pub mod zone;
