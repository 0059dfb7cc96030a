//! Load balancing of the virtual router: rules on public addresses (among the rules of `crate::rule`, purpose
//! LoadBalancing), the VMs behind them, and stickiness.
//!
//! A rule is Add while nobody is behind it: routers are told of it with its first member, and its port is closed until
//! then. Members have an interface in the rule's network; they go with it, in the same commit.

mod rule;
mod stickiness;

pub use rule::{Algorithm, port, protocol};
pub use stickiness::check as check_stickiness;

use crate::rule::{Purpose, RuleState};
use crate::store::routers::{self, Section};
use crate::store::rules::Rule;
use crate::store::{balancers, members};
use contract::ApiError;
use events::{Record, UsageRecord};
use store::{Tx, now_micros};

/// The accounting fact of a rule.
pub fn usage(kind: &str, rule: &Rule, zone: i64) -> Record {
    Record::Usage(UsageRecord {
        kind: kind.to_owned(),
        owner: rule.owner.clone(),
        zone_id: zone,
        resource_id: rule.id,
        resource_uuid: rule.uuid.clone(),
        resource_name: String::new(),
        offering_id: None,
        template_id: None,
        size: None,
        resource_type: Some(Purpose::LoadBalancing.as_str().to_owned()),
        created: now_micros(),
    })
}

/// Rules that have just been deleted with their address or network: what they were beyond their rows goes, and accounting
/// is told.
///
/// # Errors
/// Those of the database.
pub async fn dropped(tx: &mut Tx, gone: &[Rule], zone: i64) -> Result<(), ApiError> {
    let ours: Vec<&Rule> = gone.iter().filter(|r| r.purpose == Purpose::LoadBalancing).collect();
    balancers::sweep(tx, &ours.iter().map(|r| r.id).collect::<Vec<_>>()).await?;
    // One whose job hasn't begun was never told of.
    let told = ours.iter().filter(|r| r.state != RuleState::Staged);
    let records: Vec<Record> = told.map(|r| usage("LB.DELETE", r, zone)).collect();
    events::record(tx, &records).await?;
    Ok(())
}

/// A VM goes for good, its interfaces are marked removed by now: it leaves all rules. Nobody waits for the routers.
///
/// # Errors
/// Those of the database.
pub async fn leave_vm(tx: &mut Tx, vm: i64) -> Result<(), ApiError> {
    for network in members::remove_of_vm(tx, vm).await? {
        routers::raise_for(tx, network, &[Section::Balancers]).await?;
    }
    Ok(())
}
