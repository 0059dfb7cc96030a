//! Storage of a host with the real qemu-img, a real HTTP server, and a real S3 server.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed

mod buckets;
mod copies;
mod disks;
mod fetches;
mod pools;
mod server;

use super::*;
use contract_agent::image_state::Phase;
use contract_agent::{ImageStore, TemplateSource};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: Duration = Duration::from_secs(1);

/// Runs a program that has to succeed.
#[track_caller]
fn tool(program: &str, args: &[&str], folder: &Path) -> String {
    let out = Command::new(program).args(args).current_dir(folder).output().expect(program);
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {said}");
    said
}

/// Bytes that don't compress or repeat, always the same.
fn noise(length: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(usize::try_from(length).unwrap()).collect()
}

/// A qcow2 image with noise in it.
fn image(folder: &Path, name: &str, noisy: u64, size: u64) -> PathBuf {
    std::fs::write(folder.join("noise"), noise(noisy)).unwrap();
    tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "noise", name], folder);
    tool("qemu-img", &["resize", "-q", "-f", "qcow2", name, &size.to_string()], folder);
    std::fs::remove_file(folder.join("noise")).unwrap();
    folder.join(name)
}

/// The start of what a guest would read from a disk.
fn content(image: &Path, format: &str, length: u64) -> Vec<u8> {
    let to = testkit::temp_dir();
    tool("qemu-img", &["convert", "-f", format, "-O", "raw", image.to_str().unwrap(), "raw"], to.path());
    let mut bytes = std::fs::read(to.path().join("raw")).unwrap();
    bytes.truncate(usize::try_from(length).unwrap());
    bytes
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

/// A host: its state folder lives as long as this, its agent may be killed and started.
struct Host {
    dir: TempDir,
    storage: Storage,
}

async fn open(dir: &Path) -> Storage {
    let config = StorageConfig {
        state_dir: dir.to_owned(),
        mount_root: dir.join("mnt"),
        work_dir: None,
        max_virtual_bytes: 64 * GIB,
        allow_unmounted: true,
    };
    let mut storage = Storage::open(config).await.unwrap();
    // Lines break at once here.
    Arc::get_mut(&mut storage.inner).unwrap().line = Line { tries: 2, pause: Duration::from_millis(1) };
    storage
}

impl Host {
    async fn start() -> Host {
        let dir = testkit::temp_dir();
        let storage = open(dir.path()).await;
        Host { dir, storage }
    }

    /// The agent dies and another one starts.
    async fn restart(&mut self) {
        // In this order: the old one is gone before.
        self.storage = Storage { inner: self.storage.inner.clone(), works: Arc::default() };
        self.storage = open(self.dir.path()).await;
    }

    /// Puts a program in place of qemu-img that notes each run in the file `runs`, and waits while `hold` is there.
    fn watch_tool(&mut self) {
        let at = self.dir.path();
        let script = format!(
            "#!/bin/sh\necho \"$1\" >> {0}/runs\nwhile [ -e {0}/hold ]; do sleep 0.01; done\nexec qemu-img \"$@\"\n",
            at.display()
        );
        let program = at.join("watched");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Arc::get_mut(&mut self.storage.inner).unwrap().qemu.program = program;
    }

    fn hold_tool(&self) {
        std::fs::write(self.dir.path().join("hold"), "").unwrap();
    }

    fn release_tool(&self) {
        std::fs::remove_file(self.dir.path().join("hold")).unwrap();
    }

    /// How often the tool ran with a command.
    fn runs(&self, command: &str) -> usize {
        let runs = std::fs::read_to_string(self.dir.path().join("runs")).unwrap_or_default();
        runs.lines().filter(|line| *line == command).count()
    }

    async fn pool(&self, uuid: &str, dir: &Path) -> PoolFacts {
        self.storage.ensure_pool(&pool(uuid, dir)).await.unwrap()
    }
}

fn pool(uuid: &str, dir: &Path) -> EnsurePool {
    EnsurePool {
        pool_uuid: uuid.into(),
        kind: "SharedMountPoint".into(),
        url: format!("SharedMountPoint://localhost{}", dir.display()),
        path: dir.to_str().unwrap().into(),
        lease_millis: 0,
    }
}

fn empty(pool: &str, volume: &str, path: &str, size: u64) -> EnsureDisk {
    EnsureDisk {
        volume_uuid: volume.into(),
        pool_uuid: pool.into(),
        path: path.into(),
        size,
        format: "QCOW2".into(),
        template: None,
    }
}

fn from(template: &TemplateSource, volume: &str, path: &str, size: u64) -> EnsureDisk {
    EnsureDisk { template: Some(template.clone()), ..empty("p", volume, path, size) }
}

fn delete(volume: &str, path: &str) -> DeleteDisk {
    DeleteDisk { volume_uuid: volume.into(), pool_uuid: "p".into(), path: path.into(), ended_vm: None }
}

fn folder_store(dir: &Path) -> ImageStore {
    ImageStore { uuid: "s".into(), url: format!("file://{}", dir.display()), ..ImageStore::default() }
}

fn template(uuid: &str, store: &ImageStore, path: &str) -> TemplateSource {
    TemplateSource {
        template_uuid: uuid.into(),
        store: Some(store.clone()),
        store_path: path.into(),
        format: "QCOW2".into(),
        ..TemplateSource::default()
    }
}

/// An order that listens for long, from servers on this machine.
fn fetch(store: &ImageStore, path: &str, url: &str) -> FetchImage {
    FetchImage {
        store: Some(store.clone()),
        path: path.into(),
        url: url.into(),
        format: "QCOW2".into(),
        max_bytes: GIB,
        max_virtual_bytes: 8 * GIB,
        report_after_millis: 60_000,
        internal_cidrs_allowed: vec!["127.0.0.1/32".into()],
        ..FetchImage::default()
    }
}

/// What lies in the folders for work of a store.
fn left(store: &Path) -> Vec<String> {
    names(&store.join(".arcus/work"))
}
