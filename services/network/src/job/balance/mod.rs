//! Load balancing: rules, who is behind them, stickiness.
//!
//! A job writes the wanted state with the network's router's generation, waits until the router has it, and ends; what
//! the router can't apply is taken back. All jobs on a rule claim it, so that they come one after the other.

mod members;
mod rules;
mod stickiness;

pub use members::{Assign, Unassign};
pub use rules::{Change, CreateBalancer, DeleteBalancer, UpdateBalancer};
pub use stickiness::{CreatePolicy, DeletePolicy, UpdatePolicy};

use super::wake_after;
use crate::store::routers::{self, Section};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use std::sync::Arc;
use store::Tx;

/// What changes of members and policies need of the router.
const BALANCE: &[&str] = &["load_balancers"];
/// What a rule needs: its firewall rule lets clients in.
const BALANCE_AND_FIREWALL: &[&str] = &["load_balancers", "firewall"];

/// What the router is told anew by changes of members and policies.
const TOLD: &[Section] = &[Section::Balancers];
/// What it is told by a rule's coming and going.
const RULE_TOLD: &[Section] = &[Section::Balancers, Section::Firewall];

fn gone() -> ApiError {
    ApiError::param("the load balancing rule has been removed meanwhile".to_owned())
}

fn success() -> Success {
    Success { success: true, display_text: None }
}

/// What is wanted of a network's router has changed back: it follows after the commit, and nobody waits.
async fn back(tx: &mut Tx, world: &Arc<World>, network: i64, sections: &[Section]) -> Result<(), ApiError> {
    routers::raise_for(tx, network, sections).await?;
    wake_after(tx, world, network);
    Ok(())
}
