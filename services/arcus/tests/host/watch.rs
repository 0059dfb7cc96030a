//! Never two copies of a VM: looked at all the time while things go wrong.

use crate::machine;
use crate::world::{Vm, World};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Looks every few milliseconds how many copies of VMs run on all hosts together.
pub struct Watch {
    over: Arc<AtomicBool>,
    looks: JoinHandle<usize>,
}

/// How many copies run: guests that a libvirt has running, and that have a process. A host that is off has left its notes, but no process; a
/// QEMU that waits for the disk's lock, or is refused it, is no running guest yet.
fn running(notes: &[PathBuf], vm: &Vm) -> usize {
    let runs = |folder: &&PathBuf| {
        let note = std::fs::read_to_string(folder.join(format!("qemu/{}.xml", vm.instance))).unwrap_or_default();
        note.contains("<domstatus state='running'")
    };
    match notes.iter().filter(runs).count() {
        // Most looks end here.
        few @ (0 | 1) => few,
        // By the UUID: names are the same in other installations on this machine.
        many => many.min(machine::processes(Path::new("/proc"), &vm.id)),
    }
}

impl Watch {
    /// Begins.
    pub fn begin(world: &World, vms: &[&Vm]) -> Watch {
        let notes: Vec<PathBuf> = world.machines.iter().map(machine::Machine::notes).collect();
        let vms: Vec<Vm> = vms.iter().map(|vm| (*vm).clone()).collect();
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let looks = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            let mut looks = 0;
            while !until.load(Ordering::Relaxed) {
                pace.tick().await;
                for vm in &vms {
                    // Files and processes aren't read at one instant: what is so, is so twice.
                    let twice = running(&notes, vm) > 1 && running(&notes, vm) > 1;
                    assert!(!twice, "{} ({}) runs twice", vm.instance, vm.id);
                }
                looks += 1;
            }
            looks
        });
        Watch { over, looks }
    }

    /// Ends, and fails if there were two at any look.
    pub async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let looks = self.looks.await.expect("never two copies");
        assert!(looks > 10, "{looks} looks are no proof");
    }
}
