//! What a figure can't be read without: machine, versions, and the command that repeats it.

use serde_json::{Value, json};
use std::process::Command;

/// Names of flags whose value nobody else may see.
const SECRET: [&str; 2] = ["--apikey", "--secretkey"];

/// Where and with what it is measured.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What was typed, keys left out.
    pub command: String,
    /// Processor, cores, memory, kernel.
    pub machine: String,
    /// What the server says it is, and its program when it is our own.
    pub server: String,
    /// What it writes to.
    pub database: String,
    /// The zone: hosts, networks, accounts.
    pub zone: String,
    /// What makes the figures unfit for the record.
    pub warnings: Vec<String>,
}

impl Facts {
    /// Those of this machine.
    pub fn here() -> Facts {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = first_number(&read("/proc/loadavg"));
        let mut facts = Facts {
            command: shown_command(std::env::args()),
            machine: machine(
                &read("/proc/cpuinfo"),
                &read("/proc/meminfo"),
                &read("/proc/sys/kernel/osrelease"),
                cores,
            ),
            ..Facts::default()
        };
        if cfg!(debug_assertions) {
            facts.warnings.push("the load comes from a debug build".into());
        }
        if load > 0.5 {
            facts.warnings.push(format!("the machine wasn't idle: load {load} at the start"));
        }
        facts
    }

    /// Adds the server's program.
    pub fn program(&mut self, path: &str) {
        let version = first_line(Command::new(path).arg("--version"));
        let build = ["release", "debug"].into_iter().find(|kind| path.contains(&format!("/{kind}/")));
        let build = build.map_or("unknown build".to_owned(), |kind| format!("{kind} build"));
        if build != "release build" {
            self.warnings.push(format!("the server: {build}"));
        }
        self.server = format!("{version} ({path}, {build})");
    }

    /// As text above the tables.
    pub fn text(&self) -> String {
        let lines = [
            ("command", &self.command),
            ("machine", &self.machine),
            ("server", &self.server),
            ("database", &self.database),
            ("zone", &self.zone),
        ];
        let mut out: Vec<String> =
            lines.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("* {k}: `{v}`")).collect();
        out.extend(self.warnings.iter().map(|w| format!("* **not for the record: {w}**")));
        out.join("\n")
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({"facts": {
            "command": self.command, "machine": self.machine, "server": self.server, "database": self.database,
            "zone": self.zone, "warnings": self.warnings,
        }})
    }
}

/// The first line that a program prints; empty when it doesn't run.
pub fn first_line(command: &mut Command) -> String {
    let out = command.output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    out.lines().next().unwrap_or_default().trim().to_owned()
}

fn first_number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default()
}

fn machine(cpuinfo: &str, meminfo: &str, kernel: &str, cores: usize) -> String {
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|l| l.starts_with(key));
        line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
    };
    let gib = first_number(&value(meminfo, "MemTotal")) / 1024.0 / 1024.0;
    format!("{cores} cores of {}, {gib:.0} GiB, Linux {}", value(cpuinfo, "model name"), kernel.trim())
}

/// The command as it was typed, but for keys, which are never printed.
fn shown_command(args: impl Iterator<Item = String>) -> String {
    let mut shown = Vec::new();
    let mut hide = false;
    for arg in args {
        let flag = arg.split_once('=').map_or(arg.as_str(), |(flag, _)| flag);
        if hide {
            shown.push("…".to_owned());
        } else if SECRET.contains(&flag) && arg.contains('=') {
            shown.push(format!("{flag}=…"));
        } else {
            shown.push(if arg.contains(char::is_whitespace) { format!("'{arg}'") } else { arg.clone() });
        }
        hide = !hide && SECRET.contains(&arg.as_str());
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        shown_command(words.iter().map(|w| (*w).to_owned()))
    }

    #[test]
    fn keys_are_never_shown() {
        let text = shown(&["arcus-bench", "drive", "--apikey", "AAA", "--secretkey=SSS", "--vms", "0,100"]);
        assert_eq!(text, "arcus-bench drive --apikey … --secretkey=… --vms 0,100");
        assert_eq!(shown(&["b", "--secretkey", "--apikey", "--vms"]), "b --secretkey … --vms");
        assert_eq!(shown(&["b", "--url", "a b"]), "b --url 'a b'");
    }

    #[test]
    fn a_machine_in_one_line() {
        let cpu = "processor\t: 0\nmodel name\t: Some Processor\n";
        let text = machine(cpu, "MemTotal:       25165824 kB\nMemFree: 1 kB\n", "6.1.0\n", 2);
        assert_eq!(text, "2 cores of Some Processor, 24 GiB, Linux 6.1.0");
    }

    #[test]
    fn warnings_are_told() {
        let facts = Facts { command: "c".into(), warnings: vec!["w".into()], ..Facts::default() };
        assert_eq!(facts.text(), "* command: `c`\n* **not for the record: w**");
    }
}
