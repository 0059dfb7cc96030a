//! A host: a libvirtd in namespaces of its own, and `arcus agent` beside it.

use crate::control::binary;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testkit::{HostOptions, Libvirtd, Place, Process, wait_until};

/// How many of the processes that are seen at `proc` have an argument that begins so.
pub fn processes(proc: &Path, argument: &str) -> usize {
    let has = |entry: &std::fs::DirEntry| {
        // Those that have ended and aren't buried yet have no words.
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word.starts_with(argument.as_bytes()))
    };
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().as_encoded_bytes()[0].is_ascii_digit()).filter(has).count()
}

/// A KVM host.
pub struct Machine {
    agent: Option<Process>,
    libvirtd: Libvirtd,
    dir: PathBuf,
    /// Its address in the management network.
    pub address: String,
}

impl Machine {
    /// A machine at `place` with an agent that waits to be added. `dir` is its own folder: a short path that everybody may pass.
    pub async fn start(dir: &Path, place: Place, agents: &str, token: &str, hypervisor: &str) -> Machine {
        let containers = hypervisor == "LXC";
        let address = place.address.clone();
        let libvirtd = Libvirtd::start_with(&HostOptions { place, containers, ..HostOptions::default() }).await;
        std::fs::create_dir_all(dir).expect("the host's folder");
        std::fs::write(dir.join("token"), token).expect("the token");
        let at = dir.display();
        let config = format!(
            "[common]\nlog = \"info,arcus_agent=debug,agent=debug\"\n\n[agent]\nendpoints = [\"{agents}\"]\ntoken_file = \"{at}/token\"\nstate_dir = \"{at}/a\"\n\
             hypervisor = \"{}\"\n\n[agent.kvm]\nguest_device = \"eth0\"\npublic_device = \"cloudbr1\"\nprivate_ip = \"{address}\"\n\
             mount_root = \"{at}/mnt\"\nallow_unmounted = true\ncpu_limits = false\nreserved_memory_mib = 256\ngrace_seconds = 60\n",
            hypervisor.to_lowercase()
        );
        std::fs::write(dir.join("arcus.toml"), config).expect("the agent's configuration");
        let mut machine = Machine { agent: None, libvirtd, dir: dir.to_owned(), address };
        machine.start_agent();
        machine
    }

    /// Starts the agent (again).
    pub fn start_agent(&mut self) {
        let mut command = self.libvirtd.command(&binary());
        let (config, pid) = (self.dir.join("arcus.toml"), self.pid_file());
        let _ = std::fs::remove_file(&pid);
        command.arg("agent").arg("--config").arg(config).arg("--pid-file").arg(pid);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        self.agent = Some(Process::start(&words, &self.dir.join("agent.log"), None));
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("agent.pid")
    }

    /// `kill -9`: guests and routers go on.
    pub async fn kill_agent(&mut self) {
        // In the host's own numbers.
        let pid = std::fs::read_to_string(self.pid_file()).expect("the agent's pid file");
        self.run("kill", &["-KILL", pid.trim()]);
        let agent = self.agent.take().expect("a running agent");
        wait_until(|| async { !agent.alive() }, Duration::from_secs(60)).await;
    }

    /// Runs a program inside to its good end; gives what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).output().expect("the program");
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A program inside.
    pub fn command(&self, program: &str) -> Command {
        self.libvirtd.command(program)
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        self.libvirtd.name()
    }

    /// What a guest has said on its serial line.
    pub fn console(&self, instance: &str) -> String {
        let log = self.libvirtd.logs().join(format!("qemu/{instance}-console.log"));
        String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
    }

    /// The end of what the agent wrote.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The names of the domains that run.
    pub fn domains(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.notes().join("qemu")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter_map(|name| name.strip_suffix(".xml").map(str::to_owned)).collect()
    }

    /// How many QEMUs run a VM here.
    pub fn copies(&self, instance: &str) -> usize {
        processes(&self.libvirtd.root().join("proc"), &format!("guest={instance},"))
    }

    /// Where libvirt keeps notes of what runs; of a host that is off, of what ran.
    pub fn notes(&self) -> PathBuf {
        self.libvirtd.run_dir()
    }

    /// Its power is cut: everything that runs in it is gone at once. Its network is [`crate::network::Network::cut`]'s.
    pub async fn die(&mut self) {
        self.libvirtd.kill().await;
        self.agent = None;
    }

    /// It starts again, in a network that is there again, with what is on its disk.
    pub async fn boot(&mut self) {
        self.libvirtd.boot().await;
        self.start_agent();
    }

    /// Resident memory of the agent, KiB.
    pub fn agent_memory(&self) -> u64 {
        let pid = std::fs::read_to_string(self.pid_file()).expect("the agent's pid file");
        let status = self.run("cat", &[&format!("/proc/{}/status", pid.trim())]);
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Domains, QEMUs, network devices, namespaces, packet filter rules and routers' processes, in order.
    pub fn remains(&self) -> Vec<String> {
        let root = self.libvirtd.root();
        let mut all = Vec::new();
        for folder in ["run/libvirt/qemu", "etc/libvirt/qemu", "run/netns"] {
            let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let names = names.filter(|name| folder == "run/netns" || name.ends_with(".xml"));
            all.extend(names.map(|name| format!("{folder}/{name}")));
        }
        let links = self.run("ip", &["-o", "link"]);
        let name = |line: &str| line.split(": ").nth(1).and_then(|n| n.split('@').next()).map(str::to_owned);
        all.extend(links.lines().filter_map(name).map(|name| format!("device {name}")));
        all.extend(self.run("nft", &["list", "tables"]).lines().map(str::to_owned));
        // One that ends meanwhile isn't there any more.
        let processes = self.run("sh", &["-c", "cat /proc/[0-9]*/comm 2>/dev/null || true"]);
        let ours = |name: &&str| ["qemu-system", "dnsmasq", "haproxy"].iter().any(|known| name.starts_with(known));
        all.extend(processes.lines().filter(ours).map(|name| format!("process {name}")));
        all.sort();
        all
    }
}
