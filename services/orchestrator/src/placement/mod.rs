//! Where a virtual machine goes. An in-memory [`Index`] of hosts proposes, a conditional update in the database
//! ([`reserve`]) decides; on conflict the next candidate is tried. Cost per placement is logarithmic in hosts. The planners and
//! allocators of 4.11 are [`Strategy`]s over the index: orders of clusters, of hosts in a cluster, and hosts that are tried before others.

mod clusters;
mod fit_tree;
mod follow;
mod index;
#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod order_model;
mod planner;
mod reserve;
mod rules;
mod search;
mod shortage;
mod strategy;

pub use follow::follow;
pub use index::{Candidate, Index, Surveyed, Wanted, refusal};
pub use planner::{Mode, Planner};
pub use reserve::{Amount, Keep, Terms, free, reserve};
pub use rules::Rules;
pub use shortage::{Rejection, Shortage};
pub use strategy::{Algorithm, Limits, Mine, Private, Resource, Strategy};
