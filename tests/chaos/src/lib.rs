//! The kill loop: random faults under a running mix of client operations, and a checker of everything that was said.
//!
//! Way of a run: [`system`] starts what is to be hurt → [`workload`]'s clients send requests through [`client`] and write
//! each of them into the [`history`] → [`faults`] hits processes meanwhile → when all is mended and quiet, [`aftermath`]
//! reads what is there → [`check`] compares the history with it. The checker is a pure function of the two: a history of
//! another day can be checked again (`arcus-chaos check HISTORY AFTERMATH`).

pub mod aftermath;
pub mod check;
pub mod client;
pub mod faults;
pub mod history;
pub mod hosts;
pub mod model;
pub mod run;
pub mod system;
pub mod workload;
