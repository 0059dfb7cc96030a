//! QEMU's processes, seen without libvirt: whether one is certainly gone, and its end when libvirt can't bring it about.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Between two looks whether a process is gone, at first.
const SHORTEST: Duration = Duration::from_millis(2);
/// And later.
const LONGEST: Duration = Duration::from_millis(100);

/// The QEMU of one guest. Its number can't be given to another process while this lives.
#[derive(Debug)]
pub(in crate::kvm) struct Process {
    pid: u32,
    handle: OwnedFd,
    /// Of a container: the file that stops all of its processes, and what is written to it to let them go on and to stop them.
    freezer: Option<(PathBuf, [&'static str; 2])>,
}

impl Process {
    /// The process of a guest, if there is one in the PID namespace of libvirt's daemon: another is of a host that this
    /// machine only contains.
    ///
    /// # Errors
    /// The kernel doesn't tell. Nothing is known then.
    pub fn find(vm: Uuid, namespace: &Path) -> io::Result<Option<Process>> {
        let vm = vm.to_string();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if is_guest(pid, &vm)
                && namespace_of(pid).is_ok_and(|of| of == namespace)
                && let Some(process) = Process::open(pid)?
                // The number was another process' before it was opened.
                && is_guest(pid, &vm)
            {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    pub(super) fn open(pid: u32) -> io::Result<Option<Process>> {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(Process { pid, handle, freezer: None })),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Of a container, whose processes are stopped all together.
    pub(super) fn with_freezer(mut self, freezer: Option<(PathBuf, [&'static str; 2])>) -> Process {
        self.freezer = freezer;
        self
    }

    /// A container's control group of version 2.
    pub(super) fn unified_group(&self) -> Option<&Path> {
        let (file, _) = self.freezer.as_ref()?;
        file.parent().filter(|_| file.ends_with("cgroup.freeze"))
    }

    /// Stops a container's processes or lets them go on; false when there is no way to.
    fn stop_group(&self, stopped: bool) -> bool {
        let Some((file, [thawed, frozen])) = &self.freezer else { return false };
        let written = std::fs::write(file, if stopped { frozen } else { thawed });
        if let Err(error) = &written
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(pid = self.pid, stopped, %error, "a container's processes can't be stopped or let go on");
        }
        written.is_ok()
    }

    /// Ends it at once: it writes nothing more of its own accord, not even what it had cached.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        // A stopped one ends only when it goes on.
        self.stop_group(false);
    }

    /// Has it stand still: for when libvirt can't pause the guest.
    pub fn freeze(&self) {
        if !self.stop_group(true) {
            self.signal(Signal::STOP);
        }
    }

    /// Has it go on after [`Process::freeze`].
    pub fn thaw(&self) {
        if !self.stop_group(false) {
            self.signal(Signal::CONT);
        }
    }

    /// Whether it stands still.
    pub fn is_frozen(&self) -> bool {
        if let Some((file, [_, frozen])) = &self.freezer {
            return std::fs::read_to_string(file).is_ok_and(|state| state.trim() == *frozen);
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.handle, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid, ?signal, %error, "QEMU can't be sent a signal");
        }
    }

    /// Waits until it is gone with all its threads, and so all of its writes are done.
    pub async fn gone(&self) {
        let mut pause = SHORTEST;
        while !self.is_gone() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// The kernel says so of a process when the last of its threads has ended.
    fn is_gone(&self) -> bool {
        let mut handles = [PollFd::new(&self.handle, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut handles, Some(&at_once)), Ok(1))
    }

    /// The same, for a while. Whether it is gone.
    pub async fn gone_within(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.gone()).await.is_ok()
    }
}

/// The PID namespace of a process, by the name that the kernel has for it.
pub(super) fn namespace_of(pid: u32) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid"))
}

/// Whether a process is the QEMU of a guest: it was started with the guest's UUID.
fn is_guest(pid: u32, vm: &str) -> bool {
    // One that ends, or isn't ours to look at, is no QEMU that could be ended.
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = line.split(|byte| *byte == 0);
    words.any(|word| word == b"-uuid") && words.next() == Some(vm.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_found_killed_and_gone() {
        let vm = Uuid::new_v4();
        let own = namespace_of(std::process::id()).unwrap();
        assert!(Process::find(vm, &own).unwrap().is_none());
        // A shell that stays itself, with QEMU's argument.
        let script = "read nothing; true";
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", script, "-uuid", &vm.to_string()])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert!(Process::find(vm, Path::new("pid:[1]")).unwrap().is_none(), "another host's");
        // The kernel shows its words a moment after the spawn.
        let process = testkit::eventually(|| async { Process::find(vm, &own).unwrap() }).await;
        assert!(!process.gone_within(Duration::from_millis(50)).await);
        process.freeze();
        testkit::wait_until(|| async { process.is_frozen() }, Duration::from_secs(10)).await;
        process.thaw();
        testkit::wait_until(|| async { !process.is_frozen() }, Duration::from_secs(10)).await;
        process.kill();
        process.gone().await;
        assert!(process.gone_within(Duration::from_millis(50)).await);
        child.wait().await.unwrap();
        assert!(Process::find(vm, &own).unwrap().is_none());
    }
}
