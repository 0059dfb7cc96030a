//! Primary pools: folders of this host, and folders that hosts share.
//!
//! In a pool's folder lie the images, and `.arcus`: `pool` says whose folder it is (a folder that isn't mounted has none, so
//! nothing is ever written to the wrong disk), `disks/NAME` says whose image `NAME` is, `locks/` is for locks. `leases/` is
//! for who has the right to run VMs.

use super::errors::{image_error, io_error};
use super::mounts::{Export, Mounts, is_mount_point};
use super::notes;
use super::patience::{Gate, LONG, SHORT};
use super::{StorageConfig, disks::DiskNote};
use contract::ApiError;
use contract_agent::{EnsurePool, PoolFacts};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where all but images lies in a pool and in a store.
pub(super) const OWN: &str = ".arcus";
const MARK: &str = "pool";
const DISKS: &str = "disks";
const LOCKS: &str = "locks";
const LEASES: &str = "leases";

/// The kinds that this host serves.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A folder of the host; it is made when it isn't there.
    Own(PathBuf),
    /// A folder that somebody else mounts.
    Mounted(PathBuf),
    /// An export that is mounted here.
    Export(Export),
}

impl Place {
    fn of(order: &EnsurePool) -> Result<Place, ApiError> {
        let folder = || {
            let from_url = || url::Url::parse(&order.url).map(|url| url.path().to_owned()).unwrap_or_default();
            let path = if order.path.is_empty() { from_url() } else { order.path.clone() };
            let path = PathBuf::from(path);
            let plain = |part: std::path::Component<'_>| !matches!(part, std::path::Component::ParentDir);
            if path.is_absolute() && path.parent().is_some() && path.components().all(plain) {
                return Ok(path);
            }
            Err(ApiError::param(format!("{:?} is no folder that a pool can be in", order.path)))
        };
        match order.kind.as_str() {
            "Filesystem" => Ok(Place::Own(folder()?)),
            "SharedMountPoint" => Ok(Place::Mounted(folder()?)),
            "NetworkFilesystem" => Ok(Place::Export(Export::parse(&order.url)?)),
            other => Err(ApiError::unsupported(format!("KVM hosts of Arcus don't serve pools of the kind {other}"))),
        }
    }
}

/// A pool that this host knows.
#[derive(Debug)]
pub(super) struct Pool {
    pub order: EnsurePool,
    pub dir: PathBuf,
    pub gate: Gate,
    /// Work on one file of it is done one after the other.
    turns: Mutex<HashMap<String, std::sync::Weak<tokio::sync::Mutex<()>>>>,
    /// Notes that were read: they never change.
    pub notes: Mutex<HashMap<String, Arc<DiskNote>>>,
}

impl Pool {
    fn new(order: EnsurePool, dir: PathBuf) -> Pool {
        let gate = Gate::new(format!("pool {}", order.pool_uuid));
        Pool { order, dir, gate, turns: Mutex::default(), notes: Mutex::default() }
    }

    /// Where a file of this name lies.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn notes_dir(&self) -> PathBuf {
        self.dir.join(OWN).join(DISKS)
    }

    /// Where it is said whose image a name is.
    pub fn note(&self, name: &str) -> PathBuf {
        self.notes_dir().join(name)
    }

    pub fn lock(&self, name: &str) -> PathBuf {
        self.dir.join(OWN).join(LOCKS).join(name)
    }

    /// Waits until nobody of this host works on a name.
    pub async fn turn(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(name).and_then(std::sync::Weak::upgrade).unwrap_or_default();
            turns.insert(name.to_owned(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    /// Whether the folder is the pool's: it is mounted, and not another one's. Blocks.
    pub fn is_there(&self) -> Result<bool, ApiError> {
        let mark = notes::read(&self.dir.join(OWN).join(MARK)).map_err(io_error)?;
        Ok(mark.is_some_and(|mark| mark.trim_ascii() == self.order.pool_uuid.as_bytes()))
    }
}

/// What is kept of a pool on this host: where it is, so that a hung one doesn't hold up the agent's start.
#[derive(Debug, Serialize, Deserialize)]
struct SavedPool {
    pool_uuid: String,
    kind: String,
    url: String,
    path: String,
    dir: PathBuf,
}

/// All pools.
#[derive(Debug)]
pub(super) struct Pools {
    config: StorageConfig,
    mounts: Arc<Mounts>,
    known: Mutex<BTreeMap<String, Arc<Pool>>>,
}

impl Pools {
    /// Reads which pools there were. Blocks.
    pub fn open(config: StorageConfig, mounts: Arc<Mounts>) -> Result<Pools, ApiError> {
        let pools = Pools { config, mounts, known: Mutex::default() };
        let dir = pools.saved();
        fs::create_dir_all(&dir).map_err(io_error)?;
        for entry in fs::read_dir(&dir).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            match notes::load::<SavedPool>(&path) {
                Ok(Some(SavedPool { pool_uuid, kind, url, path, dir })) => {
                    let order = EnsurePool { pool_uuid: pool_uuid.clone(), kind, url, path, lease_millis: 0 };
                    pools.known().insert(pool_uuid, Arc::new(Pool::new(order, dir)));
                }
                Ok(None) => {}
                // The control plane sends it again.
                Err(error) => tracing::warn!(file = %path.display(), %error, "what is kept of a pool can't be read"),
            }
        }
        Ok(pools)
    }

    fn saved(&self) -> PathBuf {
        self.config.state_dir.join("storage").join("pools")
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pool>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pool as it is known, whether or not it can be reached.
    pub fn get(&self, uuid: &str) -> Option<Arc<Pool>> {
        self.known().get(uuid).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.known().values().cloned().collect()
    }

    /// Makes a pool reachable, and says how much room it has.
    pub async fn ensure(&self, order: &EnsurePool) -> Result<PoolFacts, ApiError> {
        notes::plain(&order.pool_uuid)?;
        let place = Place::of(order)?;
        if let Place::Export(export) = &place {
            self.mounts.ensure(export, "").await?;
        }
        let known = self.get(&order.pool_uuid).filter(|pool| {
            let known = &pool.order;
            (&known.kind, &known.url, &known.path) == (&order.kind, &order.url, &order.path)
        });
        let gate =
            known.as_ref().map_or_else(|| Gate::new(format!("pool {}", order.pool_uuid)), |pool| pool.gate.clone());
        let (wanted, allow_unmounted) = (order.clone(), self.config.allow_unmounted);
        let export_dir = match &place {
            Place::Export(export) => Some(self.mounts.folder(export)),
            _ => None,
        };
        let (dir, facts) = gate
            .run(SHORT, move || {
                let dir = match (&place, export_dir) {
                    (_, Some(dir)) => dir,
                    (Place::Own(dir), _) => {
                        fs::create_dir_all(dir).map_err(io_error)?;
                        fs::canonicalize(dir).map_err(io_error)?
                    }
                    (Place::Mounted(dir), _) => mounted(dir, allow_unmounted)?,
                    (Place::Export(_), None) => return Err(ApiError::internal("an export without a folder")),
                };
                claim(&dir, &wanted.pool_uuid)?;
                let facts = facts(&wanted.pool_uuid, &dir)?;
                Ok((dir, facts))
            })
            .await?;
        if known.is_none_or(|pool| pool.dir != dir) {
            self.save(order, dir.clone()).await?;
            let pool = Arc::new(Pool::new(order.clone(), dir));
            self.known().insert(order.pool_uuid.clone(), pool.clone());
            sweep(&pool).await;
        }
        Ok(facts)
    }

    async fn save(&self, order: &EnsurePool, dir: PathBuf) -> Result<(), ApiError> {
        let EnsurePool { pool_uuid, kind, url, path, .. } = order.clone();
        let at = self.saved().join(&pool_uuid);
        let saved = SavedPool { pool_uuid, kind, url, path, dir };
        Gate::new("the agent's state folder").run(SHORT, move || notes::save(&at, &saved).map_err(io_error)).await
    }

    /// A pool whose folder is there at this moment; after a reboot it is mounted again.
    ///
    /// # Errors
    /// 534: unknown, or not to be reached.
    pub async fn reach(&self, uuid: &str) -> Result<Arc<Pool>, ApiError> {
        let unknown = || ApiError::unavailable(format!("this host doesn't know pool {uuid}"));
        let pool = self.get(uuid).ok_or_else(unknown)?;
        let looked = pool.clone();
        if pool.gate.run(SHORT, move || looked.is_there()).await? {
            return Ok(pool);
        }
        self.ensure(&pool.order).await?;
        self.get(uuid).ok_or_else(unknown)
    }
}

/// A folder on which something is mounted. Blocks.
fn mounted(dir: &Path, allow_unmounted: bool) -> Result<PathBuf, ApiError> {
    let missing =
        |_| ApiError::failed(format!("The host has no folder {}: mount the shared file system there", dir.display()));
    let at = fs::canonicalize(dir).map_err(missing)?;
    // The mount may be on a folder above.
    let mut above = at.ancestors().filter(|folder| folder.parent().is_some());
    let is_mounted = above.try_fold(false, |found, folder| Ok::<_, ApiError>(found || is_mount_point(folder)?))?;
    if is_mounted || allow_unmounted {
        return Ok(at);
    }
    Err(ApiError::failed(format!(
        "Nothing is mounted on {} on the host: mount the shared file system there",
        dir.display()
    )))
}

/// Makes a folder a pool's. Blocks.
fn claim(dir: &Path, uuid: &str) -> Result<(), ApiError> {
    let own = dir.join(OWN);
    for folder in [DISKS, LOCKS, LEASES] {
        fs::create_dir_all(own.join(folder)).map_err(io_error)?;
    }
    let mark = own.join(MARK);
    if notes::read(&mark).map_err(io_error)?.is_none() {
        notes::write_once(&mark, uuid.as_bytes()).map_err(io_error)?;
    }
    let found = notes::read(&mark).map_err(io_error)?.unwrap_or_default();
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    if found == uuid {
        return Ok(());
    }
    Err(ApiError::failed(format!("The folder {} belongs to another pool ({found})", dir.display())))
}

fn facts(uuid: &str, dir: &Path) -> Result<PoolFacts, ApiError> {
    let room = rustix::fs::statvfs(dir).map_err(|e| io_error(e.into()))?;
    let block = if room.f_frsize > 0 { room.f_frsize } else { room.f_bsize };
    let (all, free) = (room.f_blocks.saturating_mul(block), room.f_bfree.saturating_mul(block));
    Ok(PoolFacts { pool_uuid: uuid.to_owned(), capacity: all, used: all.saturating_sub(free), lease_millis: 0 })
}

/// Removes what killed runs left; what can't be removed now is removed another time.
pub(super) async fn sweep(pool: &Arc<Pool>) {
    let looked = pool.clone();
    let swept = pool.gate.run(LONG, move || {
        if looked.is_there()? {
            images::sweep(&looked.dir).map_err(image_error)?;
        }
        Ok(())
    });
    if let Err(error) = swept.await {
        tracing::warn!(pool = pool.order.pool_uuid, %error, "a pool can't be swept");
    }
}
