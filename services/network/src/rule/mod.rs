//! Rules on public addresses and on what guests send: firewall, port forwarding, static NAT, load balancing.
//!
//! A rule is Staged in the commit that accepts its job; the job makes it wanted (Add) together with the router's
//! generation, waits until the router has it, and makes it Active. One that can't be applied is taken back. What goes is
//! Revoke until the router has dropped it, then its row is deleted. A network without a router needs no waiting: its
//! first spec holds what is wanted.

mod check;
mod conflict;
mod kind;
mod leave;
mod place;

pub use check::{cidrs, open_firewall, ports, protocol, service};
pub use kind::{Purpose, RuleState, Traffic};
pub use leave::{drop_all, leave_ips, leave_vm, rule_usage, with_static_nat};
pub use place::{check_static, check_use, numbers, pin, place, serving};
