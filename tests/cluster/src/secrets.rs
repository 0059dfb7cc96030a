//! Passwords and other files that only their owner may read.

use anyhow::{Context as _, Result};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The password in `file`, made when it isn't there.
pub(crate) fn password(file: &Path) -> Result<String> {
    match std::fs::read_to_string(file) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| file.display().to_string()),
    }
    let letters = rand::distr::Alphanumeric;
    let text: String = rand::Rng::sample_iter(rand::rng(), letters).take(24).map(char::from).collect();
    write_private(file, format!("{text}\n").as_bytes())?;
    Ok(text)
}

/// Written whole or not at all, for its owner alone.
pub(crate) fn write_private(file: &Path, content: &[u8]) -> Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let draft = Path::new(&name);
    remove(draft)?;
    let context = || draft.display().to_string();
    let mut out =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).with_context(context)?;
    out.write_all(content).with_context(context)?;
    std::fs::rename(draft, file).with_context(context)
}

/// Removes a file that may be absent.
pub(crate) fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| file.display().to_string()),
        _ => Ok(()),
    }
}
