//! Wires the services into programs. No logic of the cloud lives here.

pub mod api_client;
pub mod audit;
pub mod dev;
pub mod stack;
pub mod zone;
