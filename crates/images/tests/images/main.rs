//! Images by a real qemu-img, downloads from a real HTTP server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod download;
mod kills;
mod leash;
mod malicious;
mod operations;
mod resume;
mod server;
mod unpack;

use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Runs a program that has to succeed.
#[track_caller]
fn tool(program: &str, args: &[&str], folder: &Path) -> String {
    let out = Command::new(program).args(args).current_dir(folder).output().expect(program);
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {said}");
    said
}

/// Bytes that don't compress or repeat, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

/// A raw disk of noise in a folder.
fn raw_disk(folder: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, noise(usize::try_from(bytes).unwrap())).unwrap();
    path
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

/// What a guest would read from a disk.
fn content(image: &Path, format: &str) -> Vec<u8> {
    let to = testkit::temp_dir();
    tool("qemu-img", &["convert", "-f", format, "-O", "raw", image.to_str().unwrap(), "raw"], to.path());
    std::fs::read(to.path().join("raw")).unwrap()
}
