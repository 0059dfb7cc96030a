//! Disks and images of a real host: primary pools, secondary stores, and the way between them.
//!
//! | module | what |
//! |---|---|
//! | [`pools`] | folders with disks, whose they are, and whether they are there |
//! | [`disks`], [`templates`] | volumes: made, resized, removed; templates that they are based on, copied once a pool |
//! | [`stores`], [`bucket`] | secondary stores: folders, exports, S3 |
//! | [`fetch`], [`works`] | images on their way into a store: long work that orders listen to |
//! | [`mounts`] | NFS, by the system's `mount` |
//! | [`guard`] | which addresses images may be fetched from |
//! | [`patience`], [`notes`] | storage that doesn't answer; locks that die with their holders; files that are whole or not there |
//!
//! Nothing is remembered that isn't on a disk: which pools there are lies in the agent's state folder, whose an image is lies
//! beside it on the pool, and work on an image lies in its store, so that the next agent goes on with it.
//!
//! Known limits: hosts that share a pool are kept apart by flock, which NFS has since version 4; a bucket has no locks, so two
//! hosts that were ordered to fetch the same image would both do it, and the last would win, whole.

mod bucket;
mod disks;
mod errors;
mod fetch;
mod guard;
mod mounts;
mod notes;
mod patience;
mod pools;
mod stores;
mod templates;
#[cfg(test)]
mod tests;
mod works;

pub(super) use templates::file_of as template_file;

use contract::ApiError;
use contract_agent::{
    DeleteDisk, DeleteImage, DiskList, DiskState, EnsureDisk, EnsureIso, EnsurePool, FetchImage, ImagePiece,
    ImageState, ListDisks, PoolFacts, ReadImage, ResizeDisk, StoreDisk,
};
use images::{Format, QemuImg};
use mounts::Mounts;
use pools::Pools;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stores::Stores;
use works::Works;

/// Where things lie on this host, and what is allowed.
#[derive(Clone, Debug)]
pub(crate) struct StorageConfig {
    /// The agent's state folder: which pools there are is kept in `storage` below it.
    pub state_dir: PathBuf,
    /// Below it exports are mounted.
    pub mount_root: PathBuf,
    /// Where images wait that are on their way to or from buckets; of this agent alone. None: below the state folder.
    pub work_dir: Option<PathBuf>,
    /// Largest disk, bytes.
    pub max_virtual_bytes: u64,
    /// Whether a SharedMountPoint may be a folder that nothing is mounted on: for tests and trials.
    pub allow_unmounted: bool,
}

/// A volume's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskFile {
    /// A regular file, directly in its pool's folder.
    pub path: PathBuf,
    /// What it is.
    pub format: Format,
    /// What it is based on, from the nearest to the last: files beside it.
    pub backing: Vec<(PathBuf, Format)>,
}

/// Copies a disk of a running VM as it is at one moment.
#[async_trait::async_trait]
pub(crate) trait Moment: Send + Sync + 'static {
    /// Makes `target`, a file that isn't there yet, a qcow2 image that stands alone: it has no backing file. Dropping the future
    /// ends the copying; what is in the target then doesn't matter.
    async fn copy(&self, vm_uuid: &str, disk: &DiskFile, target: &Path) -> Result<(), ApiError>;
}

const LINE: Line = Line { tries: 8, pause: Duration::from_millis(500) };

/// The storage of this host. Cheap to clone; all orders may come at the same time. Dropping the last clone ends long work, and
/// leaves what there is of it for the next agent.
#[derive(Clone)]
pub(crate) struct Storage {
    inner: Arc<Inner>,
    works: Arc<Works>,
}

/// What orders work with.
struct Inner {
    pools: Arc<Pools>,
    stores: Stores,
    qemu: QemuImg,
    moment: OnceLock<Arc<dyn Moment>>,
    line: Line,
}

/// How patient downloads are with a line that breaks.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// In a row that bring little.
    tries: u32,
    /// Before the second; doubled for each further one.
    pause: Duration,
}

impl Storage {
    /// Reads which pools there were, and removes what a killed agent left. Pools are mounted when they are needed.
    ///
    /// # Errors
    /// The state folder can't be read or written.
    pub async fn open(config: StorageConfig) -> Result<Storage, ApiError> {
        let opened = tokio::task::spawn_blocking(move || {
            let mounts = Arc::new(Mounts::new(config.mount_root.clone()));
            let work = config.work_dir.clone().unwrap_or_else(|| config.state_dir.join("storage").join("work"));
            let qemu = QemuImg::new(config.max_virtual_bytes);
            let stores = Stores::open(work, mounts.clone())?;
            let pools = Arc::new(Pools::open(config, mounts)?);
            Ok(Inner { pools, stores, qemu, moment: OnceLock::new(), line: LINE })
        });
        let inner = opened.await.unwrap_or_else(|e| Err(ApiError::internal(e.to_string())))?;
        for pool in inner.pools.all() {
            // Not waited for: one that hangs must not hold up the others.
            tokio::spawn(async move { pools::sweep(&pool).await });
        }
        Ok(Storage { inner: Arc::new(inner), works: Arc::default() })
    }

    /// Says who copies disks of running VMs; the first one counts.
    pub fn set_moment(&self, moment: Arc<dyn Moment>) {
        let _ = self.inner.moment.set(moment); // there is one driver
    }

    /// Makes a pool reachable, and says how much room it has. `lease_millis` is for those to say who keep the leases.
    ///
    /// # Errors
    /// 431: no such kind, no such folder; 530: nothing is mounted there, or it is another pool's; 534: it doesn't answer.
    pub async fn ensure_pool(&self, order: &EnsurePool) -> Result<PoolFacts, ApiError> {
        self.inner.pools.ensure(order).await
    }

    /// Makes a volume, unless it is there: empty, or based on a template that is copied to the pool first, once.
    ///
    /// # Errors
    /// 431: the template is refused; 530: the file is another volume's; 534: the pool or the store doesn't answer.
    pub async fn ensure_disk(&self, order: &EnsureDisk) -> Result<DiskState, ApiError> {
        self.inner.do_ensure_disk(order).await
    }

    /// Makes sure that an ISO is on a pool, copied from its store once.
    ///
    /// # Errors
    /// 431: the image is refused; 534: the pool or the store doesn't answer.
    pub async fn ensure_iso(&self, order: &EnsureIso) -> Result<(), ApiError> {
        let iso = order.iso.as_ref().ok_or_else(|| ApiError::param("there is no ISO to copy"))?;
        let pool = self.inner.pools.reach(&order.pool_uuid).await?;
        templates::ensure(&self.inner, &pool, iso).await.map(drop)
    }

    /// The file of an ISO that was put on a pool by [`Storage::ensure_iso`]: qcow2, and never written again. Blocks for as long
    /// as the pool's file system does.
    ///
    /// # Errors
    /// 431: no name of an ISO; 530: it isn't there; 534: the pool isn't there.
    pub fn iso_file(&self, pool_uuid: &str, iso: &str) -> Result<PathBuf, ApiError> {
        templates::find(&self.inner.pools, pool_uuid, iso)
    }

    /// Removes a volume's file. With `template-UUID` as path it removes a template's copy.
    ///
    /// # Errors
    /// 536: volumes are based on the template; 534: the pool doesn't answer.
    pub async fn delete_disk(&self, order: &DeleteDisk) -> Result<(), ApiError> {
        self.inner.do_delete_disk(order).await
    }

    /// Makes a volume's file larger; it must not be in use. The same size is fine.
    ///
    /// # Errors
    /// 431: it would become smaller; 530, transient: it is in use; 534: the pool doesn't answer.
    pub async fn resize_disk(&self, order: &ResizeDisk) -> Result<DiskState, ApiError> {
        self.inner.do_resize_disk(order).await
    }

    /// A page of a pool's volumes, by UUID.
    ///
    /// # Errors
    /// 534: the pool doesn't answer.
    pub async fn list_disks(&self, order: &ListDisks) -> Result<DiskList, ApiError> {
        self.inner.do_list_disks(order).await
    }

    /// A volume's file: a regular one, directly in the pool's folder, and the pool is there. Blocks for as long as the pool's
    /// file system does.
    ///
    /// # Errors
    /// 431: no name of a volume; 530: there is no such volume; 534: the pool isn't there.
    pub fn disk_file(&self, pool_uuid: &str, path: &str) -> Result<DiskFile, ApiError> {
        disks::find(&self.inner.pools, pool_uuid, path, None)
    }

    /// The folder of a pool that is known and there at this moment. What isn't a disk lies in its `.arcus`; `.arcus/leases` is
    /// free for leases. Blocks, as [`Storage::disk_file`].
    pub fn pool_dir(&self, pool_uuid: &str) -> Option<PathBuf> {
        let pool = self.inner.pools.get(pool_uuid)?;
        pool.is_there().is_ok_and(|there| there).then(|| pool.dir.clone())
    }

    /// Fetches an image into a store, or tells where that stands.
    ///
    /// # Errors
    /// 431: the URL or the image is refused; 530: other work goes on at the place, or (transient) the line broke too often.
    pub async fn fetch_image(&self, order: &FetchImage) -> Result<ImageState, ApiError> {
        self.inner.do_fetch(&self.works, order).await
    }

    /// Removes an image from a store, and ends work on it.
    ///
    /// # Errors
    /// 530, transient: another host still works on it; 534: the store doesn't answer.
    pub async fn delete_image(&self, order: &DeleteImage) -> Result<(), ApiError> {
        self.inner.do_delete_image(&self.works, order).await
    }

    /// Reads a piece of an image in a store.
    ///
    /// # Errors
    /// 431: there is no such image; 534: the store doesn't answer.
    pub async fn read_image(&self, order: &ReadImage) -> Result<ImagePiece, ApiError> {
        self.inner.do_read_image(order).await
    }

    /// Copies a volume into a store, or tells where that stands.
    ///
    /// # Errors
    /// 431: a running VM's, and nobody was set to copy those; 530, transient: the disk is in use.
    pub async fn store_disk(&self, order: &StoreDisk) -> Result<ImageState, ApiError> {
        self.inner.do_store(&self.works, order).await
    }
}
