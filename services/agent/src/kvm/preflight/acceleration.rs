//! Whether the processor runs guests, and what is in the way when it doesn't.

use super::Check;
use crate::kvm::probe::{self, Acceleration, Probe};
use std::path::Path;

const DEVICE: &str = "/dev/kvm";

/// A guest is run to know.
pub(super) async fn check() -> Check {
    let Some(emulator) = probe::emulator() else {
        let text = "there is no QEMU for this processor: nothing can be tried";
        return Check::fail("acceleration", text, "apt-get install qemu-system-x86");
    };
    // Not the agent's folder, which may not be there yet: a check makes nothing.
    let dir = std::env::temp_dir().join(format!("arcus-check-{}", std::process::id()));
    let found = probe::look(&Probe::new(emulator, &dir)).await;
    let _ = std::fs::remove_dir(&dir); // the probe has removed what it made in it
    match found {
        Acceleration::Unneeded => Check::ok("acceleration", "containers need none"),
        Acceleration::Kvm => Check::ok("acceleration", "the processor runs guests (a tiny one was run)"),
        Acceleration::Tcg { why } => {
            let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let text = format!("guests would be EMULATED, some ten times slower: {why}");
            Check::warn("acceleration", text, mend(&cpuinfo, Path::new(DEVICE).exists()))
        }
    }
}

/// What is to be done, by what the processor says of itself.
fn mend(cpuinfo: &str, device: bool) -> String {
    let flags = || cpuinfo.lines().filter(|line| line.starts_with("flags")).flat_map(str::split_whitespace);
    let has = |flag: &str| flags().any(|word| word == flag);
    let module = if has("svm") { "kvm_amd" } else { "kvm_intel" };
    let nested = "switch on nested virtualisation for this VM where it runs (there: options kvm_intel nested=1 or kvm_amd nested=1, and a \
                  CPU of host-passthrough)";
    match (has("vmx") || has("svm"), has("hypervisor"), device) {
        // What has the flag and the device, and hangs, is a fault further down.
        (true, true, true) => format!("this machine is a VM whose nested virtualisation doesn't work: {nested}"),
        (true, false, true) => format!("dmesg | grep -i kvm; modprobe -r {module}; modprobe {module}; newer firmware"),
        (true, _, false) => format!("modprobe {module} (a kernel of the distribution has it)"),
        (false, true, _) => format!("this machine is a VM: {nested}"),
        (false, false, _) => "switch on VT-x or AMD-V (SVM) in the firmware".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_named() {
        let of = |flags: &str, device| mend(&format!("processor : 0\nflags\t\t: fpu {flags} sse2\n"), device);
        assert!(of("vmx", false).contains("modprobe kvm_intel"));
        assert!(of("svm", false).contains("modprobe kvm_amd"));
        assert!(of("", false).contains("firmware"));
        assert!(of("hypervisor", false).contains("this machine is a VM: switch on nested"));
        assert!(of("vmx hypervisor", true).contains("doesn't work"));
        assert!(of("svm", true).contains("modprobe -r kvm_amd"));
    }
}
