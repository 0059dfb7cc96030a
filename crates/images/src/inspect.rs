//! What a file is, from its own bytes, before any tool opens it.

use crate::errors::{Error, Refusal};
use crate::qcow2::{self, Header};
use rustix::fs::OFlags;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Longest chain of backing files; also what ends a circle.
const MOST_LINKS: usize = 64;
/// A VHD's footer is its last sector.
const TAIL: u64 = 512;

/// The formats that disks have here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// QEMU's, versions 2 and 3.
    Qcow2,
    /// The disk's bytes; ISO images too.
    Raw,
    /// A tar archive of a root file system, for containers; only images from outside are.
    Tar,
}

impl Format {
    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
            Format::Tar => "tar",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a file's first and last bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Qcow2,
    Qcow1,
    Qed,
    Vmdk,
    Vhd,
    Vhdx,
    Vdi,
    Luks,
    Gzip,
    Bzip2,
    Zip,
    Xz,
    /// A tar archive; an OVA is one.
    Tar,
    /// None of these.
    Unknown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Qcow2 => "a qcow2 image",
            Kind::Qcow1 => "an image of the old qcow format",
            Kind::Qed => "a QED image",
            Kind::Vmdk => "a VMDK image",
            Kind::Vhd => "a VHD image",
            Kind::Vhdx => "a VHDX image",
            Kind::Vdi => "a VDI image",
            Kind::Luks => "an encrypted (LUKS) volume",
            Kind::Gzip => "compressed (gzip)",
            Kind::Bzip2 => "compressed (bzip2)",
            Kind::Zip => "a zip archive",
            Kind::Xz => "compressed (xz)",
            Kind::Tar => "a tar archive (an OVA?)",
            Kind::Unknown => "something else",
        })
    }
}

impl Kind {
    /// Whether it is one file, packed: [`crate::unpack`] knows how to get it out.
    pub fn is_packed(self) -> bool {
        matches!(self, Kind::Gzip | Kind::Bzip2 | Kind::Xz | Kind::Zip)
    }

    /// Tells a kind. `start` is the file's beginning, `tail` its last 512 bytes.
    pub(crate) fn of(start: &[u8], tail: &[u8]) -> Kind {
        let at = |from: usize, magic: &[u8]| start.get(from..).is_some_and(|rest| rest.starts_with(magic));
        if at(0, &qcow2::MAGIC) {
            return if at(4, &[0, 0, 0, 1]) { Kind::Qcow1 } else { Kind::Qcow2 };
        }
        let known: [(usize, &[u8], Kind); 14] = [
            (0, b"QED\0", Kind::Qed),
            (0, b"KDMV", Kind::Vmdk),
            (0, b"COWD", Kind::Vmdk),
            (0, b"# Disk DescriptorFile", Kind::Vmdk),
            (0, b"conectix", Kind::Vhd),
            (0, b"vhdxfile", Kind::Vhdx),
            (64, &[0x7f, 0x10, 0xda, 0xbe], Kind::Vdi),
            (0, b"LUKS\xba\xbe", Kind::Luks),
            (0, &[0x1f, 0x8b, 0x08], Kind::Gzip),
            (0, b"BZh", Kind::Bzip2),
            (0, b"PK\x03\x04", Kind::Zip),
            (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], Kind::Xz),
            (257, b"ustar", Kind::Tar),
            (0, b"PK\x05\x06", Kind::Zip),
        ];
        let kind = known.iter().find(|(from, magic, _)| at(*from, magic)).map(|(_, _, kind)| *kind);
        match kind {
            Some(kind) => kind,
            None if tail.starts_with(b"conectix") => Kind::Vhd,
            None => Kind::Unknown,
        }
    }
}

/// Where an image comes from, and so what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// From outside. It stands alone, and is what it is said to be.
    Foreign,
    /// Made here, in a pool. It may have a backing file in the same folder, with its format written down; a raw one isn't looked
    /// into, since its bytes are the guest's.
    Pool,
}

/// What is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Where the image comes from.
    pub origin: Origin,
    /// Largest disk.
    pub max_virtual_bytes: u64,
}

/// An image that was looked at and accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its format.
    pub format: Format,
    /// Size of the disk, whole sectors of 512 bytes. Of an archive: of the smallest disk that it is unpacked to.
    pub virtual_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// What the file takes on its file system.
    pub actual_bytes: u64,
    /// Snapshots inside it.
    pub snapshots: u32,
    /// Not closed properly: its reference counts need mending before it is written.
    pub dirty: bool,
    /// What it is based on.
    pub backing: Option<Backing>,
}

/// The backing file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Its name, in the folder of the image.
    pub name: String,
    /// What it is.
    pub image: Box<Inspection>,
}

/// What a file is by its first and last bytes. Blocks.
///
/// # Errors
/// It is no regular file, or can't be read.
pub fn kind(path: &Path) -> Result<Kind, Error> {
    let read = read(path).map_err(Error::io(path))?;
    let (start, tail, _) = read.ok_or_else(|| Error::Refused { path: path.to_owned(), refusal: Refusal::NotAFile })?;
    Ok(Kind::of(&start, &tail))
}

/// Looks at a file and accepts or refuses it. Blocks; reads at most 2 MiB of each file of the chain, but all of an archive.
///
/// The answer is about the file as it is now: nobody else may be able to write to its folder.
///
/// # Errors
/// [`Error::Refused`], or the file can't be read.
pub fn inspect(path: &Path, format: Format, rules: Rules) -> Result<Inspection, Error> {
    link(path, format, rules, MOST_LINKS)
}

fn link(path: &Path, format: Format, rules: Rules, links: usize) -> Result<Inspection, Error> {
    let refused = |refusal| Error::Refused { path: path.to_owned(), refusal };
    if links == 0 {
        return Err(refused(Refusal::LongChain(MOST_LINKS)));
    }
    let read = read(path).map_err(Error::io(path))?;
    let (start, tail, meta) = read.ok_or_else(|| refused(Refusal::NotAFile))?;
    let mut judged = judge(&start, &tail, meta.len(), format, rules).map_err(refused)?;
    if format == Format::Tar {
        judged.virtual_bytes = crate::rootfs::needs(path, rules.max_virtual_bytes)?;
    }
    let backing = match judged.backing {
        None => None,
        Some((name, format)) => {
            let image = link(&path.with_file_name(&name), format, rules, links - 1)?;
            Some(Backing { name, image: Box::new(image) })
        }
    };
    Ok(Inspection {
        format,
        virtual_bytes: judged.virtual_bytes,
        file_bytes: meta.len(),
        actual_bytes: meta.blocks().saturating_mul(512),
        snapshots: judged.snapshots,
        dirty: judged.dirty,
        backing,
    })
}

/// Beginning, end and metadata; `None` when it isn't a regular file. A pipe doesn't block, a link isn't followed.
#[allow(clippy::type_complexity)]
fn read(path: &Path) -> std::io::Result<Option<(Vec<u8>, Vec<u8>, std::fs::Metadata)>> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let mut file: File = File::options().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    let mut start = Vec::new();
    file.by_ref().take(qcow2::MOST_BYTES as u64).read_to_end(&mut start)?;
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(meta.len().saturating_sub(TAIL)))?;
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(Some((start, tail, meta)))
}

struct Judged {
    virtual_bytes: u64,
    snapshots: u32,
    dirty: bool,
    backing: Option<(String, Format)>,
}

/// The decision about one file, from its bytes alone.
fn judge(start: &[u8], tail: &[u8], file: u64, format: Format, rules: Rules) -> Result<Judged, Refusal> {
    if file == 0 {
        return Err(Refusal::Empty);
    }
    let kind = Kind::of(start, tail);
    let judged = match format {
        Format::Raw if rules.origin == Origin::Foreign && kind != Kind::Unknown => {
            return Err(Refusal::OtherKind { wanted: format, found: kind });
        }
        Format::Raw => Judged {
            virtual_bytes: file.checked_next_multiple_of(512).ok_or(Refusal::Malformed("length of the file"))?,
            snapshots: 0,
            dirty: false,
            backing: None,
        },
        Format::Tar if kind != Kind::Tar => return Err(Refusal::OtherKind { wanted: format, found: kind }),
        // How large its disk is only all of it tells.
        Format::Tar => Judged { virtual_bytes: 0, snapshots: 0, dirty: false, backing: None },
        Format::Qcow2 if kind != Kind::Qcow2 => return Err(Refusal::OtherKind { wanted: format, found: kind }),
        Format::Qcow2 => {
            let header = Header::parse(start, file)?;
            let backing = header.backing.map(|(name, format)| backing(name, format, rules.origin)).transpose()?;
            Judged { virtual_bytes: header.virtual_bytes, snapshots: header.snapshots, dirty: header.dirty, backing }
        }
    };
    if judged.virtual_bytes > rules.max_virtual_bytes {
        return Err(Refusal::TooLarge { bytes: judged.virtual_bytes, max: rules.max_virtual_bytes });
    }
    Ok(judged)
}

fn backing(name: String, format: Option<String>, origin: Origin) -> Result<(String, Format), Refusal> {
    if origin == Origin::Foreign {
        return Err(Refusal::BackingFile(name));
    }
    if crate::place::check_name(&name).is_err() {
        return Err(Refusal::BadBacking { name, reason: "it is not a plain name in the same folder" });
    }
    match format.as_deref() {
        Some("qcow2") => Ok((name, Format::Qcow2)),
        Some("raw") => Ok((name, Format::Raw)),
        Some(_) => Err(Refusal::BadBacking { name, reason: "its format is neither qcow2 nor raw" }),
        None => Err(Refusal::BadBacking { name, reason: "its format is not written down" }),
    }
}

#[cfg(test)]
mod tests;
