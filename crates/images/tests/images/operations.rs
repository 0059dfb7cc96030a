//! Making, converting, basing on, growing: what a guest would read, and what lies in the folder.

use crate::{GIB, MIB, content, names, noise, raw_disk, tool};
use images::{Error, Format, Origin, QemuImg};

const Q: Format = Format::Qcow2;
const RAW: Format = Format::Raw;

#[tokio::test]
async fn there_and_back_gives_the_same_disk() {
    let dir = testkit::temp_dir();
    let at = |name: &str| dir.path().join(name);
    let qemu_img = QemuImg::new(GIB);
    let raw = raw_disk(dir.path(), "disk.raw", 3 * MIB);
    let made = qemu_img.convert(&raw, RAW, Origin::Foreign, &at("disk.qcow2"), Q).await.unwrap();
    assert_eq!((made.format, made.virtual_bytes), (Q, 3 * MIB));
    let back = qemu_img.convert(&at("disk.qcow2"), Q, Origin::Pool, &at("back.raw"), RAW).await.unwrap();
    assert_eq!((back.virtual_bytes, back.file_bytes), (3 * MIB, 3 * MIB));
    assert!(std::fs::read(at("back.raw")).unwrap() == noise(3 << 20));
    let need = qemu_img.measure(&raw, RAW, Origin::Pool, Q).await.unwrap();
    assert!(need.required >= 3 * MIB && need.required <= need.fully_allocated);
    let info = qemu_img.info(&at("disk.qcow2"), Q, Origin::Foreign).await.unwrap();
    assert_eq!((info.virtual_size, info.cluster_size), (3 * MIB, Some(65_536)));
    // An old target is replaced.
    qemu_img.create(&at("back.raw"), RAW, 512).await.unwrap();
    assert_eq!(std::fs::read(at("back.raw")).unwrap(), [0; 512]);
    assert_eq!(names(dir.path()), ["back.raw", "disk.qcow2", "disk.raw"]);
}

#[tokio::test]
async fn an_overlay_is_its_base_until_written_and_flattened() {
    let dir = testkit::temp_dir();
    let at = |name: &str| dir.path().join(name);
    let qemu_img = QemuImg::new(GIB);
    let raw = raw_disk(dir.path(), "disk.raw", MIB);
    qemu_img.convert(&raw, RAW, Origin::Foreign, &at("base.qcow2"), Q).await.unwrap();
    let made = qemu_img.overlay(&at("base.qcow2"), Q, &at("top.qcow2"), Some(2 * MIB)).await.unwrap();
    assert_eq!(made.backing.as_ref().map(|b| (b.name.as_str(), b.image.format)), Some(("base.qcow2", Q)));
    assert_eq!(made.virtual_bytes, 2 * MIB);
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 7 0 64k", "top.qcow2"], dir.path());
    let mut wanted = noise(1 << 20);
    wanted[..65_536].fill(7);
    wanted.resize(2 << 20, 0);
    assert!(content(&at("top.qcow2"), "qcow2") == wanted);
    qemu_img.info(&at("top.qcow2"), Q, Origin::Pool).await.unwrap();
    qemu_img.check(&at("top.qcow2"), Q, Origin::Pool).await.unwrap();
    assert!(qemu_img.info(&at("top.qcow2"), Q, Origin::Foreign).await.unwrap_err().refusal().is_some());

    // A snapshot's chain has three links; a folder that moves takes it along.
    qemu_img.overlay(&at("top.qcow2"), Q, &at("third.qcow2"), None).await.unwrap();
    let flat = qemu_img.flatten(&at("third.qcow2")).await.unwrap();
    assert_eq!(flat.backing, None);
    std::fs::remove_file(at("base.qcow2")).unwrap();
    assert!(content(&at("third.qcow2"), "qcow2") == wanted);
    qemu_img.verify(&at("third.qcow2"), Q, Origin::Foreign).await.unwrap();
    assert_eq!(qemu_img.flatten(&at("third.qcow2")).await.unwrap().backing, None);

    // On a raw base as well.
    qemu_img.overlay(&raw, RAW, &at("onraw.qcow2"), None).await.unwrap();
    assert!(content(&at("onraw.qcow2"), "qcow2") == noise(1 << 20));
    assert_eq!(names(dir.path()), ["disk.raw", "onraw.qcow2", "third.qcow2", "top.qcow2"]);
}

#[tokio::test]
async fn disks_only_grow() {
    let dir = testkit::temp_dir();
    let qemu_img = QemuImg::new(GIB);
    for format in [Q, RAW] {
        let disk = dir.path().join(format!("disk.{format}"));
        qemu_img.create(&disk, format, MIB).await.unwrap();
        assert_eq!(qemu_img.resize(&disk, format, 600 * MIB).await.unwrap().virtual_bytes, 600 * MIB);
        assert_eq!(qemu_img.resize(&disk, format, 600 * MIB).await.unwrap().virtual_bytes, 600 * MIB);
        let error = qemu_img.resize(&disk, format, 599 * MIB).await.unwrap_err();
        assert!(matches!(error, Error::Shrink { now, .. } if now == 600 * MIB), "{error}");
        for bytes in [0, 600 * MIB + 1, 2 * GIB] {
            let error = qemu_img.resize(&disk, format, bytes).await.unwrap_err();
            assert!(matches!(error, Error::Size(b) if b == bytes), "{error}");
        }
        qemu_img.verify(&disk, format, Origin::Foreign).await.unwrap();
    }
}

#[tokio::test]
async fn wrong_places_are_refused() {
    let dir = testkit::temp_dir();
    let at = |name: &str| dir.path().join(name);
    let qemu_img = QemuImg::new(GIB);
    for name in ["-o", "a:b", ".x", "a b", "é", "a,b", &"x".repeat(181)] {
        let error = qemu_img.create(&at(name), Q, MIB).await.unwrap_err();
        assert!(matches!(error, Error::Name(_)), "{name}: {error}");
    }
    let error = qemu_img.create("relative.qcow2".as_ref(), Q, MIB).await.unwrap_err();
    assert!(matches!(error, Error::Name(_)), "{error}");
    qemu_img.create(&at("base.qcow2"), Q, MIB).await.unwrap();
    std::fs::create_dir(at("sub")).unwrap();
    let error = qemu_img.overlay(&at("base.qcow2"), Q, &at("sub/top.qcow2"), None).await.unwrap_err();
    assert!(matches!(error, Error::OtherFolder(_)), "{error}");
    let error = qemu_img.overlay(&at("base.qcow2"), Q, &at("top.qcow2"), Some(512)).await.unwrap_err();
    assert!(matches!(error, Error::Shrink { .. }), "{error}");
    let error = qemu_img.create(&at("none/x.qcow2"), Q, MIB).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(names(dir.path()), ["base.qcow2", "sub"]);
}

/// Whatever qemu-img makes that stands alone is accepted, converted, and grown.
#[tokio::test]
async fn honest_images_of_all_sorts_are_accepted() {
    let dir = testkit::temp_dir();
    let qemu_img = QemuImg::new(8 * GIB);
    raw_disk(dir.path(), "disk.raw", MIB);
    let mut wanted = noise(1 << 20);
    wanted.resize(2 << 20, 0);
    let sorts = [
        "compat=0.10",
        "compat=1.1,lazy_refcounts=on",
        "cluster_size=512",
        "cluster_size=2M",
        "compression_type=zstd",
        "extended_l2=on,cluster_size=128k",
        "preallocation=full",
        "refcount_bits=1",
        "refcount_bits=64",
    ];
    for (number, options) in sorts.iter().enumerate() {
        let name = format!("sort{number}.qcow2");
        let image = dir.path().join(&name);
        tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-o", options, "disk.raw", &name], dir.path());
        let seen = qemu_img.verify(&image, Q, Origin::Foreign).await.unwrap_or_else(|e| panic!("{options}: {e}"));
        assert_eq!((seen.virtual_bytes, seen.snapshots, seen.dirty), (MIB, 0, false), "{options}");
        assert_eq!(qemu_img.resize(&image, Q, 2 * MIB).await.unwrap().virtual_bytes, 2 * MIB, "{options}");
        let copy = dir.path().join("copy.qcow2");
        qemu_img.convert(&image, Q, Origin::Foreign, &copy, Q).await.unwrap();
        assert!(content(&copy, "qcow2") == wanted, "{options}");
    }
    for args in [["-c", "one"], ["-c", "two"], ["-d", "one"]] {
        tool("qemu-img", &[&["snapshot"], &args[..], &["sort0.qcow2"]].concat(), dir.path());
    }
    let seen = qemu_img.verify(&dir.path().join("sort0.qcow2"), Q, Origin::Foreign).await.unwrap();
    assert_eq!(seen.snapshots, 1);
    // A large empty disk takes next to nothing.
    let large = qemu_img.create(&dir.path().join("large.qcow2"), Q, 8 * GIB).await.unwrap();
    assert!(large.file_bytes < MIB && large.actual_bytes < MIB, "{large:?}");
}
