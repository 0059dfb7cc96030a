use super::server::{Does, Server};
use super::*;

/// A qcow2 image as a server would have it.
fn qcow2(noisy: u64) -> Vec<u8> {
    let dir = testkit::temp_dir();
    std::fs::read(image(dir.path(), "i", noisy, 64 * MIB)).unwrap()
}

fn sha256(data: &[u8]) -> String {
    let dir = testkit::temp_dir();
    std::fs::write(dir.path().join("x"), data).unwrap();
    format!("{{SHA-256}}{}", tool("sha256sum", &["x"], dir.path()).split(' ').next().unwrap())
}

const PATH: &str = "template/tmpl/2/201/abc.qcow2";

/// A fetch that is refused and leaves nothing.
async fn refused(host: &Host, order: &FetchImage, store: &Path) -> ApiError {
    let error = host.storage.fetch_image(order).await.unwrap_err();
    assert!(!store.join(&order.path).exists(), "{error}");
    assert!(left(store).is_empty(), "{error}: {:?}", left(store));
    error
}

#[tokio::test]
async fn an_image_is_fetched_looked_at_and_put_in_its_place() {
    let mut host = Host::start().await;
    let dir = testkit::temp_dir();
    let store = folder_store(dir.path());
    let data = qcow2(3 * MIB);
    let server = Server::start(data.clone(), Does::Serves).await;
    let order = FetchImage { checksum: sha256(&data), ..fetch(&store, PATH, &server.url) };
    let state = host.storage.fetch_image(&order).await.unwrap();
    assert_eq!(state.phase(), Phase::Ready);
    assert_eq!((state.path.as_str(), state.format.as_str(), state.virtual_size), (PATH, "qcow2", 64 * MIB));
    assert_eq!(
        (state.physical_size, state.received, state.total),
        (data.len() as u64, data.len() as u64, Some(data.len() as u64))
    );
    assert_eq!(state.checksum, order.checksum);
    assert!(std::fs::read(dir.path().join(PATH)).unwrap() == data);
    assert!(left(dir.path()).is_empty());
    // A repeat asks nobody, after a restart too.
    host.restart().await;
    assert_eq!(host.storage.fetch_image(&order).await.unwrap(), state);
    assert_eq!(server.ranges().len(), 1);
    // It can be copied to a pool.
    let pool_dir = testkit::temp_dir();
    host.pool("p", pool_dir.path()).await;
    host.storage.ensure_disk(&from(&template("t", &store, PATH), "v", "f", 0)).await.unwrap();
    assert!(content(&pool_dir.path().join("f"), "qcow2", 3 * MIB) == noise(3 * MIB));
    // Removed twice, with the folders that it was in.
    let delete = DeleteImage { store: Some(store.clone()), path: PATH.into() };
    for _ in 0..2 {
        host.storage.delete_image(&delete).await.unwrap();
    }
    assert_eq!(names(dir.path()), [".arcus"]);
    assert!(names(&dir.path().join(".arcus/images")).is_empty() && names(&dir.path().join(".arcus/locks")).is_empty());
    // An inside server that isn't in an allowed network is never called.
    let outside = FetchImage { internal_cidrs_allowed: vec!["10.0.0.0/8".into()], ..order };
    let error = refused(&host, &outside, dir.path()).await;
    assert!(error.code == 431 && error.text.contains("not a public address"), "{error}");
    assert_eq!(server.ranges().len(), 1);
}

#[tokio::test]
async fn what_is_not_as_announced_is_refused() {
    let host = Host::start().await;
    let dir = testkit::temp_dir();
    let store = folder_store(dir.path());
    let data = qcow2(MIB);
    let server = Server::start(data.clone(), Does::Serves).await;
    let good = fetch(&store, PATH, &server.url);
    let wrong = FetchImage { checksum: sha256(b"other"), ..good.clone() };
    let error = refused(&host, &wrong, dir.path()).await;
    assert!(error.code == 431 && error.text.contains("checksum"), "{error}");
    for (order, word) in [
        (FetchImage { checksum: "xyz".into(), ..good.clone() }, "checksum"),
        (FetchImage { max_bytes: 1000, ..good.clone() }, "larger"),
        (FetchImage { max_virtual_bytes: 32 * MIB, ..good.clone() }, "allowed"),
        (FetchImage { format: "raw".into(), ..good.clone() }, "qcow2"),
        (FetchImage { format: "VHD".into(), ..good.clone() }, "VHD"),
        (FetchImage { url: "ftp://127.0.0.1/x".into(), ..good.clone() }, "http"),
        (FetchImage { url: "file:///etc/passwd".into(), ..good.clone() }, "http"),
        (FetchImage { path: "../x".into(), ..good.clone() }, "name"),
        (FetchImage { internal_cidrs_allowed: vec!["0.0.0.0/0".into()], ..good.clone() }, "0.0.0.0/0"),
        (FetchImage { store: None, ..good.clone() }, "store"),
    ] {
        let error = host.storage.fetch_image(&order).await.unwrap_err();
        assert!(error.code == 431 && error.text.contains(word), "{word}: {error}");
        assert!(!dir.path().join(PATH).exists());
    }
    server.then(Does::Status(404));
    let error = refused(&host, &good, dir.path()).await;
    assert!(error.code == 431 && error.text.contains("404"), "{error}");
    // Nothing of all that is in the way of a good one.
    server.then(Does::Serves);
    host.storage.fetch_image(&FetchImage { checksum: sha256(&data), ..good }).await.unwrap();
    assert!(left(dir.path()).is_empty());
}

#[tokio::test]
async fn malicious_images_are_refused() {
    let host = Host::start().await;
    let dir = testkit::temp_dir();
    let store = folder_store(dir.path());
    let made = testkit::temp_dir();
    let at = made.path();
    std::fs::write(at.join("secret"), vec![1; 65_536]).unwrap();
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", "-u", "backing", "1G"], at);
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "secret", "-u", "beside", "1G"], at);
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "-o", "data_file=secret2,data_file_raw=on", "data", "1M"], at);
    tool("qemu-img", &["create", "-q", "-f", "qcow2", "huge", "60T"], at);
    tool("qemu-img", &["create", "-q", "-f", "vmdk", "vmdk", "1M"], at);
    let whole = qcow2(MIB);
    std::fs::write(at.join("cut"), &whole[..70_000]).unwrap();
    // Its tables point behind the end of the file: only the tool's check finds that.
    std::fs::write(at.join("short"), &whole[..whole.len() - 500_000]).unwrap();
    for name in ["backing", "beside", "data", "huge", "vmdk", "cut", "short"] {
        let server = Server::start(std::fs::read(at.join(name)).unwrap(), Does::Serves).await;
        let order = fetch(&store, PATH, &server.url);
        let error = refused(&host, &order, dir.path()).await;
        assert!(error.code == 431 && error.text.starts_with("The image"), "{name}: {error}");
    }
}

#[tokio::test]
async fn redirects_do_not_lead_inside() {
    let host = Host::start().await;
    let dir = testkit::temp_dir();
    let store = folder_store(dir.path());
    let inside = Server::start(qcow2(MIB), Does::Serves).await;
    let to_other = inside.url.replace("127.0.0.1", "127.0.0.2");
    for to in [to_other.as_str(), "http://169.254.169.254/latest/meta-data/", "http://[::1]:1/", "http://10.0.0.1/"] {
        let server = Server::start(Vec::new(), Does::Redirects(to.to_owned())).await;
        let error = refused(&host, &fetch(&store, PATH, &server.url), dir.path()).await;
        assert!(error.code == 431 && error.text.contains("not a public address"), "{to}: {error}");
    }
    let named = inside.url.replace("127.0.0.1", "localhost");
    let order = FetchImage { internal_cidrs_allowed: Vec::new(), ..fetch(&store, PATH, &named) };
    assert_eq!(refused(&host, &order, dir.path()).await.code, 431);
    assert!(inside.ranges().is_empty());
    // To where one may go they do.
    let server = Server::start(Vec::new(), Does::Redirects(inside.url.clone())).await;
    host.storage.fetch_image(&fetch(&store, PATH, &server.url)).await.unwrap();
}

#[tokio::test]
async fn packed_images_are_unpacked() {
    let host = Host::start().await;
    let dir = testkit::temp_dir();
    let store = folder_store(dir.path());
    let made = testkit::temp_dir();
    let at = made.path();
    let data = qcow2(MIB);
    std::fs::write(at.join("i"), &data).unwrap();
    tool("gzip", &["-k", "i"], at);
    tool("bzip2", &["-k", "i"], at);
    tool("xz", &["-k", "i"], at);
    tool("zip", &["-q", "i.zip", "i"], at);
    for name in ["i.gz", "i.bz2", "i.xz", "i.zip"] {
        let packed = std::fs::read(at.join(name)).unwrap();
        let server = Server::start(packed.clone(), Does::Serves).await;
        let path = format!("template/{name}.qcow2");
        // The checksum is of what comes.
        let order = FetchImage { checksum: sha256(&packed), ..fetch(&store, &path, &server.url) };
        let state = host.storage.fetch_image(&order).await.unwrap();
        assert_eq!((state.physical_size, state.checksum), (data.len() as u64, sha256(&data)), "{name}");
        assert!(std::fs::read(dir.path().join(path)).unwrap() == data, "{name}");
    }
    // A bomb.
    std::fs::File::create(at.join("zeros")).unwrap().set_len(256 * MIB).unwrap();
    tool("gzip", &["-1", "zeros"], at);
    let server = Server::start(std::fs::read(at.join("zeros.gz")).unwrap(), Does::Serves).await;
    let order = FetchImage { format: "raw".into(), max_bytes: 16 * MIB, ..fetch(&store, PATH, &server.url) };
    let error = refused(&host, &order, dir.path()).await;
    assert!(error.code == 431 && error.text.contains("larger than"), "{error}");
    // And what isn't too large: raw, as ISO images are.
    let order = FetchImage { format: "ISO".into(), max_bytes: 256 * MIB, ..order };
    let state = host.storage.fetch_image(&order).await.unwrap();
    assert_eq!((state.virtual_size, state.format.as_str()), (256 * MIB, "raw"));
}

#[tokio::test]
async fn orders_listen_to_work_that_a_new_agent_goes_on_with() {
    let mut host = Host::start().await;
    let dir = testkit::temp_dir();
    let store = folder_store(dir.path());
    let data = qcow2(40 * MIB);
    let server = Server::start(data.clone(), Does::Stalls(36 << 20)).await;
    let order = FetchImage { report_after_millis: 0, checksum: sha256(&data), ..fetch(&store, PATH, &server.url) };
    let mut state = ImageState::default();
    while state.received < 34 * MIB {
        state = host.storage.fetch_image(&FetchImage { report_after_millis: 20, ..order.clone() }).await.unwrap();
        assert_eq!((state.phase(), state.physical_size), (Phase::Downloading, 0));
    }
    assert_eq!(state.total, Some(data.len() as u64));
    assert_eq!(server.ranges().len(), 1, "one work for all orders");
    // Another URL for the same place has to wait.
    let other = FetchImage { url: "http://127.0.0.1:1/other".into(), ..order.clone() };
    let error = host.storage.fetch_image(&other).await.unwrap_err();
    assert!(error.code == 530 && error.is_transient(), "{error}");
    host.restart().await;
    server.then(Does::Serves);
    let order = FetchImage { report_after_millis: 60_000, ..order };
    let state = host.storage.fetch_image(&order).await.unwrap();
    assert_eq!(state.phase(), Phase::Ready);
    let ranges = server.ranges();
    assert_eq!(ranges.len(), 2);
    let from: u64 = ranges[1].strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!(from >= 32 * MIB, "{ranges:?}");
    assert!(std::fs::read(dir.path().join(PATH)).unwrap() == data && left(dir.path()).is_empty());
}

#[tokio::test]
async fn a_line_that_breaks_is_told_and_can_be_gone_on_with() {
    let host = Host::start().await;
    let dir = testkit::temp_dir();
    let store = folder_store(dir.path());
    let data = qcow2(MIB);
    let server = Server::start(data, Does::Breaks(100_000)).await;
    let order = fetch(&store, PATH, &server.url);
    let error = host.storage.fetch_image(&order).await.unwrap_err();
    assert!(error.code == 530 && error.is_transient(), "{error}");
    assert_eq!(left(dir.path()).len(), 1, "what came stays");
    server.then(Does::Serves);
    let calls = server.ranges().len();
    host.storage.fetch_image(&order).await.unwrap();
    assert_ne!(server.ranges()[calls], "", "it went on");
}

#[tokio::test]
async fn removing_ends_the_work_on_this_host_and_on_others() {
    let (one, two) = (Host::start().await, Host::start().await);
    let dir = testkit::temp_dir();
    let store = folder_store(dir.path());
    let server = Server::start(qcow2(MIB), Does::Stalls(100_000)).await;
    let delete = DeleteImage { store: Some(store.clone()), path: PATH.into() };
    let order = FetchImage { report_after_millis: 0, ..fetch(&store, PATH, &server.url) };
    let comes = |host: &Host| {
        let (storage, order) = (host.storage.clone(), order.clone());
        async move {
            testkit::eventually(|| async {
                let state = storage.fetch_image(&order).await.unwrap();
                (state.received > 0).then_some(())
            })
            .await;
        }
    };
    comes(&one).await;
    one.storage.delete_image(&delete).await.unwrap();
    assert!(left(dir.path()).is_empty());
    // Again, and another host removes it.
    comes(&one).await;
    // Only one works on it; the other one waits for its turn.
    let waiting = two.storage.fetch_image(&order).await.unwrap();
    assert_eq!(waiting.received, 0);
    let calls = server.ranges().len();
    two.storage.delete_image(&delete).await.unwrap();
    assert_eq!(server.ranges().len(), calls);
    assert!(left(dir.path()).is_empty() && !dir.path().join(PATH).exists());
    let ended = one.storage.fetch_image(&FetchImage { report_after_millis: 10_000, ..order }).await.unwrap_err();
    assert!(ended.text.contains("removed meanwhile"), "{ended}");
}

#[tokio::test]
async fn a_forgotten_download_is_swept_and_a_fresh_one_is_not() {
    let mut host = Host::start().await;
    let dir = testkit::temp_dir();
    let work = dir.path().join(".arcus/work");
    for name in ["old", "fresh"] {
        std::fs::create_dir_all(work.join(name)).unwrap();
        std::fs::write(work.join(name).join("data"), "x").unwrap();
    }
    for path in ["old/data", "old"] {
        tool("touch", &["-d", "8 days ago", path], &work);
    }
    host.restart().await;
    let delete = DeleteImage { store: Some(folder_store(dir.path())), path: "none".into() };
    host.storage.delete_image(&delete).await.unwrap();
    assert_eq!(names(&work), ["fresh"]);
    // Copies from buckets live only as long as their agent.
    let copy = host.dir.path().join("storage/work/copy-1");
    std::fs::create_dir(&copy).unwrap();
    host.restart().await;
    assert!(!copy.exists());
}

#[tokio::test]
async fn links_in_a_store_are_not_followed() {
    let host = Host::start().await;
    let (dir, outside) = (testkit::temp_dir(), testkit::temp_dir());
    let store = folder_store(dir.path());
    std::os::unix::fs::symlink(outside.path(), dir.path().join("template")).unwrap();
    let server = Server::start(qcow2(MIB), Does::Serves).await;
    let error = host.storage.fetch_image(&fetch(&store, PATH, &server.url)).await.unwrap_err();
    assert!(error.text.contains("symbolic link"), "{error}");
    let delete = DeleteImage { store: Some(store), path: PATH.into() };
    assert_eq!(host.storage.delete_image(&delete).await.unwrap_err().code, 530);
    assert!(names(outside.path()).is_empty());
    for url in ["file://relative", "file:///", "file:///x/../y", "gopher://x/y", "/tmp"] {
        let store = ImageStore { url: url.into(), ..ImageStore::default() };
        let delete = DeleteImage { store: Some(store), path: PATH.into() };
        assert_eq!(host.storage.delete_image(&delete).await.unwrap_err().code, 431, "{url}");
    }
    let missing = DeleteImage { store: Some(folder_store(&dir.path().join("none"))), path: PATH.into() };
    assert_eq!(host.storage.delete_image(&missing).await.unwrap_err().code, 530);
}
