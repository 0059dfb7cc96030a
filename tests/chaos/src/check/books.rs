//! Whether everything agrees at the end.

use super::{Report, Run};
use crate::aftermath::{Aftermath, OnHost, OnPool, Shown};
use crate::history::{Intent, Outcome};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub fn check(run: &Run, after: &Aftermath, report: &mut Report) {
    if !after.quiet {
        report.find("not-quiet", None, "things were still moving when the time was up");
    }
    for violation in &after.audit {
        report.find("audit", None, violation.clone());
    }
    jobs(run, after, report);
    gateways(after, report);
    if let Some(shown) = after.shown.values().next() {
        doubles(run, shown, report);
        remains(shown, report);
        addresses(shown, report);
    }
    hosts(after, report);
    pools(after, report);
}

/// Every job has ended, and as its client was told.
fn jobs(run: &Run, after: &Aftermath, report: &mut Report) {
    for job in after.jobs.iter().filter(|j| !matches!(j.state.as_str(), "Done" | "Failed")) {
        let rule = if job.state == "Parked" { "job-parked" } else { "job-stuck" };
        let step = job.step.as_deref().unwrap_or("?");
        report.find(rule, None, format!("{} ({}) is {} at {step}", job.id, job.kind, job.state));
    }
    let states: HashMap<&str, &str> = after.jobs.iter().map(|j| (j.id.as_str(), j.state.as_str())).collect();
    for o in &run.operations {
        let (job, told) = match &o.outcome {
            Some(Outcome::Ok { job: Some(job), .. }) => (job, Some("Done")),
            Some(Outcome::Failed { job, .. }) => (job, Some("Failed")),
            Some(Outcome::Unknown { job: Some(job), .. }) => (job, None),
            _ => continue,
        };
        match (states.get(job.as_str()), told) {
            (None, _) => report.find("job-lost", Some(o.op), format!("{}: its job {job} doesn't exist", o.command)),
            (Some(is), Some(told)) if *is != told => {
                report.find(
                    "job-lied",
                    Some(o.op),
                    format!("{}: its job was told to be {told} and is {is}", o.command),
                );
            }
            _ => {}
        }
    }
}

/// All gateways show the same.
fn gateways(after: &Aftermath, report: &mut Report) {
    let mut all = after.shown.iter();
    let Some((first, one)) = all.next() else { return };
    for (other, shown) in all {
        if shown != one {
            let differ = |what: &str, a: usize, b: usize| format!("{what}: {a} and {b}");
            let counts = [
                differ("VMs", one.vms.len(), shown.vms.len()),
                differ("volumes", one.volumes.len(), shown.volumes.len()),
                differ("networks", one.networks.len(), shown.networks.len()),
                differ("tags", one.tags.len(), shown.tags.len()),
            ];
            report.find(
                "gateways-differ",
                None,
                format!("{first} and {other} show different things: {}", counts.join(", ")),
            );
        }
    }
}

/// Nothing is there twice, and nothing that no client asked for.
fn doubles(run: &Run, shown: &Shown, report: &mut Report) {
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    for o in &run.operations {
        match &o.intent {
            Intent::Deploy { vm: name, .. }
            | Intent::CreateVolume { volume: name, .. }
            | Intent::CreateNetwork { network: name } => {
                asked.insert(name);
            }
            _ => {}
        }
    }
    let mut count: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for vm in &shown.vms {
        *count.entry(("VM", &vm.name)).or_default() += 1;
    }
    // Root disks have names of their own making.
    for volume in shown.volumes.iter().filter(|v| !v.root) {
        *count.entry(("volume", &volume.name)).or_default() += 1;
    }
    for network in &shown.networks {
        *count.entry(("network", &network.name)).or_default() += 1;
    }
    for ((kind, name), n) in count {
        if asked.contains(name) && n > 1 {
            report.find("doubled", None, format!("{n} of the {kind} {name}"));
        }
        if !asked.contains(name) && name.starts_with(crate::workload::PREFIX) {
            report.find("unasked", None, format!("the {kind} {name}"));
        }
    }
    let mut roots: BTreeMap<&str, u32> = BTreeMap::new();
    for volume in shown.volumes.iter().filter(|v| v.root) {
        match &volume.vm {
            Some(vm) => *roots.entry(vm).or_default() += 1,
            None => report.find("root-disk-leaked", None, format!("{} belongs to no VM", volume.name)),
        }
    }
    for vm in shown.vms.iter().filter(|v| matches!(v.state.as_str(), "Running" | "Stopped" | "Destroyed")) {
        let n = roots.get(vm.name.as_str()).copied().unwrap_or(0);
        if n != 1 {
            report.find("root-disks", None, format!("{} is {} and has {n} root disks", vm.name, vm.state));
        }
    }
}

/// A VM in Error holds nothing; none is between two states.
fn remains(shown: &Shown, report: &mut Report) {
    for vm in &shown.vms {
        match vm.state.as_str() {
            "Running" | "Stopped" | "Destroyed" => {
                if vm.nics.is_empty() {
                    report.find("nic-lost", None, format!("{} is {} and has no NIC", vm.name, vm.state));
                }
            }
            "Error" => {
                if !vm.nics.is_empty() {
                    report.find("failed-leaves", None, format!("{} is Error and has {:?}", vm.name, vm.nics));
                }
                for volume in shown.volumes.iter().filter(|v| v.vm.as_ref() == Some(&vm.name)) {
                    report.find("failed-leaves", None, format!("{} is Error and has volume {}", vm.name, volume.name));
                }
            }
            other => report.find("vm-stuck", None, format!("{} is {other}", vm.name)),
        }
    }
    for volume in shown.volumes.iter().filter(|v| !matches!(v.state.as_str(), "Ready" | "Allocated")) {
        report.find("volume-stuck", None, format!("{} is {}", volume.name, volume.state));
    }
}

fn addresses(shown: &Shown, report: &mut Report) {
    let mut holders: BTreeMap<&(String, String), Vec<&str>> = BTreeMap::new();
    for vm in &shown.vms {
        for nic in vm.nics.iter().filter(|(_, ip)| !ip.is_empty()) {
            holders.entry(nic).or_default().push(&vm.name);
        }
    }
    for ((network, ip), vms) in holders {
        if vms.len() > 1 {
            report.find("address-twice", None, format!("{ip} in network {network}: {vms:?}"));
        }
    }
}

/// Hosts run exactly the VMs that the database says.
fn hosts(after: &Aftermath, report: &mut Report) {
    let (should, run): (BTreeSet<&OnHost>, BTreeSet<&OnHost>) =
        (after.should_run.iter().collect(), after.do_run.iter().collect());
    for missing in should.difference(&run) {
        report.find(
            "vm-not-run",
            None,
            format!("host {} doesn't run {} ({})", missing.host, missing.vm, missing.generation),
        );
    }
    for strange in run.difference(&should) {
        report.find("vm-unasked", None, format!("host {} runs {} ({})", strange.host, strange.vm, strange.generation));
    }
}

/// Bytes are where the database says.
fn pools(after: &Aftermath, report: &mut Report) {
    let (should, lie): (BTreeSet<&OnPool>, BTreeSet<&OnPool>) =
        (after.should_lie.iter().collect(), after.do_lie.iter().collect());
    for missing in should.difference(&lie) {
        report.find("bytes-lost", None, format!("volume {} doesn't lie on pool {}", missing.volume, missing.pool));
    }
    for strange in lie.difference(&should) {
        report.find("bytes-leaked", None, format!("volume {} lies on pool {}", strange.volume, strange.pool));
    }
}
