//! Packed files, by the real tools.

use crate::{MIB, noise, tool};
use images::{Error, Kind, Refusal, kind, unpack};
use std::path::PathBuf;

fn refusal<T: std::fmt::Debug>(done: Result<T, Error>) -> Refusal {
    done.unwrap_err().refusal().cloned().unwrap()
}

#[tokio::test]
async fn packed_files_come_out_as_they_went_in() {
    let dir = testkit::temp_dir();
    let folder = dir.path();
    let data = noise(3 << 20);
    std::fs::write(folder.join("disk"), &data).unwrap();
    tool("gzip", &["-k", "disk"], folder);
    tool("bzip2", &["-k", "disk"], folder);
    tool("xz", &["-k", "-1", "disk"], folder);
    tool("zip", &["-q", "disk.zip", "disk"], folder);
    let target = folder.join("out");
    for (name, wanted) in
        [("disk.gz", Kind::Gzip), ("disk.bz2", Kind::Bzip2), ("disk.xz", Kind::Xz), ("disk.zip", Kind::Zip)]
    {
        let source = folder.join(name);
        assert_eq!(kind(&source).unwrap(), wanted);
        assert!(wanted.is_packed());
        assert_eq!(unpack(&source, wanted, &target, 3 * MIB).await.unwrap(), 3 * MIB, "{name}");
        assert!(std::fs::read(&target).unwrap() == data, "{name}");
        // A byte more than allowed.
        let done = unpack(&source, wanted, &target, 3 * MIB - 1).await;
        assert_eq!(refusal(done), Refusal::Unpacked(3 * MIB - 1), "{name}");
        // Cut off.
        let whole = std::fs::read(&source).unwrap();
        let cut = folder.join("cut");
        std::fs::write(&cut, &whole[..whole.len() - 2000]).unwrap();
        let done = unpack(&cut, wanted, &target, 64 * MIB).await;
        assert!(matches!(refusal(done), Refusal::Packed(_)), "{name}");
    }
    assert!(!kind(&folder.join("disk")).unwrap().is_packed());
    let done = unpack(&folder.join("disk"), Kind::Unknown, &target, MIB).await;
    assert!(matches!(refusal(done), Refusal::Packed(_)));
}

#[tokio::test]
async fn bombs_and_collections_are_refused() {
    let dir = testkit::temp_dir();
    let folder = dir.path();
    std::fs::File::create(folder.join("zeros")).unwrap().set_len(512 << 20).unwrap();
    std::fs::write(folder.join("other"), "x").unwrap();
    tool("gzip", &["-1", "-k", "zeros"], folder);
    tool("zip", &["-q", "-1", "one.zip", "zeros"], folder);
    tool("zip", &["-q", "-1", "two.zip", "zeros", "other"], folder);
    let target: PathBuf = folder.join("out");
    for (name, kind) in [("zeros.gz", Kind::Gzip), ("one.zip", Kind::Zip)] {
        let done = unpack(&folder.join(name), kind, &target, 8 * MIB).await;
        assert_eq!(refusal(done), Refusal::Unpacked(8 * MIB), "{name}");
        assert!(std::fs::metadata(&target).unwrap().len() <= 8 * MIB + 1);
    }
    let done = unpack(&folder.join("two.zip"), Kind::Zip, &target, 1 << 30).await;
    let Refusal::Packed(said) = refusal(done) else { panic!() };
    assert!(said.contains("2 files"), "{said}");
}
