//! What a test can do with machines.

use lab::Lab;
use std::process::Command;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a lab: make test-lab"]
async fn machines_obey_die_and_come_back() {
    let Some(lab) = Lab::open("life").await else { return };
    let lan = lab.switch("lan");
    lan.join("10.0.0.254/24");
    let program = lab.logs().join("program");
    std::fs::write(&program, "#!/bin/sh\necho \"hello from $(hostname)\"\n").unwrap();
    Command::new("chmod").arg("755").arg(&program).status().unwrap();
    let builder = lab.machine("host-1").nic(&lan, "10.0.0.1/24").disk(16).file(&program, "/usr/local/bin/program");
    let mut host = builder.start().await;
    assert_eq!(host.run("program").await, "hello from host-1");
    let output = host.try_run("echo out; echo err >&2; exit 3", Duration::from_secs(20)).await.unwrap();
    assert_eq!((output.status, output.stdout.as_str(), output.stderr.as_str()), (3, "out", "err"));
    assert_eq!(host.run("blockdev --getsize64 /dev/vdb").await, (16 << 20).to_string());
    let late = host.try_run("sleep 100", Duration::from_millis(300)).await;
    assert!(late.is_err_and(|why| why.contains("not ended")));

    // Reached from here, unless its cable is out.
    let ping = || {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", lab.namespace()));
        command.args(["busybox", "ping", "-c", "1", "-W", "3", "10.0.0.1"]);
        command.output().unwrap().status.success()
    };
    testkit::wait_until(|| async { ping() }, Duration::from_secs(20)).await;
    host.cable(0, false);
    assert!(!ping());
    host.cable(0, true);
    testkit::wait_until(|| async { ping() }, Duration::from_secs(20)).await;

    // What is synced outlives a death, what is in memory not.
    host.write("/root/kept", "kept").await;
    host.serve("clock", "sleep 1000").await;
    assert!(host.runs("clock").await);
    host.run("sync; echo gone >/run/gone; printf data | dd of=/dev/vdb conv=fsync").await;
    host.pause();
    assert!(!host.answers().await);
    host.resume();
    host.run("true").await;
    host.kill().await;
    assert!(!host.answers().await);
    host.boot().await;
    assert_eq!(host.read("/root/kept").await, b"kept");
    assert_eq!(host.run("head -c 4 /dev/vdb").await, "data");
    assert!(!host.runs("clock").await);
    host.run("! test -e /run/gone").await;
    host.power_off().await;
    host.boot().await;
    assert_eq!(host.console().matches("LAB up").count(), 3);

    let (name, pid) = (lab.namespace().to_owned(), host.process().pid());
    drop((host, lan, lab));
    assert!(!std::path::Path::new(&format!("/run/netns/{name}")).exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!std::env::temp_dir().join(name).exists());
}
