//! Why an image isn't accepted, and what else can go wrong. All texts are for people.

use crate::checksum::Checksum;
use crate::inspect::{Format, Kind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a file isn't accepted as an image. A repeat gives the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A folder, a symbolic link, a device, a socket or a pipe.
    #[error("it is not a regular file")]
    NotAFile,
    /// It isn't what it is said to be.
    #[error("it is said to be {wanted} but is {found}")]
    OtherKind {
        /// What the caller was told.
        wanted: Format,
        /// What its first or last bytes say.
        found: Kind,
    },
    /// It has no bytes, or a disk of no size.
    #[error("the image is empty")]
    Empty,
    /// It ends before what its header promises.
    #[error("the file is cut off: its {0} is not all there")]
    Truncated(&'static str),
    /// A version of qcow2 other than 2 and 3.
    #[error("qcow2 version {0} is not supported")]
    Version(u32),
    /// It is based on another file.
    #[error("it has a backing file ({0}); only images that stand alone are accepted")]
    BackingFile(String),
    /// It is based on a file elsewhere, or in an unknown format.
    #[error("its backing file ({name}) is not acceptable: {reason}")]
    BadBacking {
        /// As written in the image.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Too long a chain of backing files, or a circle.
    #[error("its chain of backing files is longer than {0}")]
    LongChain(usize),
    /// Its data lie in another file.
    #[error("it keeps its data in another file; only images that stand alone are accepted")]
    DataFile,
    /// Nobody here has the key.
    #[error("it is encrypted")]
    Encrypted,
    /// Incompatible features that this reader doesn't know: these bits.
    #[error("it uses features of qcow2 that are not known here (bits {0:#x})")]
    UnknownFeatures(u64),
    /// QEMU has marked it so.
    #[error("it is marked as corrupt")]
    MarkedCorrupt,
    /// The disk is bigger than allowed.
    #[error("its disk has {bytes} bytes; {max} are allowed")]
    TooLarge {
        /// Virtual size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A packed file that can't be unpacked: what the tool says.
    #[error("it cannot be unpacked: {0}")]
    Packed(String),
    /// Unpacked it would be larger than allowed.
    #[error("unpacked it is larger than the {0} bytes allowed")]
    Unpacked(u64),
    /// An archive that isn't unpacked: why.
    #[error("the archive is not accepted: {0}")]
    Archive(String),
    /// A number in the header that can't be.
    #[error("its header makes no sense: {0}")]
    Malformed(&'static str),
}

/// Why the tool didn't do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// Not installed.
    #[error("this host has no program {0}")]
    Missing(String),
    /// It could not be started or waited for.
    #[error("{program}: {reason}")]
    Start {
        /// Which.
        program: String,
        /// What the system says.
        reason: String,
    },
    /// Killed, as it took too long.
    #[error("{program} was ended: not done within {deadline:?}")]
    Deadline {
        /// Which.
        program: String,
        /// How long it had.
        deadline: Duration,
    },
    /// Ended by a signal.
    #[error("{program} was ended by signal {signal}{}", meaning(*signal))]
    Signal {
        /// Which.
        program: String,
        /// 24 and 25 are those of limits.
        signal: i32,
    },
    /// It says that it failed.
    #[error("{program} failed ({code}): {said}")]
    Failed {
        /// Which, with its command.
        program: String,
        /// Its exit code.
        code: i32,
        /// The start of its error output.
        said: String,
    },
    /// More output than anything honest has.
    #[error("{program} was ended: it wrote more than {max} bytes of output")]
    Flood {
        /// Which.
        program: String,
        /// The limit.
        max: usize,
    },
    /// Output that can't be read.
    #[error("the output of {program} makes no sense: {reason}")]
    Nonsense {
        /// Which.
        program: String,
        /// What the reader says.
        reason: String,
    },
}

fn meaning(signal: i32) -> &'static str {
    match signal {
        24 => " (it used up its CPU time)",
        25 => " (a file would have become too large)",
        _ => "",
    }
}

/// Why something with images couldn't be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image isn't accepted.
    #[error("the image {} is refused: {refusal}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// The tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The tool found the image damaged.
    #[error("the image {} is damaged: {corruptions} faults", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How many faults.
        corruptions: u64,
    },
    /// Making it smaller would cut off data.
    #[error("the image {} has {now} bytes and cannot be made smaller ({wanted})", path.display())]
    Shrink {
        /// Which.
        path: PathBuf,
        /// Virtual size now.
        now: u64,
        /// Asked for.
        wanted: u64,
    },
    /// A size that disks don't have: zero, not in sectors of 512 bytes, or over the limit.
    #[error("a disk cannot have {0} bytes")]
    Size(u64),
    /// A file name that isn't used here: letters, digits, `.`, `-` and `_` are, at most 180 of them, starting with a letter or
    /// a digit.
    #[error("{0:?} cannot be the name of an image")]
    Name(String),
    /// Both have to be in one folder.
    #[error("an overlay and its base lie in the same folder, {} does not", .0.display())]
    OtherFolder(PathBuf),
    /// The system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |reason| Error::Io { path: path.to_owned(), reason }
    }

    /// Why the image isn't accepted, if it is that.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

/// Why a download gave nothing. Texts carry no URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Not an HTTP or HTTPS URL.
    #[error("only http and https URLs can be downloaded")]
    Url,
    /// The server sent us on, to somewhere we don't go.
    #[error("the server redirects to a place that is not followed: {0}")]
    Redirect(&'static str),
    /// An address that may not be called, or a name that leads only to such.
    #[error("{0} is not a public address, nor one in a network that is allowed")]
    Forbidden(String),
    /// The server says no.
    #[error("the server answers with status {0}")]
    Status(u16),
    /// More than allowed: announced, or come.
    #[error("the file is larger than the {max} bytes allowed")]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// The server packs what it sends though it wasn't asked to.
    #[error("the server sends the file in an encoding that was not asked for")]
    Encoding,
    /// Another file than the one announced.
    #[error("the checksum does not match: expected {expected}, the file has {found}")]
    Checksum {
        /// The caller's.
        expected: Checksum,
        /// The file's.
        found: Checksum,
    },
    /// The connection couldn't be made or broke, each time.
    #[error("the download broke off {tries} times in a row, last: {reason}")]
    Broken {
        /// How often it was tried without getting on.
        tries: u32,
        /// What happened the last time.
        reason: String,
    },
    /// The HTTP client can't be set up.
    #[error("no HTTP client: {0}")]
    Client(String),
    /// The file couldn't be written.
    #[error(transparent)]
    File(#[from] Error),
}
