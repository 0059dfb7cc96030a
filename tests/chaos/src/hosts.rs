//! What simulated hosts run, from the state files of their agents.

use crate::aftermath::{OnHost, OnPool};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// What all hosts run, and what lies on their pools.
#[derive(Debug, Default)]
pub struct Hosts {
    /// VMs that run.
    pub running: Vec<OnHost>,
    /// Volumes.
    pub lying: Vec<OnPool>,
}

/// Reads copies of the folders: their agents go on.
///
/// # Errors
/// When a folder can't be copied or read.
pub fn read(folders: &[PathBuf]) -> Result<Hosts> {
    let mut hosts = Hosts::default();
    for folder in folders {
        let simulator = open(folder)?;
        hosts.running.extend(simulator.vms().into_iter().map(|vm| OnHost {
            vm: vm.spec.uuid.clone(),
            host: vm.host,
            generation: vm.spec.generation,
        }));
        hosts.lying.extend(simulator.disks().into_iter().map(|(pool, disk)| OnPool { volume: disk.volume_uuid, pool }));
    }
    Ok(hosts)
}

/// The VMs of an agent's hosts: what runs, since how many boots.
///
/// # Errors
/// When the folder can't be copied or read.
pub fn vms(folder: &Path) -> Result<Vec<agent::simulator::VmView>> {
    Ok(open(folder)?.vms())
}

fn open(folder: &Path) -> Result<agent::SimulatorHandle> {
    let copy = testkit::temp_dir();
    copy_files(folder, copy.path()).with_context(|| folder.display().to_string())?;
    let dial = agent::Dial::Tls { addresses: Vec::new(), token: None };
    let options = agent::Options::new("reader", copy.path(), dial);
    let agent = agent::Agent::open(options).with_context(|| folder.display().to_string())?;
    Ok(agent.simulator())
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
