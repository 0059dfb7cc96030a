//! Tar archives, read entry by entry and trusted in nothing: ustar, GNU's long names, pax headers.
//!
//! Only what a root file system needs is known. What isn't known is refused, for a reader that skips what it doesn't understand
//! unpacks another archive than the one that was looked at.

use crate::errors::Refusal;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt as _;

const BLOCK: usize = 512;
/// Entries of an archive.
const MOST_ENTRIES: u64 = 4 << 20;
/// Bytes of all files: more than any disk has, and far from what overflows.
const MOST_BYTES: u64 = 1 << 60;
/// Bytes of a long name or of a pax header.
const MOST_HEADER: u64 = 1 << 20;
/// Bytes of a name, as of the kernel.
const MOST_NAME: usize = 4095;
/// Bytes of a name's part.
const MOST_PART: usize = 255;
/// Folders within each other.
const DEEPEST: usize = 200;

/// Why an archive can't be read on.
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(Refusal),
    Io(io::Error),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refused(refusal)
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Folder,
    /// The text of the link, as it is.
    Symlink(OsString),
    /// The other name, in parts.
    HardLink(Vec<OsString>),
    Pipe,
    /// A device node: nobody needs those of an archive.
    Device,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name's parts: plain ones; none for the root itself.
    pub path: Vec<OsString>,
    pub what: What,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// Bytes of data; only files have some.
    pub size: u64,
}

/// An archive that is read.
pub(crate) struct Archive<R> {
    input: R,
    /// Of the entry that was given last: data, and what fills its last block.
    data: u64,
    filler: u64,
    entries: u64,
    bytes: u64,
    most_bytes: u64,
}

#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<i64>,
}

impl<R: Read> Archive<R> {
    /// `most_bytes`: of all files together.
    pub fn new(input: R, most_bytes: u64) -> Archive<R> {
        Archive { input, data: 0, filler: 0, entries: 0, bytes: 0, most_bytes: most_bytes.min(MOST_BYTES) }
    }

    /// The next entry, whose data [`Archive::data`] gives; `None` at the archive's end.
    pub fn next(&mut self) -> Result<Option<Entry>, Fault> {
        self.skip()?;
        let mut extra = Extra::default();
        loop {
            let mut block = [0; BLOCK];
            self.fill(&mut block, "end")?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(bad(format!("it has more than {MOST_ENTRIES} entries")));
            }
            check_sum(&block)?;
            let size = number(&block[124..136])?;
            match block[156] {
                b'L' => extra.path = Some(text(&self.header(size)?)),
                b'K' => extra.link = Some(text(&self.header(size)?)),
                b'x' => pax(&self.header(size)?, &mut extra)?,
                // What is said of all entries: comments and times; a name or a size would be nonsense, and is refused.
                b'g' => {
                    let mut all = Extra::default();
                    pax(&self.header(size)?, &mut all)?;
                    if all.path.is_some() || all.link.is_some() || all.size.is_some() {
                        return Err(bad("a header gives all entries one name or size"));
                    }
                }
                kind => return self.entry(&block, kind, size, extra).map(Some),
            }
        }
    }

    /// Data of the entry that was given last.
    pub fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    fn entry(&mut self, block: &[u8; BLOCK], kind: u8, size: u64, extra: Extra) -> Result<Entry, Fault> {
        let ustar = &block[257..263] == b"ustar\0";
        let path = extra.path.unwrap_or_else(|| {
            let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
            if ustar && !prefix.is_empty() { [&prefix[..], b"/", &name[..]].concat() } else { name }
        });
        let link = || extra.link.clone().unwrap_or_else(|| text(&block[157..257]));
        let folder = kind == b'5' || (matches!(kind, b'0' | 0) && path.ends_with(b"/"));
        let what = match kind {
            _ if folder => What::Folder,
            b'0' | b'7' | 0 => What::File,
            b'1' => What::HardLink(parts(&link())?),
            b'2' => What::Symlink(target(link())?),
            b'3' | b'4' => What::Device,
            b'6' => What::Pipe,
            b'S' => return Err(bad("it has sparse files (GNU's format)")),
            other => return Err(bad(format!("it has an entry of the unknown kind {:?}", char::from(other)))),
        };
        let size = extra.size.unwrap_or(size);
        if what != What::File && size > 0 && what != What::Folder {
            return Err(bad("an entry that is no file has data"));
        }
        // Some write a folder's own size, without data.
        let size = if what == What::File { size } else { 0 };
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.most_bytes {
            return Err(Fault::Refused(Refusal::Unpacked(self.most_bytes)));
        }
        self.data = size;
        self.filler = size.next_multiple_of(BLOCK as u64) - size;
        let path = parts(&path)?;
        if path.is_empty() && what != What::Folder {
            return Err(bad("an entry has no name"));
        }
        let or = |given: Option<u64>, field: &[u8]| given.map_or_else(|| number(field), Ok);
        let modified = match extra.modified {
            Some(given) => given,
            None => i64::try_from(number(&block[136..148]).unwrap_or(0)).unwrap_or(0),
        };
        Ok(Entry {
            path,
            what,
            mode: u32::try_from(number(&block[100..108])? & 0o7777).unwrap_or(0),
            uid: or(extra.uid, &block[108..116])?,
            gid: or(extra.gid, &block[116..124])?,
            modified,
            size,
        })
    }

    fn skip(&mut self) -> Result<(), Fault> {
        let left = std::mem::take(&mut self.data) + std::mem::take(&mut self.filler);
        let skipped = io::copy(&mut self.input.by_ref().take(left), &mut io::sink()).map_err(Fault::Io)?;
        if skipped < left { Err(Refusal::Truncated("data").into()) } else { Ok(()) }
    }

    fn header(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > MOST_HEADER {
            return Err(bad("a header is larger than any honest one"));
        }
        let mut bytes = vec![0; usize::try_from(size.next_multiple_of(BLOCK as u64)).unwrap_or(0)];
        self.fill(&mut bytes, "header")?;
        bytes.truncate(usize::try_from(size).unwrap_or(0));
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &'static str) -> Result<(), Fault> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Refused(Refusal::Truncated(what)),
            _ => Fault::Io(error),
        })
    }
}

/// An entry's data; an archive that ends before them is an error.
pub(crate) struct Data<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.0.data).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.0.input.read(&mut into[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.data -= read as u64;
        Ok(read)
    }
}

fn bad(why: impl Into<String>) -> Fault {
    Fault::Refused(Refusal::Archive(why.into()))
}

/// What comes before the first zero byte.
fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn check_sum(block: &[u8; BLOCK]) -> Result<(), Fault> {
    let sum = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) });
    match number(&block[148..156]) {
        Ok(said) if said == sum.sum::<u64>() => Ok(()),
        _ => Err(bad("the checksum of a header is wrong: it is damaged")),
    }
}

/// Octal digits, or GNU's way for large numbers.
fn number(field: &[u8]) -> Result<u64, Fault> {
    let wrong = || bad("a number of a header can't be read");
    if field[0] & 0x80 != 0 {
        let first = u64::from(field[0] & 0x7f);
        return field[1..].iter().try_fold(first, |value, byte| {
            let shifted = value.checked_mul(256).ok_or_else(wrong)?;
            Ok(shifted | u64::from(*byte))
        });
    }
    let digits = field.split(|byte| matches!(byte, 0 | b' ')).find(|part| !part.is_empty()).unwrap_or_default();
    digits.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8).map(|v| v | u64::from(byte - b'0')).ok_or_else(wrong),
        _ => Err(wrong()),
    })
}

/// `LENGTH KEY=VALUE\n`, again and again.
fn pax(mut rest: &[u8], extra: &mut Extra) -> Result<(), Fault> {
    let wrong = || bad("a pax header makes no sense");
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length: usize = ascii(&rest[..space]).ok_or_else(wrong)?;
        if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
            return Err(wrong());
        }
        let record = &rest[space + 1..length - 1];
        rest = &rest[length..];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extra.path = Some(plain(value)?),
            b"linkpath" => extra.link = Some(plain(value)?),
            b"size" => extra.size = Some(ascii(value).ok_or_else(wrong)?),
            b"uid" => extra.uid = Some(ascii(value).ok_or_else(wrong)?),
            b"gid" => extra.gid = Some(ascii(value).ok_or_else(wrong)?),
            b"mtime" => {
                let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                extra.modified = Some(ascii(whole).ok_or_else(wrong)?);
            }
            _ if key.starts_with(b"GNU.sparse.") => return Err(bad("it has sparse files (pax format)")),
            _ => {} // times, names of owners, extended attributes
        }
    }
    Ok(())
}

fn ascii<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn plain(value: &[u8]) -> Result<Vec<u8>, Fault> {
    if value.contains(&0) { Err(bad("a name has a zero byte")) } else { Ok(value.to_vec()) }
}

/// A name that leads nowhere but down.
fn parts(path: &[u8]) -> Result<Vec<OsString>, Fault> {
    let shown = || String::from_utf8_lossy(path).chars().take(200).collect::<String>();
    if path.starts_with(b"/") {
        return Err(bad(format!("it has an absolute name: {:?}", shown())));
    }
    if path.len() > MOST_NAME {
        return Err(bad("it has a name that no system takes"));
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(bad(format!("it has a name that leads out of it: {:?}", shown())));
    }
    if parts.len() > DEEPEST || parts.iter().any(|part| part.len() > MOST_PART) {
        return Err(bad("it has a name that no system takes"));
    }
    Ok(parts.into_iter().map(|part| OsString::from_vec(part.to_vec())).collect())
}

fn target(link: Vec<u8>) -> Result<OsString, Fault> {
    if link.is_empty() || link.len() > MOST_NAME {
        return Err(bad("it has a symbolic link to nothing"));
    }
    Ok(OsString::from_vec(link))
}
