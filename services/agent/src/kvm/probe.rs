//! Whether hardware acceleration really runs a guest. `/dev/kvm` proves nothing: in nested and crippled machines it is there,
//! and guests hang. So a guest of a few bytes is run, which enters protected mode (interpreted real mode would prove little),
//! counts for a moment, and ends QEMU by a port. A process of its own, with a deadline, killed with its group.

use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// A guest that runs needs a fraction of a second.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone: one that hangs in the kernel isn't waited for.
const BURIAL: Duration = Duration::from_secs(2);
/// What QEMU ends with when the guest wrote `SAID` to the port: `SAID << 1 | 1`.
const ENDED: i32 = 33;
const SAID: u8 = 0x10;
/// Of QEMU's `isa-debug-exit`.
const PORT: u8 = 0xf4;
/// Smallest image that QEMU takes as firmware.
const ROM: usize = 64 * 1024;
/// The file of the result, in the agent's state folder.
const CACHE: &str = "acceleration";

/// How guests run on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceleration {
    /// By the processor.
    Kvm,
    /// Emulated: some ten times slower.
    Tcg {
        /// Why not by the processor.
        why: String,
    },
    /// Guests are containers: they have no processor of their own.
    Unneeded,
}

impl Acceleration {
    /// libvirt's type of domain.
    pub fn domain_type(&self) -> &'static str {
        match self {
            Acceleration::Kvm => "kvm",
            Acceleration::Tcg { .. } => "qemu",
            Acceleration::Unneeded => "lxc",
        }
    }
}

/// What to run, and where.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// QEMU for this machine's own architecture.
    pub emulator: PathBuf,
    /// The kernel's device.
    pub device: PathBuf,
    /// The folder of the result and of the guest.
    pub state_dir: PathBuf,
    /// Time for the guest.
    pub deadline: Duration,
}

impl Probe {
    /// With the usual device and deadline.
    pub fn new(emulator: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Probe {
        Probe { emulator: emulator.into(), device: "/dev/kvm".into(), state_dir: state_dir.into(), deadline: DEADLINE }
    }
}

/// Where QEMU for this machine's architecture is; `None` when it isn't installed.
pub(crate) fn emulator() -> Option<PathBuf> {
    let arch = std::env::consts::ARCH;
    // Enterprise Linux has one binary, outside of the path.
    let names = [format!("qemu-system-{arch}"), "qemu-kvm".to_owned()];
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs: Vec<&str> = path.split(':').chain(["/usr/bin", "/usr/libexec"]).filter(|d| !d.is_empty()).collect();
    names.iter().find_map(|name| dirs.iter().map(|dir| Path::new(dir).join(name)).find(|file| file.is_file()))
}

/// How guests run on this host: as was found since the machine booted, else by running one. Falls back to emulation with
/// a warning in the log.
pub(crate) async fn acceleration(probe: &Probe) -> Acceleration {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim();
    let cache = probe.state_dir.join(CACHE);
    let found = match cached(&cache, boot) {
        Some(known) if known == Acceleration::Kvm && !is_device(&probe.device) => look(probe).await,
        Some(known) => known,
        None => look_and_keep(probe, &cache, boot).await,
    };
    if let Acceleration::Tcg { why } = &found {
        tracing::warn!(
            why,
            "guests are EMULATED (TCG), which is some ten times slower: hardware acceleration doesn't run a guest here"
        );
    }
    found
}

/// The same without what was found before.
pub(crate) async fn look(probe: &Probe) -> Acceleration {
    if !is_device(&probe.device) {
        let why = format!(
            "there is no {}: no virtualisation in the processor or the firmware, or no kvm module",
            probe.device.display()
        );
        return Acceleration::Tcg { why };
    }
    match run(probe, "kvm").await {
        Ok(()) => Acceleration::Kvm,
        Err(why) => Acceleration::Tcg { why },
    }
}

async fn look_and_keep(probe: &Probe, cache: &Path, boot: &str) -> Acceleration {
    let found = look(probe).await;
    // Without the device looking is cheap, and a module may be loaded later.
    if is_device(&probe.device) && !boot.is_empty() {
        let text = match &found {
            Acceleration::Kvm => format!("{boot}\nkvm\n"),
            Acceleration::Tcg { why } => format!("{boot}\ntcg\n{why}\n"),
            Acceleration::Unneeded => return found,
        };
        let new = cache.with_extension("new");
        if let Err(error) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, cache)) {
            tracing::debug!(%error, "what was found of hardware acceleration can't be kept");
        }
    }
    found
}

fn cached(file: &Path, boot: &str) -> Option<Acceleration> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut lines = text.splitn(3, '\n');
    if boot.is_empty() || lines.next() != Some(boot) {
        return None;
    }
    match lines.next()? {
        "kvm" => Some(Acceleration::Kvm),
        "tcg" => Some(Acceleration::Tcg { why: lines.next().unwrap_or_default().trim().to_owned() }),
        _ => None,
    }
}

fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.file_type().is_char_device())
}

/// Runs the tiny guest. Why it didn't run, for people.
pub(crate) async fn run(probe: &Probe, accel: &str) -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("the guest that would tell is for x86_64 only".into());
    }
    // A folder of this very run: an agent and a check may look at the same time.
    let dir = probe.state_dir.join(format!("probe-{}", std::process::id()));
    let firmware = dir.join("guest");
    let _ = std::fs::remove_dir_all(&dir);
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir);
    made.and_then(|()| std::fs::write(&firmware, guest())).map_err(|e| format!("{}: {e}", dir.display()))?;
    let result = boot(probe, accel, &firmware).await;
    let _ = std::fs::remove_dir_all(&dir); // if it stays, the next run overwrites it
    result
}

async fn boot(probe: &Probe, accel: &str, firmware: &Path) -> Result<(), String> {
    let emulator = probe.emulator.display().to_string();
    let mut child = Command::new(&probe.emulator)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "none", "-monitor", "none"])
        .args(["-machine", &format!("pc,accel={accel}"), "-m", "16", "-bios"])
        .arg(firmware)
        .args(["-device", &format!("isa-debug-exit,iobase={PORT:#x},iosize=1")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| format!("{emulator} can't be started: {e}"))?;
    let said = child.stderr.take();
    let ended = tokio::time::timeout(probe.deadline, child.wait()).await;
    match ended {
        Ok(Ok(status)) if status.code() == Some(ENDED) => Ok(()),
        Ok(Ok(status)) => {
            let said = said_by(said).await;
            Err(format!("{emulator} with accel={accel} ended with {status} instead of running a guest: {said}"))
        }
        Ok(Err(error)) => Err(format!("{emulator} can't be waited for: {error}")),
        Err(_) => {
            bury(child).await;
            Err(format!(
                "a guest with accel={accel} hung: it didn't run a few instructions within {:?}",
                probe.deadline
            ))
        }
    }
}

async fn said_by(stderr: Option<tokio::process::ChildStderr>) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut text = Vec::new();
    if let Some(stderr) = stderr {
        // A child of QEMU may hold the pipe open.
        let _ = tokio::time::timeout(BURIAL, stderr.take(2000).read_to_end(&mut text)).await;
    }
    String::from_utf8_lossy(&text).trim().chars().take(500).collect()
}

/// Kills the guest's whole group. One that hangs in the kernel is left to it.
async fn bury(mut child: Child) {
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group
        && let Err(error) = rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
    {
        tracing::debug!(%error, "a guest that hung can't be killed");
    }
    if tokio::time::timeout(BURIAL, child.wait()).await.is_err() {
        tracing::warn!(pid = child.id(), "a guest that hung can't be ended: the kernel holds it");
    }
}

/// Firmware that says `SAID` at `PORT` from protected mode.
fn guest() -> Vec<u8> {
    const CODE: usize = 0xff00;
    const PROTECTED: usize = 0xff40;
    const TABLE: usize = 0xff80;
    const TABLE_POINTER: usize = 0xffa0;
    const RESET: usize = 0xfff0;
    // Where the ROM is when a processor starts.
    let physical = |offset: usize| u32::try_from(0xffff_0000_usize + offset).unwrap_or(0).to_le_bytes();
    let mut rom = vec![0xf4_u8; ROM]; // hlt
    let mut put = |at: usize, bytes: &[u8]| rom[at..at + bytes.len()].copy_from_slice(bytes);
    put(RESET, &[0xe9, 0x0d, 0xff]); // jmp CODE
    let [pointer_low, pointer_high, ..] = physical(TABLE_POINTER);
    put(CODE, &[0xfa, 0x66, 0x2e, 0x0f, 0x01, 0x16, pointer_low, pointer_high]); // cli; lgdt cs:[TABLE_POINTER]
    put(CODE + 8, &[0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]); // cr0 |= 1
    let [a, b, c, d] = physical(PROTECTED);
    put(CODE + 16, &[0x66, 0xea, a, b, c, d, 0x08, 0x00]); // jmp 8:PROTECTED
    // mov ecx, 100000; loop; mov al, SAID; out PORT, al; hlt; jmp hlt
    put(PROTECTED, &[0xb9, 0xa0, 0x86, 0x01, 0x00, 0xe2, 0xfe, 0xb0, SAID, 0xe6, PORT, 0xf4, 0xeb, 0xfd]);
    // Nothing, and code: all of memory, 32 bits.
    put(TABLE, &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0]);
    let [a, b, c, d] = physical(TABLE);
    put(TABLE_POINTER, &[0x0f, 0x00, a, b, c, d]);
    rom
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn probe(dir: &Path, emulator: &Path) -> Probe {
        // Any character device will do: what counts is what the emulator makes of it.
        Probe { device: "/dev/null".into(), deadline: Duration::from_millis(500), ..Probe::new(emulator, dir) }
    }

    fn script(dir: &Path, text: &str) -> PathBuf {
        let file = dir.join("emulator");
        std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[tokio::test]
    async fn the_tiny_guest_runs() {
        let Some(emulator) = emulator() else {
            use std::io::Write as _;
            let _ = std::io::stderr().write_all(b"\n!!! SKIPPED: the_tiny_guest_runs: needs qemu-system-x86\n");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let probe = Probe { deadline: Duration::from_secs(60), ..Probe::new(emulator, dir.path()) };
        assert_eq!(run(&probe, "tcg").await, Ok(()));
        // An accelerator that isn't there is told with QEMU's own words.
        let error = run(&probe, "nonsense").await.unwrap_err();
        assert!(error.contains("nonsense") && error.contains("instead of running"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays");
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let emulator = script(dir.path(), &format!("sleep 1000 & echo $! > {0}/child; wait", dir.path().display()));
        let Acceleration::Tcg { why } = look(&probe(dir.path(), &emulator)).await else { panic!("it hung") };
        assert!(why.contains("hung"), "{why}");
        let child = std::fs::read_to_string(dir.path().join("child")).unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
        let gone = || async {
            std::fs::read_to_string(&stat)
                .map_or(true, |s| s.rsplit_once(") ").is_some_and(|(_, r)| r.starts_with('Z')))
        };
        testkit::wait_until(gone, Duration::from_secs(10)).await;
    }

    #[tokio::test]
    async fn a_result_counts_until_the_machine_boots_again() {
        let dir = tempfile::tempdir().unwrap();
        let good = script(dir.path(), "exit 33");
        assert_eq!(acceleration(&probe(dir.path(), &good)).await, Acceleration::Kvm);
        // It isn't run again.
        let bad = script(dir.path(), "echo no such luck >&2; exit 1");
        assert_eq!(acceleration(&probe(dir.path(), &bad)).await, Acceleration::Kvm);
        let cache = dir.path().join(CACHE);
        std::fs::write(&cache, "another-boot\nkvm\n").unwrap();
        let Acceleration::Tcg { why } = acceleration(&probe(dir.path(), &bad)).await else { panic!("it failed") };
        assert!(why.contains("no such luck"), "{why}");
        // The reason is kept, too; and a device that has gone is no acceleration.
        assert_eq!(acceleration(&probe(dir.path(), &good)).await, Acceleration::Tcg { why });
        std::fs::remove_file(&cache).unwrap();
        let none = Probe { device: dir.path().join("kvm"), ..probe(dir.path(), &good) };
        assert!(matches!(acceleration(&none).await, Acceleration::Tcg { why } if why.contains("there is no")));
        assert!(!cache.exists(), "a missing device isn't remembered");
    }
}
