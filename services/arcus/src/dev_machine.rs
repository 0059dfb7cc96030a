//! `arcus dev --hypervisor kvm`: the very machine as a host.
//!
//! What it makes on the machine, and takes away when it ends and nothing runs there any more:
//!
//! * the bridge `arcusbr0` with the addresses 198.18.0.1/24 (the host's own) and 198.18.1.1/24 (the gateway of the public range
//!   198.18.1.0/24: whatever guests publish there is reached from the machine itself). It has no physical port;
//! * a table `arcus_dev` of nftables that lets guests out with the machine's own address, and `ip_forward` switched on;
//! * the folder [`DIR`] with the agent's state, routers, and both storages. It stays: guests' disks lie there.
//!
//! 198.18.0.0/15 is set aside for tests of networks (RFC 2544), so it hardly ever is in use.

use agent::kvm::KvmOptions;
use agent::kvm::preflight::{self, Preflight, Verdict};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of the agent and of both storages. Not the data folder: routers' sockets need a short path, and their daemons, which
/// don't stay root, must be able to pass it.
pub const DIR: &str = "/var/lib/arcus/dev";
/// The bridge.
const BRIDGE: &str = "arcusbr0";
/// The host's own address.
pub(crate) const ADDRESS: &str = "198.18.0.1";
const ADDRESSES: [&str; 2] = ["198.18.0.1/24", "198.18.1.1/24"];
const PUBLIC: &str = "198.18.1.0/24";
const TABLE: &str = "arcus_dev";
/// Holds what `ip_forward` was before.
const FORWARD_BEFORE: &str = "ip_forward.before";

/// What the machine is told to use.
#[derive(Clone, Debug)]
pub struct Site {
    /// The folder of the agent and of both storages.
    pub dir: PathBuf,
    /// Another network namespace than the machine's own.
    pub namespace: Option<String>,
    /// libvirt's socket; none: the first of the usual ones.
    pub libvirt_socket: Option<PathBuf>,
}

impl Default for Site {
    fn default() -> Site {
        Site { dir: DIR.into(), namespace: None, libvirt_socket: None }
    }
}

impl Site {
    fn network(&self) -> Network {
        Network { namespace: self.namespace.clone(), state: self.dir.clone() }
    }
}

/// The machine, made ready.
pub struct Machine {
    site: Site,
    network: Network,
}

impl Machine {
    /// Looks whether the machine can be a host, and makes what it needs. Nothing is made when it can't.
    ///
    /// # Errors
    /// What is missing, after the checks were printed.
    pub async fn prepare(site: Site) -> Result<Machine> {
        let machine = Machine { network: site.network(), site };
        // The bridge is ours to make: only what else is missing counts.
        let preflight = Preflight { service: false, ..Preflight::new(machine.options(), machine.agent_dir()) };
        let checks = preflight::check(&preflight).await;
        let own = |name: &str| matches!(name, "guest device" | "public device" | "endpoint");
        let shown: Vec<_> = checks.into_iter().filter(|c| !own(&c.name) && c.verdict > Verdict::Ok).collect();
        for check in &shown {
            println!("{check}");
        }
        ensure!(
            preflight::passes(&shown),
            "this machine can't be a KVM host yet: mend what FAILed above (arcus agent check shows all checks)"
        );
        for dir in [machine.agent_dir(), machine.primary(), machine.secondary()] {
            std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        machine.network.make()?;
        println!(
            "arcus: this machine is a host: bridge {BRIDGE} ({}), NAT for {PUBLIC}, files in {}",
            ADDRESSES.join(", "),
            machine.site.dir.display()
        );
        Ok(machine)
    }

    /// What the agent of this machine is started with.
    pub fn agent(&self, dial: agent::Dial) -> agent::Options {
        agent::Options {
            hypervisor: agent::Kind::Kvm,
            kvm: self.options(),
            ..agent::Options::new(crate::agent_process::host_name(), self.agent_dir(), dial)
        }
    }

    fn options(&self) -> KvmOptions {
        KvmOptions {
            guest_device: BRIDGE.into(),
            public_device: BRIDGE.into(),
            private_ip: Some(ADDRESS.into()),
            libvirt_socket: self.site.libvirt_socket.clone(),
            network_namespace: self.site.namespace.clone(),
            mount_root: self.site.dir.join("mnt"),
            // The pool is a folder of the machine's own disk.
            allow_unmounted: true,
            ..KvmOptions::default()
        }
    }

    fn agent_dir(&self) -> PathBuf {
        self.site.dir.join("agent")
    }

    /// The folder of primary storage.
    pub fn primary(&self) -> PathBuf {
        self.site.dir.join("primary")
    }

    /// The folder of secondary storage.
    pub fn secondary(&self) -> PathBuf {
        self.site.dir.join("secondary")
    }

    /// Takes away what was made on the machine's network, unless guests or routers use it.
    ///
    /// # Errors
    /// What can't be removed.
    pub fn leave(&self) -> Result<()> {
        if self.network.is_used()? {
            println!(
                "arcus: guests or routers run on, so bridge {BRIDGE} and NAT stay. They are managed again by the next \
                 arcus dev --hypervisor kvm with the same --data-dir; destroy them through the API to be rid of them"
            );
            return Ok(());
        }
        self.network.remove()
    }

    /// Deletes the agent's state and both storages, for a new beginning.
    ///
    /// # Errors
    /// Guests or routers of before run, or a folder can't be deleted.
    pub fn reset(site: &Site) -> Result<()> {
        let network = site.network();
        ensure!(
            !network.is_used()?,
            "--reset: guests or routers of before still run on this machine, and nobody would know them any more: start without \
             --reset and destroy them first"
        );
        network.remove()?;
        match std::fs::remove_dir_all(&site.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| site.dir.display().to_string())
            }
            _ => Ok(()),
        }
    }
}

/// The bridge and the way out.
struct Network {
    /// Another network namespace than the machine's own: for tests.
    namespace: Option<String>,
    state: PathBuf,
}

impl Network {
    /// Makes everything that isn't there yet: a kill in the middle, or of the last run, doesn't matter.
    fn make(&self) -> Result<()> {
        if self.ip(&["link", "show", BRIDGE]).is_err() {
            self.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        }
        for address in ADDRESSES {
            self.ip(&["addr", "replace", address, "dev", BRIDGE])?;
        }
        self.ip(&["link", "set", BRIDGE, "up"])?;
        // Only what came in by the bridge: where frames between guests pass the machine's own filter (br_netfilter), those must not
        // change their sender.
        let rules = format!(
            "add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n  chain out {{\n    type nat hook postrouting \
             priority srcnat\n    iifname \"{BRIDGE}\" ip saddr {PUBLIC} oifname != \"{BRIDGE}\" masquerade\n  }}\n}}\n"
        );
        self.run("nft", &["-f", "-"], &rules)?;
        let before = self.state.join(FORWARD_BEFORE);
        if !before.exists() {
            let value = self.run("cat", &["/proc/sys/net/ipv4/ip_forward"], "")?;
            std::fs::create_dir_all(&self.state).with_context(|| self.state.display().to_string())?;
            std::fs::write(&before, value.trim()).with_context(|| before.display().to_string())?;
        }
        self.forward("1")
    }

    /// Removes everything that is there.
    fn remove(&self) -> Result<()> {
        self.run("nft", &["-f", "-"], &format!("add table ip {TABLE}\ndelete table ip {TABLE}\n"))?;
        if self.ip(&["link", "show", BRIDGE]).is_ok() {
            self.ip(&["link", "delete", BRIDGE])?;
        }
        let before = self.state.join(FORWARD_BEFORE);
        if let Ok(value) = std::fs::read_to_string(&before) {
            if value.trim() == "0" {
                self.forward("0")?;
            }
            std::fs::remove_file(&before).with_context(|| before.display().to_string())?;
        }
        Ok(())
    }

    fn forward(&self, value: &str) -> Result<()> {
        let write = format!("echo {value} > /proc/sys/net/ipv4/ip_forward");
        self.run("sh", &["-c", &write], "").map(drop)
    }

    /// Whether something is plugged into the bridge, or networks are laid on it.
    fn is_used(&self) -> Result<bool> {
        if self.ip(&["link", "show", BRIDGE]).is_err() {
            return Ok(false);
        }
        let ports = self.ip(&["-o", "link", "show", "master", BRIDGE])?;
        let tunnels = self.ip(&["-o", "-d", "link", "show", "type", "vxlan"])?;
        Ok(!ports.trim().is_empty() || tunnels.contains(&format!("dev {BRIDGE} ")))
    }

    fn ip(&self, args: &[&str]) -> Result<String> {
        self.run("ip", args, "")
    }

    fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        use std::io::Write as _;
        let mut all = match &self.namespace {
            Some(namespace) => vec!["ip", "netns", "exec", namespace.as_str(), program],
            None => vec![program],
        };
        all.extend(args);
        let shown = all.join(" ");
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| shown.clone())?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that doesn't read has failed, and says why below.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().with_context(|| shown.clone())?;
        if !output.status.success() {
            bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The first name server of this machine that guests reach, too: not one on its loopback.
pub(crate) fn name_server() -> String {
    let files = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];
    let text: String = files.iter().filter_map(|f| std::fs::read_to_string(Path::new(f)).ok()).collect();
    first_name_server(&text)
}

fn first_name_server(text: &str) -> String {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim);
    let mut v4 = servers.filter_map(|server| server.parse::<std::net::Ipv4Addr>().ok()).filter(|ip| !ip.is_loopback());
    // A public one, where the machine names none.
    v4.next().map_or_else(|| "9.9.9.9".to_owned(), |ip| ip.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on has failed
mod tests {
    use super::*;

    #[test]
    fn guests_ask_a_name_server_that_they_reach() {
        assert_eq!(first_name_server("nameserver 127.0.0.53\nnameserver fd00::1\n nameserver 10.0.0.2\n"), "10.0.0.2");
        assert_eq!(first_name_server("search example.org\n"), "9.9.9.9");
    }

    #[test]
    fn what_is_made_is_taken_away() {
        let namespace = format!("dev{}", std::process::id());
        if Command::new("ip").args(["netns", "add", &namespace]).status().is_ok_and(|s| s.success()) {
            let dir = tempfile::tempdir().unwrap();
            let network = Network { namespace: Some(namespace.clone()), state: dir.path().to_owned() };
            let whole = std::panic::catch_unwind(|| made_and_taken_away(&network));
            let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
            whole.unwrap();
        } else {
            use std::io::Write as _;
            let _ = std::io::stderr().write_all(b"\n!!! SKIPPED: what_is_made_is_taken_away: needs root\n");
        }
    }

    fn made_and_taken_away(network: &Network) {
        let all = || {
            let state = network.run("cat", &["/proc/sys/net/ipv4/ip_forward"], "").unwrap();
            state + &network.ip(&["-o", "-4", "addr"]).unwrap() + &network.run("nft", &["list", "ruleset"], "").unwrap()
        };
        network.run("sh", &["-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"], "").unwrap();
        let before = all();
        assert!(!network.is_used().unwrap());
        network.make().unwrap();
        network.make().unwrap();
        let made = all();
        assert!(made.starts_with('1') && made.contains("198.18.1.1/24") && made.contains("masquerade"), "{made}");
        assert!(!network.is_used().unwrap());
        // A guest's network laid on the bridge, or a router plugged in, keeps it.
        network.ip(&["link", "add", "vx", "type", "vxlan", "id", "5", "dev", BRIDGE, "dstport", "8472"]).unwrap();
        assert!(network.is_used().unwrap());
        network.ip(&["link", "del", "vx"]).unwrap();
        network
            .ip(&["link", "add", "r0", "type", "dummy"])
            .or_else(|_| network.ip(&["link", "add", "r0", "type", "veth"]))
            .unwrap();
        network.ip(&["link", "set", "r0", "master", BRIDGE]).unwrap();
        assert!(network.is_used().unwrap());
        network.ip(&["link", "del", "r0"]).unwrap();
        network.remove().unwrap();
        network.remove().unwrap();
        assert_eq!(all(), before, "nothing stays");
    }
}
