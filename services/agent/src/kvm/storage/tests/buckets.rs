use super::server::{Does, Server};
use super::*;
use testkit::S3;

fn bucket(s3: &S3, url: &str) -> ImageStore {
    let details = [
        ("endpoint", s3.endpoint().trim_start_matches("http://").to_owned()),
        ("usehttps", "false".into()),
        ("accesskey", S3::ACCESS_KEY.into()),
        ("secretkey", S3::SECRET_KEY.into()),
    ];
    let details = details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    ImageStore { uuid: "b".into(), url: url.into(), details }
}

#[tokio::test]
async fn images_live_in_a_bucket() {
    let s3 = S3::start(&["images"]).await;
    let store = bucket(&s3, "s3://images/cloud/one");
    let mut host = Host::start().await;
    let (made, pool_dir) = (testkit::temp_dir(), testkit::temp_dir());
    host.pool("p", pool_dir.path()).await;
    // Small, and large: that one goes up in parts.
    for (path, noisy) in [("template/small.qcow2", MIB), ("template/large.qcow2", 40 * MIB)] {
        let data = std::fs::read(image(made.path(), "i", noisy, 64 * MIB)).unwrap();
        let server = Server::start(data.clone(), Does::Serves).await;
        let state = host.storage.fetch_image(&fetch(&store, path, &server.url)).await.unwrap();
        assert_eq!(
            (state.phase(), state.virtual_size, state.physical_size),
            (Phase::Ready, 64 * MIB, data.len() as u64)
        );
        assert!(std::fs::read(s3.bucket("images").join("cloud/one").join(path)).unwrap() == data);
        host.restart().await;
        assert_eq!(host.storage.fetch_image(&fetch(&store, path, &server.url)).await.unwrap(), state);
        assert_eq!(server.ranges().len(), 1);
        let piece = async |path: &str, offset: u64, length: u32| {
            let order = ReadImage { store: Some(store.clone()), path: path.into(), offset, length };
            host.storage.read_image(&order).await
        };
        assert_eq!(piece("template/none", 0, 1000).await.unwrap_err().code, 431);
        let total = data.len() as u64;
        for (offset, length) in [(0, 1000), (12_345, 1 << 20), (total - 10, 1000), (total, 10), (0, 0)] {
            let first = usize::try_from(offset).unwrap();
            let there = &data[first..data.len().min(first + length as usize)];
            let given = piece(path, offset, length).await.unwrap();
            assert!(given.data == there && given.total == total, "{length} from {offset}");
        }
        let volume = format!("v{noisy}");
        host.storage.ensure_disk(&from(&template(&volume, &store, path), &volume, &volume, 0)).await.unwrap();
        assert!(content(&pool_dir.path().join(&volume), "qcow2", noisy) == noise(noisy));
    }
    // A volume goes there too.
    let order = StoreDisk {
        volume_uuid: format!("v{MIB}"),
        pool_uuid: "p".into(),
        path: format!("v{MIB}"),
        vm_uuid: None,
        store: Some(store.clone()),
        store_path: "snapshots/s.qcow2".into(),
        format: "QCOW2".into(),
        report_after_millis: 60_000,
        source: None,
    };
    assert_eq!(host.storage.store_disk(&order).await.unwrap().virtual_size, 64 * MIB);
    let copy = s3.bucket("images").join("cloud/one/snapshots/s.qcow2");
    assert!(content(&copy, "qcow2", MIB) == noise(MIB));
    assert!(names(&host.dir.path().join("storage/work")).iter().all(|name| name.starts_with("lock-")));
    for path in ["template/small.qcow2", "template/large.qcow2", "snapshots/s.qcow2"] {
        let delete = DeleteImage { store: Some(store.clone()), path: path.into() };
        for _ in 0..2 {
            host.storage.delete_image(&delete).await.unwrap();
        }
        assert!(!s3.bucket("images").join("cloud/one").join(path).exists());
    }
    assert!(names(&host.dir.path().join("storage/work")).is_empty());
}

#[tokio::test]
async fn what_is_wrong_with_a_bucket_is_told() {
    let s3 = S3::start(&["images"]).await;
    let host = Host::start().await;
    let made = testkit::temp_dir();
    let data = std::fs::read(image(made.path(), "i", MIB, 64 * MIB)).unwrap();
    let server = Server::start(data, Does::Serves).await;
    let good = bucket(&s3, "s3://images");
    let with = |name: &str, value: &str| {
        let mut store = good.clone();
        store.details.insert(name.into(), value.into());
        store
    };
    for (store, code, word) in [
        (with("secretkey", "wrong"), 530, "refuses the access key"),
        (with("accesskey", "nobody"), 530, "refuses the access key"),
        (with("accesskey", ""), 431, "accesskey"),
        (with("endpoint", "ftp://x"), 431, "endpoint"),
        (bucket(&s3, "s3:///x"), 431, "URL of a bucket"),
        (bucket(&s3, "s3://none"), 530, ""),
    ] {
        let error = host.storage.fetch_image(&fetch(&store, "i.qcow2", &server.url)).await.unwrap_err();
        assert!(error.code == code && error.text.contains(word), "{word}: {error}");
    }
    // Objects of others, and images that were changed.
    std::fs::write(s3.bucket("images").join("other.qcow2"), "x").unwrap();
    let error = host.storage.fetch_image(&fetch(&good, "other.qcow2", &server.url)).await.unwrap_err();
    assert!(error.text.contains("didn't make"), "{error}");
    host.storage.fetch_image(&fetch(&good, "i.qcow2", &server.url)).await.unwrap();
    let object = s3.bucket("images").join("i.qcow2");
    let mut bytes = std::fs::read(&object).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let pool_dir = testkit::temp_dir();
    host.pool("p", pool_dir.path()).await;
    let error = host.storage.ensure_disk(&from(&template("t", &good, "i.qcow2"), "v", "f", 0)).await.unwrap_err();
    assert!(error.text.contains("isn't what was put there"), "{error}");
    assert_eq!(names(pool_dir.path()), [".arcus"]);
}
