//! One volume. What the VMs are that it is attached to is known beforehand, as far as anybody knows it.

use super::machine::End;
use super::order::Model;

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Volume {
    /// It was never there.
    #[default]
    Absent,
    /// It exists.
    There {
        /// In GiB.
        size: i64,
        /// The VM that has it.
        vm: Option<String>,
    },
    /// It was deleted.
    Gone,
}

/// What a VM can have been during an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nobody had begun to destroy it.
    Alive,
    /// It may have been destroyed.
    Doubtful,
    /// It was destroyed.
    Dead,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// It is created with this size.
    Create(i64, End),
    /// It is attached to this VM.
    Attach(String, Life, End),
    /// It is detached.
    Detach(End),
    /// It gets this size.
    Resize(i64, End),
    /// It is deleted.
    Delete(End),
    /// A VM is expunged.
    Expunged(String, End),
    /// It was seen with a size and a VM; none: it wasn't there.
    See(Option<(i64, Option<String>)>),
}

/// The model. `lives` says nothing of the VM of a detach or resize: those are refused for a destroyed one.
#[derive(Debug)]
pub struct Volumes;

impl Model for Volumes {
    type State = Volume;
    type Op = Op;

    fn apply(volume: &Volume, op: &Op) -> Vec<Volume> {
        match (op, volume) {
            // Nothing that the model knows of refuses a new volume.
            (Op::Create(size, end), Volume::Absent) => {
                let there = Some(Volume::There { size: *size, vm: None });
                outcome(volume, there, true, *end)
            }
            (Op::Create(_, end), _) => outcome(volume, None, true, *end),
            (Op::Attach(to, life, end), Volume::There { size, vm: None }) => {
                let attached = Volume::There { size: *size, vm: Some(to.clone()) };
                outcome(volume, (*life != Life::Dead).then_some(attached), *life != Life::Alive, *end)
            }
            // What a destroyed VM had, it keeps until it is expunged.
            (Op::Detach(end), Volume::There { size, vm: Some(_) }) => {
                outcome(volume, Some(Volume::There { size: *size, vm: None }), true, *end)
            }
            (Op::Resize(to, end), Volume::There { size, vm }) if to > size => {
                let resized = Volume::There { size: *to, vm: vm.clone() };
                outcome(volume, Some(resized), vm.is_some(), *end)
            }
            (Op::Delete(end), Volume::There { vm: None, .. }) => outcome(volume, Some(Volume::Gone), false, *end),
            (Op::Attach(_, _, end) | Op::Detach(end) | Op::Resize(_, end) | Op::Delete(end), _) => {
                outcome(volume, None, true, *end)
            }
            (Op::Expunged(of, end), Volume::There { size, vm: Some(vm) }) if vm == of => {
                let freed = Volume::There { size: *size, vm: None };
                match end {
                    End::Ok => vec![freed],
                    End::Refused => vec![volume.clone()],
                    End::Failed | End::Unknown => vec![freed, volume.clone()],
                }
            }
            (Op::Expunged(..), _) => vec![volume.clone()],
            (Op::See(seen), _) => {
                let as_seen = match (volume, seen) {
                    (Volume::Absent | Volume::Gone, None) => true,
                    (Volume::There { size, vm }, Some((seen_size, seen_vm))) => size == seen_size && vm == seen_vm,
                    _ => false,
                };
                if as_seen { vec![volume.clone()] } else { Vec::new() }
            }
        }
    }
}

/// What a volume may be after a change that would make `done` of it, if it is possible at all.
fn outcome(volume: &Volume, done: Option<Volume>, may_refuse: bool, end: End) -> Vec<Volume> {
    match end {
        End::Ok => done.into_iter().collect(),
        End::Refused if done.is_some() && !may_refuse => Vec::new(),
        End::Refused | End::Failed => vec![volume.clone()],
        End::Unknown => done.into_iter().chain([volume.clone()]).collect(),
    }
}
