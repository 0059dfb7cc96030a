//! What a container may use, and what it can't reach.

use crate::world::{FIRST_ID, MIB, World, stop};
use std::os::unix::fs::MetadataExt as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_in_a_container_is_nobody_on_the_host() {
    let Some(world) = World::start("root_in_a_container_is_nobody_on_the_host", 1).await else { return };
    let spec = world.spec().await;
    world.running(1, &spec, 1).await;
    let inside = async |script: &str| world.inside(1, &spec, script).await;
    assert_eq!(inside("id -u").await.trim(), "0");
    let map = inside("cat /proc/self/uid_map").await;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &FIRST_ID.to_string(), "65536"]);
    inside("echo mine >/root/file; chmod 4755 /root/file").await;
    let file = world.root(1, &spec).join("root/file").metadata().unwrap();
    assert_eq!((file.uid(), file.gid()), (FIRST_ID, FIRST_ID));
    // The folder on the way is for nobody else on the host.
    let folder = world.root(1, &spec).parent().unwrap().metadata().unwrap();
    assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o777), (0, FIRST_ID, 0o710));
    // Capabilities: none to load modules (16), set the clock (25), make devices (27), govern audit (30) or MAC (33).
    let bounding = inside("sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status").await;
    let bounding = u64::from_str_radix(bounding.trim(), 16).unwrap();
    for capability in [16, 25, 27, 30, 33] {
        assert_eq!(bounding & (1 << capability), 0, "capability {capability} of {bounding:x}");
    }
    // What would reach the host fails, each for itself.
    let tried = "mknod /root/sda b 8 0; mknod /root/kmsg c 1 11; mount -t ext4 /dev/loop0 /tmp; \
                 echo 1 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger; date -s 2001-01-01; \
                 hostname; ls /sys/block/loop0/loop 2>/dev/null; chroot /proc/1/root/../../.. ls /work; \
                 cat /dev/mem; echo $?";
    let said = inside(tried).await;
    let refused = said.lines().filter(|line| {
        ["not permitted", "denied", "Read-only", "No such", "can't", "Invalid"].iter().any(|word| line.contains(word))
    });
    assert!(refused.count() >= 8, "{said}");
    let devices = inside("find / -xdev -type b -o -xdev -type c | grep -v '^/dev/'; ls /dev").await;
    assert!(!devices.contains("sda") && !devices.contains("loop") && !devices.contains("kmsg"), "{devices}");
    // It sees its own processes and network only.
    let processes = inside("ls /proc | grep -c '^[0-9]'").await;
    assert!(processes.trim().parse::<u32>().unwrap() < 20, "{processes}");
    assert_eq!(inside("ls /sys/class/net").await.trim(), "lo");
    world.vm(1, stop(&spec, true)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_processors_and_room_are_limited() {
    let Some(world) = World::start("memory_processors_and_room_are_limited", 1).await else { return };
    let mut spec = world.spec().await;
    spec.limit_cpu = true;
    world.running(1, &spec, 1).await;
    let group = world.group(&spec);
    let read = |controller: &str, old: &str, new: &str| {
        let (file, name) = match &group {
            Some(path) => (format!("/sys/fs/cgroup{path}"), new),
            None => (format!("/sys/fs/cgroup/{controller}{}", world.old_group(&spec, controller)), old),
        };
        std::fs::read_to_string(format!("{file}/{name}")).unwrap_or_else(|e| panic!("{file}/{name}: {e}"))
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max").trim(), (64 * MIB).to_string());
    let quota = match group.is_some() {
        true => read("cpu", "", "cpu.max").split_whitespace().next().unwrap().to_owned(),
        false => read("cpu", "cpu.cfs_quota_us", ""),
    };
    let quota: u64 = quota.trim().parse().unwrap();
    assert!((1000..100_000).contains(&quota), "500 MHz of one processor: {quota}");
    // It sees its own memory, and can't change its limits.
    let total = world.inside(1, &spec, "awk '/MemTotal/{print $2}' /proc/meminfo").await;
    assert_eq!(total.trim(), (64 * 1024).to_string());
    let tried = "for f in $(find /sys/fs/cgroup -name memory.limit_in_bytes -o -name memory.max -o -name cpu.cfs_quota_us); do \
                 echo 1073741824 >$f && echo changed; done";
    let said = world.inside(1, &spec, tried).await;
    assert!(!said.contains("changed"), "{said}");
    // More than it may have is killed, within it.
    let said = world.inside(1, &spec, "awk 'BEGIN { x = \"x\"; while (1) x = x x }'; echo ended $?").await;
    assert!(said.contains("ended") && !said.contains("ended 0"), "{said}");
    // More than its disk holds isn't written.
    let said =
        world.inside(1, &spec, "dd if=/dev/zero of=/root/big bs=1M count=300 2>&1; echo ended $?; rm /root/big").await;
    assert!(said.contains("No space left") && said.contains("ended 1"), "{said}");
    world.vm(1, stop(&spec, true)).await;
    world.end().await;
}

/// An archive as a web server gives it: looked at when it is fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_archives_do_not_become_templates() {
    let Some(world) = World::start("hostile_archives_do_not_become_templates", 1).await else { return };
    let dir = testkit::temp_dir();
    std::fs::write(dir.path().join("f"), b"x").unwrap();
    let tar = |name: &str, args: &[&str]| {
        let archive = dir.path().join(name);
        let status =
            std::process::Command::new("tar").arg("-C").arg(dir.path()).arg("-cf").arg(&archive).args(args).status();
        assert!(status.unwrap().success());
        std::fs::read(archive).unwrap()
    };
    let cases = [
        ("absolute", tar("a.tar", &["-P", "--transform", "s,^f$,/etc/passwd,", "f"]), "absolute name"),
        ("out", tar("b.tar", &["-P", "--transform", "s,^f$,../../f,", "f"]), "leads out"),
        ("no archive", vec![7; 4096], "said to be tar"),
    ];
    for (name, bytes, why) in cases {
        let url = crate::world::serve(bytes).await;
        let refused = world.fetch(&url, &format!("t/{name}").replace(' ', "-")).await.unwrap_err();
        assert!(refused.code == 431 && refused.full_text().contains(why), "{name}: {refused}");
    }
    // The same archive as a good one's, with its size told.
    let url = crate::world::serve(std::fs::read(testkit::container::archive().await).unwrap()).await;
    let outcome = world.fetch(&url, "t/good").await.unwrap();
    let Some(contract_agent::outcome::Body::Image(image)) = outcome.body else { panic!("{outcome:?}") };
    assert_eq!(image.format, "tar");
    assert!(image.virtual_size > 64 * MIB && image.virtual_size < 128 * MIB, "{image:?}");
    let volume = uuid::Uuid::new_v4().to_string();
    world.execute(1, world.root_order(&volume, "t/good", 96 * MIB)).await.unwrap();
    // Doing it twice is doing it once.
    world.execute(1, world.root_order(&volume, "t/good", 96 * MIB)).await.unwrap();
    assert_eq!(world.pool_dir().join(&volume).metadata().unwrap().len(), 96 * MIB);
    world.end().await;
}
