//! Where a virtual machine goes. An in-memory [`Index`] of hosts proposes, a conditional update in the database
//! ([`reserve`]) decides; on conflict the next candidate is tried. Cost per placement is logarithmic in hosts.

mod fit_tree;
mod follow;
mod index;
#[cfg(test)]
mod model;
mod reserve;
mod rules;
mod shortage;

pub use follow::follow;
pub use index::{Algorithm, Candidate, Index, Wanted, refusal};
pub use reserve::{Amount, Terms, free, reserve};
pub use rules::Rules;
pub use shortage::{Rejection, Shortage};
