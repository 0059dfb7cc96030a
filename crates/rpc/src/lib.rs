//! How services talk to each other.
//!
//! * [`local`]: the in-process network of `arcus dev`: the same gRPC over in-memory pipes.
//! * [`channel`]: the way to a service, whichever of its replicas lives.
//! * [`peer`]: who is at the other end of a connection; only authenticated peers may assert a caller.
//! * [`cx`]: what a handler knows about its request: the caller and the entities that the request names, found and allowed.
//! * [`whole`]: requests that end though their caller has gone.

pub mod channel;
pub mod cx;
pub mod local;
pub mod peer;
pub mod peers;
pub mod whole;

pub use channel::{Dial, LEAVING, PeerChannel, Repeatable, Streamed};
pub use cx::{Cx, Refs, Rpc};
pub use local::{LocalIncoming, LocalNet};
pub use peer::Peer;
pub use peers::Peers;
pub use whole::WholeLayer;

/// Metadata key of the encoded [`contract::api::Caller`].
pub const CALLER: &str = "arcus-caller-bin";
