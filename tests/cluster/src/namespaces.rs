//! A network namespace for each part, so that each can be cut off from the others.
//!
//! ```text
//! this machine ── veth "arcus-1a2b" ── bridge in the namespace "arcus-1a2b-hub" ── veth ── "arcus-1a2b-etcd-1", …
//!      10.26.43.1                                                                              10.26.43.10, …
//! ```
//!
//! The second and third byte of the addresses are drawn at random, name everything, and are claimed by a lock on a file
//! in /run/arcus-cluster: a lock ends with its process, so that the next start finds out what a killed run left.

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::Place;

const CLAIMS: &str = "/run/arcus-cluster";
const NAMESPACES: &str = "/run/netns";
/// The table of nftables that cuts a part off.
const TABLE: &str = "inet arcus_cut";

/// The namespaces of one cluster, removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespaces {
    net: Net,
    names: Vec<String>,
    // Locked as long as the cluster lives.
    _claim: File,
}

/// Second and third byte of a cluster's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Net(u8, u8);

impl Net {
    fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, self.1, host)
    }

    /// Start of the names of its namespaces, and the name of the link in this machine's own.
    fn name(self) -> String {
        format!("arcus-{:02x}{:02x}", self.0, self.1)
    }

    fn hub(self) -> String {
        format!("{}-hub", self.name())
    }

    fn part(self, name: &str) -> String {
        format!("{}-{name}", self.name())
    }

    fn claim(self) -> PathBuf {
        Path::new(CLAIMS).join(self.name())
    }

    fn of_claim(file: &str) -> Option<Net> {
        let digits = file.strip_prefix("arcus-").filter(|d| d.len() == 4)?;
        let n = u16::from_str_radix(digits, 16).ok()?;
        let [a, b] = n.to_be_bytes();
        Some(Net(a, b))
    }
}

impl Namespaces {
    /// Makes a namespace for each of the names; removes first what runs left that were killed. The network that `kept`
    /// names is taken, or `kept` is written: etcd remembers its members' addresses.
    pub(crate) fn create(names: &[String], kept: &Path) -> Result<Namespaces> {
        ensure!(names.len() <= 200, "{} parts are too many for one network", names.len());
        for tool in ["ip", "nft", "nsenter"] {
            let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            ensure!(found.is_ok(), "{tool} is missing: run deploy/setup-dev cluster");
        }
        std::fs::create_dir_all(CLAIMS).with_context(|| format!("{CLAIMS}: network namespaces need root"))?;
        // One at a time looks for leftovers and claims a network.
        let all = File::create(Path::new(CLAIMS).join("lock"))?;
        all.lock()?;
        remove_leftovers()?;
        let (net, claim) = match std::fs::read_to_string(kept).ok().and_then(|text| Net::of_claim(text.trim())) {
            Some(net) => {
                claim(net)?.with_context(|| format!("{} is in use: begin anew with --reset", net.address(0)))?
            }
            None => any()?,
        };
        std::fs::write(kept, net.name()).with_context(|| kept.display().to_string())?;
        let made = Namespaces { net, names: names.to_vec(), _claim: claim };
        made.build().context("network namespaces need root")?;
        Ok(made)
    }

    fn build(&self) -> Result<()> {
        let (net, hub, link) = (self.net, self.net.hub(), self.net.name());
        let mut machine = vec![format!("netns add {hub}")];
        machine.extend(self.names.iter().map(|n| format!("netns add {}", net.part(n))));
        machine.push(format!("link add name {link} type veth peer name uplink netns {hub}"));
        machine.push(format!("addr add {}/24 dev {link}", net.address(1)));
        machine.push(format!("link set dev {link} up"));
        ip(None, &machine)?;
        let mut inside = vec!["link add name bridge0 type bridge".to_owned(), "link set dev bridge0 up".to_owned()];
        inside.extend(["link set dev uplink master bridge0".to_owned(), "link set dev uplink up".to_owned()]);
        for (i, name) in self.names.iter().enumerate() {
            inside.push(format!("link add name port{i} type veth peer name eth0 netns {}", net.part(name)));
            inside.push(format!("link set dev port{i} master bridge0"));
            inside.push(format!("link set dev port{i} up"));
        }
        ip(Some(&hub), &inside)?;
        for name in &self.names {
            let at = self.address(name)?;
            let lines =
                [format!("addr add {at}/24 dev eth0"), "link set dev eth0 up".into(), "link set dev lo up".into()];
            ip(Some(&net.part(name)), &lines)?;
        }
        Ok(())
    }

    /// The address of a part.
    pub(crate) fn address(&self, name: &str) -> Result<Ipv4Addr> {
        let i = self.names.iter().position(|n| n == name).with_context(|| format!("no part {name}"))?;
        Ok(self.net.address(10 + u8::try_from(i)?))
    }

    /// Where a part's server runs.
    pub(crate) fn place(&self, name: &str) -> Result<Place> {
        let file = Path::new(NAMESPACES).join(self.net.part(name));
        // Not `ip netns exec`: that mounts /sys anew for each process.
        let prefix = vec!["nsenter".to_owned(), format!("--net={}", file.display()), "--".to_owned()];
        Ok(Place { address: self.address(name)?.to_string(), prefix })
    }

    /// Drops every packet between a part and the given others (nobody given: the rest of the world), in both directions
    /// and of connections that exist, too. Nobody is told: that is what a broken cable is like.
    pub(crate) fn cut(&self, name: &str, from: &[String]) -> Result<()> {
        self.heal(name)?;
        let (policy, input, output) = if from.is_empty() {
            ("drop", "iif lo accept".to_owned(), "oif lo accept".to_owned())
        } else {
            let peers = from.iter().map(|n| self.address(n).map(|a| a.to_string())).collect::<Result<Vec<_>>>()?;
            let peers = peers.join(", ");
            ("accept", format!("ip saddr {{ {peers} }} drop"), format!("ip daddr {{ {peers} }} drop"))
        };
        let rules = format!(
            "table {TABLE} {{\n\
             chain incoming {{ type filter hook input priority -300; policy {policy}; {input}; }}\n\
             chain outgoing {{ type filter hook output priority -300; policy {policy}; {output}; }}\n}}\n"
        );
        self.nft(name, &rules)
    }

    /// Undoes [`Namespaces::cut`].
    pub(crate) fn heal(&self, name: &str) -> Result<()> {
        // Made first, so that deleting it never fails.
        self.nft(name, &format!("table {TABLE}\ndelete table {TABLE}\n"))
    }

    fn nft(&self, name: &str, rules: &str) -> Result<()> {
        let file = Path::new(NAMESPACES).join(self.net.part(name));
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", file.display())).args(["--", "nft", "-f", "-"]);
        fed(command, rules).with_context(|| format!("nftables in the namespace of {name}"))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Nothing can be done about an error here; the next start tries again, because the claim's file stays then.
        if remove(self.net).is_ok() {
            let _ = std::fs::remove_file(self.net.claim());
        }
    }
}

/// Claims a network, unless a cluster or an interface of this machine uses it.
fn claim(net: Net) -> Result<Option<(Net, File)>> {
    let used = Command::new("ip").args(["-o", "-4", "addr", "show"]).output()?;
    let neighbours = format!(" 10.{}.", net.0);
    if String::from_utf8_lossy(&used.stdout).contains(&neighbours) || net.claim().exists() {
        return Ok(None);
    }
    let file = File::create(net.claim())?;
    file.lock()?;
    Ok(Some((net, file)))
}

/// Claims a network drawn at random.
fn any() -> Result<(Net, File)> {
    for _ in 0..100 {
        if let Some(claimed) = claim(Net(rand::random_range(64..=250), rand::random()))? {
            return Ok(claimed);
        }
    }
    bail!("no network 10.x.y.0/24 is free: see {CLAIMS}")
}

/// Removes what belongs to claims that nobody holds any more.
fn remove_leftovers() -> Result<()> {
    for entry in std::fs::read_dir(CLAIMS)? {
        let entry = entry?;
        let Some(net) = entry.file_name().to_str().and_then(Net::of_claim) else { continue };
        if File::open(entry.path())?.try_lock().is_ok() {
            remove(net)?;
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes the namespaces of a network, and with them its links.
fn remove(net: Net) -> Result<()> {
    let prefix = format!("{}-", net.name());
    let mut lines = Vec::new();
    if Path::new("/sys/class/net").join(net.name()).exists() {
        lines.push(format!("link del dev {}", net.name()));
    }
    if Path::new(NAMESPACES).exists() {
        for entry in std::fs::read_dir(NAMESPACES)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) {
                lines.push(format!("netns del {name}"));
            }
        }
    }
    if lines.is_empty() { Ok(()) } else { ip(None, &lines) }
}

/// Runs several commands of `ip` at once, in a namespace or in this one.
fn ip(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]);
    let mut text = lines.join("\n");
    text.push('\n');
    fed(command, &text)
}

/// Runs a command that reads `input`.
fn fed(mut command: Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    child.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_network() {
        let net = Net(0x1a, 0xff);
        assert_eq!((net.name(), net.address(10).to_string()), ("arcus-1aff".to_owned(), "10.26.255.10".to_owned()));
        assert_eq!(Net::of_claim(&net.name()), Some(net));
        for other in ["lock", "arcus-1af", "arcus-1afff", "arcus-zzzz", "other-1aff"] {
            assert_eq!(Net::of_claim(other), None);
        }
        // The kernel allows 15 characters.
        assert!(net.name().len() <= 15);
    }
}
