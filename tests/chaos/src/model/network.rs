//! A network and the VMs in it: it can be deleted when it is empty, and only then.

use super::machine::End;
use super::order::Model;
use std::collections::BTreeSet;

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Network {
    /// Whether it was made.
    pub made: bool,
    /// Whether it was deleted.
    pub gone: bool,
    /// VMs in it.
    pub guests: BTreeSet<String>,
}

impl Network {
    fn lives(&self) -> bool {
        self.made && !self.gone
    }
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// It is made.
    Create(End),
    /// It is deleted.
    Delete(End),
    /// A VM is deployed into it.
    Enter(String, End),
    /// A VM in it is expunged.
    Leave(String, End),
    /// Whether it was seen.
    See(bool),
}

/// The model.
#[derive(Debug)]
pub struct Networks;

impl Model for Networks {
    type State = Network;
    type Op = Op;

    fn apply(network: &Network, op: &Op) -> Vec<Network> {
        let same = || network.clone();
        let when = |possible: bool| if possible { vec![network.clone()] } else { Vec::new() };
        let maybe = |possible: bool, end: End, after: Network| match (end, possible) {
            (End::Ok, true) => vec![after],
            (End::Ok, false) | (End::Refused, true) => Vec::new(),
            (End::Unknown, true) => vec![after, same()],
            (End::Refused | End::Failed | End::Unknown, _) => vec![same()],
        };
        match op {
            Op::Create(end) => {
                let after = Network { made: true, ..same() };
                // Nothing that the model knows of refuses a new network.
                maybe(!network.made, if *end == End::Refused { End::Failed } else { *end }, after)
            }
            Op::Delete(end) => {
                maybe(network.lives() && network.guests.is_empty(), *end, Network { gone: true, ..same() })
            }
            Op::Enter(vm, end) => {
                let mut after = same();
                after.guests.insert(vm.clone());
                maybe(network.lives(), *end, after)
            }
            Op::Leave(vm, end) => {
                let mut after = same();
                after.guests.remove(vm);
                match end {
                    End::Ok => vec![after],
                    End::Refused => vec![same()],
                    End::Failed | End::Unknown => vec![same(), after],
                }
            }
            Op::See(seen) => when(*seen == network.lives()),
        }
    }
}
