//! The agent area of the contract: messages, gRPC clients and servers, and the request tables of `arcus.agent.v1`.
//!
//! Everything here but [`protocol`] and [`wanted`] is generated from `proto/arcus/agent/v1`.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, rustdoc::all)]

pub mod protocol;
pub mod wanted;

include!(concat!(env!("OUT_DIR"), "/arcus.agent.v1.rs"));
include!(concat!(env!("OUT_DIR"), "/contract.rs"));

/// The descriptors of this area's files (without imports), with source info.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
