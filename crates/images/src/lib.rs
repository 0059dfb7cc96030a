//! Disk images as an agent on a Linux host handles them.
//!
//! ```ignore
//! let done = Downloader::new(&[])?.download(&Request::new(url, max_bytes), &part, &progress).await?;
//! let qemu_img = QemuImg::new(max_virtual_bytes);
//! qemu_img.verify(&part, Format::Qcow2, Origin::Foreign).await?;
//! qemu_img.overlay(&pool.join("template.qcow2"), Format::Qcow2, &pool.join("root-1.qcow2"), None).await?;
//! ```
//!
//! * **Looked at first** ([`inspect`]): our own reader of the header decides before any tool opens a file. An image that came
//!   from outside may refer to no other file (backing file, external data file), may not be encrypted, and must be what it
//!   is said to be. Of a pool's own images the whole chain of backing files is looked at, and all of it lies in one folder.
//! * **Tools on a leash** ([`QemuImg`]): no shell, always an explicit format, `prlimit` around it (address space, CPU time, size
//!   of files), a deadline, bounded output; dropping the future kills it.
//! * **Whole or not at all**: work is done under a temporary name in the target's folder, synced, and renamed. What a killed
//!   run leaves is told from work in progress by a lock that dies with its holders, and removed by the next run for the same
//!   target or by [`sweep`].
//! * **Downloads** ([`Downloader`]): HTTP and HTTPS, hashed while they stream, continued after a broken connection and, with
//!   [`Downloader::resume`], after the process was killed. Which addresses may be called is for the caller to decide
//!   ([`Downloader::guarded`]); the address that was judged is the one that is called.
//! * **Unpacking** ([`unpack`]): gzip, bzip2, xz, and zip with one file in it, by tools on the same leash.
//!
//! * **Archives** ([`rootfs`]): tar archives of root file systems, by our own reader, unpacked below a folder that nothing leads
//!   out of, and made an image with ext4 by `mke2fs`. Nothing is mounted.
//!
//! Not here: OVA; an inspection refuses it by name, as it does files that are still packed.
//!
//! Needs `qemu-img` (Debian: qemu-utils), `mke2fs` (e2fsprogs) for archives, `prlimit` (util-linux), and for packed files `gzip`, `bzip2`, `xz` (xz-utils), `unzip`.
//!
//! # Source
//! The format is written from QEMU's `docs/interop/qcow2.txt`.

mod archive;
mod checksum;
mod download;
mod errors;
mod inspect;
mod operations;
mod place;
mod qcow2;
mod resume;
mod rootfs;
mod tool;
mod unpack;

pub use checksum::{Algorithm, Checksum, ChecksumError};
pub use download::{Downloaded, Downloader, Progress, Request};
pub use errors::{DownloadError, Error, Refusal, ToolError};
pub use inspect::{Backing, Format, Inspection, Kind, Origin, Rules, inspect, kind};
pub use operations::{Check, Info, Need};
pub use place::sweep;
pub use rootfs::{Ids, rootfs};
pub use tool::{Limits, QemuImg};
pub use unpack::unpack;
