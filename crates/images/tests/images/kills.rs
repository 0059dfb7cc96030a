//! Kill -9 of the process that does the work, at many points: old or new, never half, and the next run cleans up.

use crate::server::{Does, Server};
use crate::{GIB, MIB, content, names, noise, raw_disk};
use images::{Downloader, Format, Origin, QemuImg, Request, sweep};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::watch;

const POOL: &str = "IMAGES_TEST_POOL";

const URL: &str = "IMAGES_TEST_URL";

/// Not a test: what the killed processes run. Without its variable it does nothing.
#[tokio::test]
async fn victim() {
    let Ok(pool) = std::env::var(POOL) else { return };
    let at = |name: &str| Path::new(&pool).join(name);
    let qemu_img = QemuImg::new(GIB);
    if let Ok(url) = std::env::var(URL) {
        let progress = watch::Sender::default();
        let request = Request::new(url, GIB);
        Downloader::new(&[]).unwrap().download(&request, &at("image"), &progress).await.unwrap();
        return;
    }
    loop {
        qemu_img.convert(&at("source.raw"), Format::Raw, Origin::Pool, &at("copy.qcow2"), Format::Qcow2).await.unwrap();
        qemu_img.overlay(&at("source.raw"), Format::Raw, &at("top.qcow2"), None).await.unwrap();
        qemu_img.flatten(&at("top.qcow2")).await.unwrap();
        let grown = qemu_img.inspect(&at("grown.qcow2"), Format::Qcow2, Origin::Pool).await.unwrap();
        qemu_img.resize(&at("grown.qcow2"), Format::Qcow2, grown.virtual_bytes + MIB).await.unwrap();
    }
}

fn start(pool: &Path, url: Option<&str>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .envs(url.map(|url| (URL, url)))
        .args(["--exact", "kills::victim", "--nocapture"])
        .env(POOL, pool)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn killed_work_is_old_or_new() {
    let dir = testkit::temp_dir();
    let pool = dir.path();
    let at = |name: &str| pool.join(name);
    let qemu_img = QemuImg::new(GIB);
    raw_disk(pool, "source.raw", 8 * MIB);
    qemu_img.create(&at("grown.qcow2"), Format::Qcow2, MIB).await.unwrap();
    let wanted = noise(8 << 20);
    let mut leftovers = 0;
    // Each round dies at another point: when a file of that name appears, or has that size.
    let points: [(&str, u64); 8] = [
        ("copy.qcow2.lock", 0),
        ("copy.qcow2.part", 0),
        ("copy.qcow2.part", 1),
        ("copy.qcow2.part", 4 * MIB),
        ("top.qcow2.part", 0),
        ("top.qcow2.part", 200_000),
        ("top.qcow2.part", 8 * MIB),
        ("top.qcow2.lock", 0),
    ];
    for (name, bytes) in points {
        let mut child = start(pool, None);
        let reached = async || {
            names(pool).iter().any(|n| {
                n.starts_with(".arcus-")
                    && n.ends_with(name)
                    && std::fs::metadata(at(n)).is_ok_and(|m| m.len() >= bytes)
            })
        };
        testkit::wait_until(reached, Duration::from_secs(60)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // What the dead process had started may go on for a moment, and its file stays as long.
        let clean = || {
            leftovers += sweep(pool).unwrap().len();
            let clean = names(pool).iter().all(|n| !n.starts_with('.'));
            async move { clean }
        };
        testkit::wait_until(clean, Duration::from_secs(60)).await;
        for image in ["copy.qcow2", "top.qcow2"] {
            if at(image).exists() {
                qemu_img.check(&at(image), Format::Qcow2, Origin::Pool).await.unwrap();
                assert!(content(&at(image), "qcow2") == wanted, "{image} after {name} {bytes}");
            }
        }
        qemu_img.verify(&at("grown.qcow2"), Format::Qcow2, Origin::Foreign).await.unwrap();
    }
    assert!(leftovers > 0, "no kill hit a file in the making");
}

#[tokio::test]
async fn the_next_run_removes_what_the_last_left() {
    let dir = testkit::temp_dir();
    let qemu_img = QemuImg::new(GIB);
    let other = ".arcus-0.other.qcow2.part";
    for name in [".arcus-0.disk.qcow2.part", ".arcus-0.disk.qcow2.lock", ".arcus-1.disk.qcow2.part", other, ".hidden"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    qemu_img.create(&dir.path().join("disk.qcow2"), Format::Qcow2, MIB).await.unwrap();
    assert_eq!(names(dir.path()), [other, ".hidden", "disk.qcow2"]);
    assert_eq!(sweep(dir.path()).unwrap(), ["other.qcow2"]);
    assert_eq!(names(dir.path()), [".hidden", "disk.qcow2"]);
}

#[tokio::test]
async fn a_killed_download_leaves_the_old_file_and_is_swept() {
    let dir = testkit::temp_dir();
    let pool = dir.path();
    std::fs::write(pool.join("image"), "old").unwrap();
    let server = Server::start(noise(1 << 20), None, [Does::Stalls(300_000)]).await;
    let mut child = start(pool, Some(&server.url));
    let begun = async || names(pool).iter().any(|n| std::fs::metadata(pool.join(n)).is_ok_and(|m| m.len() > 100_000));
    testkit::wait_until(begun, Duration::from_secs(60)).await;
    assert!(sweep(pool).unwrap().is_empty(), "it is in the making");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(pool).len(), 3);
    // Once for the file and its lock.
    assert_eq!(sweep(pool).unwrap(), ["image"]);
    assert_eq!(names(pool), ["image"]);
    assert_eq!(std::fs::read(pool.join("image")).unwrap(), b"old");

    let server = Server::start(noise(1 << 20), None, [Does::Serves]).await;
    let mut again = start(pool, Some(&server.url));
    // The server runs in this test, which must not block.
    let ended = tokio::task::spawn_blocking(move || again.wait()).await.unwrap();
    assert!(ended.unwrap().success());
    assert!(std::fs::read(pool.join("image")).unwrap() == noise(1 << 20));
    assert_eq!(names(pool), ["image"]);
}
