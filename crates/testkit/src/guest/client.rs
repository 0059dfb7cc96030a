//! The command port of a guest, spoken from wherever the guest can be reached.

use crate::{Place, wait_until};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// The port that runs commands.
const COMMANDS: u16 = 2323;
/// How long a command may take: reading a disk takes its time when the processor is emulated.
const PATIENCE: Duration = Duration::from_secs(300);

/// A guest that is reached over the network.
#[derive(Clone, Debug)]
pub struct Guest {
    place: Place,
    address: SocketAddr,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its exit status.
    pub status: i32,
    /// What it printed, on both channels, without the line end at the end.
    pub output: String,
}

impl Guest {
    /// The guest at `IP` as seen from `place` (its network namespace; its address isn't used); returns when the command port answers.
    ///
    /// # Panics
    /// When it doesn't within two minutes.
    pub async fn connect(place: &Place, ip: impl std::fmt::Display) -> Guest {
        let address = format!("{ip}:{COMMANDS}").parse().expect("an IP address");
        Guest::at(place, address).await
    }

    /// The same when the command port is forwarded to another address.
    ///
    /// # Panics
    /// When it doesn't answer within two minutes.
    pub async fn at(place: &Place, address: SocketAddr) -> Guest {
        let guest = Guest { place: place.clone(), address };
        wait_until(|| async { guest.answers().await }, Duration::from_secs(120)).await;
        guest
    }

    /// Whether it runs a command within a few seconds.
    pub async fn answers(&self) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(5), self.try_run("true")).await, Ok(Some(_)))
    }

    /// Runs a shell script as root; `None` when the guest can't be reached, or goes before the end.
    pub async fn try_run(&self, script: &str) -> Option<Done> {
        let script = script.trim_end();
        let input = format!("{}\n{script}\n", script.lines().count());
        let answer = talk(&self.place, self.address, input.as_bytes(), PATIENCE).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (output, status) = answer.trim_end().rsplit_once("\n#exit ")?;
        Some(Done { status: status.parse().ok()?, output: output.trim_end_matches('\n').to_owned() })
    }

    /// Runs a shell script as root to its good end; gives what it printed.
    ///
    /// # Panics
    /// When the guest can't be reached, or the script fails.
    pub async fn run(&self, script: &str) -> String {
        let done = self.try_run(script).await.unwrap_or_else(|| panic!("{} doesn't answer: {script}", self.address));
        assert_eq!(done.status, 0, "{script}: {}", done.output);
        done.output
    }

    /// Its disks: names as in `/dev`, and bytes.
    ///
    /// # Panics
    /// As [`Guest::run`].
    pub async fn disks(&self) -> Vec<(String, u64)> {
        let list = self.run("disk rescan").await;
        let disk = |line: &str| {
            let (name, size) = line.split_once(' ')?;
            Some((name.to_owned(), size.parse().ok()?))
        };
        list.lines().filter_map(disk).collect()
    }

    /// Fills the first `mib` MiB of a device with what `seed` gives, to stay; gives their SHA-256 in hex as read back from the device.
    ///
    /// # Panics
    /// As [`Guest::run`].
    pub async fn write_disk(&self, device: &str, mib: u32, seed: &str) -> String {
        self.run(&format!("disk write '{device}' {mib} '{seed}'")).await
    }

    /// The SHA-256 in hex of the first `mib` MiB of a device, past the guest's caches.
    ///
    /// # Panics
    /// As [`Guest::run`].
    pub async fn disk_sum(&self, device: &str, mib: u32) -> String {
        self.run(&format!("disk sum '{device}' {mib}")).await
    }

    /// Shuts down from inside. Returns at once.
    pub async fn power_off(&self) {
        self.run("(usleep 200000; poweroff) >/dev/null 2>&1 &").await;
    }

    /// Its kernel panics and stays so.
    pub async fn crash(&self) {
        self.run("(usleep 200000; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &").await;
    }
}

/// Sends `input` to a TCP port as seen from `place`, says that this is all, and gives everything that comes back; `None` when there is no connection
/// within 5 s, or no end within `timeout`.
pub async fn talk(place: &Place, address: SocketAddr, input: &[u8], timeout: Duration) -> Option<Vec<u8>> {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let command = place.command(["busybox", "nc", "-w", "5", &ip, &port].map(str::to_owned).to_vec());
    let mut child = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("a program that connects (Debian package busybox)");
    let mut stdin = child.stdin.take()?;
    let conversation = async {
        // It doesn't read when there is no connection.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        child.wait_with_output().await.ok()
    };
    let output = tokio::time::timeout(timeout, conversation).await.ok()??;
    output.status.success().then_some(output.stdout)
}
