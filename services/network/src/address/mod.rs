//! Addresses: subnets and ranges, which address is free, MACs, VLAN numbers. Pure: no database, no gRPC.

mod mac;
mod pool;
mod subnet;
mod vlan;

pub use mac::{Mac, mac_of};
pub use pool::{Pool, Taken};
pub use subnet::{Range, Subnet, ip, is_private, number, parse_cidr, parse_ip};
pub use vlan::{VlanRanges, tag_of, uri_of};
