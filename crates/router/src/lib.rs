//! A router on a Linux host: compiled from a [`RouterSpec`](contract_agent::RouterSpec) and applied in a network namespace.
//!
//! * **Compiled** ([`compile`]): pure. A spec becomes checked values ([`plan::Plan`]), and those the texts of nftables, dnsmasq
//!   and haproxy. Everything that a spec says passes through `values`, so that no spec can write configuration of its own.
//! * **Applied** ([`Routers`]): each part whose digest changed, and nothing else. What is in force is read from the kernel
//!   (links, addresses, routes; the ruleset names its own digest), from haproxy (which tells its digest), from records of
//!   processes (pid, start time, boot), and else from the router's folder. So an apply may be repeated, and one that a kill
//!   interrupted is simply done again.
//! * **Sections fail alone**: one that can't be compiled, or that a tool refuses, stays as it was and is reported. Of rules
//!   that make no sense by themselves the report names each, and the others of their section go on.
//!
//! The drivers of the agent call [`Routers`] for routers, and [`Segments`] for the bridges that guests are plugged into.
//! Needs root, and nft, dnsmasq, haproxy, ip and nsenter. Daemons outlive the agent: under systemd its unit needs
//! `KillMode=process`.

mod blame;
mod compile;
mod digest;
mod dnsmasq;
mod guest_server;
mod haproxy;
mod host;
mod layout;
pub mod plan;
mod router;
mod ruleset;
mod section;
mod values;

pub use compile::{Compiled, compile, settle};
pub use dnsmasq::Dnsmasq;
pub use haproxy::Haproxy;
pub use host::devices::Device;
pub use host::namespace::Namespace;
pub use host::segments::{Bridge, Segment, Segments};
pub use host::{Host, HostError, Interruptions, Wiring};
pub use layout::Layout;
pub use router::{Routers, Usage};
pub use ruleset::{Ruleset, TABLE, USAGE_TABLE};
pub use section::Section;
pub use values::{BroadcastUri, Mac, Ports};
