//! Whether Arcus is what CloudStack 4.11 clients expect.
//!
//! * [`form`]: compares answers with recorded ones.
//! * [`reference`]: the API of 4.11 as data, and recorded answers.
//! * [`declared`]: the contract that Arcus declares.
//! * [`cases`]: bad requests, made from the contract, and what they must be answered.
//!
//! The suites: `tests/complete` compares the two; `services/arcus/tests/system/{bad_input,golden}.rs` ask a running system.

pub mod cases;
pub mod declared;
pub mod form;
pub mod reference;
