//! One VM with its tags.

use super::order::Model;
use std::collections::BTreeMap;

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Done.
    Ok,
    /// Refused because of what things were.
    Refused,
    /// It couldn't be done, whatever things were.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// What a VM is, when no operation is under way on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// It was never there.
    #[default]
    Absent,
    /// It runs.
    Running,
    /// It is off.
    Stopped,
    /// Its creation failed.
    Error,
    /// It was destroyed and can be recovered.
    Destroyed,
    /// It is expunged.
    Gone,
}

impl State {
    /// Whether somebody might see it: users don't see what is destroyed or failed, administrators do.
    fn shown(self) -> bool {
        matches!(self, State::Running | State::Stopped)
    }

    fn exists(self) -> bool {
        !matches!(self, State::Absent | State::Gone)
    }
}

/// A VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    /// What it is.
    pub state: State,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A change of what a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is created.
    Deploy,
    /// It is stopped.
    Stop,
    /// It is started.
    Start,
    /// It is rebooted.
    Reboot,
    /// It is destroyed.
    Destroy,
    /// It is destroyed and expunged.
    Expunge,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// It is changed.
    Change(Change, End),
    /// A tag's value is set; none: it is removed.
    Tag(String, Option<String>, End),
    /// It was seen; none: it wasn't there.
    See(Option<State>),
    /// Its tags were seen.
    SeeTags(BTreeMap<String, String>),
}

/// The model.
#[derive(Debug)]
pub struct Machines;

impl Model for Machines {
    type State = Machine;
    type Op = Op;

    fn apply(machine: &Machine, op: &Op) -> Vec<Machine> {
        let keep = |possible: bool| if possible { vec![machine.clone()] } else { Vec::new() };
        match op {
            Op::Change(change, end) => {
                after(machine.state, *change, *end).into_iter().map(|state| with(machine, state)).collect()
            }
            Op::Tag(key, value, end) => tagged(machine, key, value.as_deref(), *end),
            Op::See(None) => keep(!machine.state.shown()),
            Op::See(Some(seen)) => keep(machine.state == *seen && seen.exists()),
            // Whoever can't see a VM can't see its tags.
            Op::SeeTags(seen) => keep(!machine.state.shown() || machine.tags == *seen),
        }
    }
}

fn with(machine: &Machine, state: State) -> Machine {
    let tags = if state == State::Gone { BTreeMap::new() } else { machine.tags.clone() };
    Machine { state, tags }
}

/// What a VM is after a change that was possible.
fn changed(is: State, change: Change) -> Option<State> {
    match (change, is) {
        (Change::Deploy, State::Absent) => Some(State::Running),
        (Change::Stop, State::Running | State::Stopped) => Some(State::Stopped),
        (Change::Start, State::Stopped) | (Change::Reboot, State::Running) => Some(State::Running),
        // One that failed stays what it is until it is expunged.
        (Change::Destroy, State::Error) => Some(is),
        (Change::Destroy, _) if is.exists() => Some(State::Destroyed),
        (Change::Expunge, _) if is.exists() => Some(State::Gone),
        _ => None,
    }
}

/// What a VM may be after a change that failed.
fn failed(is: State, change: Change) -> Vec<State> {
    match (change, is) {
        (Change::Deploy, State::Absent) => vec![is, State::Error],
        // What its host says it is: a stop may have come through although its answer didn't.
        (Change::Stop | Change::Destroy, State::Running) => vec![is, State::Stopped],
        // Beyond the point of no return there is only one way: a VM whose expunging fails is destroyed, and expunged later.
        (Change::Expunge, State::Running) => vec![is, State::Stopped, State::Destroyed, State::Gone],
        (Change::Expunge, _) if is.exists() => vec![is, State::Destroyed, State::Gone],
        _ => vec![is],
    }
}

fn after(is: State, change: Change, end: End) -> Vec<State> {
    let possible = changed(is, change);
    match end {
        End::Ok => possible.into_iter().collect(),
        // A deploy is refused for what its network is.
        End::Refused if possible.is_some() && change != Change::Deploy => Vec::new(),
        End::Refused => vec![is],
        End::Failed => failed(is, change),
        End::Unknown => possible.into_iter().chain(failed(is, change)).collect(),
    }
}

fn tagged(machine: &Machine, key: &str, value: Option<&str>, end: End) -> Vec<Machine> {
    let mut after = machine.clone();
    let fits = match value {
        Some(value) => after.tags.insert(key.to_owned(), value.to_owned()).is_none(),
        None => after.tags.remove(key).is_some(),
    };
    // What is destroyed can be recovered, with its tags.
    let possible = fits && machine.state.exists();
    match end {
        End::Ok if possible => vec![after],
        End::Ok => Vec::new(),
        End::Refused if possible => Vec::new(),
        End::Unknown if possible => vec![after, machine.clone()],
        End::Refused | End::Failed | End::Unknown => vec![machine.clone()],
    }
}
