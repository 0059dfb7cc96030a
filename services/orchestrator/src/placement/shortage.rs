//! Why no host was found: a typed reason for each that was looked at.

use contract::ApiError;

/// Why a host can't take a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejection {
    /// It isn't connected.
    NotUp,
    /// It, its cluster or its pod is disabled, or it is in maintenance.
    Disabled,
    /// It lacks a host tag of the offering.
    Tags,
    /// It is kept for VMs whose host failed.
    ForHa,
    /// Too little CPU is left.
    Cpu,
    /// Too little memory is left.
    Memory,
    /// It runs as many VMs as its hypervisor may.
    Guests,
    /// It isn't the host, cluster or pod that was asked for.
    NotAskedFor,
    /// Its cluster has no room for the disks.
    Storage,
    /// Another VM of an affinity group is there, whose members stay apart.
    Apart,
    /// The other VMs of an affinity group are elsewhere, whose members stay together.
    Together,
    /// It is kept for others.
    Dedicated,
    /// It isn't one of those that are kept for the VM's affinity groups.
    NotDedicated,
    /// Another account has it to itself, or this account for VMs of strict implicit dedication only.
    Kept,
    /// It isn't the account's alone, as strict implicit dedication asks.
    Shared,
    /// Its cluster has given away what it may.
    Threshold,
    /// Others were faster.
    Taken,
}

impl Rejection {
    /// The reason in words.
    pub const fn words(self) -> &'static str {
        match self {
            Rejection::NotUp => "not connected",
            Rejection::Disabled => "disabled or in maintenance",
            Rejection::Tags => "without a host tag of the offering",
            Rejection::ForHa => "kept for restarts after failures (ha.tag)",
            Rejection::Cpu => "short of CPU",
            Rejection::Memory => "short of memory",
            Rejection::Guests => "full of guests",
            Rejection::NotAskedFor => "not what was asked for",
            Rejection::Storage => "without room for the disks",
            Rejection::Apart => "with another machine of its affinity group",
            Rejection::Together => "without the other machines of its affinity group",
            Rejection::Dedicated => "dedicated to others",
            Rejection::NotDedicated => "not dedicated to its affinity group",
            Rejection::Kept => "kept for one account by strict implicit dedication",
            Rejection::Shared => "not this account's alone, as strict implicit dedication asks",
            Rejection::Threshold => "in a cluster that would pass its disable threshold",
            Rejection::Taken => "taken by others at the same time",
        }
    }
}

/// The outcome of a search without success.
#[derive(Clone, Debug, Default)]
pub struct Shortage {
    /// What was wanted, in words.
    pub wanted: String,
    /// Host name and reason.
    pub rejected: Vec<(String, Rejection)>,
}

impl Shortage {
    /// How often each reason occurred, the commonest first.
    pub fn counts(&self) -> Vec<(Rejection, usize)> {
        let mut counts: Vec<(Rejection, usize)> = Vec::new();
        for (_, reason) in &self.rejected {
            match counts.iter_mut().find(|(r, _)| r == reason) {
                Some((_, n)) => *n += 1,
                None => counts.push((*reason, 1)),
            }
        }
        counts.sort_by_key(|(r, n)| (std::cmp::Reverse(*n), *r));
        counts
    }

    /// What was short, in one line.
    pub fn summary(&self) -> String {
        let counts = self.counts();
        if counts.is_empty() {
            return "there is no host".to_owned();
        }
        counts.iter().map(|(r, n)| format!("{n} {}", r.words())).collect::<Vec<_>>().join(", ")
    }

    /// The error of a deployment: everybody reads what was short, root admins read which host lacked what.
    pub fn to_error(&self) -> ApiError {
        let short = self.summary();
        let hosts: Vec<String> =
            self.rejected.iter().take(40).map(|(host, r)| format!("{host}: {}", r.words())).collect();
        let detail = format!("Unable to find a host for {}: {short}. {}", self.wanted, hosts.join("; "));
        ApiError::capacity(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_counts_reasons() {
        let shortage = Shortage {
            wanted: "1 x 100 MHz, 128 MiB".into(),
            rejected: vec![
                ("a".into(), Rejection::Cpu),
                ("b".into(), Rejection::Memory),
                ("c".into(), Rejection::Memory),
            ],
        };
        let error = shortage.to_error();
        assert_eq!(error.code, 533);
        assert!(error.full_text().contains("2 short of memory, 1 short of CPU"), "{}", error.full_text());
        assert!(!error.text.contains("short of"), "only root admins read internal details");
    }
}
