//! What a cluster needs.

use std::collections::BTreeMap;
use std::fmt;

/// Memory of processes, by kind of part, in KiB. Pages that processes share are counted in parts (PSS).
#[derive(Clone, Debug, Default)]
pub struct Memory(pub BTreeMap<String, u64>);

impl Memory {
    /// Adds a process.
    pub fn add(&mut self, kind: &str, pid: u32) {
        *self.0.entry(kind.to_owned()).or_default() += of_process(pid).unwrap_or_default();
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.total() / 1024)?;
        let parts: Vec<String> = self.0.iter().map(|(kind, kib)| format!("{kind} {}", kib / 1024)).collect();
        write!(f, " ({})", parts.join(", "))
    }
}

/// Memory of one process in KiB.
pub(crate) fn of_process(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|l| l.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
