//! The contract that Arcus declares, from the descriptors of all areas.

use contract::{CommandInfo, descriptor};
use prost_reflect::{DescriptorPool, MethodDescriptor};

/// A declared command.
#[derive(Debug)]
pub struct Declared {
    /// Its RPC.
    pub method: MethodDescriptor,
    /// What the contract says about it.
    pub info: &'static CommandInfo,
}

/// The descriptors of all areas.
///
/// # Errors
/// When they don't fit together.
pub fn pool() -> Result<DescriptorPool, String> {
    let areas: &[&[u8]] = &[
        contract_agent::DESCRIPTOR,
        contract_compute::DESCRIPTOR,
        contract_identity::DESCRIPTOR,
        contract_infra::DESCRIPTOR,
        contract_network::DESCRIPTOR,
        contract_storage::DESCRIPTOR,
        contract_usage::DESCRIPTOR,
    ];
    descriptor::pool(areas).map_err(|e| e.to_string())
}

/// All declared commands, by name.
///
/// # Errors
/// When the descriptors don't fit together.
pub fn commands() -> Result<Vec<Declared>, String> {
    let found = descriptor::commands(&pool()?).into_iter();
    // The tables of generated code are static; these live as long as the test.
    Ok(found.map(|(method, info)| Declared { method, info: Box::leak(Box::new(info)) }).collect())
}
