use super::*;
use std::io::Write as _;
use std::process::Stdio;

fn store_disk(store: &ImageStore, path: &str) -> StoreDisk {
    StoreDisk {
        volume_uuid: "v".into(),
        pool_uuid: "p".into(),
        path: "f".into(),
        vm_uuid: None,
        store: Some(store.clone()),
        store_path: path.into(),
        format: "QCOW2".into(),
        report_after_millis: 60_000,
        source: None,
    }
}

/// A host with a volume `v` based on a template, with something of its own in it.
async fn with_volume(pool_dir: &Path, store_dir: &Path) -> Host {
    image(store_dir, "t.qcow2", 2 * MIB, 16 * MIB);
    let host = Host::start().await;
    host.pool("p", pool_dir).await;
    let order = from(&template("t", &folder_store(store_dir), "t.qcow2"), "v", "f", 32 * MIB);
    host.storage.ensure_disk(&order).await.unwrap();
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 9 0 1M", "f"], pool_dir);
    host
}

fn expected() -> Vec<u8> {
    let mut bytes = noise(2 * MIB);
    bytes[..1 << 20].fill(9);
    bytes
}

#[tokio::test]
async fn a_volume_is_set_back_beside_what_it_was() {
    let (pool_dir, store_dir) = (testkit::temp_dir(), testkit::temp_dir());
    let host = with_volume(pool_dir.path(), store_dir.path()).await;
    let store = folder_store(store_dir.path());
    let order = store_disk(&store, "snapshots/2/5/s.qcow2");
    host.storage.store_disk(&order).await.unwrap();
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 1 0 1M", "f"], pool_dir.path());
    // The same volume has two files until one commit says which of them it is.
    let snapshot = TemplateSource { whole: true, ..template("s", &store, &order.store_path) };
    let back = from(&snapshot, "v", "f-back", 48 * MIB);
    for _ in 0..2 {
        assert_eq!(host.storage.ensure_disk(&back).await.unwrap().size, 48 * MIB);
    }
    assert!(content(&pool_dir.path().join("f-back"), "qcow2", 2 * MIB) == expected());
    assert!(content(&pool_dir.path().join("f"), "qcow2", MIB).iter().all(|b| *b == 1));
    let listed = ListDisks { pool_uuid: "p".into(), after: String::new(), limit: 1 };
    let disks = host.storage.list_disks(&listed).await.unwrap().disks;
    assert_eq!(
        disks.iter().map(|d| (d.volume_uuid.as_str(), d.path.as_str())).collect::<Vec<_>>(),
        [("v", "f"), ("v", "f-back")]
    );
    // Either may go without the other.
    host.storage.delete_disk(&delete("v", "f")).await.unwrap();
    assert!(content(&pool_dir.path().join("f-back"), "qcow2", 2 * MIB) == expected());
    // Nothing is based on the template any more: it may leave the pool.
    host.storage.delete_disk(&delete("t", "template-t")).await.unwrap();
    assert!(!names(pool_dir.path()).contains(&"template-t".to_owned()));
    assert!(content(&pool_dir.path().join("f-back"), "qcow2", 2 * MIB) == expected());
}

#[tokio::test]
async fn images_are_read_in_pieces() {
    let store_dir = testkit::temp_dir();
    let whole = std::fs::read(image(store_dir.path(), "t.qcow2", 3 * MIB, 16 * MIB)).unwrap();
    let host = Host::start().await;
    let piece = |path: &str, offset: usize, length: usize| ReadImage {
        store: Some(folder_store(store_dir.path())),
        path: path.into(),
        offset: offset as u64,
        length: u32::try_from(length).unwrap(),
    };
    let mut read = Vec::new();
    while read.len() < whole.len() {
        // At most a MiB at a time.
        let got = host.storage.read_image(&piece("t.qcow2", read.len(), whole.len())).await.unwrap();
        assert!(got.total == whole.len() as u64 && !got.data.is_empty() && got.data.len() <= MIB as usize);
        read.extend(got.data);
    }
    assert!(read == whole);
    let got = host.storage.read_image(&piece("t.qcow2", 7, 100)).await.unwrap();
    assert!(got.data == whole[7..107]);
    assert!(host.storage.read_image(&piece("t.qcow2", 0, 0)).await.unwrap().data.is_empty());
    assert!(host.storage.read_image(&piece("t.qcow2", whole.len() + 5, 9)).await.unwrap().data.is_empty());
    // Nothing else of the host can be read.
    std::os::unix::fs::symlink("/etc/passwd", store_dir.path().join("link")).unwrap();
    for path in ["none", "../t.qcow2", "/etc/passwd", "link", ".arcus/images"] {
        assert!(host.storage.read_image(&piece(path, 0, 9)).await.is_err(), "{path}");
    }
}

#[tokio::test]
async fn a_volume_is_copied_to_a_store_and_made_a_volume_again() {
    let (pool_dir, store_dir) = (testkit::temp_dir(), testkit::temp_dir());
    let host = with_volume(pool_dir.path(), store_dir.path()).await;
    let store = folder_store(store_dir.path());
    let order = store_disk(&store, "snapshots/2/5/s.qcow2");
    let state = host.storage.store_disk(&order).await.unwrap();
    assert_eq!((state.phase(), state.virtual_size, state.format.as_str()), (Phase::Ready, 32 * MIB, "qcow2"));
    let copy = store_dir.path().join("snapshots/2/5/s.qcow2");
    assert!(content(&copy, "qcow2", 2 * MIB) == expected());
    assert!(!tool("qemu-img", &["info", copy.to_str().unwrap()], store_dir.path()).contains("backing"));
    assert!(left(store_dir.path()).is_empty());
    // What it was stays, whatever is written since.
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 1 0 1M", "f"], pool_dir.path());
    assert_eq!(host.storage.store_disk(&order).await.unwrap(), state);
    assert!(content(&copy, "qcow2", 2 * MIB) == expected());
    // A template of it.
    let again = from(&template("t2", &store, &order.store_path), "v2", "f2", 0);
    assert_eq!(host.storage.ensure_disk(&again).await.unwrap().size, 32 * MIB);
    assert!(content(&pool_dir.path().join("f2"), "qcow2", 2 * MIB) == expected());
    // A volume of it, which stands alone: nothing is kept on the pool for others, and the image may go.
    let snapshot = TemplateSource { whole: true, ..template("t3", &store, &order.store_path) };
    let whole = from(&snapshot, "v3", "f3", 64 * MIB);
    assert_eq!(host.storage.ensure_disk(&whole).await.unwrap().size, 64 * MIB);
    assert_eq!(host.storage.ensure_disk(&whole).await.unwrap().size, 64 * MIB, "once is enough");
    assert!(content(&pool_dir.path().join("f3"), "qcow2", 2 * MIB) == expected());
    assert!(!names(pool_dir.path()).contains(&"template-t3".to_owned()));
    let whole_file = pool_dir.path().join("f3");
    assert!(!tool("qemu-img", &["info", whole_file.to_str().unwrap()], pool_dir.path()).contains("backing"));
    // Another image of it.
    let captured = StoreDisk {
        source: Some(snapshot),
        ..StoreDisk {
            volume_uuid: String::new(),
            pool_uuid: String::new(),
            path: String::new(),
            ..store_disk(&store, "t3.qcow2")
        }
    };
    assert_eq!(host.storage.store_disk(&captured).await.unwrap().virtual_size, 32 * MIB);
    assert!(content(&store_dir.path().join("t3.qcow2"), "qcow2", 2 * MIB) == expected());
    assert!(left(store_dir.path()).is_empty());
    let raw = StoreDisk { format: "raw".into(), ..store_disk(&store, "raw") };
    assert_eq!(host.storage.store_disk(&raw).await.unwrap().physical_size, 32 * MIB);
    for (order, code) in [
        (StoreDisk { volume_uuid: "v9".into(), ..store_disk(&store, "x") }, 530),
        (StoreDisk { path: "none".into(), ..store_disk(&store, "x") }, 530),
        (StoreDisk { pool_uuid: "none".into(), ..store_disk(&store, "x") }, 534),
        (StoreDisk { store_path: "/x".into(), ..store_disk(&store, "x") }, 431),
    ] {
        assert_eq!(host.storage.store_disk(&order).await.unwrap_err().code, code, "{order:?}");
    }
}

#[tokio::test]
async fn a_copy_is_told_of_and_goes_on_after_a_kill() {
    let (pool_dir, store_dir) = (testkit::temp_dir(), testkit::temp_dir());
    let mut host = with_volume(pool_dir.path(), store_dir.path()).await;
    host.watch_tool();
    host.hold_tool();
    let order = store_disk(&folder_store(store_dir.path()), "s.qcow2");
    let begun = StoreDisk { report_after_millis: 10, ..order.clone() };
    let state = host.storage.store_disk(&begun).await.unwrap();
    assert_eq!((state.phase(), state.physical_size), (Phase::Downloading, 0));
    testkit::wait_until(|| async { host.runs("convert") > 0 }, 30 * SECOND).await;
    host.restart().await;
    host.release_tool();
    host.storage.store_disk(&order).await.unwrap();
    assert!(content(&store_dir.path().join("s.qcow2"), "qcow2", 2 * MIB) == expected());
    assert!(left(store_dir.path()).is_empty());
}

#[tokio::test]
async fn a_disk_that_is_in_use_is_left_alone() {
    let (pool_dir, store_dir) = (testkit::temp_dir(), testkit::temp_dir());
    let host = with_volume(pool_dir.path(), store_dir.path()).await;
    // Open for writing, as by a running VM.
    let mut open = Command::new("qemu-io")
        .args(["-f", "qcow2", "f"])
        .current_dir(pool_dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = open.stdin.take().unwrap();
    stdin.write_all(b"write -P 3 1M 4k\n").unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(open.stdout.take().unwrap()), &mut line).unwrap();
    let store = folder_store(store_dir.path());
    let copied = host.storage.store_disk(&store_disk(&store, "s.qcow2")).await.unwrap_err();
    assert!(copied.code == 530 && copied.is_transient() && copied.text.contains("in use"), "{copied}");
    let resize =
        ResizeDisk { volume_uuid: "v".into(), pool_uuid: "p".into(), path: "f".into(), size: GIB, vm_uuid: None };
    let resized = host.storage.resize_disk(&resize).await.unwrap_err();
    assert!(resized.is_transient(), "{resized}");
    drop(stdin);
    open.wait().unwrap();
    host.storage.store_disk(&store_disk(&store, "s.qcow2")).await.unwrap();
}

/// A driver that can copy disks of running VMs.
struct Copier;

#[async_trait::async_trait]
impl Moment for Copier {
    async fn copy(&self, vm_uuid: &str, disk: &DiskFile, target: &Path) -> Result<(), ApiError> {
        assert_eq!((vm_uuid, target.exists()), ("vm", false));
        let (from, to) = (disk.path.to_str().unwrap(), target.to_str().unwrap());
        tool("qemu-img", &["convert", "-U", "-f", "qcow2", "-O", "qcow2", from, to], Path::new("/"));
        Ok(())
    }
}

#[tokio::test]
async fn a_running_vms_disk_is_copied_by_its_driver() {
    let (pool_dir, store_dir) = (testkit::temp_dir(), testkit::temp_dir());
    let host = with_volume(pool_dir.path(), store_dir.path()).await;
    let store = folder_store(store_dir.path());
    let order = |path: &str, format: &str| StoreDisk {
        vm_uuid: Some("vm".into()),
        format: format.into(),
        ..store_disk(&store, path)
    };
    assert_eq!(host.storage.store_disk(&order("a", "qcow2")).await.unwrap_err().code, 431);
    host.storage.set_moment(Arc::new(Copier));
    for format in ["qcow2", "raw"] {
        let state = host.storage.store_disk(&order(format, format)).await.unwrap();
        assert_eq!((state.format.as_str(), state.virtual_size), (format, 32 * MIB));
        assert!(content(&store_dir.path().join(format), format, 2 * MIB) == expected());
    }
    assert!(left(store_dir.path()).is_empty());
}
