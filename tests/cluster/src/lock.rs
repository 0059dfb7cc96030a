//! One supervisor a folder: it holds a lock on a file, which ends with it however it ends.

use anyhow::{Context as _, Result};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

const FILE: &str = "supervisor.lock";

/// The lock of a supervisor.
pub struct Held(#[allow(dead_code)] File);

/// Takes the lock and leaves this process's id in its file. None: another one has it.
pub fn take(dir: &Path) -> Result<Option<Held>> {
    let mut file = open(dir)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())?;
            Ok(Some(Held(file)))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e).context("the supervisor's lock"),
    }
}

/// The process id of the supervisor, if one runs. 0: it is just starting.
pub fn holder(dir: &Path) -> Result<Option<u32>> {
    if !dir.join(FILE).exists() {
        return Ok(None);
    }
    let mut file = open(dir)?;
    match file.try_lock() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(Some(text.trim().parse().unwrap_or(0)))
        }
        Err(TryLockError::Error(e)) => Err(e).context("the supervisor's lock"),
    }
}

fn open(dir: &Path) -> Result<File> {
    let path = dir.join(FILE);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    opened.with_context(|| path.display().to_string())
}
