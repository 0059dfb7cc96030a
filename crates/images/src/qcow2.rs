//! The header of qcow2, versions 2 and 3, read with distrust.

use crate::errors::Refusal;

/// `QFI` and 0xfb.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The header, its extensions and the backing file's name lie in the first cluster, which has at most so many bytes.
pub(crate) const MOST_BYTES: usize = 2 << 20;

const V2_BYTES: u32 = 72;
const V3_BYTES: u32 = 104;
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;

const EXT_END: u32 = 0;
const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_ENCRYPTION: u32 = 0x0537_be77;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// QEMU's own limits.
const MOST_L1_BYTES: u64 = 32 << 20;
const MOST_SNAPSHOTS: u32 = 65_536;
const MOST_NAME: u32 = 1023;

/// What the header says, with nothing that this crate never accepts (encryption, external data, unknown features, damage).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub virtual_bytes: u64,
    pub snapshots: u32,
    pub dirty: bool,
    /// Name and format of the backing file, as written.
    pub backing: Option<(String, Option<String>)>,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Refusal> {
    let end = at.checked_add(N).ok_or(Refusal::Truncated("header"))?;
    bytes.get(at..end).and_then(|b| b.try_into().ok()).ok_or(Refusal::Truncated("header"))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Refusal> {
    array(bytes, at).map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Refusal> {
    array(bytes, at).map(u64::from_be_bytes)
}

/// A table must lie on a cluster and within the file.
fn table(what: &'static str, offset: u64, bytes: u64, cluster: u64, file: u64) -> Result<(), Refusal> {
    let end = offset.checked_add(bytes).ok_or(Refusal::Malformed("a table's place overflows"))?;
    if !offset.is_multiple_of(cluster) || offset == 0 {
        return Err(Refusal::Malformed("a table does not lie on a cluster"));
    }
    if end > file { Err(Refusal::Truncated(what)) } else { Ok(()) }
}

/// The parts of the header that say where the rest is.
struct Frame {
    bytes: u32,
    cluster: u64,
    incompatible: u64,
}

fn frame(start: &[u8]) -> Result<Frame, Refusal> {
    let version = u32_at(start, 4)?;
    if version != 2 && version != 3 {
        return Err(Refusal::Version(version));
    }
    let cluster_bits = u32_at(start, 20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(Refusal::Malformed("size of clusters"));
    }
    let cluster = 1_u64 << cluster_bits;
    if version == 2 {
        return Ok(Frame { bytes: V2_BYTES, cluster, incompatible: 0 });
    }
    let (incompatible, refcount_order, bytes) = (u64_at(start, 72)?, u32_at(start, 96)?, u32_at(start, 100)?);
    if bytes < V3_BYTES || !bytes.is_multiple_of(8) || u64::from(bytes) > cluster {
        return Err(Refusal::Malformed("length of the header"));
    }
    if refcount_order > 6 {
        return Err(Refusal::Malformed("width of reference counts"));
    }
    let compression = if bytes > V3_BYTES { array::<1>(start, 104)?[0] } else { 0 };
    if compression > 1 || (compression != 0) != (incompatible & COMPRESSION != 0) {
        return Err(Refusal::Malformed("kind of compression"));
    }
    Ok(Frame { bytes, cluster, incompatible })
}

/// The format of the backing file, from the extensions between `from` and `end`.
fn extensions(start: &[u8], from: usize, end: usize) -> Result<Option<String>, Refusal> {
    let mut at = from;
    let mut format = None;
    // What follows the header may end with the file or the cluster instead of an end mark.
    while at.saturating_add(8) <= end {
        let (kind, length) = (u32_at(start, at)?, u32_at(start, at + 4)? as usize);
        if kind == EXT_END {
            break;
        }
        let data_end = (at + 8).checked_add(length).filter(|e| *e <= end);
        let data_end = data_end.ok_or(Refusal::Malformed("an extension is longer than the header"))?;
        let data = start.get(at + 8..data_end).ok_or(Refusal::Truncated("header"))?;
        match kind {
            EXT_BACKING_FORMAT if format.is_some() => return Err(Refusal::Malformed("two formats of a backing file")),
            EXT_BACKING_FORMAT => format = Some(String::from_utf8_lossy(data).into_owned()),
            EXT_ENCRYPTION => return Err(Refusal::Encrypted),
            EXT_DATA_FILE => return Err(Refusal::DataFile),
            _ => {}
        }
        at = data_end.next_multiple_of(8);
    }
    Ok(format)
}

impl Header {
    /// Reads a header. `start` is the file's beginning, [`MOST_BYTES`] or all of it; `file` the length of the file.
    ///
    /// # Errors
    /// It is cut off, makes no sense, or is of a kind that is never accepted.
    pub(crate) fn parse(start: &[u8], file: u64) -> Result<Header, Refusal> {
        let Frame { bytes, cluster, incompatible } = frame(start)?;
        if u32_at(start, 32)? != 0 {
            return Err(Refusal::Encrypted);
        }
        if incompatible & DATA_FILE != 0 {
            return Err(Refusal::DataFile);
        }
        if incompatible & !KNOWN != 0 {
            return Err(Refusal::UnknownFeatures(incompatible & !KNOWN));
        }
        if incompatible & CORRUPT != 0 {
            return Err(Refusal::MarkedCorrupt);
        }
        let (backing_at, backing_bytes) = (u64_at(start, 8)?, u32_at(start, 16)?);
        let first_cluster = usize::try_from(cluster).unwrap_or(MOST_BYTES).min(start.len());
        let mut end = first_cluster;
        let mut name = None;
        if backing_at != 0 {
            let from = usize::try_from(backing_at).ok().filter(|from| *from >= bytes as usize);
            let from = from.ok_or(Refusal::Malformed("place of the backing file's name"))?;
            if backing_bytes == 0 || backing_bytes > MOST_NAME {
                return Err(Refusal::Malformed("length of the backing file's name"));
            }
            let to = from.checked_add(backing_bytes as usize);
            let to =
                to.filter(|to| *to as u64 <= cluster).ok_or(Refusal::Malformed("place of the backing file's name"))?;
            let text = start.get(from..to).ok_or(Refusal::Truncated("header"))?;
            name = Some(String::from_utf8_lossy(text).into_owned());
            end = end.min(from);
        }
        let format = extensions(start, bytes as usize, end)?;

        let virtual_bytes = u64_at(start, 24)?;
        if virtual_bytes == 0 {
            return Err(Refusal::Empty);
        }
        // QEMU makes whole sectors only, and would round down.
        if i64::try_from(virtual_bytes).is_err() || !virtual_bytes.is_multiple_of(512) {
            return Err(Refusal::Malformed("size of the disk"));
        }
        let (l1_entries, l1_at) = (u64::from(u32_at(start, 36)?), u64_at(start, 40)?);
        let entry = if incompatible & EXTENDED_L2 != 0 { 16 } else { 8 };
        // One entry of the first table covers a cluster full of entries, each of a cluster.
        let covered = cluster * (cluster / entry);
        if l1_entries < virtual_bytes.div_ceil(covered) || l1_entries * 8 > MOST_L1_BYTES {
            return Err(Refusal::Malformed("the first table does not fit the disk's size"));
        }
        table("first table", l1_at, l1_entries * 8, cluster, file)?;
        let (refcounts_at, refcount_clusters) = (u64_at(start, 48)?, u64::from(u32_at(start, 56)?));
        if refcount_clusters == 0 {
            return Err(Refusal::Malformed("no reference counts"));
        }
        // At most 2^32 clusters of 2^21 bytes: no overflow.
        table("table of reference counts", refcounts_at, refcount_clusters * cluster, cluster, file)?;
        let (snapshots, snapshots_at) = (u32_at(start, 60)?, u64_at(start, 64)?);
        if snapshots > MOST_SNAPSHOTS {
            return Err(Refusal::Malformed("number of snapshots"));
        }
        if snapshots > 0 {
            // The fixed part of a snapshot has 40 bytes.
            table("table of snapshots", snapshots_at, u64::from(snapshots) * 40, cluster, file)?;
        }
        Ok(Header {
            virtual_bytes,
            snapshots,
            dirty: incompatible & DIRTY != 0,
            backing: name.map(|name| (name, format)),
        })
    }
}
