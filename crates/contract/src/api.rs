//! Generated from `proto/arcus/api/v1`: options, and the messages that every area shares.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/arcus.api.v1.rs"));
include!(concat!(env!("OUT_DIR"), "/contract.rs"));

/// The descriptors of this area's files, with source info.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

impl Caller {
    /// The caller's role type; a caller without one has no rights.
    pub fn role(&self) -> RoleType {
        RoleType::try_from(self.role_type).unwrap_or(RoleType::Unspecified)
    }

    /// Whether the caller is a root administrator.
    pub fn is_root_admin(&self) -> bool {
        self.role() == RoleType::Admin
    }

    /// Whether the caller is an administrator of some domain tree.
    pub fn is_admin(&self) -> bool {
        matches!(self.role(), RoleType::Admin | RoleType::ResourceAdmin | RoleType::DomainAdmin)
    }
}
