//! Packed files, taken apart by the tools that know them, on a leash.

use crate::errors::{Error, Refusal, ToolError};
use crate::inspect::Kind;
use crate::tool::{Limits, Ran, leashed};
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// Unpacking a TB takes hours.
const LIMITS: Limits =
    Limits { address_space: 1 << 30, cpu: Duration::from_secs(120 * 60), deadline: Duration::from_secs(360 * 60) };
/// What the system ends a program with whose file becomes too large.
const TOO_LARGE: i32 = 25;

/// Unpacks a file that is packed as `kind` says into `target`, which is replaced, and gives the length. A zip archive has one
/// file in it. Dropping the future, or an error, leaves a part of the target or nothing: that is for the caller to remove.
///
/// # Errors
/// It isn't packed, damaged, larger than `max_bytes` when it is unpacked, an archive of several files; or this host has no tool
/// for it.
pub async fn unpack(source: &Path, kind: Kind, target: &Path, max_bytes: u64) -> Result<u64, Error> {
    let refused = |refusal| Error::Refused { path: source.to_owned(), refusal };
    let (program, args): (&str, &[&str]) = match kind {
        Kind::Gzip => ("gzip", &["-dc"]),
        Kind::Bzip2 => ("bzip2", &["-dc"]),
        Kind::Xz => ("xz", &["-dc", "-T1", "--memlimit-decompress=512MiB"]),
        Kind::Zip => ("unzip", &["-p", "/dev/stdin"]),
        other => return Err(refused(Refusal::Packed(format!("it is {other}")))),
    };
    if kind == Kind::Zip {
        one_file(source).await?;
    }
    let input = File::open(source).map_err(Error::io(source))?;
    let output = File::create(target).map_err(Error::io(target))?;
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    let streams = (Some(&input), Some(&output));
    // One byte more tells what is too large, whatever the tool makes of being stopped: some call it a success.
    let stop = max_bytes.saturating_add(1);
    let ran = leashed(OsStr::new(program), program.to_owned(), &args, LIMITS, stop, streams).await;
    let length = output.metadata().map_err(Error::io(target))?.len();
    match ran {
        Err(ToolError::Signal { signal: TOO_LARGE, .. }) => return Err(refused(Refusal::Unpacked(max_bytes))),
        Ok(_) if length > max_bytes => return Err(refused(Refusal::Unpacked(max_bytes))),
        Ok(ran) if ran.code == 0 => {}
        Ok(ran) => return Err(refused(damaged(&ran))),
        Err(error) => return Err(error.into()),
    }
    let at = target.to_owned();
    let synced = tokio::task::spawn_blocking(move || output.sync_all().map_err(Error::io(&at))).await;
    synced.unwrap_or_else(|e| Err(Error::io(target)(std::io::Error::other(e))))?;
    Ok(length)
}

fn damaged(ran: &Ran) -> Refusal {
    let said = ran.said();
    Refusal::Packed(if said.is_empty() { "it is damaged".into() } else { said.lines().next().unwrap_or(said).into() })
}

/// Looks into a zip archive: all its files would come as one.
async fn one_file(source: &Path) -> Result<(), Error> {
    let refused = |refusal| Error::Refused { path: source.to_owned(), refusal };
    let input = File::open(source).map_err(Error::io(source))?;
    let args = [OsStr::new("-Z1"), OsStr::new("/dev/stdin")];
    let limits = Limits { cpu: MINUTE, deadline: MINUTE, ..LIMITS };
    let ran = leashed(OsStr::new("unzip"), "unzip -Z1".into(), &args, limits, 0, (Some(&input), None)).await?;
    if ran.code != 0 {
        return Err(refused(damaged(&ran)));
    }
    match ran.text().lines().filter(|name| !name.ends_with('/')).count() {
        1 => Ok(()),
        files => Err(refused(Refusal::Packed(format!("the archive has {files} files in it, not one")))),
    }
}
