#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const CLUSTER: usize = 65_536;

/// A good header of an image of 1 GiB: header, reference counts, their block, first table.
fn header() -> Vec<u8> {
    let mut b = vec![0; 4 * CLUSTER];
    b[..4].copy_from_slice(&qcow2::MAGIC);
    for (at, value) in [(4, 3_u32), (20, 16), (36, 2), (56, 1), (96, 4), (100, 104)] {
        put32(&mut b, at, value);
    }
    for (at, value) in [(24, 1_u64 << 30), (40, 3 * CLUSTER as u64), (48, CLUSTER as u64)] {
        put64(&mut b, at, value);
    }
    b
}

fn put32(b: &mut [u8], at: usize, value: u32) {
    b[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put64(b: &mut [u8], at: usize, value: u64) {
    b[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

fn with_backing(name: &str, format: Option<&str>) -> Vec<u8> {
    let mut b = header();
    if let Some(format) = format {
        put32(&mut b, 104, 0xe279_2aca);
        put32(&mut b, 108, u32::try_from(format.len()).unwrap());
        b[112..112 + format.len()].copy_from_slice(format.as_bytes());
    }
    put64(&mut b, 8, 512);
    put32(&mut b, 16, u32::try_from(name.len()).unwrap());
    b[512..512 + name.len()].copy_from_slice(name.as_bytes());
    b
}

fn rules(origin: Origin) -> Rules {
    Rules { origin, max_virtual_bytes: 1 << 40 }
}

fn judged(bytes: &[u8], origin: Origin) -> Result<Judged, Refusal> {
    let start = &bytes[..bytes.len().min(qcow2::MOST_BYTES)];
    judge(start, &bytes[bytes.len().saturating_sub(512)..], bytes.len() as u64, Format::Qcow2, rules(origin))
}

fn refusal(bytes: &[u8], origin: Origin) -> Option<Refusal> {
    judged(bytes, origin).err()
}

#[test]
fn a_good_header_is_accepted() {
    let good = judged(&header(), Origin::Foreign).unwrap();
    assert_eq!((good.virtual_bytes, good.snapshots, good.dirty, good.backing), (1 << 30, 0, false, None));
    let mut v2 = header();
    put32(&mut v2, 4, 2);
    v2[72..112].fill(0);
    assert_eq!(judged(&v2, Origin::Foreign).unwrap().virtual_bytes, 1 << 30);
}

#[test]
fn bad_fields_are_refused() {
    type Change = fn(&mut [u8]);
    let cases: [(&str, Change, Refusal); 27] = [
        ("version 1", |b| put32(b, 4, 1), Refusal::OtherKind { wanted: Format::Qcow2, found: Kind::Qcow1 }),
        ("version 4", |b| put32(b, 4, 4), Refusal::Version(4)),
        ("tiny clusters", |b| put32(b, 20, 8), Refusal::Malformed("size of clusters")),
        ("huge clusters", |b| put32(b, 20, 64), Refusal::Malformed("size of clusters")),
        ("no disk", |b| put64(b, 24, 0), Refusal::Empty),
        ("negative size", |b| put64(b, 24, u64::MAX), Refusal::Malformed("size of the disk")),
        ("AES", |b| put32(b, 32, 1), Refusal::Encrypted),
        ("LUKS", |b| put32(b, 32, 2), Refusal::Encrypted),
        ("LUKS header", |b| put32(b, 104, 0x0537_be77), Refusal::Encrypted),
        ("data file", |b| put64(b, 72, 4), Refusal::DataFile),
        ("data file's name", |b| put32(b, 104, 0x4441_5441), Refusal::DataFile),
        ("corrupt", |b| put64(b, 72, 2), Refusal::MarkedCorrupt),
        ("unknown feature", |b| put64(b, 72, 1 << 5 | 1), Refusal::UnknownFeatures(1 << 5)),
        ("last feature", |b| put64(b, 72, 1 << 63), Refusal::UnknownFeatures(1 << 63)),
        ("compression", |b| put64(b, 72, 8), Refusal::Malformed("kind of compression")),
        ("refcount width", |b| put32(b, 96, 7), Refusal::Malformed("width of reference counts")),
        ("short header", |b| put32(b, 100, 72), Refusal::Malformed("length of the header")),
        ("long header", |b| put32(b, 100, 1 << 20), Refusal::Malformed("length of the header")),
        ("small table", |b| put32(b, 36, 1), Refusal::Malformed("the first table does not fit the disk's size")),
        ("big table", |b| put32(b, 36, u32::MAX), Refusal::Malformed("the first table does not fit the disk's size")),
        ("table outside", |b| put64(b, 40, 1 << 40), Refusal::Truncated("first table")),
        ("table overflows", |b| put64(b, 40, u64::MAX - 7), Refusal::Malformed("a table's place overflows")),
        ("crooked table", |b| put64(b, 40, 3 * 65_536 + 8), Refusal::Malformed("a table does not lie on a cluster")),
        ("counts outside", |b| put32(b, 56, u32::MAX), Refusal::Truncated("table of reference counts")),
        ("no counts", |b| put32(b, 56, 0), Refusal::Malformed("no reference counts")),
        ("many snapshots", |b| put32(b, 60, 65_537), Refusal::Malformed("number of snapshots")),
        ("snapshots nowhere", |b| put32(b, 60, 1), Refusal::Malformed("a table does not lie on a cluster")),
    ];
    for (what, change, wanted) in cases {
        let mut bytes = header();
        change(&mut bytes);
        assert_eq!(refusal(&bytes, Origin::Foreign), Some(wanted.clone()), "{what}");
        assert_eq!(refusal(&bytes, Origin::Pool), Some(wanted), "{what}");
    }
    let mut long = header();
    put32(&mut long, 104, 7);
    put32(&mut long, 108, u32::MAX);
    let wanted = Refusal::Malformed("an extension is longer than the header");
    assert_eq!(refusal(&long, Origin::Foreign), Some(wanted));
    let mut large = header();
    put64(&mut large, 24, (1 << 40) + 512);
    put32(&mut large, 36, 2049);
    let wanted = Refusal::TooLarge { bytes: (1 << 40) + 512, max: 1 << 40 };
    assert_eq!(refusal(&large, Origin::Foreign), Some(wanted));
}

#[test]
fn every_cut_is_noticed() {
    let whole = header();
    // The first table ends 16 bytes into the last cluster.
    for length in (0..200).chain([512, CLUSTER, 2 * CLUSTER, 3 * CLUSTER, 3 * CLUSTER + 15]) {
        assert!(refusal(&whole[..length], Origin::Foreign).is_some(), "{length}");
    }
    assert_eq!(refusal(&whole[..3 * CLUSTER + 16], Origin::Foreign), None);
}

#[test]
fn backing_files() {
    let raw = with_backing("base.raw", Some("raw"));
    assert_eq!(refusal(&raw, Origin::Foreign), Some(Refusal::BackingFile("base.raw".into())));
    assert_eq!(judged(&raw, Origin::Pool).unwrap().backing, Some(("base.raw".into(), Format::Raw)));
    let reason = |bytes: &[u8]| match refusal(bytes, Origin::Pool) {
        Some(Refusal::BadBacking { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    for name in ["/etc/passwd", "../x", "json:{}", "nbd:host", ".hidden", "-o", "a/b", "a\0b", "é"] {
        let why = reason(&with_backing(name, Some("raw")));
        assert_eq!(why, "it is not a plain name in the same folder", "{name}");
    }
    assert_eq!(reason(&with_backing("base", None)), "its format is not written down");
    assert_eq!(reason(&with_backing("base", Some("vmdk"))), "its format is neither qcow2 nor raw");

    // Places and lengths of the name.
    let place = Refusal::Malformed("place of the backing file's name");
    for at in [1, 103, 65_530, 1 << 40, u64::MAX] {
        let mut bytes = with_backing("base.raw", Some("raw"));
        put64(&mut bytes, 8, at);
        assert_eq!(refusal(&bytes, Origin::Pool), Some(place.clone()), "{at}");
    }
    for length in [0, 1024, u32::MAX] {
        let mut bytes = with_backing("base.raw", Some("raw"));
        put32(&mut bytes, 16, length);
        assert_eq!(refusal(&bytes, Origin::Pool), Some(Refusal::Malformed("length of the backing file's name")));
    }
}

#[test]
fn kinds_are_told_apart() {
    let tar = [vec![0; 257], b"ustar".to_vec()].concat();
    let vdi = [vec![0; 64], vec![0x7f, 0x10, 0xda, 0xbe]].concat();
    let cases: [(&[u8], Kind); 13] = [
        (b"QFI\xfb\0\0\0\x03", Kind::Qcow2),
        (b"QFI\xfb\0\0\0\x01", Kind::Qcow1),
        (b"QED\0", Kind::Qed),
        (b"KDMV\x01", Kind::Vmdk),
        (b"# Disk DescriptorFile\n", Kind::Vmdk),
        (b"conectix\0", Kind::Vhd),
        (b"vhdxfile", Kind::Vhdx),
        (&vdi, Kind::Vdi),
        (b"\x1f\x8b\x08", Kind::Gzip),
        (b"BZh9", Kind::Bzip2),
        (b"PK\x03\x04", Kind::Zip),
        (&tar, Kind::Tar),
        (b"plain", Kind::Unknown),
    ];
    for (bytes, kind) in cases {
        assert_eq!(Kind::of(bytes, b""), kind);
        let raw = judge(bytes, b"", 512, Format::Raw, rules(Origin::Foreign));
        assert_eq!(raw.is_ok(), kind == Kind::Unknown, "{kind:?}");
        assert!(judge(bytes, b"", 512, Format::Raw, rules(Origin::Pool)).is_ok(), "a guest may write what it wants");
    }
    assert_eq!(Kind::of(b"", b"conectix"), Kind::Vhd);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048), file: u64, raw: bool, pool: bool) {
        let format = if raw { Format::Raw } else { Format::Qcow2 };
        let origin = if pool { Origin::Pool } else { Origin::Foreign };
        let _ = judge(&bytes, &bytes, file, format, Rules { origin, max_virtual_bytes: u64::MAX });
        let mut image = bytes;
        image.splice(0..0, *b"QFI\xfb\0\0\0\x03");
        let _ = judge(&image, &[], file, Format::Qcow2, Rules { origin, max_virtual_bytes: u64::MAX });
    }

    /// Any change of some fields: no panic, and what is accepted keeps the promises.
    #[test]
    fn mutated_headers_keep_the_promises(
        changes in prop::collection::vec((0_usize..160, prop_oneof![Just(0_u64), Just(u64::MAX), 0_u64..300, any::<u64>()], 0_u8..3), 1..6),
        cut in prop_oneof![Just(4 * CLUSTER), 0..4 * CLUSTER],
        backing: bool,
    ) {
        let mut bytes = if backing { with_backing("base.raw", Some("raw")) } else { header() };
        for (at, value, width) in changes {
            match width {
                0 => bytes[at] = value as u8,
                1 => put32(&mut bytes, at / 4 * 4, value as u32),
                _ => put64(&mut bytes, at / 8 * 8, value),
            }
        }
        bytes.truncate(cut);
        if let Ok(accepted) = judged(&bytes, Origin::Foreign) {
            prop_assert!(accepted.backing.is_none());
            prop_assert!(accepted.virtual_bytes > 0 && accepted.virtual_bytes <= 1 << 40);
            prop_assert_eq!(&bytes[8..16], &[0; 8]);
            prop_assert_eq!(&bytes[32..36], &[0; 4]);
        }
        let _ = judged(&bytes, Origin::Pool);
    }
}
