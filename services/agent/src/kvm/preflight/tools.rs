//! Programs, the service, the clock.

use super::{Check, Preflight};
use std::process::Stdio;
use std::time::Duration;

/// What the agent runs, and Debian's packages with it.
const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-img", "qemu-utils"),
    ("nft", "nftables"),
    ("dnsmasq", "dnsmasq-base"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("prlimit", "util-linux"),
];
/// What it runs for containers.
const FOR_CONTAINERS: &[(&str, &str)] = &[
    ("mke2fs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("fsfreeze", "util-linux"),
    ("xfs_io", "xfsprogs"),
];
/// The service that `deploy/systemd` has.
const UNIT: &str = "arcus-agent.service";
/// Longest that a tool may take to say something.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn all(preflight: &Preflight) -> Vec<Check> {
    let check = |(program, package): &(&str, &str)| match preflight.program(program) {
        Some(file) => Check::ok(*program, file.display().to_string()),
        None => Check::fail(*program, "isn't installed", format!("apt-get install {package}")),
    };
    let more = if preflight.kvm.containers { FOR_CONTAINERS } else { &[] };
    PROGRAMS.iter().chain(more).map(check).collect()
}

/// Guests and the routers' daemons outlive the agent only if systemd kills nothing but the agent.
pub(super) async fn service(preflight: &Preflight) -> Check {
    let install = "install -m 644 deploy/systemd/arcus-agent.service /etc/systemd/system/ && systemctl daemon-reload";
    let said = said(preflight, "systemctl", &["show", UNIT, "--property=LoadState,KillMode,ActiveState"]).await;
    let Some(said) = said else {
        let text = "there is no systemd here: whatever starts the agent must end only the agent, not its children";
        return Check::warn("service", text, "a starter that sends SIGTERM to the agent's process alone");
    };
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    match (value("LoadState="), value("KillMode=")) {
        ("loaded", "process") => Check::ok("service", format!("{UNIT} is {}, KillMode=process", value("ActiveState="))),
        ("loaded", other) => {
            let text = format!("{UNIT} has KillMode={other}: a restart of the agent would end routers");
            Check::fail("service", text, "systemctl edit arcus-agent, [Service] KillMode=process")
        }
        _ => Check::warn("service", format!("{UNIT} isn't installed"), install),
    }
}

pub(super) async fn clock(preflight: &Preflight) -> Check {
    let mend = "apt-get install chrony && timedatectl set-ntp true";
    match said(preflight, "timedatectl", &["show", "--property=NTPSynchronized", "--value"]).await.as_deref() {
        Some("yes") => return Check::ok("clock", "synchronised"),
        Some("no") => return Check::warn("clock", "isn't synchronised: certificates and logs need the time", mend),
        _ => {}
    }
    match said(preflight, "chronyc", &["-c", "tracking"]).await {
        Some(said) if said.ends_with("Not synchronised") => Check::warn(
            "clock",
            "chrony runs and has no server that answers: certificates and logs need the time",
            mend,
        ),
        Some(_) => Check::ok("clock", "chrony looks after it"),
        None => Check::warn(
            "clock",
            "nobody can tell whether it is synchronised: certificates and logs need the time",
            mend,
        ),
    }
}

/// What a program says; `None` when it isn't there, fails, or doesn't end.
pub(super) async fn said(preflight: &Preflight, program: &str, args: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new(preflight.program(program)?);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::kvm::preflight::Verdict;
    use crate::kvm::preflight::tests::with_programs;

    #[tokio::test]
    async fn a_clock_that_nobody_sets_is_told() {
        type Programs<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Programs<'_>, Verdict, &str); 5] = [
            (&[("timedatectl", "echo yes")], Verdict::Ok, "synchronised"),
            (&[("timedatectl", "echo no")], Verdict::Warn, "isn't synchronised"),
            (&[("timedatectl", "exit 1"), ("chronyc", "echo A,B,3,Normal")], Verdict::Ok, "chrony"),
            (
                &[("timedatectl", "exit 1"), ("chronyc", "echo '7F7F0101,,0,Not synchronised'")],
                Verdict::Warn,
                "no server",
            ),
            (&[("timedatectl", "exit 1"), ("chronyc", "exit 1")], Verdict::Warn, "nobody can tell"),
        ];
        for (programs, verdict, text) in cases {
            let (_dir, preflight) = with_programs(programs);
            let check = clock(&preflight).await;
            assert!(check.verdict == verdict && check.text.contains(text), "{check}");
            assert_eq!(check.mend.is_some(), verdict == Verdict::Warn, "{check}");
        }
    }

    #[tokio::test]
    async fn a_service_that_would_end_routers_is_told() {
        let show =
            |load: &str, mode: &str| format!("echo LoadState={load}; echo KillMode={mode}; echo ActiveState=active");
        for (load, mode, verdict, mend) in [
            ("loaded", "process", Verdict::Ok, ""),
            ("loaded", "control-group", Verdict::Fail, "KillMode=process"),
            ("not-found", "control-group", Verdict::Warn, "deploy/systemd/arcus-agent.service"),
        ] {
            let (_dir, preflight) = with_programs(&[("systemctl", &show(load, mode))]);
            let check = service(&preflight).await;
            assert!(check.verdict == verdict && check.mend.clone().unwrap_or_default().contains(mend), "{check}");
        }
    }
}
