//! A newcomer's machine, and the commands of README.md as they stand there.

use crate::namespace::Namespace;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use testkit::{HostOptions, Libvirtd, Process, guest, wait_until};

const README: &str = include_str!("../../../../README.md");
/// Its chapter.
const CHAPTER: &str = "\n## A real guest\n";
/// Emulated guests take their time.
const PATIENCE: Duration = Duration::from_secs(180);

/// The lines of the chapter's second block: what is typed in the other shell.
fn commands() -> Vec<&'static str> {
    let chapter = README.split_once(CHAPTER).expect("the chapter").1;
    let chapter = chapter.split("\n## ").next().unwrap();
    let blocks: Vec<&str> = chapter.split("\n```\n").collect();
    blocks[3].lines().collect()
}

/// A machine with libvirt, and nothing of Arcus yet.
struct Newcomer {
    // Ends first.
    dev: Option<Process>,
    libvirtd: Libvirtd,
    network: Namespace,
    dir: tempfile::TempDir,
}

impl Newcomer {
    async fn new(test: &str) -> Option<Newcomer> {
        let lacks = |tool: &str| !Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
        let tool = [("jq", "jq"), ("curl", "curl"), ("python3", "python3"), ("nft", "nftables")];
        let tool = tool.into_iter().find(|(tool, _)| lacks(tool)).map(|(_, package)| package);
        let viewer = (!Path::new("/usr/share/novnc/core/rfb.js").exists()).then_some("novnc");
        let lacking = tool.or(viewer).map(|p| format!("needs {p}: run deploy/setup-dev test"));
        if let Some(why) = Libvirtd::missing().or_else(guest::missing).or(lacking) {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("\n!!! SKIPPED: {test}: {why}\n").as_bytes());
            return None;
        }
        let network = Namespace::new();
        let libvirtd = Libvirtd::start_with(&HostOptions { place: network.place(), ..HostOptions::default() }).await;
        // Routers' daemons, which don't stay root, must be able to pass it, and it must be short.
        let dir = tempfile::Builder::new().prefix("dn").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let cs = dir.path().join("bin/cs");
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(&cs, include_str!("cs.py")).unwrap();
        std::fs::set_permissions(&cs, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(dir.path().join("target/release")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_arcus"), dir.path().join("target/release/arcus")).unwrap();
        Some(Newcomer { dev: None, libvirtd, network, dir })
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The first block's last line; returns when it tells what to try next.
    async fn start(&mut self) {
        let greetings = || self.said().matches("try next").count();
        let before = greetings();
        let mut command = self.libvirtd.command("sh");
        // Process 1's folder is where the host was started.
        command.args(["-c", "cd \"$1\"; shift; echo $$ >pid; exec \"$@\"", "dev"]).arg(self.dir.path());
        command.args(["target/release/arcus", "dev", "--hypervisor=kvm", "--log=info"]);
        command.arg(format!("--machine-dir={}", self.dir.path().join("m").display()));
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let dev = Process::start(&words, &self.log(), None);
        let greeted = || async {
            assert!(dev.alive(), "arcus dev ended:\n{}", self.said());
            greetings() > before
        };
        wait_until(greeted, PATIENCE).await;
        self.dev = Some(dev);
    }

    /// Ctrl-C, or worse.
    async fn end(&mut self, signal: &str) {
        self.shell(&format!("kill -{signal} $(cat pid)"));
        let dev = self.dev.take().unwrap();
        wait_until(|| async { !dev.alive() }, PATIENCE).await;
    }

    /// Runs a script as the newcomer types it, with the keys that `arcus dev` printed.
    fn try_shell(&self, script: &str) -> Output {
        let dev = std::fs::read(self.dir.path().join("data/dev.json")).unwrap_or_default();
        let dev: Value = serde_json::from_slice(&dev).unwrap_or_default();
        let told = |key: &str| dev.get(key).and_then(Value::as_str).unwrap_or_default();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/sbin:/sbin", self.dir.path().join("bin").display());
        let mut command = self.libvirtd.command("bash");
        command.args(["-euo", "pipefail", "-c", &format!("cd {}\n{script}", self.dir.path().display())]);
        command.env("PATH", path).env("CLOUDSTACK_ENDPOINT", told("endpoint"));
        command.env("CLOUDSTACK_KEY", told("apikey")).env("CLOUDSTACK_SECRET", told("secretkey"));
        command.output().unwrap()
    }

    #[track_caller]
    fn shell(&self, script: &str) -> String {
        let output = self.try_shell(script);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}\n{out}\n{err}\n--- arcus dev\n{}", self.said());
        out.trim().to_owned()
    }

    /// Links, addresses, namespaces, packet filter rules, domains, and what routers run.
    fn remains(&self) -> String {
        let all = "ip -br link | cut -d ' ' -f 1 | sort; ip -o -4 addr | grep -o 'inet [^ ]*'; ls /run/netns; nft list ruleset;
             cat /proc/sys/net/ipv4/ip_forward; ls /run/libvirt/qemu | grep xml || :
             cat /proc/[0-9]*/comm | grep -E 'qemu|dnsmasq|haproxy' || :";
        self.shell(all)
    }

    /// Repeats a script until it goes well: guests boot meanwhile.
    async fn until(&self, script: &str) -> String {
        let look = || async {
            let output = self.try_shell(script);
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            Err(format!("{script}: {}\n--- arcus dev\n{}", String::from_utf8_lossy(&output.stderr), self.said()))
        };
        testkit::until_ok(look, PATIENCE).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_commands_give_a_guest_with_a_console() {
    let Some(mut machine) = Newcomer::new("the_readmes_commands_give_a_guest_with_a_console").await else { return };
    let before = machine.remains();
    machine.start().await;
    // An image from this machine instead of Debian's from the world: addresses inside must be allowed.
    let image = guest::image().await.qcow2;
    let web = machine.dir.path().join("web");
    std::fs::create_dir(&web).unwrap();
    std::fs::copy(image, web.join("guest.qcow2")).unwrap();
    let mut server = machine.libvirtd.command("busybox");
    server.args(["httpd", "-f", "-p", "198.18.0.1:80", "-h"]).arg(&web);
    let words = std::iter::once(server.get_program()).chain(server.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let server = Process::start(&words, &machine.dir.path().join("web.log"), None);
    machine.until("curl -sfI http://198.18.0.1/guest.qcow2").await;
    machine.shell("cs updateConfiguration name=secstorage.allowed.internal.sites value=198.18.0.0/24");

    // The commands as they stand in README.md; only where the image is, and its user, differ.
    let (login, made): (Vec<&str>, Vec<&str>) = commands().into_iter().partition(|line| line.starts_with("ssh "));
    let script: Vec<String> = made
        .iter()
        .map(|line| match line.strip_prefix("image=") {
            Some(_) => "image=http://198.18.0.1/guest.qcow2".to_owned(),
            None => (*line).to_owned(),
        })
        .collect();
    assert!(script.len() > 10 && login.len() == 1, "{script:?} {login:?}");
    let keep = "declare -p vm network address >vars";
    let said = machine.shell(&format!("{}\n{keep}", script.join("\n")));
    let console = said.lines().last().unwrap().to_owned();
    drop(server);
    let options = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10";
    let log_in = login[0].replacen("ssh ", &format!("ssh {options} "), 1).replace("debian@", "root@");
    let log_in = format!(". ./vars; {log_in} hostname");
    assert_eq!(machine.until(&log_in).await, "first");

    // The address for the browser: a page that names its viewer, and a token that opens the screen.
    assert!(console.starts_with("http://127.0.0.1:8080/client/console?"), "{console}");
    let page = machine.shell(&format!("curl -sf '{console}'"));
    assert!(page.contains("<html") && page.contains("console.js"), "{page}");
    machine.shell("curl -sf http://127.0.0.1:8080/client/console/novnc/core/rfb.js -o /dev/null");
    let token = page.split("console-token\" content=\"").nth(1).and_then(|t| t.split('"').next()).expect("a token");
    let socket = format!(
        "curl -s -i -N --http1.1 --max-time 10 -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
         -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H 'Origin: http://127.0.0.1:8080' \
         -H 'Sec-WebSocket-Protocol: binary, token.{token}' http://127.0.0.1:8080/client/console/socket | head -c 600 | tr -cd '[:print:]' || :"
    );
    let opened = machine.shell(&socket);
    assert!(opened.contains("101 Switching") && opened.contains("RFB 003.008"), "{opened}\n{page}");

    // Ctrl-C, and a kill: the guest goes on, and the next start has it again.
    for signal in ["INT", "KILL"] {
        machine.end(signal).await;
        assert!(machine.remains().contains("qemu-system"), "{}", machine.remains());
        machine.start().await;
        assert_eq!(machine.until(&log_in).await, "first", "after {signal}");
    }
    machine.shell(". ./vars; cs destroyVirtualMachine id=$vm expunge=true; cs deleteNetwork id=$network");
    machine.end("INT").await;
    assert_eq!(machine.remains(), before, "nothing stays");
    assert!(!machine.network.addresses().contains("198.18"));
}
