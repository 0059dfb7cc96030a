//! A client of libvirt in plain Rust: it speaks the daemon's RPC protocol on its Unix socket, as `virsh` does.
//!
//! ```ignore
//! let connection = libvirt::Connection::open("/run/libvirt/libvirt-sock", Default::default()).await?;
//! let mut events = connection.events(&[EventKind::LIFECYCLE], None).await?;
//! let domain = connection.define(&xml, DefineFlags::VALIDATE).await?;
//! connection.start(&domain, CreateFlags::none()).await?;
//! while let Some(event) = events.next().await { … }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`wire`] | XDR: numbers, strings, lists, with limits |
//! | [`message`] | length, header, payload |
//! | [`connection`] | many calls at once on one socket, and its loss |
//! | [`domain`], [`devices`], [`stats`], [`migration`], [`guest`], [`host`] | the calls |
//! | [`events`], [`streams`] | what comes unasked; bytes beside a call |
//! | [`errors`] | typed errors |
//!
//! # Sources
//! - "libvirt RPC infrastructure" (libvirt.org/kbase/internals/rpc.html): messages, serial numbers, streams.
//! - The interface files `virnetprotocol.x`, `remote_protocol.x`, `qemu_protocol.x` (numbers of procedures, order and type of fields, limits),
//!   read as facts; numbers compared with those of go-libvirt (Apache-2.0), which are generated from them. No code was taken from either.
//! - Flags, states and error numbers: the reference of `libvirt-domain` and `virterror` on libvirt.org.
//! - RFC 4506: XDR.
//!
//! libvirt calls the protocol private, yet promises that a daemon serves clients of all older versions: procedures and structures are never changed,
//! only appended. What this crate uses has been there since libvirt 4.4 (2018), nearly all of it since 1.3.
//!
//! # Why XDR is our own
//! It is 300 lines here, and none of the crates fits: `serde-xdr` 0.6 is GPL-3.0 and `libvirt-rpc` 0.1 LGPL-2.1; `xdr-codec` 0.4 is the runtime of
//! `xdrgen`, and `fastxdr` 1.0 decodes only, both with code generated from `.x` files, of which libvirt's are LGPL; `onc-rpc` 0.3 knows the
//! envelope of Sun RPC, which libvirt doesn't use.

#[macro_use]
mod codes;

pub mod connection;
pub mod devices;
pub mod domain;
pub mod errors;
pub mod events;
pub mod flags;
pub mod guest;
pub mod host;
pub mod keepalive;
pub mod message;
pub mod migration;
pub mod params;
mod procedure;
pub mod stats;
pub mod streams;
pub mod wire;

pub use connection::{Connection, Options};
pub use domain::{DomainRef, DomainState, State};
pub use errors::{Error, ErrorCode, Result};
pub use events::{Event, EventKind, EventStream};
pub use flags::*;
pub use keepalive::Keepalive;
pub use message::Lost;
pub use params::{Params, Value};
pub use streams::ByteStream;
