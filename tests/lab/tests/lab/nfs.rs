//! A kernel that serves NFS, and one that mounts it.

use lab::Lab;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a lab: make test-lab"]
async fn one_machine_mounts_what_another_exports_and_outlives_its_death() {
    let Some(lab) = Lab::open("nfs").await else { return };
    let lan = lab.switch("lan");
    let (mut server, client) = tokio::join!(
        lab.machine("server").nic(&lan, "10.0.0.1/24").start(),
        lab.machine("client").nic(&lan, "10.0.0.2/24").start(),
    );
    server.run("/lab/serve-nfs /srv/share").await;
    client.run("mkdir /mnt/four /mnt/three").await;
    client.run("mount -t nfs -o vers=4.2,timeo=20 server:/srv/share /mnt/four").await;
    client.run("mount -t nfs -o vers=3,nolock server:/srv/share /mnt/three").await;
    let written = client.run("head -c 4M /dev/urandom | tee /mnt/four/file | sha256sum; sync").await;
    assert_eq!(client.run("sha256sum </mnt/three/file").await, written);
    assert_eq!(server.run("sha256sum </srv/share/file").await, written);
    assert!(client.run("cat /proc/mounts").await.contains("nfs4"));
    client.run("umount /mnt/three").await;

    server.kill().await;
    // The mount waits, it doesn't fail.
    let waiting = client.try_run("echo after >/mnt/four/late; sync /mnt/four/late", Duration::from_secs(2)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    server.boot().await;
    server.run("/lab/serve-nfs /srv/share").await;
    server.until("grep -x after /srv/share/late", Duration::from_secs(90)).await;
    assert_eq!(server.run("sha256sum </srv/share/file").await, written);
}
