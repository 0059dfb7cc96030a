//! Whether all answers, and what is there at the end, have an order that the models allow.

use super::{Report, Run, is_refusal};
use crate::aftermath::{Aftermath, Shown};
use crate::history::{Failure, Intent, Operation, Outcome};
use crate::model::machine::{self, Change, End, Machine, Machines};
use crate::model::network::{self, Network, Networks};
use crate::model::order::{Model, Step, Verdict, find};
use crate::model::volume::{self, Life, Volume, Volumes};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

const GIB: i64 = 1 << 30;

/// What happened to things of a kind, by their names.
type Steps<O> = BTreeMap<String, Vec<Step<O>>>;

/// An operation as the models take it: when it was over, and how.
#[derive(Clone, Copy)]
struct Ended {
    end: End,
    done: Option<u64>,
}

pub fn check(run: &Run, after: &Aftermath, report: &mut Report) {
    let jobs: HashMap<&str, &str> = after.jobs.iter().map(|j| (j.id.as_str(), j.state.as_str())).collect();
    // Jobs whose end no client saw had ended before the last look.
    let ends: Vec<Ended> = run.operations.iter().map(|o| ended(o, &jobs, after.at.saturating_sub(1))).collect();
    let things = Things::of(&run.operations, &ends);
    let shown = after.shown.values().next().cloned().unwrap_or_default();
    let mut all = Collected::default();
    for (o, ended) in run.operations.iter().zip(&ends) {
        all.machine(o, *ended, &things);
        all.volume(o, *ended, &things);
        all.network(o, *ended, &things);
    }
    all.last_look(&shown, after.at, &things);
    judge::<Machines>(&Machine::default(), &all.machines, report);
    judge::<Volumes>(&Volume::default(), &all.volumes, report);
    judge::<Networks>(&Network::default(), &all.networks, report);
}

fn judge<M: Model>(initial: &M::State, all: &Steps<M::Op>, report: &mut Report) {
    for (name, steps) in all {
        match find::<M>(initial.clone(), steps) {
            Verdict::Ordered => {}
            Verdict::Undecided => report.find("undecided", None, format!("{name}: too many possible orders")),
            Verdict::Impossible { id, states } => {
                let op = steps.iter().find(|s| s.id == id).map(|s| format!("{:?}", s.op)).unwrap_or_default();
                let when = if id == 0 { "at the end" } else { "during the run" };
                let what = format!("{name}: {when}, {op} with {states}");
                report.find("contradiction", Some(id).filter(|id| *id != 0), what);
            }
        }
    }
}

fn ended(o: &Operation, jobs: &HashMap<&str, &str>, at_end: u64) -> Ended {
    let of = |error: &Failure| if is_refusal(error) { End::Refused } else { End::Failed };
    let done = o.done;
    match &o.outcome {
        Some(Outcome::Ok { .. }) => Ended { end: End::Ok, done },
        Some(Outcome::Refused { error } | Outcome::Failed { error, .. }) => Ended { end: of(error), done },
        // The client gave up, but its job's end is known by now.
        Some(Outcome::Unknown { job: Some(job), .. }) => match jobs.get(job.as_str()) {
            Some(&"Done") => Ended { end: End::Ok, done: Some(at_end) },
            Some(&"Failed") => Ended { end: End::Failed, done: Some(at_end) },
            _ => Ended { end: End::Unknown, done: None },
        },
        Some(Outcome::Unknown { job: None, .. }) | None => Ended { end: End::Unknown, done: None },
    }
}

/// What is known of things before their histories are looked at.
#[derive(Default)]
struct Things {
    /// Account and beginning of each VM.
    vms: BTreeMap<String, (String, u64)>,
    /// The same of each volume.
    volumes: BTreeMap<String, (String, u64)>,
    /// The network that each VM was deployed into.
    homes: HashMap<String, String>,
    /// When somebody first tried to destroy a VM, and when it was destroyed for certain.
    deaths: HashMap<String, (u64, Option<u64>)>,
    /// VMs that a volume was to be attached to.
    attached: HashMap<String, Vec<String>>,
}

impl Things {
    fn of(operations: &[Operation], ends: &[Ended]) -> Things {
        let mut things = Things::default();
        for (o, ended) in operations.iter().zip(ends) {
            match &o.intent {
                Intent::Deploy { vm, network } => {
                    things.vms.entry(vm.clone()).or_insert((o.account.clone(), o.invoked));
                    things.homes.insert(vm.clone(), network.clone());
                    // One that failed has no life to lose.
                    if ended.end != End::Ok {
                        things.deaths.insert(vm.clone(), (o.invoked, None));
                    }
                }
                Intent::CreateVolume { volume, .. } => {
                    things.volumes.entry(volume.clone()).or_insert((o.account.clone(), o.invoked));
                }
                Intent::Attach { volume, vm } => {
                    things.attached.entry(vm.clone()).or_default().push(volume.clone());
                }
                Intent::Destroy { vm, .. } => {
                    let death = things.deaths.entry(vm.clone()).or_insert((o.invoked, None));
                    if ended.end == End::Ok && death.1.is_none() {
                        death.1 = ended.done;
                    }
                }
                _ => {}
            }
        }
        things
    }

    /// What a VM can have been during an operation.
    fn life(&self, vm: &str, o: &Operation) -> Life {
        match self.deaths.get(vm) {
            Some((_, Some(dead))) if *dead < o.invoked => Life::Dead,
            Some((begun, _)) if *begun < o.done.unwrap_or(u64::MAX) => Life::Doubtful,
            _ => Life::Alive,
        }
    }

    /// Things of the caller that a list may show: whose creation began before the list was answered.
    fn listed<'a>(all: &'a BTreeMap<String, (String, u64)>, o: &Operation) -> impl Iterator<Item = &'a String> {
        let (account, done) = (o.account.clone(), o.done.unwrap_or(0));
        all.iter().filter(move |(_, (of, begun))| *of == account && *begun < done).map(|(name, _)| name)
    }
}

/// The histories of all things.
#[derive(Default)]
struct Collected {
    machines: Steps<machine::Op>,
    volumes: Steps<volume::Op>,
    networks: Steps<network::Op>,
}

fn add<O>(to: &mut Steps<O>, name: &str, o: &Operation, done: Option<u64>, op: O) {
    to.entry(name.to_owned()).or_default().push(Step { id: o.op, invoked: o.invoked, done, op });
}

impl Collected {
    fn machine(&mut self, o: &Operation, Ended { end, done }: Ended, things: &Things) {
        use machine::Op;
        let (name, op) = match &o.intent {
            Intent::Deploy { vm, .. } => (vm, Op::Change(Change::Deploy, end)),
            Intent::Stop { vm } => (vm, Op::Change(Change::Stop, end)),
            Intent::Start { vm } => (vm, Op::Change(Change::Start, end)),
            Intent::Reboot { vm } => (vm, Op::Change(Change::Reboot, end)),
            Intent::Destroy { vm, expunge: false } => (vm, Op::Change(Change::Destroy, end)),
            Intent::Destroy { vm, expunge: true } => (vm, Op::Change(Change::Expunge, end)),
            Intent::Tag { vm, key, value } => (vm, Op::Tag(key.clone(), Some(value.clone()), end)),
            Intent::Untag { vm, key } => (vm, Op::Tag(key.clone(), None, end)),
            Intent::SeeTags { vm } => {
                let Some(items) = seen(o, "tag") else { return };
                let tags = items.iter().map(|t| (text(t, "key").to_owned(), text(t, "value").to_owned())).collect();
                (vm, Op::SeeTags(tags))
            }
            Intent::SeeVm { .. } | Intent::ListVms => {
                let Some(items) = seen(o, "virtualmachine") else { return };
                let one = if let Intent::SeeVm { vm } = &o.intent { Some(vm) } else { None };
                let listed = one.is_none().then(|| Things::listed(&things.vms, o));
                for name in one.into_iter().chain(listed.into_iter().flatten()) {
                    let op = vm_seen(name, items.iter().map(|v| (text(v, "name"), text(v, "state"))));
                    op.into_iter().for_each(|op| add(&mut self.machines, name, o, done, op));
                }
                return;
            }
            _ => return,
        };
        add(&mut self.machines, name, o, done, op);
    }

    fn volume(&mut self, o: &Operation, Ended { end, done }: Ended, things: &Things) {
        use volume::Op;
        let (name, op) = match &o.intent {
            Intent::CreateVolume { volume, size } => (volume, Op::Create(*size, end)),
            Intent::Attach { volume, vm } => (volume, Op::Attach(vm.clone(), things.life(vm, o), end)),
            Intent::Detach { volume } => (volume, Op::Detach(end)),
            Intent::Resize { volume, size } => (volume, Op::Resize(*size, end)),
            Intent::DeleteVolume { volume } => (volume, Op::Delete(end)),
            Intent::Destroy { vm, expunge } => {
                // What was destroyed before may be expunged by a duty; here it takes a day.
                let of = things.attached.get(vm).filter(|_| *expunge);
                for volume in of.into_iter().flatten() {
                    add(&mut self.volumes, volume, o, done, Op::Expunged(vm.clone(), end));
                }
                return;
            }
            Intent::SeeVolume { .. } | Intent::ListVolumes => {
                let Some(items) = seen(o, "volume") else { return };
                let one = if let Intent::SeeVolume { volume } = &o.intent { Some(volume) } else { None };
                let listed = one.is_none().then(|| Things::listed(&things.volumes, o));
                for name in one.into_iter().chain(listed.into_iter().flatten()) {
                    let size = |v: &Value| v.get("size").and_then(Value::as_i64).unwrap_or_default();
                    let found = items.iter().find(|v| text(v, "name") == name);
                    let op = volume_seen(found.map(|v| (text(v, "state"), size(v), text(v, "vmname"))));
                    op.into_iter().for_each(|op| add(&mut self.volumes, name, o, done, op));
                }
                return;
            }
            _ => return,
        };
        add(&mut self.volumes, name, o, done, op);
    }

    fn network(&mut self, o: &Operation, Ended { end, done }: Ended, things: &Things) {
        use network::Op;
        let (name, op) = match &o.intent {
            Intent::CreateNetwork { network } => (network, Op::Create(end)),
            Intent::DeleteNetwork { network } => (network, Op::Delete(end)),
            Intent::Deploy { vm, network } => (network, Op::Enter(vm.clone(), end)),
            Intent::Destroy { vm, expunge: true } => {
                let Some(network) = things.homes.get(vm) else { return };
                (network, Op::Leave(vm.clone(), end))
            }
            Intent::SeeNetwork { network } => {
                let Some(items) = seen(o, "network") else { return };
                (network, Op::See(items.iter().any(|n| text(n, "name") == network)))
            }
            _ => return,
        };
        add(&mut self.networks, name, o, done, op);
    }

    /// The end is one more look at everything.
    fn last_look(&mut self, shown: &Shown, at: u64, things: &Things) {
        fn look<O>(to: &mut Steps<O>, name: &str, at: u64, op: O) {
            to.entry(name.to_owned()).or_default().push(Step { id: 0, invoked: at, done: Some(at), op });
        }
        for name in things.vms.keys() {
            let op = vm_seen(name, shown.vms.iter().map(|v| (v.name.as_str(), v.state.as_str())));
            op.into_iter().for_each(|op| look(&mut self.machines, name, at, op));
            let tags = shown.tags.iter().filter(|(vm, ..)| vm == name).map(|(_, k, v)| (k.clone(), v.clone()));
            look(&mut self.machines, name, at, machine::Op::SeeTags(tags.collect()));
        }
        for name in things.volumes.keys() {
            let found = shown.volumes.iter().find(|v| v.name == *name);
            let op = volume_seen(found.map(|v| (v.state.as_str(), v.size, v.vm.as_deref().unwrap_or_default())));
            op.into_iter().for_each(|op| look(&mut self.volumes, name, at, op));
        }
        let networks: Vec<String> = self.networks.keys().cloned().collect();
        for name in networks {
            let there = shown.networks.iter().any(|n| n.name == name);
            look(&mut self.networks, &name, at, network::Op::See(there));
        }
    }
}

/// The items of a list that was answered; one by id that is told not to exist has none.
fn seen(o: &Operation, item: &str) -> Option<Vec<Value>> {
    match &o.outcome {
        Some(Outcome::Ok { value, .. }) => Some(value.get(item).and_then(Value::as_array).cloned().unwrap_or_default()),
        Some(Outcome::Refused { error }) if error.code == 431 => Some(Vec::new()),
        _ => None,
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A VM among those that a look showed; nothing when it was between two states.
fn vm_seen<'a>(name: &str, mut all: impl Iterator<Item = (&'a str, &'a str)>) -> Option<machine::Op> {
    use machine::State;
    let state = match all.find(|(of, _)| *of == name).map(|(_, state)| state) {
        None => None,
        Some("Running") => Some(State::Running),
        Some("Stopped") => Some(State::Stopped),
        Some("Error") => Some(State::Error),
        Some("Destroyed") => Some(State::Destroyed),
        Some(_) => return None,
    };
    Some(machine::Op::See(state))
}

/// A volume as a look showed it (state, bytes, VM); nothing when it was between two states.
fn volume_seen(found: Option<(&str, i64, &str)>) -> Option<volume::Op> {
    match found {
        None => Some(volume::Op::See(None)),
        Some(("Ready" | "Allocated", size, vm)) => {
            Some(volume::Op::See(Some((size / GIB, Some(vm.to_owned()).filter(|vm| !vm.is_empty())))))
        }
        Some(_) => None,
    }
}
