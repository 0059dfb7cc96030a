#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
use super::*;
use proptest::prelude::*;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

const IDS: Ids = Ids { first: 1_879_048_192 };

/// A header as tar writes it, with its data.
fn entry(name: &str, kind: u8, link: &str, data: &[u8], size: u64) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(100, "0004755\0");
    put(108, "0000007\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000144\0");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\u{0}00");
    block[156] = kind;
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    entry(name, b'0', "", data, data.len() as u64)
}

fn archive(folder: &Path, entries: &[Vec<u8>]) -> PathBuf {
    let path = folder.join("archive.tar");
    let end = vec![vec![0; 1024]];
    std::fs::write(&path, entries.iter().chain(&end).flatten().copied().collect::<Vec<u8>>()).unwrap();
    path
}

/// Looks and unpacks; the reason when either refuses.
fn unpacked(folder: &Path, entries: &[Vec<u8>]) -> Result<PathBuf, String> {
    let (path, into) = (archive(folder, entries), folder.join("root"));
    let _ = std::fs::remove_dir_all(&into);
    needs(&path, 1 << 30).map_err(|e| e.to_string())?;
    unpack(&path, &into, IDS, 1 << 30, &AtomicBool::new(false)).map_err(|e| e.to_string())?;
    Ok(into)
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(b"\n!!! SKIPPED: archives are unpacked by root only\n");
    }
    root
}

#[test]
fn an_archive_becomes_a_tree_with_its_owners_shifted() {
    if !root() {
        return;
    }
    let dir = testkit::temp_dir();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let record = format!("path={long}\n");
    let record = format!("{} {record}", record.len() + 4);
    let entries = [
        entry("./", b'5', "", b"", 0),
        entry("usr/lib/", b'5', "", b"", 0),
        entry("lib", b'2', "/usr/lib", b"", 0),
        // Through the link, as in archives of merged systems.
        file("lib/so", b"library"),
        entry("hard", b'1', "./usr/lib/so", b"", 0),
        entry("pipe", b'6', "", b"", 0),
        entry("dev/null", b'3', "", b"", 0),
        entry("disk", b'4', "", b"", 0),
        entry("././@LongLink", b'L', "", format!("{long}.gnu\0").as_bytes(), long.len() as u64 + 5),
        file("short", b"gnu"),
        entry("pax", b'x', "", record.as_bytes(), record.len() as u64),
        file("short", b"pax"),
    ];
    let into = unpacked(dir.path(), &entries).unwrap();
    let library = std::fs::metadata(into.join("usr/lib/so")).unwrap();
    assert_eq!((library.uid(), library.gid(), library.mode() & 0o7777), (IDS.first + 7, IDS.first, 0o4755));
    assert_eq!((library.nlink(), library.mtime()), (2, 100));
    assert_eq!(std::fs::read_link(into.join("lib")).unwrap(), Path::new("/usr/lib"));
    assert!(std::fs::metadata(into.join("pipe")).unwrap().file_type().is_fifo());
    assert!(!into.join("dev/null").exists() && !into.join("disk").exists(), "device nodes are left out");
    assert_eq!(std::fs::read(into.join(format!("{long}.gnu"))).unwrap(), b"gnu");
    assert_eq!(std::fs::read(into.join(&long)).unwrap(), b"pax");
    assert_eq!(std::fs::metadata(&into).unwrap().mode() & 0o777, 0o700, "nobody looks in meanwhile");
}

#[test]
fn hostile_archives_are_refused_or_harmless() {
    if !root() {
        return;
    }
    let dir = testkit::temp_dir();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "mine").unwrap();
    let link = outside.display().to_string();
    let refused: &[(&str, Vec<Vec<u8>>)] = &[
        ("absolute name", vec![file("/etc/cron.d/x", b"x")]),
        ("leads out", vec![file("a/../../outside", b"x")]),
        ("leads out", vec![file("..", b"x")]),
        ("absolute name", vec![entry("hard", b'1', &link, b"", 0)]),
        ("leads out", vec![entry("hard", b'1', "../outside", b"", 0)]),
        // A hard link by way of a symbolic one ends below the root, where nothing is.
        ("can't be made", vec![entry("up", b'2', "..", b"", 0), entry("hard", b'1', "up/outside", b"", 0)]),
        ("can't be made", vec![entry("d", b'5', "", b"", 0), file("d", b"x")]),
        ("can't be made", vec![file("f", b"x"), file("f/g", b"x")]),
        ("can't be made", vec![entry("a", b'2', "b", b"", 0), entry("b", b'2', "a", b"", 0), file("a/x", b"x")]),
        ("sparse", vec![entry("s", b'S', "", b"", 0)]),
        ("unknown kind", vec![entry("s", b'V', "", b"", 0)]),
        ("no file has data", vec![entry("l", b'2', "x", b"abc", 3)]),
        ("has no name", vec![entry("./.", b'2', "y", b"", 0)]),
        ("larger than the", vec![entry("bomb", b'0', "", b"", 0o77_777_777_777)]),
        ("cut off", vec![entry("short", b'0', "", b"", 1 << 20)]),
        ("larger than any honest", vec![entry("x", b'x', "", b"", 1 << 30)]),
        ("makes no sense", vec![entry("x", b'x', "", b"999 path=a\n", 11)]),
        ("empty", vec![]),
    ];
    for (n, (why, entries)) in refused.iter().enumerate() {
        let said = unpacked(dir.path(), entries).map(|_| String::new()).unwrap_or_else(|e| e);
        assert!(said.contains(why), "number {n}: {said:?}");
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "mine");
    }
    // Symbolic links to the outside are made as they are, and writing through them ends below the root.
    let entries = [
        entry("etc", b'2', dir.path().to_str().unwrap(), b"", 0),
        entry(&dir.path().to_str().unwrap()[1..], b'5', "", b"", 0),
        file("etc/outside", b"theirs"),
        entry("up", b'2', "../../../../../..", b"", 0),
        file("up/there", b"theirs"),
        // A name that is a link is replaced, not followed.
        entry("out", b'2', &link, b"", 0),
        file("out", b"theirs"),
    ];
    let into = unpacked(dir.path(), &entries).unwrap();
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "mine");
    assert_eq!(std::fs::read(into.join("there")).unwrap(), b"theirs");
    assert_eq!(std::fs::read(into.join("out")).unwrap(), b"theirs");
    assert_eq!(std::fs::read(into.join(&link[1..])).unwrap(), b"theirs");
}

#[tokio::test]
async fn an_archive_becomes_an_image_of_its_size_or_nothing() {
    if !root() {
        return;
    }
    let dir = testkit::temp_dir();
    let path = archive(dir.path(), &[entry("etc/", b'5', "", b"", 0), file("etc/name", b"a container")]);
    let least = needs(&path, u64::MAX).unwrap();
    let (target, scratch) = (dir.path().join("root-1"), dir.path().join("scratch"));
    let small = rootfs(&path, &target, &scratch, least - MIB, IDS).await.unwrap_err();
    assert!(matches!(small, Error::Size(_)), "{small}");
    let made = rootfs(&path, &target, &scratch, 2 * least, IDS).await.unwrap();
    assert_eq!((made.format, made.virtual_bytes, made.file_bytes), (Format::Raw, 2 * least, 2 * least));
    assert!(made.actual_bytes < least / 2, "it has holes: {made:?}");
    let say = |what: &str| {
        let output = std::process::Command::new("debugfs").args(["-R", what]).arg(&target).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(say("cat /etc/name"), "a container");
    let stat = say("stat /etc");
    assert!(stat.contains("1879048199") && stat.contains("04755"), "{stat}");
    assert!(say("stat /").contains("User: 1879048192"), "{}", say("stat /"));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

proptest! {
    /// Whatever is written over a good archive: nothing panics, and nothing is made beside the folder.
    #[test]
    fn damaged_archives_are_survived(at in 0_usize..2048, bytes in prop::collection::vec(any::<u8>(), 1..64)) {
        let dir = testkit::temp_dir();
        let entries = [entry("d/", b'5', "", b"", 0), file("d/f", b"data"), entry("l", b'2', "d", b"", 0)];
        let path = archive(dir.path(), &entries);
        let mut all = std::fs::read(&path).unwrap();
        for (n, byte) in bytes.iter().enumerate() {
            if let Some(place) = all.get_mut(at + n) {
                *place = *byte;
            }
        }
        std::fs::write(&path, all).unwrap();
        let into = dir.path().join("root");
        let _ = needs(&path, 1 << 30);
        let _ = unpack(&path, &into, IDS, 1 << 30, &AtomicBool::new(false));
        for found in std::fs::read_dir(dir.path()).unwrap() {
            let name = found.unwrap().file_name();
            prop_assert!(name == "root" || name == "archive.tar", "{:?}", name);
        }
    }
}
