//! The guest image in QEMU itself, without libvirt: what it says, what it does, in which machines it boots.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use testkit::guest::{self, Guest, GuestImage, told};
use testkit::{Place, Process, temp_dir, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A network namespace in which QEMU runs: to its guest, the namespace's 127.0.0.1 is 10.0.2.2, and the guest's ports are here.
struct Machine {
    name: String,
    dir: tempfile::TempDir,
    qemu: Option<Process>,
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("the program");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Machine {
    /// `None` where this can't run, after saying so.
    fn new(test: &str) -> Option<Machine> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(why) = guest::missing() {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("\n!!! SKIPPED: {test}: {why}\n").as_bytes());
            return None;
        }
        let name = format!("tg{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Some(Machine { name, dir: temp_dir(), qemu: None })
    }

    fn place(&self) -> Place {
        Place::namespace(&self.name, "127.0.0.1")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A disk of its own over the image.
    fn root_disk(&self, image: &GuestImage) -> String {
        let disk = self.file("root.qcow2").display().to_string();
        run(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &image.qcow2.display().to_string(), &disk],
        );
        disk
    }

    /// Starts QEMU with one NIC on virtio and these arguments.
    fn start(&mut self, args: &[&str]) {
        let ports: Vec<String> =
            [7, 22, 80, 2007, 2323].iter().map(|p| format!("hostfwd=tcp:127.0.0.1:{}-:{p}", p + 10_000)).collect();
        let (serial, monitor) = (self.file("serial"), self.file("monitor"));
        let _ = fs::remove_file(&serial);
        let all = [
            "ip netns exec",
            &self.name,
            "qemu-system-x86_64 -accel tcg -m 192 -nodefaults -display none -vga std -no-reboot",
            &format!("-serial file:{} -monitor unix:{},server,nowait", serial.display(), monitor.display()),
            &format!("-netdev user,id=net,hostname=first-guest,{}", ports.join(",")),
            "-device virtio-net-pci,netdev=net,mac=02:00:00:00:00:01,romfile=",
        ]
        .join(" ");
        let command = all.split(' ').chain(args.iter().copied()).map(str::to_owned).collect::<Vec<_>>();
        self.qemu = Some(Process::start(&command, &self.file("log"), None));
    }

    /// What a line of the serial console tells, once it is there.
    async fn told(&self, what: &str) -> BTreeMap<String, String> {
        self.await_console(|console| told(console, what)).await
    }

    async fn await_console<T>(&self, found: impl Fn(&str) -> Option<T>) -> T {
        let mut value = None;
        let read = || String::from_utf8_lossy(&fs::read(self.file("serial")).unwrap_or_default()).into_owned();
        wait_until(
            || {
                let console = read();
                value = found(&console);
                let there = value.is_some();
                let qemu = self.qemu.as_ref().expect("a running guest");
                assert!(there || qemu.alive(), "QEMU ended: {}\n{console}", qemu.log_tail());
                async move { there }
            },
            Duration::from_secs(300),
        )
        .await;
        value.unwrap()
    }

    async fn guest(&self) -> Guest {
        Guest::at(&self.place(), "127.0.0.1:12323".parse().unwrap()).await
    }

    /// Waits until QEMU ended by itself.
    async fn ended(&mut self) {
        let qemu = self.qemu.take().expect("a running guest");
        wait_until(|| async { !qemu.alive() }, Duration::from_secs(60)).await;
    }

    async fn monitor(&self, command: &str) {
        let mut line = tokio::net::UnixStream::connect(self.file("monitor")).await.expect("the monitor");
        line.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        // The prompt after the answer says that it is done.
        let (mut said, mut part) = (String::new(), [0; 4096]);
        while said.matches("(qemu)").count() < 2 {
            let n = line.read(&mut part).await.unwrap();
            assert!(n > 0, "the monitor's end: {said}");
            said.push_str(&String::from_utf8_lossy(&part[..n]));
        }
        assert!(!said.contains("Error"), "{said}");
    }

    /// A server in the namespace that runs a shell script for each connection.
    fn serve(&self, port: u16, script: &str) -> Process {
        let file = self.file(&format!("serve-{port}"));
        fs::write(&file, format!("#!/bin/sh\ncd {}\n{script}", self.dir.path().display())).unwrap();
        run("chmod", &["755", &file.display().to_string()]);
        let (port, file) = (port.to_string(), file.display().to_string());
        let command = ["ip", "netns", "exec", &self.name, "busybox", "nc", "-ll", "-p", &port, "-e", &file];
        Process::start(&command.map(str::to_owned), &self.file("servers.log"), None)
    }

    /// `ssh root@guest command`, with a key or a password.
    fn ssh(&self, key: Option<&Path>, password: &str) -> bool {
        let ask = self.file("ask");
        fs::write(&ask, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        run("chmod", &["755", &ask.display().to_string()]);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "timeout", "60", "ssh", "-F", "none", "-p", "10022"]);
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "NumberOfPasswordPrompts=1"] {
            command.args(["-o", option]);
        }
        match key {
            Some(key) => command.args(["-o", "PasswordAuthentication=no", "-i"]).arg(key),
            None => command.args(["-o", "PubkeyAuthentication=no"]),
        };
        command.env("SSH_ASKPASS", &ask).env("SSH_ASKPASS_REQUIRE", "force");
        let output = command.args(["root@127.0.0.1", "hostname"]).stdin(std::process::Stdio::null()).output().unwrap();
        output.status.success() && output.stdout == b"first-guest\n"
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.qemu = None;
        run("ip", &["netns", "del", &self.name]);
    }
}

/// Answers HTTP from files below `www`, and the password server's questions from the file `password` until it is saved.
const HTTP: &str = r#"
read -r method path version
order=
while read -r line; do
  line=$(echo "$line" | tr -d '\r')
  [ -n "$line" ] || break
  case $line in DomU_Request:*) order=${line#DomU_Request: } ;; esac
done
answer() { printf 'HTTP/1.0 %s\r\nContent-Length: %s\r\n\r\n' "$1" "$(wc -c <"$2")"; cat "$2"; }
case $order in
  send_my_password) [ -e password ] && answer '200 OK' password || answer '200 OK' saved ;;
  saved_password) rm -f password; answer '200 OK' saved ;;
  *) case $path in */) path=${path}index ;; esac
     if [ -f "www$path" ]; then answer '200 OK' "www$path"; else answer '404 Not Found' /dev/null; fi ;;
esac
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_takes_what_the_cloud_offers_and_keeps_what_lasts() {
    let Some(mut machine) = Machine::new("guest image, configured") else { return };
    let image = guest::image().await;
    let key = machine.file("key");
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key.display().to_string()]);
    let www = machine.file("www/latest/meta-data");
    fs::create_dir_all(&www).unwrap();
    fs::write(www.join("index"), "instance-id\npublic-keys\n").unwrap();
    fs::write(www.join("instance-id"), "i-2-3-VM").unwrap();
    fs::copy(machine.file("key.pub"), www.join("public-keys")).unwrap();
    fs::write(machine.file("www/latest/user-data"), "#!/bin/sh\necho done by user-data >/persist/mark\nexit 3\n")
        .unwrap();
    fs::write(machine.file("password"), "s3cret").unwrap();
    fs::write(machine.file("saved"), "saved_password").unwrap();
    let _servers = [machine.serve(80, HTTP), machine.serve(8080, HTTP)];
    let disk = machine.root_disk(&image);
    let data = machine.file("data.raw");
    fs::File::create(&data).unwrap().set_len(16 << 20).unwrap();
    let disks = [format!("file={disk},if=virtio"), format!("file={},if=virtio,format=raw", data.display())];
    let args = ["-drive", &disks[0], "-drive", &disks[1]];
    machine.start(&args);

    let ready = machine.told("ready").await;
    assert_eq!((ready["ip"].as_str(), ready["hostname"].as_str()), ("10.0.2.15", "first-guest"));
    let lease = machine.told("lease").await;
    assert_eq!((lease["nic"].as_str(), lease["mac"].as_str()), ("eth0", "02:00:00:00:00:01"));
    assert_eq!((lease["router"].as_str(), lease["server"].as_str()), ("10.0.2.2", "10.0.2.2"));
    machine.told("configured").await;
    assert_eq!(machine.told("meta").await["public-keys"].as_str().split(' ').next(), Some("ssh-ed25519"));
    assert_eq!(machine.told("ssh-keys").await["ssh-keys"], "1");
    let sum = |text: &str| {
        fs::write(machine.file("summed"), text).unwrap();
        run("sha256sum", &[&machine.file("summed").display().to_string()])[..64].to_owned()
    };
    let user_data = fs::read_to_string(machine.file("www/latest/user-data")).unwrap();
    assert_eq!(machine.told("userdata-sha256").await["userdata-sha256"], sum(&user_data));
    assert_eq!(machine.told("userdata-exit").await["userdata-exit"], "3");
    assert_eq!(machine.told("password-set").await["sha256"], sum("s3cret"));
    assert!(!machine.file("password").exists(), "the password wasn't acknowledged");
    assert!(machine.ssh(Some(&key), "") && machine.ssh(None, "s3cret") && !machine.ssh(None, "password"));

    let command = machine.guest().await;
    let place = machine.place();
    let patience = Duration::from_secs(20);
    let echo = guest::talk(&place, "127.0.0.1:10007".parse().unwrap(), b"hello\n", patience).await;
    assert_eq!(echo.as_deref(), Some(&b"hello\n"[..]));
    let page = guest::talk(&place, "127.0.0.1:10080".parse().unwrap(), b"GET / HTTP/1.0\r\n\r\n", patience).await;
    assert!(String::from_utf8_lossy(&page.unwrap()).ends_with("\r\n\r\nfirst-guest\n"));
    let session = guest::Session::open(&place, "127.0.0.1:12007".parse().unwrap()).await;
    session.goes_on().await;
    assert!(session.silence() > Duration::ZERO && session.close().await > 5);
    let failed = command.try_run("echo one\necho two >&2\nexit 7").await.unwrap();
    assert_eq!((failed.status, failed.output.as_str()), (7, "one\ntwo"));
    let size = fs::metadata(&image.qcow2).unwrap().len();
    assert!(size < 40 << 20, "the image has grown to {size} bytes");
    assert_eq!(command.disks().await, [("vda".into(), 66 << 20), ("vdb".into(), 16 << 20)]);
    let written = command.write_disk("/dev/vdb", 5, "seed-1").await;
    assert_ne!(command.write_disk("/dev/vdb", 5, "seed-2").await, written);
    assert_eq!(command.write_disk("/dev/vdb", 5, "seed-1").await, written);
    let start = fs::read(&data).unwrap()[..5 << 20].to_vec();
    fs::write(machine.file("start"), start).unwrap();
    assert_eq!(run("sha256sum", &[&machine.file("start").display().to_string()])[..64], written);

    // The power button, a bigger disk, and what is still there.
    machine.monitor("system_powerdown").await;
    machine.ended().await;
    run("qemu-img", &["resize", "-q", &disk, "128M"]);
    machine.start(&args);
    assert_eq!(machine.told("disks").await["vda"], (128_u32 << 20).to_string());
    assert_eq!(machine.told("password-none").await["answer"], "saved_password");
    let command = machine.guest().await;
    assert_eq!(command.run("cat /persist/mark").await, "done by user-data");
    assert_eq!(command.disk_sum("/dev/vdb", 5).await, written);
    assert!(machine.ssh(None, "s3cret"));
    command.power_off().await;
    machine.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_plugged_in_while_it_runs_is_taken_on() {
    let Some(mut machine) = Machine::new("guest image, hot plugging") else { return };
    let disk = machine.root_disk(&guest::image().await);
    let data = machine.file("data.raw");
    fs::File::create(&data).unwrap().set_len(8 << 20).unwrap();
    let (disk, data) =
        (format!("file={disk},if=virtio"), format!("file={},if=none,format=raw,id=data", data.display()));
    // No server there: the guest goes on without.
    machine.start(&["-drive", &disk, "-drive", &data, "-netdev", "user,id=second,net=10.9.0.0/24"]);
    assert_eq!(machine.told("metadata-unreachable").await["server"], "10.0.2.2");
    let command = machine.guest().await;
    machine.monitor("device_add virtio-blk-pci,drive=data,id=hot").await;
    wait_until(|| async { command.disks().await.contains(&("vdb".into(), 8 << 20)) }, Duration::from_secs(30)).await;
    machine.monitor("block_resize data 12M").await;
    wait_until(|| async { command.disks().await.contains(&("vdb".into(), 12 << 20)) }, Duration::from_secs(30)).await;
    machine.monitor("device_del hot").await;
    wait_until(|| async { command.disks().await.len() == 1 }, Duration::from_secs(30)).await;
    machine.monitor("device_add virtio-net-pci,netdev=second,id=nic,romfile=").await;
    let lease = machine.await_console(|console| told(console, "lease").filter(|lease| lease["nic"] == "eth1")).await;
    assert_eq!(lease["ip"], "10.9.0.15/24");
    machine.monitor("device_del nic").await;
    assert_eq!(machine.told("unplugged").await["nic"], "eth1");
    command.crash().await;
    machine.await_console(|console| console.contains("Kernel panic").then_some(())).await;
    assert!(!command.answers().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_boots_from_scsi_and_ide_and_without_a_disk() {
    let Some(mut scsi) = Machine::new("guest image, kinds of disks") else { return };
    let image = guest::image().await;
    let drive = format!("file={},if=none,id=root", scsi.root_disk(&image));
    scsi.start(&["-device", "virtio-scsi-pci", "-drive", &drive, "-device", "scsi-hd,drive=root"]);
    assert_eq!(scsi.told("disks").await["sda"], (66_u32 << 20).to_string());
    scsi.told("ready").await;
    scsi.guest().await.run("grep -q persist /proc/mounts").await;
    drop(scsi);

    let mut ide = Machine::new("guest image on IDE").unwrap();
    let drive = format!("file={},if=ide", ide.root_disk(&image));
    ide.start(&["-drive", &drive]);
    ide.told("ready").await;
    ide.guest().await.run("grep -q persist /proc/mounts").await;
    drop(ide);

    let mut bare = Machine::new("guest image without a disk").unwrap();
    let (kernel, initramfs) = (image.kernel.display().to_string(), image.initramfs.display().to_string());
    bare.start(&["-kernel", &kernel, "-initrd", &initramfs, "-append", &image.cmdline]);
    bare.told("ready").await;
    assert!(bare.guest().await.disks().await.is_empty());
}
