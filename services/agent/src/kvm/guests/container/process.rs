//! A container's processes, found without libvirt's answer.
//!
//! libvirt writes the run of each container to a file with its name; its helper (`libvirt_lxc --name NAME`) starts process 1. When
//! that is gone, so are all others of the container: the kernel ends its PID namespace.

use crate::kvm::guests::process::{Process, namespace_of};
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// libvirt's helper.
const HELPER: &[u8] = b"/libvirt_lxc";
/// Control groups of version 1 that stop processes.
const FREEZER: &str = "/sys/fs/cgroup/freezer";
/// All groups of version 2.
const UNIFIED: &str = "/sys/fs/cgroup";

/// Process 1 of a VM's container, as seen from here, if its helper runs in this PID namespace; while it has none, the helper.
///
/// # Errors
/// The kernel doesn't tell. Nothing is known then.
pub(in crate::kvm::guests) fn find(vm: Uuid, states: &Path, namespace: &Path) -> io::Result<Option<Process>> {
    let Some(name) = name_of(vm, states)? else { return Ok(None) };
    for helper in processes()? {
        if !is_helper(helper, &name) || !namespace_of(helper).is_ok_and(|of| of == namespace) {
            continue;
        }
        let first = processes()?
            .find(|pid| parent_of(*pid) == Some(helper) && namespace_of(*pid).is_ok_and(|of| of != namespace));
        let freezer = freezer_of(helper);
        if let Some(process) = Process::open(first.unwrap_or(helper))?
            // The numbers were other processes' before.
            && is_helper(helper, &name)
        {
            return Ok(Some(process.with_freezer(freezer)));
        }
    }
    Ok(None)
}

/// The name of a VM's domain, by the file that libvirt keeps of its run.
fn name_of(vm: Uuid, states: &Path) -> io::Result<Option<String>> {
    let entries = match std::fs::read_dir(states) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let uuid = format!("<uuid>{vm}</uuid>");
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".xml")) else {
            continue;
        };
        // Gone meanwhile, if it can't be read.
        if std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&uuid)) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

fn is_helper(pid: u32, name: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let named = words.windows(2).any(|pair| pair[0] == b"--name" && pair[1] == name.as_bytes());
    named && words.first().is_some_and(|program| program.ends_with(HELPER))
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The file that stops all processes of a container's group, and what is written to it for that.
fn freezer_of(helper: u32) -> Option<(PathBuf, [&'static str; 2])> {
    let groups = std::fs::read_to_string(format!("/proc/{helper}/cgroup")).ok()?;
    let in_own = |path: &str| path.contains("lxc").then(|| path.trim_start_matches('/').to_owned());
    let old = groups.lines().find_map(|line| line.split_once(":freezer:").and_then(|(_, path)| in_own(path)));
    if let Some(path) = old {
        return Some((Path::new(FREEZER).join(path).join("freezer.state"), ["THAWED", "FROZEN"]));
    }
    let path = groups.lines().find_map(|line| line.strip_prefix("0::").and_then(in_own))?;
    // Within systemd's scope libvirt has a group of its own for the helper: all of the scope is meant.
    let path = path.strip_suffix("/libvirt").unwrap_or(&path);
    Some((Path::new(UNIFIED).join(path).join("cgroup.freeze"), ["0", "1"]))
}
