use super::*;

async fn host(dir: &Path) -> Host {
    let host = Host::start().await;
    host.pool("p", dir).await;
    host
}

#[tokio::test]
async fn volumes_are_made_resized_listed_and_removed() {
    let dir = testkit::temp_dir();
    let mut host = host(dir.path()).await;
    let s = &host.storage;
    let made = s.ensure_disk(&empty("p", "v1", "f1", GIB)).await.unwrap();
    assert_eq!((made.volume_uuid.as_str(), made.path.as_str(), made.size), ("v1", "f1", GIB));
    assert!(made.physical_size > 0 && made.physical_size < MIB);
    assert_eq!(s.ensure_disk(&empty("p", "v1", "f1", GIB)).await.unwrap(), made);
    let raw = EnsureDisk { format: "RAW".into(), ..empty("p", "v2", "f2", 5 * MIB + 1) };
    assert_eq!(s.ensure_disk(&raw).await.unwrap().size, 5 * MIB + 512);
    // What was written is there after a repeat.
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 7 0 1M", "f1"], dir.path());
    s.ensure_disk(&empty("p", "v1", "f1", GIB)).await.unwrap();
    assert!(content(&dir.path().join("f1"), "qcow2", MIB).iter().all(|b| *b == 7));
    // Larger, twice; never smaller.
    let resize = |path: &str, volume: &str, size| ResizeDisk {
        volume_uuid: volume.into(),
        pool_uuid: "p".into(),
        path: path.into(),
        size,
        vm_uuid: None,
    };
    for _ in 0..2 {
        assert_eq!(s.resize_disk(&resize("f1", "v1", 2 * GIB)).await.unwrap().size, 2 * GIB);
        assert_eq!(s.resize_disk(&resize("f2", "v2", 8 * MIB)).await.unwrap().size, 8 * MIB);
    }
    let smaller = s.resize_disk(&resize("f1", "v1", GIB)).await.unwrap_err();
    assert!(smaller.code == 431 && smaller.text.contains("smaller"), "{smaller}");
    assert_eq!(s.resize_disk(&resize("f1", "v2", 4 * GIB)).await.unwrap_err().code, 530, "another's file");
    assert_eq!(s.resize_disk(&resize("f9", "v9", 4 * GIB)).await.unwrap_err().code, 530, "no file");
    // A late repeat of the making leaves the size.
    assert_eq!(s.ensure_disk(&empty("p", "v1", "f1", GIB)).await.unwrap().size, 2 * GIB);
    // Pages, after a restart too.
    host.restart().await;
    let s = &host.storage;
    let list = |after: &str, limit| ListDisks { pool_uuid: "p".into(), after: after.into(), limit };
    let page = s.list_disks(&list("", 1)).await.unwrap();
    assert_eq!((page.disks.len(), page.disks[0].volume_uuid.as_str(), page.disks[0].size), (1, "v1", 2 * GIB));
    assert!(page.more);
    let page = s.list_disks(&list("v1", 1)).await.unwrap();
    assert_eq!((page.disks[0].path.as_str(), page.disks[0].size, page.more), ("f2", 8 * MIB, false));
    let file = s.disk_file("p", "f2").unwrap();
    assert_eq!(file, DiskFile { path: dir.path().join("f2"), format: Format::Raw, backing: Vec::new() });
    // Removed twice; another placement of the volume isn't touched, nor another volume's file.
    s.delete_disk(&delete("v1", "f1-former")).await.unwrap();
    s.delete_disk(&delete("v1", "f2")).await.unwrap();
    assert_eq!(s.list_disks(&list("", 9)).await.unwrap().disks.len(), 2);
    for _ in 0..2 {
        s.delete_disk(&delete("v1", "f1")).await.unwrap();
    }
    assert_eq!(names(dir.path()), [".arcus", "f2"]);
    assert_eq!(names(&dir.path().join(".arcus/disks")), ["f2"]);
    assert_eq!(s.disk_file("p", "f1").unwrap_err().code, 530);
    assert_eq!(s.ensure_disk(&empty("p", "v3", "f2", MIB)).await.unwrap_err().code, 530, "another's file");
}

#[tokio::test]
async fn nothing_leads_out_of_the_pool() {
    let outside = testkit::temp_dir();
    let dir = testkit::temp_dir();
    let host = host(dir.path()).await;
    let s = &host.storage;
    let long = "x".repeat(151);
    for path in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a b", ".hidden", "-o", "nbd:x", "template-t", &long] {
        assert_eq!(s.ensure_disk(&empty("p", "v", path, MIB)).await.unwrap_err().code, 431, "{path:?}");
        assert_eq!(s.disk_file("p", path).unwrap_err().code, 431, "{path:?}");
        if path != "template-t" {
            assert_eq!(s.delete_disk(&delete("v", path)).await.unwrap_err().code, 431, "{path:?}");
        }
    }
    // A link in the place of a volume's file.
    s.ensure_disk(&empty("p", "v", "f", MIB)).await.unwrap();
    let secret = outside.path().join("secret");
    std::fs::rename(dir.path().join("f"), &secret).unwrap();
    std::os::unix::fs::symlink(&secret, dir.path().join("f")).unwrap();
    assert_eq!(s.disk_file("p", "f").unwrap_err().code, 530);
    assert_eq!(s.ensure_disk(&empty("p", "v", "f", GIB)).await.unwrap_err().code, 530);
    let resize =
        ResizeDisk { volume_uuid: "v".into(), pool_uuid: "p".into(), path: "f".into(), size: GIB, vm_uuid: None };
    assert_eq!(s.resize_disk(&resize).await.unwrap_err().code, 530);
    let listed = s.list_disks(&ListDisks { pool_uuid: "p".into(), ..ListDisks::default() }).await.unwrap();
    assert!(listed.disks.is_empty());
    assert_eq!(std::fs::metadata(&secret).unwrap().len(), 196_616, "untouched");
    // A guest's own image that names a file of the host as its base.
    let evil = dir.path().join("f");
    std::fs::remove_file(&evil).unwrap();
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret.to_str().unwrap(), "f"], dir.path());
    assert_eq!(s.resize_disk(&resize).await.unwrap_err().code, 431);
    // Files that are no volume's are left alone.
    std::fs::write(dir.path().join("other"), "x").unwrap();
    assert_eq!(s.ensure_disk(&empty("p", "v2", "other", MIB)).await.unwrap_err().code, 530);
    assert_eq!(s.delete_disk(&delete("v2", "other")).await.unwrap_err().code, 530);
    for size in [0, 65 * GIB, u64::MAX] {
        assert_eq!(s.ensure_disk(&empty("p", "v4", "f4", size)).await.unwrap_err().code, 431, "{size}");
    }
}

#[tokio::test]
async fn many_volumes_from_a_template_make_one_copy() {
    let store = testkit::temp_dir();
    image(store.path(), "t.qcow2", 8 * MIB, 16 * MIB);
    let dir = testkit::temp_dir();
    // Two hosts with the same pool.
    let (mut one, mut two) = (Host::start().await, Host::start().await);
    for host in [&mut one, &mut two] {
        host.watch_tool();
        host.pool("p", dir.path()).await;
    }
    let from_store = template("t", &folder_store(store.path()), "t.qcow2");
    let orders: Vec<EnsureDisk> =
        (0..12).map(|n| from(&from_store, &format!("v{n}"), &format!("f{n}"), (16 + n) * MIB)).collect();
    let hosts = orders.iter().enumerate().map(|(n, order)| if n % 2 == 0 { (&one, order) } else { (&two, order) });
    let made = futures::future::join_all(hosts.map(|(host, order)| host.storage.ensure_disk(order))).await;
    for (n, disk) in made.into_iter().enumerate() {
        assert_eq!(disk.unwrap().size, (16 + n as u64) * MIB);
    }
    assert_eq!(one.runs("convert") + two.runs("convert"), 1);
    let f3 = dir.path().join("f3");
    assert!(content(&f3, "qcow2", 8 * MIB) == noise(8 * MIB));
    assert!(std::fs::metadata(&f3).unwrap().len() < MIB, "it is based on the template");
    // Smaller than the template isn't possible: as large as that.
    assert_eq!(one.storage.ensure_disk(&from(&from_store, "v20", "f20", MIB)).await.unwrap().size, 16 * MIB);
    // A raw one stands alone.
    let raw = EnsureDisk { format: "raw".into(), ..from(&from_store, "v21", "f21", 20 * MIB) };
    assert_eq!(one.storage.ensure_disk(&raw).await.unwrap().size, 20 * MIB);
    assert!(content(&dir.path().join("f21"), "raw", 8 * MIB) == noise(8 * MIB));
    // The copy stays as long as it is needed, and goes then; by either host.
    let used = two.storage.delete_disk(&delete("", "template-t")).await.unwrap_err();
    assert_eq!(used.code, 536, "{used}");
    for n in 0..12 {
        one.storage.delete_disk(&delete(&format!("v{n}"), &format!("f{n}"))).await.unwrap();
    }
    assert_eq!(two.storage.delete_disk(&delete("", "template-t")).await.unwrap_err().code, 536);
    one.storage.delete_disk(&delete("v20", "f20")).await.unwrap();
    for _ in 0..2 {
        two.storage.delete_disk(&delete("", "template-t")).await.unwrap();
    }
    assert_eq!(names(dir.path()), [".arcus", "f21"]);
    one.storage.ensure_disk(&from(&from_store, "v1", "f1", 16 * MIB)).await.unwrap();
    assert!(dir.path().join("template-t").exists());
}

#[tokio::test]
async fn a_copy_that_was_killed_is_made_again() {
    let store = testkit::temp_dir();
    image(store.path(), "t.qcow2", 4 * MIB, 16 * MIB);
    let dir = testkit::temp_dir();
    let mut host = host(dir.path()).await;
    host.watch_tool();
    host.hold_tool();
    let from_store = template("t", &folder_store(store.path()), "t.qcow2");
    let order = from(&from_store, "v", "f", GIB);
    let copying = || async { names(dir.path()).iter().any(|name| name.ends_with(".part")) && host.runs("convert") > 0 };
    tokio::select! {
        made = host.storage.ensure_disk(&order) => panic!("{made:?}"),
        () = testkit::wait_until(copying, 30 * SECOND) => {}
    }
    host.release_tool();
    assert!(!dir.path().join("template-t").exists() && !dir.path().join("f").exists());
    // What a killed process leaves: a part with a lock that nobody holds.
    for end in ["part", "lock"] {
        std::fs::write(dir.path().join(format!(".arcus-0123456789abcdef.template-t.{end}")), "torn").unwrap();
    }
    host.restart().await;
    host.storage.ensure_disk(&order).await.unwrap();
    assert_eq!(names(dir.path()), [".arcus", "f", "template-t"]);
    assert!(content(&dir.path().join("f"), "qcow2", 4 * MIB) == noise(4 * MIB));
}

#[tokio::test]
async fn a_malicious_template_does_not_come_to_the_pool() {
    let store = testkit::temp_dir();
    std::fs::write(store.path().join("secret"), vec![1; 65_536]).unwrap();
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "secret", "evil.qcow2"], store.path());
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "huge.qcow2", "65G"], store.path());
    std::fs::write(store.path().join("torn.qcow2"), &std::fs::read(store.path().join("huge.qcow2")).unwrap()[..1000])
        .unwrap();
    std::os::unix::fs::symlink("secret", store.path().join("link.raw")).unwrap();
    let dir = testkit::temp_dir();
    let host = host(dir.path()).await;
    let at = folder_store(store.path());
    for (path, code) in [
        ("evil.qcow2", 431),
        ("huge.qcow2", 431),
        ("torn.qcow2", 431),
        ("link.raw", 530),
        ("../x", 431),
        ("none.qcow2", 530),
    ] {
        let made = host.storage.ensure_disk(&from(&template("t", &at, path), "v", "f", GIB)).await;
        assert_eq!(made.unwrap_err().code, code, "{path}");
        assert_eq!(names(dir.path()), [".arcus"]);
    }
    let bare = TemplateSource { template_uuid: "t".into(), ..TemplateSource::default() };
    assert_eq!(host.storage.ensure_disk(&from(&bare, "v", "f", GIB)).await.unwrap_err().code, 530);
    // An old control plane tells only the URL.
    let good = image(store.path(), "good.qcow2", MIB, 2 * MIB);
    assert!(good.exists());
    let old = TemplateSource { store: None, store_url: at.url.clone(), ..template("t", &at, "good.qcow2") };
    host.storage.ensure_disk(&from(&old, "v", "f", GIB)).await.unwrap();
}
