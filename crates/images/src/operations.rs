//! What is done to images: each looked at first, each result whole or not there.

use crate::errors::{Error, ToolError};
use crate::inspect::{Format, Inspection, Origin, Rules, inspect};
use crate::place::{Temporary, split};
use crate::tool::{QemuImg, Ran};
use serde::Deserialize;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Exit codes of `qemu-img check`: corruption, leaked clusters, no check for this format.
const CORRUPT: i32 = 2;
const LEAKS: i32 = 3;
const NO_CHECK: i32 = 63;

/// What `qemu-img info` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// What the file takes on its file system.
    pub actual_size: u64,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Size of a cluster in bytes; raw images have none.
    #[serde(default)]
    pub cluster_size: Option<u64>,
    /// The backing file, as written in the image.
    #[serde(default)]
    pub backing_filename: Option<String>,
}

/// What `qemu-img check` found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// Faults: data is lost or will be.
    #[serde(default)]
    pub corruptions: u64,
    /// Clusters that nothing uses: room is lost, no data.
    #[serde(default)]
    pub leaks: u64,
    /// What could not be checked.
    #[serde(default)]
    pub check_errors: u64,
}

/// The room that an image will need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Need {
    /// Bytes that a copy takes.
    pub required: u64,
    /// Bytes that it takes when all of the disk is written.
    pub fully_allocated: u64,
}

pub(crate) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::io(path)(std::io::Error::other(error))),
    }
}

/// How large an image file of a disk may become: its data, and ample room for tables.
fn file_limit(virtual_bytes: u64) -> u64 {
    virtual_bytes.saturating_add(virtual_bytes / 64).saturating_add(64 << 20)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    // A relative path may look like one of QEMU's protocols ("nbd:…").
    if path.is_absolute() { Ok(path.to_owned()) } else { Err(Error::Name(path.display().to_string())) }
}

fn os(text: &str) -> &OsStr {
    OsStr::new(text)
}

impl QemuImg {
    /// Looks at an image with this crate's own reader ([`inspect`]).
    ///
    /// # Errors
    /// It isn't accepted, or can't be read.
    pub async fn inspect(&self, path: &Path, format: Format, origin: Origin) -> Result<Inspection, Error> {
        let rules = Rules { origin, max_virtual_bytes: self.max_virtual_bytes };
        let at = absolute(path)?;
        blocking(path, move || inspect(&at, format, rules)).await
    }

    /// The tool's view of an image, after our own look. The two have to agree.
    ///
    /// # Errors
    /// As [`inspect`], or the tool fails.
    pub async fn info(&self, path: &Path, format: Format, origin: Origin) -> Result<Info, Error> {
        let seen = self.inspect(path, format, origin).await?;
        let args = [os("--output=json"), os("-f"), os(format.name()), path.as_os_str()];
        let ran = self.run("info", &args, self.quick, 0, None).await?;
        ran.succeeded()?;
        let info: Info = ran.json()?;
        let backing = seen.backing.map(|b| b.name);
        if info.virtual_size != seen.virtual_bytes || info.format != format.name() || info.backing_filename != backing {
            let reason = format!("it sees another image than its header says: {info:?}");
            return Err(ToolError::Nonsense { program: "qemu-img info".into(), reason }.into());
        }
        Ok(info)
    }

    /// Looks for faults in an image; it is not changed. A raw image has none.
    ///
    /// # Errors
    /// As [`inspect`], the tool fails, or [`Error::Damaged`].
    pub async fn check(&self, path: &Path, format: Format, origin: Origin) -> Result<Check, Error> {
        self.inspect(path, format, origin).await?;
        let args = [os("--output=json"), os("-f"), os(format.name()), path.as_os_str()];
        let ran = self.run("check", &args, self.copy, 0, None).await?;
        match ran.code {
            NO_CHECK => return Ok(Check::default()),
            0 | CORRUPT | LEAKS => {}
            _ => return Err(ran.failed().into()),
        }
        let check: Check = ran.json()?;
        if ran.code == CORRUPT || check.corruptions > 0 || check.check_errors > 0 {
            return Err(Error::Damaged {
                path: path.to_owned(),
                corruptions: check.corruptions.max(check.check_errors),
            });
        }
        Ok(check)
    }

    /// All that is known to look for in an image from outside: our own look, the tool's, and its check.
    ///
    /// # Errors
    /// See [`QemuImg::info`] and [`QemuImg::check`].
    pub async fn verify(&self, path: &Path, format: Format, origin: Origin) -> Result<Inspection, Error> {
        if format == Format::Tar {
            return self.inspect(path, format, origin).await; // no disk that the tool knows
        }
        self.info(path, format, origin).await?;
        self.check(path, format, origin).await?;
        self.inspect(path, format, origin).await
    }

    /// The room that a copy of an image needs, its backing files' data included. The sizes of the image itself are in
    /// [`Inspection`].
    ///
    /// # Errors
    /// As [`inspect`], or the tool fails.
    pub async fn measure(&self, path: &Path, format: Format, origin: Origin, to: Format) -> Result<Need, Error> {
        self.inspect(path, format, origin).await?;
        let args = [os("--output=json"), os("-f"), os(format.name()), os("-O"), os(to.name()), path.as_os_str()];
        let ran = self.run("measure", &args, self.copy, 0, None).await?;
        ran.succeeded()?;
        Ok(ran.json()?)
    }

    /// Makes a copy that stands alone, in the format wanted. Replaces a target that is there.
    ///
    /// # Errors
    /// As [`inspect`], the target's name, or the tool fails.
    pub async fn convert(
        &self,
        source: &Path,
        format: Format,
        origin: Origin,
        target: &Path,
        to: Format,
    ) -> Result<Inspection, Error> {
        let seen = self.inspect(source, format, origin).await?;
        self.make(target, to, seen.virtual_bytes, async |part: &Temporary, file_bytes| {
            let args = [
                os("-q"),
                os("-f"),
                os(format.name()),
                os("-O"),
                os(to.name()),
                source.as_os_str(),
                part.path().as_os_str(),
            ];
            self.run("convert", &args, self.copy, file_bytes, Some(part.lock())).await
        })
        .await
    }

    /// Makes an empty disk. Replaces a target that is there.
    ///
    /// # Errors
    /// The size, the target's name, or the tool fails.
    pub async fn create(&self, target: &Path, format: Format, virtual_bytes: u64) -> Result<Inspection, Error> {
        self.check_size(virtual_bytes)?;
        let size = virtual_bytes.to_string();
        self.make(target, format, virtual_bytes, async |part: &Temporary, file_bytes| {
            let args = [os("-q"), os("-f"), os(format.name()), part.path().as_os_str(), os(&size)];
            self.run("create", &args, self.quick, file_bytes, Some(part.lock())).await
        })
        .await
    }

    /// Makes a qcow2 image whose content is that of `base`, in the same folder, until it is written to. `virtual_bytes`: the
    /// base's, if not given; never less. The base must not be written to any more. Replaces a target that is there.
    ///
    /// # Errors
    /// As [`inspect`] for the base, the size, the folder, the target's name, or the tool fails.
    pub async fn overlay(
        &self,
        base: &Path,
        base_format: Format,
        target: &Path,
        virtual_bytes: Option<u64>,
    ) -> Result<Inspection, Error> {
        let (base_folder, base_name) = split(base)?;
        if target.parent() != Some(base_folder) || target == base {
            return Err(Error::OtherFolder(target.to_owned()));
        }
        let seen = self.inspect(base, base_format, Origin::Pool).await?;
        let bytes = virtual_bytes.unwrap_or(seen.virtual_bytes);
        self.check_size(bytes)?;
        if bytes < seen.virtual_bytes {
            return Err(Error::Shrink { path: base.to_owned(), now: seen.virtual_bytes, wanted: bytes });
        }
        let size = bytes.to_string();
        self.make(target, Format::Qcow2, bytes, async |part: &Temporary, file_bytes| {
            let args = [
                os("-q"),
                os("-f"),
                os("qcow2"),
                os("-F"),
                os(base_format.name()),
                os("-b"),
                os(base_name),
                part.path().as_os_str(),
                os(&size),
            ];
            self.run("create", &args, self.quick, file_bytes, Some(part.lock())).await
        })
        .await
    }

    /// Makes a disk larger, in place: a copy would take as long as the disk is big. A kill leaves it with the old or the new
    /// size, and a repeat ends the work; the same size is fine.
    ///
    /// # Errors
    /// As [`inspect`], [`Error::Shrink`], the size, or the tool fails.
    pub async fn resize(&self, path: &Path, format: Format, virtual_bytes: u64) -> Result<Inspection, Error> {
        self.check_size(virtual_bytes)?;
        let seen = self.inspect(path, format, Origin::Pool).await?;
        if virtual_bytes < seen.virtual_bytes {
            return Err(Error::Shrink { path: path.to_owned(), now: seen.virtual_bytes, wanted: virtual_bytes });
        }
        if virtual_bytes > seen.virtual_bytes {
            let size = virtual_bytes.to_string();
            let args = [os("-q"), os("-f"), os(format.name()), path.as_os_str(), os(&size)];
            let file_bytes = file_limit(virtual_bytes).max(seen.file_bytes.saturating_add(64 << 20));
            self.run("resize", &args, self.quick, file_bytes, None).await?.succeeded()?;
        }
        let at = path.to_owned();
        // Also when nothing was to do: an earlier run may have been killed before this.
        blocking(path, move || File::open(&at).and_then(|file| file.sync_all()).map_err(Error::io(&at))).await?;
        self.inspect(path, format, Origin::Pool).await
    }

    /// Makes a qcow2 image stand alone: all data of its backing files is copied into it. It must not be in use.
    ///
    /// # Errors
    /// As [`inspect`], or the tool fails.
    pub async fn flatten(&self, path: &Path) -> Result<Inspection, Error> {
        let seen = self.inspect(path, Format::Qcow2, Origin::Pool).await?;
        if seen.backing.is_none() {
            return Ok(seen);
        }
        self.convert(path, Format::Qcow2, Origin::Pool, path, Format::Qcow2).await
    }

    fn check_size(&self, bytes: u64) -> Result<(), Error> {
        let good = bytes > 0 && bytes.is_multiple_of(512) && bytes <= self.max_virtual_bytes;
        if good { Ok(()) } else { Err(Error::Size(bytes)) }
    }

    /// Runs `work` on a temporary file, looks at what came of it, and puts it in place.
    async fn make(
        &self,
        target: &Path,
        format: Format,
        virtual_bytes: u64,
        work: impl AsyncFnOnce(&Temporary, u64) -> Result<Ran, ToolError>,
    ) -> Result<Inspection, Error> {
        let at = target.to_owned();
        let part = blocking(target, move || Temporary::new(&at)).await?;
        work(&part, file_limit(virtual_bytes)).await?.succeeded()?;
        let made = self.inspect(part.path(), format, Origin::Pool).await?;
        blocking(target, move || part.place()).await?;
        Ok(made)
    }
}
