//! A container's limits, where it can't change them.
//!
//! libvirt writes them into the container's own group. Where control groups are of version 2 it gives all of that group to the
//! container's root, who may write there what it likes. So they hold for systemd's scope around it as well, which is the host's.

use crate::kvm::guests::process::Process;
use crate::kvm::guests::xml::Element;
use contract::ApiError;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(5);
/// What every busctl says: systemd's method that sets properties of a unit, until it ends.
const SET: [&str; 6] = [
    "call",
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
    "SetUnitProperties",
    "sba(sv)",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    /// Bytes.
    memory: u64,
    /// Microseconds of CPU time within so many.
    cpu: Option<(u64, u64)>,
}

impl Limits {
    /// As libvirt has them in a domain's XML.
    fn read(xml: &str) -> Result<Limits, String> {
        let domain = Element::read(xml)?;
        let number = |path: &[&str]| domain.at(path).and_then(|element| element.text.trim().parse::<u64>().ok());
        let memory = number(&["memory"]).ok_or("a domain without memory")?;
        let cpu = number(&["cputune", "quota"]).zip(number(&["cputune", "period"]));
        Ok(Limits { memory: memory << 10, cpu: cpu.filter(|(_, period)| *period > 0) })
    }

    /// The whole percents of a processor that leave a container what it may have, and the period: systemd forgets fractions when it
    /// reads its units anew.
    fn percents(self) -> Option<(u64, u64)> {
        self.cpu.map(|(quota, period)| ((quota * 100).div_ceil(period), period))
    }

    /// What busctl says after the unit's name.
    fn properties(self) -> Vec<String> {
        let mut all = vec![("MemoryMax", self.memory)];
        if let Some((percents, period)) = self.percents() {
            all.extend([("CPUQuotaPerSecUSec", percents * 10_000), ("CPUQuotaPeriodUSec", period)]);
        }
        let words = all.iter().flat_map(|(name, value)| [(*name).to_owned(), "t".to_owned(), value.to_string()]);
        // For as long as the unit lasts.
        ["true".to_owned(), all.len().to_string()].into_iter().chain(words).collect()
    }

    /// Whether a group has them.
    fn hold(self, group: &Path) -> bool {
        let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap_or_default();
        let quota = |(percents, period): (u64, u64)| format!("{} {period}", percents * period / 100);
        let cpu = self.percents().is_none_or(|cpu| read("cpu.max").trim() == quota(cpu));
        cpu && read("memory.max").trim() == self.memory.to_string()
    }
}

/// Has the limits of a container hold whatever its root does. Doing it twice is doing it once.
///
/// # Errors
/// 534: systemd doesn't take them.
pub(super) async fn confine(process: &Process, xml: &str) -> Result<(), ApiError> {
    let Some(group) = process.unified_group() else { return Ok(()) };
    let limits = Limits::read(xml).map_err(ApiError::internal)?;
    let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.ends_with(".scope") {
        tracing::warn!(group = name, "systemd-machined doesn't know a container, whose root can lift its limits");
        return Ok(());
    }
    if limits.hold(group) {
        return Ok(());
    }
    let mut command = Command::new("busctl");
    command.args(SET).arg(name).args(limits.properties()).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |what: &dyn std::fmt::Display| {
        ApiError::unavailable(format!("systemd doesn't limit what the container may use: {what}"))
    };
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => Err(failed(&"it doesn't answer")),
        Ok(Err(error)) => Err(failed(&format_args!("busctl: {error}"))),
        Ok(Ok(output)) if !output.status.success() => Err(failed(&String::from_utf8_lossy(&output.stderr).trim())),
        Ok(Ok(_)) if limits.hold(group) => Ok(()),
        Ok(Ok(_)) => Err(failed(&"it took them, but its group hasn't them")),
    }
}

/// The same for one that runs already: tried until it is done or the container has ended.
pub(super) fn keep(vm: &str, process: Arc<Process>, xml: String) {
    let vm = vm.to_owned();
    tokio::spawn(async move {
        while let Err(error) = confine(&process, &xml).await {
            tracing::warn!(vm, %error, "a container's root can lift its limits; trying again");
            if process.gone_within(AGAIN).await {
                return;
            }
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_told_and_found() {
        let domain = |tune: &str| format!("<domain type='lxc'><memory unit='KiB'>98304</memory>{tune}</domain>");
        let free = Limits::read(&domain("<cputune><shares>520</shares></cputune>")).unwrap();
        assert_eq!(free, Limits { memory: 96 << 20, cpu: None });
        assert_eq!(free.properties().join(" "), "true 1 MemoryMax t 100663296");
        let tune = "<cputune><shares>9</shares><period>100000</period><quota>12345</quota></cputune>";
        let limits = Limits::read(&domain(tune)).unwrap();
        assert_eq!(
            limits.properties().join(" "),
            "true 3 MemoryMax t 100663296 CPUQuotaPerSecUSec t 130000 CPUQuotaPeriodUSec t 100000"
        );
        assert!(Limits::read("<domain/>").is_err());

        let group = testkit::temp_dir();
        let write = |file: &str, text: &str| std::fs::write(group.path().join(file), text).unwrap();
        assert!(!limits.hold(group.path()));
        write("memory.max", "100663296\n");
        write("cpu.max", "max 100000\n");
        assert!(free.hold(group.path()) && !limits.hold(group.path()));
        write("cpu.max", "13000 100000\n");
        assert!(limits.hold(group.path()));
        write("memory.max", "max\n");
        assert!(!limits.hold(group.path()));
    }
}
