//! Images that mean harm, made by qemu-img itself.

use crate::{GIB, MIB, names, raw_disk, tool};
use images::{Error, Format, Kind, Origin, QemuImg, Refusal, Rules, ToolError, inspect};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use std::path::Path;

fn refused(path: &Path, format: Format, origin: Origin) -> Refusal {
    let error = inspect(path, format, Rules { origin, max_virtual_bytes: 64 * GIB }).unwrap_err();
    // The image itself, or the one in its chain.
    assert!(error.to_string().contains(path.parent().unwrap().to_str().unwrap()));
    error.refusal().unwrap_or_else(|| panic!("{error}")).clone()
}

#[tokio::test]
async fn what_refers_to_the_host_is_refused() {
    let dir = testkit::temp_dir();
    let at = |name: &str| dir.path().join(name);
    let img = |args: &[&str]| tool("qemu-img", args, dir.path());
    img(&["create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd", "passwd.qcow2", "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-u", "-b", "json:{\"driver\":\"nbd\"}", "-F", "raw", "json.qcow2", "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "outside.qcow2", "1M"]);
    let refusal = refused(&at("passwd.qcow2"), Format::Qcow2, Origin::Foreign);
    assert_eq!(refusal, Refusal::BackingFile("/etc/passwd".into()));
    assert!(matches!(refused(&at("passwd.qcow2"), Format::Qcow2, Origin::Pool), Refusal::BadBacking { .. }));
    assert!(matches!(refused(&at("json.qcow2"), Format::Qcow2, Origin::Pool), Refusal::BadBacking { .. }));
    for origin in [Origin::Foreign, Origin::Pool] {
        assert_eq!(refused(&at("outside.qcow2"), Format::Qcow2, origin), Refusal::DataFile);
    }

    // No operation lets the tool have it, and none leaves anything.
    let before = names(dir.path());
    let qemu_img = QemuImg { program: "/never/started".into(), ..QemuImg::new(GIB) };
    let (bad, target) = (at("passwd.qcow2"), at("target.qcow2"));
    let q = Format::Qcow2;
    let f = Origin::Foreign;
    assert!(qemu_img.verify(&bad, q, f).await.unwrap_err().refusal().is_some());
    assert!(qemu_img.check(&bad, q, f).await.unwrap_err().refusal().is_some());
    assert!(qemu_img.measure(&bad, q, f, q).await.unwrap_err().refusal().is_some());
    assert!(qemu_img.convert(&bad, q, f, &target, q).await.unwrap_err().refusal().is_some());
    assert!(qemu_img.resize(&bad, q, 2 * MIB).await.unwrap_err().refusal().is_some());
    assert!(qemu_img.flatten(&bad).await.unwrap_err().refusal().is_some());
    assert!(qemu_img.overlay(&bad, q, &target, None).await.unwrap_err().refusal().is_some());
    assert_eq!(names(dir.path()), before);
}

#[test]
fn huge_encrypted_and_disguised_images_are_refused() {
    let dir = testkit::temp_dir();
    let at = |name: &str| dir.path().join(name);
    let img = |args: &[&str]| tool("qemu-img", args, dir.path());
    img(&["create", "-q", "-f", "qcow2", "huge.qcow2", "16T"]);
    assert!(std::fs::metadata(at("huge.qcow2")).unwrap().len() < MIB);
    let wanted = Refusal::TooLarge { bytes: 16 << 40, max: 64 * GIB };
    assert_eq!(refused(&at("huge.qcow2"), Format::Qcow2, Origin::Foreign), wanted);
    let secret =
        ["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"];
    img(&[&["create", "-q", "-f", "qcow2"], &secret[..], &["luks.qcow2", "1M"]].concat());
    assert_eq!(refused(&at("luks.qcow2"), Format::Qcow2, Origin::Foreign), Refusal::Encrypted);

    for (format, kind) in
        [("vmdk", Kind::Vmdk), ("vpc", Kind::Vhd), ("vhdx", Kind::Vhdx), ("vdi", Kind::Vdi), ("qed", Kind::Qed)]
    {
        img(&["create", "-q", "-f", format, format, "1M"]);
        for wanted in [Format::Raw, Format::Qcow2] {
            assert_eq!(refused(&at(format), wanted, Origin::Foreign), Refusal::OtherKind { wanted, found: kind });
        }
    }
    img(&["create", "-q", "-f", "vpc", "-o", "subformat=fixed", "fixed.vhd", "1M"]);
    let found = Kind::Vhd;
    assert_eq!(
        refused(&at("fixed.vhd"), Format::Raw, Origin::Foreign),
        Refusal::OtherKind { wanted: Format::Raw, found }
    );
}

#[test]
fn only_files_are_opened() {
    let dir = testkit::temp_dir();
    let at = |name: &str| dir.path().join(name);
    raw_disk(dir.path(), "disk.raw", 4096);
    std::os::unix::fs::symlink("disk.raw", at("link")).unwrap();
    tool("mkfifo", &["pipe"], dir.path());
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    for name in ["link", "pipe", "folder"] {
        assert_eq!(refused(&at(name), Format::Raw, Origin::Pool), Refusal::NotAFile, "{name}");
    }
    assert_eq!(refused(&at("empty"), Format::Raw, Origin::Pool), Refusal::Empty);
    let rules = Rules { origin: Origin::Pool, max_virtual_bytes: GIB };
    assert!(matches!(inspect(&at("missing"), Format::Raw, rules), Err(Error::Io { .. })));
}

#[tokio::test]
async fn a_cut_image_is_found_out() {
    let dir = testkit::temp_dir();
    let qemu_img = QemuImg::new(GIB);
    let raw = raw_disk(dir.path(), "disk.raw", 4 * MIB);
    let image = dir.path().join("disk.qcow2");
    let (q, f) = (Format::Qcow2, Origin::Foreign);
    qemu_img.convert(&raw, Format::Raw, f, &image, q).await.unwrap();
    let whole = qemu_img.verify(&image, q, f).await.unwrap();
    assert_eq!(whole.virtual_bytes, 4 * MIB);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    // Of the data first, then of the tables.
    let mut kinds = Vec::new();
    for length in [whole.file_bytes - MIB, whole.file_bytes / 2, 200_000, 70_000, 1000, 60, 3] {
        file.set_len(length).unwrap();
        let error = qemu_img.verify(&image, q, f).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. } | Error::Refused { .. }), "{length}: {error}");
        kinds.push(matches!(error, Error::Damaged { .. }));
    }
    assert!(kinds[0], "the check of the tool is needed for this");
    assert!(!kinds[6]);
}

#[test]
fn circles_and_long_chains_end() {
    let dir = testkit::temp_dir();
    let img = |args: &[&str]| tool("qemu-img", args, dir.path());
    img(&["create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", "b.qcow2", "a.qcow2", "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", "a.qcow2", "b.qcow2", "1M"]);
    assert_eq!(refused(&dir.path().join("a.qcow2"), Format::Qcow2, Origin::Pool), Refusal::LongChain(64));
    // A chain is judged in every link.
    img(&["create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd", "bad.qcow2", "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", "bad.qcow2", "top.qcow2", "1M"]);
    assert!(matches!(refused(&dir.path().join("top.qcow2"), Format::Qcow2, Origin::Pool), Refusal::BadBacking { .. }));
}

/// Real images with changed headers: what we accept the tool sees the same way, or refuses. It never crashes or hangs, and
/// never sees a backing file where we see none.
#[test]
fn the_tool_agrees_about_changed_images() {
    let dir = testkit::temp_dir();
    let image = dir.path().join("disk.qcow2");
    raw_disk(dir.path(), "disk.raw", MIB);
    tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"], dir.path());
    let good = std::fs::read(&image).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let qemu_img = QemuImg::new(64 * GIB);
    let value = prop_oneof![Just(0_u32), Just(u32::MAX), 0_u32..20, (0_u32..8).prop_map(|n| n << 16), any::<u32>()];
    let changes = prop::collection::vec((1_usize..40, value), 1..3);
    let (accepted, cases) = (Cell::new(0), Cell::new(0));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&changes, |changes| {
        let mut bytes = good.clone();
        for (word, value) in &changes {
            bytes[word * 4..word * 4 + 4].copy_from_slice(&value.to_be_bytes());
        }
        std::fs::write(&image, bytes).unwrap();
        cases.set(cases.get() + 1);
        match runtime.block_on(qemu_img.info(&image, Format::Qcow2, Origin::Foreign)) {
            Ok(_) => accepted.set(accepted.get() + 1),
            // The tool knows more reasons to refuse.
            Err(Error::Refused { .. } | Error::Tool(ToolError::Failed { .. })) => {}
            Err(error) => return Err(TestCaseError::fail(format!("{changes:?}: {error}"))),
        }
        Ok(())
    });
    outcome.unwrap();
    let (accepted, cases) = (accepted.get(), cases.get());
    assert!(accepted > 0 && accepted < cases, "{accepted} of {cases}");
}
