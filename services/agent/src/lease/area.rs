//! The lease area of a pool that is a folder, shared by all who have it mounted.
//!
//! `leases/VM/EPOCH` is a claim, made by a hard link: it comes into being whole, and only once. `leases/VM/EPOCH.free`
//! gives it back. `leases/VM/EPOCH.lost` is a claim that lost against a higher one before its host gave it back, and `leases/VM/ended`
//! says that the VM is no more: its folder goes with the last lost claim. `hosts/HOST` is a heartbeat, replaced by a rename. `lease_millis` is made by a hard link too. There are no
//! locks: a stopped process must not hold anybody up.

use super::machine::{Claimed, Glance, Rules, Sight};
use contract_agent::{Claim, Heartbeat};
use prost::Message;
use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const LEASES: &str = "leases";
const HOSTS: &str = "hosts";
/// What is being written, before it gets its name.
const ASIDE: &str = "aside";
const LEASE_MILLIS: &str = "lease_millis";
const FREE: &str = "free";
const LOST: &str = "lost";
/// The VM is no more.
const ENDED: &str = "ended";
/// Where leases of VMs without disks on a pool are kept: they are shared as well.
const NO_POOL: &str = "no-pool";

static ASIDES: AtomicU64 = AtomicU64::new(0);

/// Where the lease area of a pool is; none when this host doesn't have the pool.
type Locate = Box<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;

/// The lease areas of all pools of a host.
pub(crate) struct Areas {
    locate: Locate,
    /// Where all of them are, if they are in one folder.
    dir: Option<PathBuf>,
    /// The lease time of pools that have none yet.
    lease: Duration,
    open: Mutex<HashMap<String, Arc<Area>>>,
}

impl Areas {
    /// All below one folder.
    pub fn new(dir: PathBuf, lease: Duration) -> Areas {
        let below = dir.clone();
        Areas { dir: Some(dir), ..Areas::located(move |name| Some(below.join(name)), lease) }
    }

    /// Each where `locate` says; it is given names that are safe as a folder's.
    pub fn located(locate: impl Fn(&str) -> Option<PathBuf> + Send + Sync + 'static, lease: Duration) -> Areas {
        Areas { locate: Box::new(locate), dir: None, lease, open: Mutex::default() }
    }

    /// The area of a pool; it is made when it isn't there. A wanted lease time counts only then.
    pub fn of(&self, pool: &str, wanted: Option<Duration>) -> io::Result<Arc<Area>> {
        let name = if pool.is_empty() { NO_POOL } else { pool };
        if let Some(area) = self.open().get(name) {
            return Ok(area.clone());
        }
        let missing = || io::Error::new(ErrorKind::NotFound, format!("this host doesn't have pool {name}"));
        let dir = (self.locate)(file_name(name)?).ok_or_else(missing)?;
        let area = Arc::new(Area::at(&dir, wanted.unwrap_or(self.lease))?);
        Ok(self.open().entry(name.to_owned()).or_insert(area).clone())
    }

    /// The shortest lease time of those in use.
    pub fn shortest(&self) -> Duration {
        self.open().values().map(|area| area.rules.lease()).min().unwrap_or(self.lease)
    }

    /// The pools that have areas, as far as is known.
    pub fn pools(&self) -> io::Result<Vec<String>> {
        let names = match &self.dir {
            Some(dir) => names(dir)?,
            None => self.open().keys().cloned().collect(),
        };
        Ok(names.into_iter().map(|name| if name == NO_POOL { String::new() } else { name }).collect())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Area>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pool's.
pub(crate) struct Area {
    dir: PathBuf,
    rules: Rules,
}

impl Area {
    fn at(dir: &Path, lease: Duration) -> io::Result<Area> {
        for folder in [LEASES, HOSTS, ASIDE] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let path = dir.join(LEASE_MILLIS);
        if !path.exists() {
            let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1);
            // Whoever was first counts.
            let _ = create(dir, &path, millis.to_string().as_bytes())?;
        }
        let text = fs::read_to_string(&path)?;
        let millis = text.trim().parse().map_err(|_| damaged(&path))?;
        Ok(Area { dir: dir.to_owned(), rules: Rules::of(Duration::from_millis(millis)) })
    }

    pub fn rules(&self) -> Rules {
        self.rules
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An area that is gone isn't an empty one: most likely its file system was unmounted.
    fn check_there(&self) -> io::Result<()> {
        fs::metadata(self.dir.join(LEASE_MILLIS)).map(drop)
    }

    fn vm(&self, vm: &str) -> io::Result<PathBuf> {
        Ok(self.dir.join(LEASES).join(file_name(vm)?))
    }

    /// The highest claim of a VM: one read of a small folder, for there are many VMs.
    pub fn glance(&self, vm: &str) -> io::Result<Glance> {
        let names = names(&self.vm(vm)?)?;
        if names.is_empty() {
            self.check_there()?;
        }
        let epoch = names.iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0);
        Ok(Glance { epoch, free: names.contains(&free_name(epoch)) })
    }

    /// All claims of a VM.
    pub fn read(&self, vm: &str) -> io::Result<Sight> {
        self.check_there()?;
        let folder = self.vm(vm)?;
        // One that is cleared away while this reads was below a claim that had won: it doesn't count.
        let mut claims = Vec::new();
        let names = names(&folder)?;
        for epoch in names.iter().filter_map(|name| name.parse::<i64>().ok()) {
            let Some(claim) = load::<Claim>(&folder.join(epoch.to_string()))? else { continue };
            let free = names.iter().any(|name| *name == free_name(epoch));
            claims.push(Claimed { epoch, host: claim.host_uuid, free });
        }
        Ok(Sight::new(claims))
    }

    /// Makes a claim. Whether it is this host's now: another one may have had the epoch first.
    pub fn claim(&self, vm: &str, epoch: i64, host: &str) -> io::Result<bool> {
        self.check_there()?;
        let folder = self.vm(vm)?;
        fs::create_dir_all(&folder)?;
        let claim = Claim { vm_uuid: vm.to_owned(), epoch, host_uuid: host.to_owned() };
        let path = folder.join(epoch.to_string());
        if create(&self.dir, &path, &sealed(&claim))? {
            return Ok(true);
        }
        let own = load::<Claim>(&path)?.is_some_and(|known| known.host_uuid == host);
        if own {
            remove(&folder.join(free_name(epoch)))?; // given back once, and wanted again
        }
        Ok(own)
    }

    /// Gives a claim back, when it is this host's, and all that it lost before: it has stopped the VM for good, or never started it.
    pub fn free(&self, vm: &str, epoch: i64, host: &str) -> io::Result<()> {
        let folder = self.vm(vm)?;
        if is_of(&folder.join(epoch.to_string()), host)? {
            fs::write(folder.join(free_name(epoch)), b"")?;
        }
        let names = names(&folder)?;
        self.find_again(&folder, &names, epoch, host)?;
        if names.iter().any(|name| name == ENDED) { self.tidy(vm) } else { Ok(()) }
    }

    /// Removes a host's lost claims up to an epoch: it knows.
    fn find_again(&self, folder: &Path, names: &[String], epoch: i64, host: &str) -> io::Result<()> {
        for name in names.iter().filter(|name| numbered(name, LOST).is_some_and(|lost| lost <= epoch)) {
            if is_of(&folder.join(name), host)? {
                remove(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Clears claims away that lost against one of this host that has won. Of those that their hosts haven't given back it stays
    /// known that they may not know yet.
    pub fn clear_below(&self, vm: &str, epoch: i64, host: &str) -> io::Result<()> {
        let folder = self.vm(vm)?;
        let names = names(&folder)?;
        for lower in names.iter().filter_map(|name| name.parse::<i64>().ok()).filter(|lower| *lower < epoch) {
            let path = folder.join(lower.to_string());
            if names.contains(&free_name(lower)) || is_of(&path, host)? {
                remove(&path)?;
            } else {
                unless_gone(fs::rename(&path, folder.join(format!("{lower}.{LOST}"))))?;
            }
        }
        for name in names.iter().filter(|name| numbered(name, FREE).is_some_and(|lower| lower < epoch)) {
            remove(&folder.join(name))?;
        }
        self.find_again(&folder, &names, epoch - 1, host)
    }

    /// A VM is no more, and its root disk is gone, so that nobody can start it any more: what was claimed of it goes. Hosts that may
    /// still run a copy lose it first, as by a fence; the last one of them that knows removes the rest.
    pub fn forget(&self, vm: &str, host: &str) -> io::Result<()> {
        let (sight, folder) = (self.read(vm)?, self.vm(vm)?);
        let Some(highest) = sight.highest() else { return self.tidy(vm) };
        let mut end = highest.epoch;
        if !highest.free {
            end += 1;
            if !self.claim(vm, end, host)? {
                return Err(io::Error::new(ErrorKind::ResourceBusy, format!("VM {vm} is being claimed")));
            }
            self.free(vm, end, host)?;
        }
        self.clear_below(vm, end, host)?;
        fs::write(folder.join(ENDED), b"")?;
        self.tidy(vm)
    }

    /// Removes what is left of a VM that is no more, unless there is a host that may not know. Claims go before what says that they are
    /// given back, and the mark goes last: what a kill leaves is tidied up by whoever comes next.
    fn tidy(&self, vm: &str) -> io::Result<()> {
        let folder = self.vm(vm)?;
        let names = names(&folder)?;
        let open = |name: &String| match name.parse::<i64>() {
            Ok(epoch) => !names.contains(&free_name(epoch)),
            Err(_) => numbered(name, LOST).is_some(),
        };
        if names.iter().any(open) {
            return Ok(());
        }
        for name in names.iter().filter(|name| name.parse::<i64>().is_ok()) {
            remove(&folder.join(name))?;
        }
        for name in names.iter().filter(|name| numbered(name, FREE).is_some()) {
            remove(&folder.join(name))?;
        }
        remove(&folder.join(ENDED))?;
        match fs::remove_dir(&folder) {
            Err(e) if e.kind() != ErrorKind::DirectoryNotEmpty => unless_gone(Err(e)),
            _ => Ok(()),
        }
    }

    /// Claims of a VM that a host may still run a copy by: the highest, unless it is given back, and what was lost. What is left of a VM
    /// that is no more is removed, if that can be done.
    pub fn open(&self, vm: &str) -> io::Result<Vec<Claimed>> {
        let sight = self.read(vm)?;
        let mut open: Vec<Claimed> = sight.highest().filter(|claim| !claim.free).cloned().into_iter().collect();
        let folder = self.vm(vm)?;
        let names = names(&folder)?;
        for epoch in names.iter().filter_map(|name| numbered(name, LOST)) {
            if let Some(claim) = load::<Claim>(&folder.join(format!("{epoch}.{LOST}")))? {
                open.push(Claimed { epoch, host: claim.host_uuid, free: false });
            }
        }
        if names.iter().any(|name| name == ENDED) {
            self.tidy(vm)?;
        }
        Ok(open)
    }

    /// The VMs that were ever claimed here.
    pub fn vms(&self) -> io::Result<Vec<String>> {
        names(&self.dir.join(LEASES))
    }

    /// Says that a host lives.
    pub fn beat(&self, heartbeat: &Heartbeat) -> io::Result<()> {
        let path = self.dir.join(HOSTS).join(file_name(&heartbeat.host_uuid)?);
        let aside = self.dir.join(ASIDE).join(aside_name());
        fs::write(&aside, sealed(heartbeat))?;
        fs::rename(aside, path)
    }

    /// A host's last sign of life.
    pub fn heartbeat(&self, host: &str) -> io::Result<Option<Heartbeat>> {
        let found = load(&self.dir.join(HOSTS).join(file_name(host)?))?;
        if found.is_none() {
            self.check_there()?;
        }
        Ok(found)
    }

    /// Fails on a pool that can be read but takes no writes: it is full, or its file system is read-only.
    pub fn check_writes(&self) -> io::Result<()> {
        let aside = self.dir.join(ASIDE).join(aside_name());
        let written = fs::write(&aside, b"whether the pool takes writes");
        remove(&aside)?;
        written
    }
}

fn free_name(epoch: i64) -> String {
    format!("{epoch}.{FREE}")
}

/// The epoch of a name such as `7.lost`.
fn numbered(name: &str, what: &str) -> Option<i64> {
    name.strip_suffix(what)?.strip_suffix('.')?.parse().ok()
}

/// Refuses what would lead out of the folder.
pub(super) fn file_name(name: &str) -> io::Result<&str> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    plain.then_some(name).ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, format!("{name:?} is no name")))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    unless_gone(fs::remove_file(path))
}

fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether a claim is this host's; one that isn't there is nobody's.
fn is_of(claim: &Path, host: &str) -> io::Result<bool> {
    Ok(load::<Claim>(claim)?.is_some_and(|claim| claim.host_uuid == host))
}

fn aside_name() -> String {
    format!("{}-{}-{}", std::process::id(), rand::random::<u32>(), ASIDES.fetch_add(1, Ordering::Relaxed))
}

/// Makes a file with this content, unless it is there. Whether it was made.
fn create(area: &Path, path: &Path, content: &[u8]) -> io::Result<bool> {
    let aside = area.join(ASIDE).join(aside_name());
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&aside)?;
    file.write_all(content)?;
    let made = match fs::hard_link(&aside, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    };
    remove(&aside)?;
    made
}

/// With a checksum, so that what a power cut leaves isn't believed.
fn sealed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut sealed = seal(&bytes).to_vec();
    sealed.extend_from_slice(&bytes);
    sealed
}

fn seal(bytes: &[u8]) -> [u8; 8] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut sum = [0; 8];
    sum.copy_from_slice(&digest.as_ref()[..8]);
    sum
}

fn load<M: Message + Default>(path: &Path) -> io::Result<Option<M>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let (sum, message) = bytes.split_at_checked(8).ok_or_else(|| damaged(path))?;
    if seal(message)[..] != *sum {
        return Err(damaged(path));
    }
    M::decode(message).map(Some).map_err(|_| damaged(path))
}

fn damaged(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{} is damaged", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    fn area(dir: &Path, lease: u64) -> Arc<Area> {
        Areas::new(dir.to_owned(), Duration::from_millis(lease)).of("p", None).unwrap()
    }

    #[test]
    fn claims_are_made_once() {
        let dir = testkit::temp_dir();
        let pool = area(dir.path(), 500);
        assert!(pool.claim("vm", 3, "a").unwrap() && pool.claim("vm", 3, "a").unwrap());
        assert!(!pool.claim("vm", 3, "b").unwrap());
        assert!(pool.claim("vm", 11, "b").unwrap());
        assert_eq!(pool.glance("vm").unwrap(), Glance { epoch: 11, free: false });
        pool.free("vm", 3, "a").unwrap();
        pool.free("vm", 7, "a").unwrap();
        pool.free("vm", 11, "a").unwrap();
        let claim = |epoch, host: &str, free| Claimed { epoch, host: host.into(), free };
        assert_eq!(pool.read("vm").unwrap(), Sight::new(vec![claim(11, "b", false), claim(3, "a", true)]));
        // Wanted again by the one that gave it back.
        assert!(pool.claim("vm", 3, "a").unwrap());
        assert_eq!(pool.read("vm").unwrap(), Sight::new(vec![claim(3, "a", false), claim(11, "b", false)]));
        pool.clear_below("vm", 11, "b").unwrap();
        assert_eq!(pool.read("vm").unwrap(), Sight::new(vec![claim(11, "b", false)]));
        assert_eq!(pool.read("other").unwrap(), Sight::default());
        assert_eq!(pool.vms().unwrap(), ["vm"]);
        assert!(pool.claim("../vm", 1, "a").is_err());
        assert!(names(&dir.path().join("p").join(ASIDE)).unwrap().is_empty());
    }

    fn left(dir: &Path, vm: &str) -> Vec<String> {
        let mut left = names(&dir.join("p").join(LEASES).join(vm)).unwrap();
        left.sort();
        left
    }

    #[test]
    fn a_vm_that_is_no_more_has_no_claims() {
        let dir = testkit::temp_dir();
        let pool = area(dir.path(), 500);
        assert!(pool.claim("vm", 1, "a").unwrap());
        pool.free("vm", 1, "a").unwrap();
        assert!(pool.claim("vm", 2, "b").unwrap());
        pool.clear_below("vm", 2, "b").unwrap();
        pool.free("vm", 2, "b").unwrap();
        pool.forget("vm", "c").unwrap();
        assert!(pool.vms().unwrap().is_empty());
        pool.forget("vm", "c").unwrap();
        pool.free("vm", 2, "b").unwrap();
        assert!(pool.vms().unwrap().is_empty(), "never claimed, or said twice");
    }

    #[test]
    fn a_late_writer_loses_a_vm_that_is_no_more() {
        let dir = testkit::temp_dir();
        let pool = area(dir.path(), 500);
        let rules = pool.rules();
        let look = |tenure: &mut super::super::Tenure| tenure.looked(rules, Duration::ZERO, pool.glance("vm").unwrap());
        // Taken from a, which doesn't know; and b hasn't given it back.
        let mut late = [super::super::Tenure::unknown(1), super::super::Tenure::unknown(2)];
        assert!(pool.claim("vm", 1, "a").unwrap() && pool.claim("vm", 2, "b").unwrap());
        pool.clear_below("vm", 2, "b").unwrap();
        assert_eq!(left(dir.path(), "vm"), ["1.lost", "2"]);
        pool.forget("vm", "c").unwrap();
        assert_eq!(left(dir.path(), "vm"), ["1.lost", "2.lost", "3", "3.free", "ended"]);
        pool.forget("vm", "d").unwrap();
        for tenure in &mut late {
            assert_eq!(look(tenure), super::super::Missing::Nothing, "nothing is claimed again");
            assert_eq!(tenure.standing(Duration::ZERO), super::super::Standing::Over(3));
        }
        let open: Vec<(i64, String)> = pool.open("vm").unwrap().into_iter().map(|c| (c.epoch, c.host)).collect();
        assert!(open.contains(&(1, "a".into())) && open.contains(&(2, "b".into())) && open.len() == 2, "{open:?}");
        // They find out, one after the other.
        pool.free("vm", 2, "b").unwrap();
        assert_eq!(left(dir.path(), "vm"), ["1.lost", "3", "3.free", "ended"]);
        pool.free("vm", 1, "a").unwrap();
        assert!(pool.vms().unwrap().is_empty());
    }

    #[test]
    fn what_a_kill_leaves_of_a_vm_that_is_no_more_goes_later() {
        let dir = testkit::temp_dir();
        let pool = area(dir.path(), 500);
        for left in [["2", "2.free", "ended"].as_slice(), &["2.free", "ended"], &["ended"], &[]] {
            assert!(pool.claim("vm", 2, "a").unwrap());
            let folder = dir.path().join("p").join(LEASES).join("vm");
            for name in ["2.free", "ended"] {
                fs::write(folder.join(name), b"").unwrap();
            }
            for name in ["2", "2.free", "ended"].iter().filter(|name| !left.contains(name)) {
                fs::remove_file(folder.join(name)).unwrap();
            }
            match left.is_empty() {
                true => pool.forget("vm", "b").unwrap(),
                false => assert!(pool.open("vm").unwrap().is_empty()),
            }
            assert!(pool.vms().unwrap().is_empty(), "{left:?}");
        }
    }

    #[test]
    fn of_many_that_claim_an_epoch_one_gets_it() {
        let dir = testkit::temp_dir();
        let pool = area(dir.path(), 500);
        let winners: usize = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..16)
                .map(|n| {
                    let pool = &pool;
                    scope.spawn(move || usize::from(pool.claim("vm", 1, &format!("h{n}")).unwrap()))
                })
                .collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
    }

    #[test]
    fn the_first_lease_time_counts() {
        let dir = testkit::temp_dir();
        assert_eq!(area(dir.path(), 500).rules().lease(), Duration::from_millis(500));
        assert_eq!(area(dir.path(), 900).rules().lease(), Duration::from_millis(500));
    }

    #[test]
    fn damage_is_not_believed() {
        let dir = testkit::temp_dir();
        let pool = area(dir.path(), 500);
        let beat = Heartbeat { host_uuid: "h".into(), boot_id: "b".into(), counter: 7, beat_millis: 9 };
        pool.beat(&beat).unwrap();
        assert_eq!(pool.heartbeat("h").unwrap(), Some(beat));
        assert_eq!(pool.heartbeat("x").unwrap(), None);
        let path = dir.path().join("p/hosts/h");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(pool.heartbeat("h").is_err());
    }
}
