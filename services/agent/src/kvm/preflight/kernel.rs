//! What the kernel can, tried in a network namespace that is gone afterwards: lists of modules tell neither what is built in, nor
//! what works.

use super::{Check, Preflight};
use std::process::Stdio;
use std::time::Duration;

/// Loading modules takes its time on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Set by container engines; then frames between guests pass the machine's own packet filter.
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Kinds of file systems that the kernel knows now.
const FILE_SYSTEMS: &str = "/proc/filesystems";

/// Prints a line for each feature: its name, and `ok` or what went wrong.
const SCRIPT: &str = r#"
ip=$1; tc=$2; nft=$3
try() {
  feature=$1; shift
  if said=$("$@" 2>&1); then echo "$feature ok"; else echo "$feature" $said; fi
}
try bridges "$ip" link add base type bridge
"$ip" link set base up
try veth "$ip" link add pair type veth peer name riap
try 8021q "$ip" link add link base name base.5 type vlan id 5
try vxlan "$ip" link add vx5 type vxlan id 5 dev base dstport 8472
try tbf "$tc" qdisc add dev base root tbf rate 1mbit burst 131072 latency 50ms
try ingress "$nft" 'add table netdev t; add chain netdev t in { type filter hook ingress device base priority 0; policy accept; }; add rule netdev t in limit rate over 1000 bytes/second burst 1000 bytes drop'
try nat "$nft" 'add table ip n; add chain ip n out { type nat hook postrouting priority 100; }; add rule ip n out masquerade; add chain ip n on { type filter hook forward priority 0; }; add rule ip n on ct state established accept'
"#;

/// Name of the feature and of its check, whether hosts can't do without, who needs it, and the modules that have it.
const FEATURES: &[(&str, bool, &str, &str)] = &[
    ("bridges", true, "every network needs bridges", "bridge"),
    ("veth", true, "every router needs pairs of devices", "veth"),
    ("nat", true, "every router needs nftables with NAT", "nf_tables nft_chain_nat nft_masq nft_ct"),
    ("8021q", false, "networks that are VLANs need it", "8021q"),
    ("vxlan", false, "networks that are VXLANs need it", "vxlan"),
    ("tbf", false, "limits of what leaves guests and networks (networkrate) need this queueing", "sch_tbf"),
    ("ingress", false, "limits of what comes in (networkrate) need nftables' hook at devices", "nf_tables nft_limit"),
];

/// Tries each feature.
pub(super) async fn features(preflight: &Preflight) -> Vec<Check> {
    match tried(preflight).await {
        Ok(said) => FEATURES.iter().map(|feature| one(feature, &said)).collect(),
        Err(why) => vec![Check::warn(
            "kernel",
            format!("what it can isn't known, since it can't be tried in a network namespace: {why}"),
            "run this as root, outside of a container that may not make namespaces",
        )],
    }
}

fn one((name, needed, why, modules): &(&str, bool, &str, &str), said: &str) -> Check {
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::trim));
    let mend = || {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        format!("modprobe {modules} (kernels of Debian and Ubuntu have it; this one is {})", release.trim())
    };
    match line {
        Some("ok") => Check::ok(*name, "the kernel can (tried)"),
        found => {
            let said = found.filter(|text| !text.is_empty()).unwrap_or("nothing was said");
            let text = format!("the kernel can't, and {why}: {said}");
            if *needed { Check::fail(*name, text, mend()) } else { Check::warn(*name, text, mend()) }
        }
    }
}

/// What the script printed.
async fn tried(preflight: &Preflight) -> Result<String, String> {
    let unshare = preflight.program("unshare").ok_or("there is no unshare (apt-get install util-linux)")?;
    let mut command = tokio::process::Command::new(unshare);
    command.args(["--net", "sh", "-c", SCRIPT, "features"]);
    for tool in ["ip", "tc", "nft"] {
        command.arg(preflight.program(tool).unwrap_or_else(|| tool.into()));
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.map_err(|_| format!("not done within {PATIENCE:?}"))?.map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match said.trim().is_empty() {
        false => Ok(said),
        true => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Whether exports of NFS can be mounted.
pub(super) fn nfs(preflight: &Preflight) -> Check {
    let needs = "pools and secondary stores on NFS can't be mounted";
    if preflight.program("mount.nfs").is_none() {
        return Check::warn("nfs", format!("there is no client: {needs}"), "apt-get install nfs-common");
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list =
        |name: &str| std::fs::read_to_string(format!("/lib/modules/{}/{name}", release.trim())).unwrap_or_default();
    let loaded = std::fs::read_to_string(FILE_SYSTEMS).unwrap_or_default();
    let known = loaded.lines().any(|line| line.trim_start_matches("nodev").trim() == "nfs");
    if known || ["modules.dep", "modules.builtin"].into_iter().any(|name| list(name).contains("/nfs.ko")) {
        return Check::ok("nfs", "the kernel and mount.nfs are there");
    }
    Check::warn("nfs", format!("the kernel has no NFS: {needs}"), "modprobe nfs (kernels of Debian and Ubuntu have it)")
}

/// Settings that change what becomes of guests' packets.
pub(super) fn settings() -> Vec<Check> {
    let is = |file: &str| std::fs::read_to_string(file).is_ok_and(|v| v.trim() == "1");
    let mut checks = Vec::new();
    if is(BRIDGE_FILTER) {
        checks.push(Check::warn(
            "bridge filter",
            "frames between guests pass the machine's own packet filter, which may drop them (Docker does)",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0 (for good: a file in /etc/sysctl.d)",
        ));
    }
    checks.push(match is(FORWARD) {
        true => Check::ok("ip_forward", "on"),
        // Routers forward in namespaces of their own.
        false => Check::ok(
            "ip_forward",
            "off: fine, unless this machine itself is to route for guests (sysctl -w net.ipv4.ip_forward=1)",
        ),
    });
    checks
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::kvm::preflight::Verdict;
    use crate::kvm::preflight::tests::{named, with_programs};

    #[tokio::test]
    async fn what_the_kernel_cant_is_told_with_its_module() {
        let said = "echo bridges ok; echo veth ok; echo nat Error: Could not process rule; echo 8021q ok; echo vxlan Error: Unknown device type.";
        let (_dir, preflight) = with_programs(&[("unshare", said)]);
        let checks = features(&preflight).await;
        assert_eq!(named(&checks, "bridges").verdict, Verdict::Ok);
        let nat = named(&checks, "nat");
        assert!(nat.verdict == Verdict::Fail && nat.text.contains("Could not process rule"), "{nat}");
        assert!(nat.mend.as_ref().unwrap().contains("modprobe nf_tables"), "{nat}");
        let vxlan = named(&checks, "vxlan");
        assert!(vxlan.verdict == Verdict::Warn && vxlan.mend.as_ref().unwrap().contains("modprobe vxlan"), "{vxlan}");
        // What wasn't even tried isn't there.
        let tbf = named(&checks, "tbf");
        assert!(tbf.verdict == Verdict::Warn && tbf.mend.as_ref().unwrap().contains("sch_tbf"), "{tbf}");
        let (_dir, preflight) = with_programs(&[("unshare", "echo 'unshare failed: not permitted' >&2; exit 1")]);
        let checks = features(&preflight).await;
        let kernel = named(&checks, "kernel");
        assert!(
            checks.len() == 1 && kernel.verdict == Verdict::Warn && kernel.text.contains("not permitted"),
            "{kernel}"
        );
    }

    #[tokio::test]
    async fn this_kernel_is_tried_without_a_trace() {
        if !rustix::process::geteuid().is_root() {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                b"\n!!! SKIPPED: this_kernel_is_tried_without_a_trace: needs root\n",
            );
            return;
        }
        let preflight = Preflight::new(Default::default(), "/nowhere");
        let checks = features(&preflight).await;
        for name in ["bridges", "veth", "nat"] {
            assert_eq!(named(&checks, name).verdict, Verdict::Ok, "{}", named(&checks, name));
        }
        assert!(!std::path::Path::new("/sys/class/net/base").exists());
    }

    #[test]
    fn nfs_needs_a_client() {
        let (_dir, preflight) = with_programs(&[]);
        let without = nfs(&preflight);
        // What lies in /usr/sbin is found whatever the path says.
        if preflight.program("mount.nfs").is_none() {
            assert!(
                without.verdict == Verdict::Warn && without.mend.as_ref().unwrap().contains("nfs-common"),
                "{without}"
            );
        }
        let (_dir, preflight) = with_programs(&[("mount.nfs", "true")]);
        let with = nfs(&preflight);
        assert!(with.verdict == Verdict::Ok || with.text.contains("the kernel has no NFS"), "{with}");
    }
}
