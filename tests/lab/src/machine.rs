//! Machines: QEMU processes that a test starts, orders about, and ends in every way.

use crate::agent::Agent;
use crate::{Inner, Output, Switch};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use testkit::{Process, wait_until};

/// How long a boot may take, on a busy machine.
const BOOT: Duration = Duration::from_secs(180);
/// How long [`Machine::run`] waits for a command.
const COMMAND: Duration = Duration::from_secs(120);

/// What processors of machines can do: all that QEMU emulates, and AMD's virtualisation, so that a machine's own guests run by its KVM: one
/// emulation, not two on top of each other. Without virtual GIF and virtual VMSAVE, with which a machine was seen to hang under a guest, and without
/// what is slow when emulated (strings byte by byte, a fifth level of page tables).
const PROCESSOR: &str = "max,+svm,+npt,-vgif,-v-vmsave-vmload,-erms,-la57";

/// What a machine is to have.
#[derive(Debug)]
pub struct Builder {
    lab: Arc<Inner>,
    name: String,
    memory: u32,
    processors: u32,
    nics: Vec<Nic>,
    disks: Vec<u64>,
    files: Vec<(PathBuf, String)>,
    systemd: bool,
}

#[derive(Debug)]
struct Nic {
    port: String,
    mac: String,
    address: String,
}

impl Builder {
    pub(crate) fn new(lab: Arc<Inner>, name: &str) -> Builder {
        let simple = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        assert!(simple && !name.is_empty(), "{name}: a machine's name is a host name");
        Builder {
            lab,
            name: name.into(),
            memory: 384,
            processors: 1,
            nics: vec![],
            disks: vec![],
            files: vec![],
            systemd: false,
        }
    }

    /// How much memory it has, in MiB (384 unless told).
    pub fn memory(mut self, mib: u32) -> Builder {
        self.memory = mib;
        self
    }

    /// Process 1 is systemd instead of busybox, with Debian's services as their packages enable them: for labs of
    /// [`crate::Image::HYPERVISOR`]. It obeys as soon as its basic services run, others may still start.
    pub fn systemd(mut self) -> Builder {
        self.systemd = true;
        self
    }

    /// How many processors it has (1 unless told).
    pub fn processors(mut self, number: u32) -> Builder {
        self.processors = number;
        self
    }

    /// Another NIC (`eth0`, `eth1`, …) in a switch, with an address such as `10.0.0.1/24`, or up without one when that is empty. Machines that
    /// start from now on know its name by the first address, others when they [learn](Machine::learn_names) it.
    pub fn nic(mut self, switch: &Switch, address: &str) -> Builder {
        static MACS: AtomicU32 = AtomicU32::new(1);
        let [a, b, c, d] = MACS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mac = format!("02:1a:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        if let Some((ip, _)) = address.split_once('/') {
            let mut hosts = self.lab.hosts.lock().expect("the hosts");
            if !hosts.iter().any(|(_, name)| *name == self.name) {
                hosts.push((ip.to_owned(), self.name.clone()));
            }
        }
        self.nics.push(Nic { port: switch.port(), mac, address: address.into() });
        self
    }

    /// Another empty disk (`/dev/vdb`, `/dev/vdc`, …) of so many MiB, which stays when the machine dies.
    pub fn disk(mut self, mib: u64) -> Builder {
        self.disks.push(mib);
        self
    }

    /// A file of this machine, to be found there at `inside` (an absolute path; read-only; executable if it is here).
    pub fn file(mut self, here: impl AsRef<Path>, inside: &str) -> Builder {
        assert!(inside.starts_with('/'), "{inside}: not absolute");
        self.files.push((here.as_ref().to_owned(), inside.to_owned()));
        self
    }

    /// Starts it; returns when it obeys.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub async fn start(self) -> Machine {
        let dir = self.lab.dir.join(&self.name);
        std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("a machine {} in {}: {e}", self.name, dir.display()));
        let root = dir.join("root.qcow2");
        let base = self.lab.image.root().display().to_string();
        tool(&["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &root.display().to_string()]);
        let mut disks = vec![format!("file={},format=qcow2", root.display())];
        for (i, mib) in self.disks.iter().enumerate() {
            let disk = dir.join(format!("disk{i}.raw"));
            std::fs::File::create(&disk).and_then(|f| f.set_len(mib << 20)).expect("a disk");
            disks.push(format!("file={},format=raw", disk.display()));
        }
        if !self.files.is_empty() {
            let disk = files_disk(&dir, &self.files);
            disks.push(format!("file={},format=raw,readonly=on", disk.display()));
        }
        let agent = Agent::new(dir.join("agent"));
        let mut machine =
            Machine { command: vec![], lab: self.lab.clone(), name: self.name.clone(), agent, qemu: None };
        machine.command = self.command(&dir, &disks, &machine.console_log());
        machine.boot().await;
        machine
    }

    fn command(&self, dir: &Path, disks: &[String], console: &Path) -> Vec<String> {
        let image = &self.lab.image;
        let mut kernel = format!(
            "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check tsc=reliable nowatchdog 8250.nr_uarts=1 \
             cryptomgr.notests initcall_blacklist=crypto_kdf108_init lab.name={}",
            self.name
        );
        if self.systemd {
            kernel.push_str(" lab.init=/lib/systemd/systemd systemd.show_status=0 net.ifnames=0");
        }
        for (i, nic) in self.nics.iter().enumerate() {
            kernel.push_str(&format!(" lab.nic=eth{i},{}", nic.address));
        }
        let line = format!(
            "nsenter --net=/run/netns/{} -- qemu-system-x86_64 -name {} -accel tcg,thread=multi -cpu {PROCESSOR} -m {} -smp {} -nodefaults -display none \
             -no-reboot -chardev file,id=console,path={},append=on -serial chardev:console -kernel {} -initrd {} \
             -device virtio-rng-pci -device virtio-serial -chardev socket,id=agent,path={},server=on,wait=off \
             -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            self.lab.name,
            self.name,
            self.memory,
            self.processors,
            console.display(),
            image.kernel().display(),
            image.initramfs().display(),
            dir.join("agent").display(),
        );
        let mut command: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        command.extend(["-append".into(), kernel]);
        // The machine's kernel names them in this order.
        for (i, disk) in disks.iter().enumerate() {
            let files = !self.files.is_empty() && i + 1 == disks.len();
            let serial = if files { "lab-files".to_owned() } else { format!("lab-{i}") };
            let device = format!("virtio-blk-pci,drive=disk{i},serial={serial}");
            command.extend(["-drive".into(), format!("{disk},if=none,id=disk{i}"), "-device".into(), device]);
        }
        for (i, nic) in self.nics.iter().enumerate() {
            let netdev = format!("tap,id=nic{i},ifname={},script=no,downscript=no", nic.port);
            let device = format!("virtio-net-pci,netdev=nic{i},mac={},romfile=", nic.mac);
            command.extend(["-netdev".into(), netdev, "-device".into(), device]);
        }
        command
    }
}

/// A machine, running or not. It ends when dropped.
#[derive(Debug)]
pub struct Machine {
    command: Vec<String>,
    lab: Arc<Inner>,
    name: String,
    agent: Agent,
    qemu: Option<Process>,
}

impl Machine {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a shell script as root to its good end; gives what it printed on stdout, without the last line end.
    ///
    /// # Panics
    /// When it fails, doesn't end within two minutes, or the machine is gone.
    pub async fn run(&self, script: &str) -> String {
        let output = self.try_run(script, COMMAND).await;
        let output = output.unwrap_or_else(|why| panic!("{}: {script}: {why}\n{}", self.name, self.console_tail()));
        assert_eq!(output.status, 0, "{}: {script}\n{}\n{}", self.name, output.stdout, output.stderr);
        output.stdout
    }

    /// Runs a shell script as root to its end.
    ///
    /// # Errors
    /// When it doesn't end within `timeout` (it goes on then), or the machine doesn't answer.
    pub async fn try_run(&self, script: &str, timeout: Duration) -> Result<Output, String> {
        let ended = async {
            let pid = self.agent.start(script, true).await?;
            let mut pause = Duration::from_millis(5);
            loop {
                if let Some(output) = self.agent.ended(pid).await? {
                    return Ok(output);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        };
        tokio::time::timeout(timeout, ended).await.unwrap_or_else(|_| Err(format!("not ended within {timeout:?}")))
    }

    /// Waits until a shell script succeeds; gives what it printed then.
    ///
    /// # Panics
    /// When it doesn't within `timeout`.
    pub async fn until(&self, script: &str, timeout: Duration) -> String {
        let start = std::time::Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let last = match self.try_run(script, timeout).await {
                Ok(output) if output.status == 0 => return output.stdout,
                Ok(output) => output.stderr,
                Err(why) => why,
            };
            let passed = start.elapsed();
            assert!(
                passed < timeout,
                "{}: {script}: never within {timeout:?}: {last}\n{}",
                self.name,
                self.console_tail()
            );
            // To look is work for the machine that is waited for.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Starts a program that goes on, with its output in `/var/log/NAME.log` inside; [`Machine::runs`] tells whether it does.
    ///
    /// # Panics
    /// When the machine is gone.
    pub async fn serve(&self, name: &str, program: &str) {
        let script =
            format!("setsid sh -c 'echo $$ >/run/{name}.pid; exec {program}' </dev/null >>/var/log/{name}.log 2>&1 &");
        self.run(&script).await;
    }

    /// Whether what was started with [`Machine::serve`] still runs.
    ///
    /// # Panics
    /// When the machine is gone.
    pub async fn runs(&self, name: &str) -> bool {
        let script = format!("kill -0 $(cat /run/{name}.pid)");
        self.try_run(&script, COMMAND).await.expect("an answer").status == 0
    }

    /// Writes a file in the machine. For big ones use [`Builder::file`].
    ///
    /// # Panics
    /// When that fails.
    pub async fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let written = self.agent.write(path, content.as_ref()).await;
        written.unwrap_or_else(|why| panic!("{}: {path}: {why}", self.name));
    }

    /// Reads a file of the machine.
    ///
    /// # Panics
    /// When that fails.
    pub async fn read(&self, path: &str) -> Vec<u8> {
        self.agent.read(path).await.unwrap_or_else(|why| panic!("{}: {path}: {why}", self.name))
    }

    /// Whether it obeys.
    pub async fn answers(&self) -> bool {
        self.qemu.is_some() && self.agent.answers(Duration::from_secs(5)).await
    }

    /// The machine loses its power. Its disks stay as they are at that moment.
    pub async fn kill(&mut self) {
        self.qemu = None;
        self.agent.reset().await;
    }

    /// It stands still: nothing answers, connections stay.
    pub fn pause(&self) {
        self.process().signal("STOP");
    }

    /// It goes on after [`Machine::pause`].
    pub fn resume(&self) {
        self.process().signal("CONT");
    }

    /// Shuts it down in good order.
    ///
    /// # Panics
    /// When it isn't off within a minute.
    pub async fn power_off(&mut self) {
        let _ =
            self.agent.start("if [ -d /run/systemd/system ]; then systemctl poweroff; else poweroff; fi", false).await;
        let qemu = self.qemu.take().expect("a running machine");
        wait_until(|| async { !qemu.alive() }, Duration::from_secs(60)).await;
        self.agent.reset().await;
    }

    /// Starts it again after [`Machine::kill`] or [`Machine::power_off`], with the disks that it had; returns when it obeys.
    ///
    /// # Panics
    /// When it runs, or doesn't come up.
    pub async fn boot(&mut self) {
        assert!(self.qemu.is_none(), "{} runs", self.name);
        self.agent.reset().await;
        let qemu = Process::start(&self.command, &self.lab.logs.join(format!("{}.qemu.log", self.name)), None);
        let start = std::time::Instant::now();
        while !self.agent.answers(Duration::from_secs(2)).await {
            let state = || format!("{}\n{}", qemu.log_tail(), self.console_tail());
            assert!(qemu.alive(), "{} ended: {}", self.name, state());
            assert!(start.elapsed() < BOOT, "{} doesn't come up: {}", self.name, state());
            // Refused until QEMU listens.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.qemu = Some(qemu);
        self.lab.done(&format!("{} obeys, {:.1} s after its start", self.name, start.elapsed().as_secs_f64()));
        self.run(&format!("cat >/etc/hosts <<'E'\n{}E", self.hosts())).await;
    }

    /// Takes a NIC's cable out of its switch, or puts it back; the machine doesn't notice more than that nothing comes.
    ///
    /// # Panics
    /// When there is no such NIC.
    pub fn cable(&self, nic: usize, plugged: bool) {
        let prefix = format!("tap,id=nic{nic},ifname=");
        let port = self.command.iter().find_map(|word| word.strip_prefix(&prefix)?.split(',').next());
        let port = port.unwrap_or_else(|| panic!("{} has no NIC {nic}", self.name));
        self.lab.ip(&format!("link set {port} {}", if plugged { "up" } else { "down" }));
    }

    /// What its kernel and init said since its first boot.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.console_log()).unwrap_or_default()).into_owned()
    }

    /// Its process of QEMU.
    ///
    /// # Panics
    /// While it is off.
    pub fn process(&self) -> &Process {
        self.qemu.as_ref().expect("the machine is off")
    }

    /// Tells the machine of machines that got their addresses after its boot.
    ///
    /// # Panics
    /// When it is gone.
    pub async fn learn_names(&self) {
        self.write("/etc/hosts", self.hosts()).await;
    }

    fn hosts(&self) -> String {
        let mut text = String::from("127.0.0.1 localhost\n");
        for (address, name) in self.lab.hosts.lock().expect("the hosts").iter() {
            text.push_str(&format!("{address} {name}\n"));
        }
        text
    }

    fn console_log(&self) -> PathBuf {
        self.lab.logs.join(format!("{}.console.log", self.name))
    }

    fn console_tail(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// A file system of these files.
fn files_disk(dir: &Path, files: &[(PathBuf, String)]) -> PathBuf {
    let (tree, disk) = (dir.join("files"), dir.join("files.img"));
    let mut bytes = 0;
    for (here, inside) in files {
        let there = tree.join(inside.trim_start_matches('/'));
        std::fs::create_dir_all(there.parent().expect("a folder")).expect("a folder");
        bytes += std::fs::copy(here, &there).unwrap_or_else(|e| panic!("{}: {e}", here.display()));
    }
    let mib = (bytes >> 20) * 11 / 10 + 8;
    let (tree, image) = (tree.display().to_string(), disk.display().to_string());
    tool(&[
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-d",
        &tree,
        &image,
        &format!("{mib}M"),
    ]);
    std::fs::remove_dir_all(&tree).expect("the files' copies");
    disk
}

fn tool(command: &[&str]) {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(command[0]).args(&command[1..]).env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}", command[0]));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
