use super::*;

#[tokio::test]
async fn a_pool_is_a_folder_and_is_known_after_a_restart() {
    let mut host = Host::start().await;
    let dir = testkit::temp_dir();
    let facts = host.pool("p", dir.path()).await;
    let room = rustix::fs::statvfs(dir.path()).unwrap();
    assert_eq!(facts.capacity, room.f_blocks * room.f_frsize);
    assert!(facts.used > 0 && facts.used < facts.capacity);
    assert_eq!(facts.pool_uuid, "p");
    assert_eq!(host.storage.pool_dir("p").unwrap(), dir.path());
    assert_eq!(host.storage.pool_dir("q"), None);
    host.pool("p", dir.path()).await;
    host.restart().await;
    assert_eq!(host.storage.pool_dir("p").unwrap(), dir.path());
    host.storage.ensure_disk(&empty("p", "v", "f", MIB)).await.unwrap();
    // Another pool can't have the folder.
    let taken = host.storage.ensure_pool(&pool("q", dir.path())).await.unwrap_err();
    assert!(taken.text.contains("belongs to another pool (p)"), "{taken}");
    // A local one is made; one that is shared isn't.
    let local = EnsurePool { kind: "Filesystem".into(), ..pool("l", &dir.path().join("deep/er")) };
    host.storage.ensure_pool(&local).await.unwrap();
    assert!(host.storage.pool_dir("l").unwrap().ends_with("deep/er"));
    let missing = host.storage.ensure_pool(&pool("m", &dir.path().join("missing"))).await.unwrap_err();
    assert!(missing.text.contains("has no folder"), "{missing}");
    // The folder isn't the pool's any more, as when it isn't mounted: nothing is written.
    std::fs::remove_dir_all(dir.path().join(".arcus")).unwrap();
    assert_eq!(host.storage.pool_dir("p"), None);
    assert_eq!(host.storage.disk_file("p", "f").unwrap_err().code, 534);
}

#[tokio::test]
async fn a_shared_folder_has_to_be_mounted() {
    let dir = testkit::temp_dir();
    let config = StorageConfig {
        state_dir: dir.path().join("state"),
        mount_root: dir.path().join("mnt"),
        work_dir: None,
        max_virtual_bytes: GIB,
        allow_unmounted: false,
    };
    let storage = Storage::open(config).await.unwrap();
    let shared = dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let refused = storage.ensure_pool(&pool("p", &shared)).await.unwrap_err();
    assert!(refused.text.contains("Nothing is mounted"), "{refused}");
    assert!(names(&shared).is_empty());
    // A real mount point.
    let shm = tempfile::Builder::new().prefix("arcus-").tempdir_in("/dev/shm").unwrap();
    storage.ensure_pool(&pool("p", shm.path())).await.unwrap();
    assert_eq!(storage.pool_dir("p").unwrap(), shm.path());
}

#[tokio::test]
async fn pools_that_cannot_be_are_refused() {
    let host = Host::start().await;
    let order = |kind: &str, url: &str, path: &str| EnsurePool {
        pool_uuid: "p".into(),
        kind: kind.into(),
        url: url.into(),
        path: path.into(),
        lease_millis: 0,
    };
    for (order, code) in [
        (order("RBD", "rbd://x/y", "/y"), 431),
        (order("Filesystem", "", "/"), 431),
        (order("Filesystem", "", "relative"), 431),
        (order("Filesystem", "", "/tmp/../etc"), 431),
        (order("NetworkFilesystem", "nfs://host/a b", ""), 431),
        (EnsurePool { pool_uuid: "../p".into(), ..order("Filesystem", "", "/tmp/x") }, 431),
    ] {
        assert_eq!(host.storage.ensure_pool(&order).await.unwrap_err().code, code, "{order:?}");
    }
    assert_eq!(host.storage.ensure_disk(&empty("none", "v", "f", MIB)).await.unwrap_err().code, 534);
}
