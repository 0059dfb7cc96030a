//! Compares the database with what hosts say they run, and with what lies on pools.
//!
//! The database is read first, then the host is asked, then the database again for what the host names and the first
//! reading didn't: so what began or ended in between looks the same on both sides at least once, and what doesn't is found
//! again only when it stays. What a job works on, and what a host owes, is left out.

use crate::checks::Kind;
use crate::look::{Findings, Found, Looker, MOST};
use crate::reports::{HostReport, Reports};
use crate::rows::{self, Host, Pool, Vm, Volume};
use contract_agent::{DiskState, PowerState, VmState};
use futures::stream::{self, StreamExt as _};
use std::collections::{HashMap, HashSet};
use store::Result;
use tokio::time::Instant;

/// Hosts asked at the same time.
const AT_ONCE: usize = 8;

/// Most other hosts that are asked about bytes that one doesn't see.
const WAYS: usize = 32;

/// What a look over hosts and pools found.
#[derive(Default)]
pub(crate) struct Census {
    /// By check, in the order of `HOST_CHECKS`.
    pub findings: Vec<Findings>,
    /// Hosts that told.
    pub asked: usize,
    /// Hosts and pools that couldn't be asked.
    pub unanswered: Vec<String>,
}

impl Census {
    fn add(&mut self, kind: Kind, resource: String, what: String, stamp: Option<String>) {
        if let Some(findings) = self.findings.get_mut(kind as usize)
            && findings.len() < MOST
        {
            findings.insert(resource, Found { what, stamp });
        }
    }

    fn silent(&mut self, who: String) {
        if self.unanswered.len() < MOST {
            self.unanswered.push(who);
        }
    }
}

/// Looks at all hosts and pools, or at those of the findings in `among` ("host/UUID/…", "pool/UUID/…").
pub(crate) async fn look(
    looker: &Looker<'_>,
    reports: &dyn Reports,
    among: Option<&HashSet<String>>,
) -> Result<Census> {
    let named = |kind: &str| {
        among.map(|among| {
            let parts = among.iter().filter_map(|resource| resource.strip_prefix(kind));
            parts.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect::<HashSet<_>>()
        })
    };
    let (hosts, pools) = (named("host/"), named("pool/"));
    let mut census = Census { findings: vec![Findings::new(); Kind::COUNT], ..Census::default() };
    let mut after = 0;
    loop {
        let page = rows::hosts(looker.db, after, hosts.as_ref()).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        let mut answers = stream::iter(page)
            .map(|host| async move {
                let before = expected(looker, &host).await;
                let said = reports.host(host.id).await;
                (host, before, said)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((host, before, said)) = answers.next().await {
            match said {
                Ok(said) => {
                    census.asked += 1;
                    let begun = Instant::now();
                    compare(looker, &mut census, reports, &host, before?, said).await?;
                    looker.rest(begun.elapsed()).await;
                }
                Err(error) => census.silent(format!("host {}: {}", host.name, error.text)),
            }
        }
    }
    let mut after = 0;
    loop {
        let page = rows::pools(looker.db, after, pools.as_ref()).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for pool in page {
            if let Err(why) = pool_disks(looker, &mut census, reports, &pool).await? {
                census.silent(format!("pool {}: {why}", pool.name));
            }
        }
    }
    Ok(census)
}

/// What a host should have.
struct Expected {
    vms: Vec<Vm>,
    routers: Vec<rows::Router>,
}

async fn expected(looker: &Looker<'_>, host: &Host) -> Result<Expected> {
    Ok(Expected { vms: rows::vms_on(looker.db, host.id).await?, routers: rows::routers_on(looker.db, host.id).await? })
}

async fn compare(
    looker: &Looker<'_>,
    census: &mut Census,
    reports: &dyn Reports,
    host: &Host,
    expected: Expected,
    said: HostReport,
) -> Result<()> {
    let runs: HashMap<&str, &VmState> =
        said.vms.iter().filter(|vm| is_there(vm)).map(|vm| (vm.uuid.as_str(), vm)).collect();
    for vm in expected.vms.iter().filter(|vm| vm.state == "Running" && !vm.busy) {
        let resource = format!("host/{}/vm/{}", host.uuid, vm.uuid);
        let stamp = Some(vm.stamp.clone());
        match runs.get(vm.uuid.as_str()) {
            None => census.add(Kind::VmOff, resource, format!("{} doesn't run {}", host.name, vm.name), stamp),
            Some(state) if state.power() == PowerState::Paused => {
                census.add(Kind::VmPaused, resource, format!("{} has {} paused", host.name, vm.name), stamp);
            }
            Some(state) if state.generation != vm.generation => {
                let what = format!(
                    "{} runs {} with generation {} instead of {}",
                    host.name, vm.name, state.generation, vm.generation
                );
                census.add(Kind::VmEpoch, resource, what, stamp);
            }
            Some(_) => {}
        }
    }
    let known: HashSet<&str> = expected.vms.iter().map(|vm| vm.uuid.as_str()).collect();
    let strange: Vec<&str> = runs.keys().copied().filter(|uuid| !known.contains(uuid)).collect();
    // Off by the database, and there: only a job may do that.
    let resting = expected.vms.iter().filter(|vm| !vm.busy && !matches!(vm.state.as_str(), "Running" | "Unknown"));
    let resting: HashSet<&str> = resting.map(|vm| vm.uuid.as_str()).filter(|uuid| runs.contains_key(uuid)).collect();
    strangers(looker, census, reports, host, strange.into_iter().chain(resting).collect()).await?;
    routers(looker, census, host, &expected, &said).await
}

fn is_there(vm: &VmState) -> bool {
    matches!(vm.power(), PowerState::On | PowerState::Paused)
}

/// Machines that a host runs and shouldn't.
async fn strangers(
    looker: &Looker<'_>,
    census: &mut Census,
    reports: &dyn Reports,
    host: &Host,
    uuids: Vec<&str>,
) -> Result<()> {
    if uuids.is_empty() {
        return Ok(());
    }
    let owed = rows::owed(looker.db, host.id).await?;
    let found = rows::vms(looker.db, &uuids).await?;
    let by_uuid: HashMap<&str, &Vm> = found.iter().map(|vm| (vm.uuid.as_str(), vm)).collect();
    for uuid in uuids.into_iter().filter(|uuid| !owed.contains(*uuid)) {
        let resource = format!("host/{}/vm/{uuid}", host.uuid);
        let Some(vm) = by_uuid.get(uuid).filter(|vm| !vm.removed) else {
            let what = format!("{} runs a machine that doesn't exist", host.name);
            census.add(Kind::VmUnknown, resource, what, None);
            continue;
        };
        if vm.busy || (vm.host == Some(host.id) && vm.state == "Running") {
            continue;
        }
        let other = match vm.host {
            Some(other) if other != host.id && vm.state == "Running" => reports.host(other).await.ok(),
            _ => None,
        };
        let stamp = Some(vm.stamp.clone());
        if other.is_some_and(|said| said.vms.iter().any(|v| v.uuid == uuid && is_there(v))) {
            let what = format!("{} runs {}, and so does its own host {}", host.name, vm.name, vm.host.unwrap_or(0));
            census.add(Kind::VmTwice, resource, what, stamp);
        } else {
            let own = vm.host.map_or_else(|| "no host".to_owned(), |own| format!("host {own}"));
            let what = format!("{} runs {}, which is {} on {own}", host.name, vm.name, vm.state);
            census.add(Kind::VmElsewhere, resource, what, stamp);
        }
    }
    Ok(())
}

async fn routers(
    looker: &Looker<'_>,
    census: &mut Census,
    host: &Host,
    expected: &Expected,
    said: &HostReport,
) -> Result<()> {
    let has: HashMap<&str, i64> = said.routers.iter().map(|r| (r.router_uuid.as_str(), r.generation)).collect();
    for router in expected.routers.iter().filter(|r| r.running) {
        let resource = format!("host/{}/router/{}", host.uuid, router.uuid);
        let stamp = Some(router.epoch.to_string());
        match has.get(router.uuid.as_str()) {
            None => {
                census.add(Kind::RouterMissing, resource, format!("{} lacks {}", host.name, router.name), stamp);
            }
            // What was read before the host was asked can't be more than it has.
            Some(generation) if *generation < router.applied => {
                let what = format!(
                    "{} has generation {generation} of {} instead of {}",
                    host.name, router.name, router.applied
                );
                census.add(Kind::RouterStale, resource, what, stamp);
            }
            Some(_) => {}
        }
    }
    let known: HashSet<&str> = expected.routers.iter().map(|r| r.uuid.as_str()).collect();
    let mut strange: Vec<&str> = has.keys().copied().filter(|uuid| !known.contains(uuid)).collect();
    if strange.is_empty() {
        return Ok(());
    }
    let left = rows::leftovers(looker.db, host.id).await?;
    let now: HashSet<String> = rows::routers_on(looker.db, host.id).await?.into_iter().map(|r| r.uuid).collect();
    strange.retain(|uuid| !left.contains(*uuid) && !now.contains(*uuid));
    for uuid in strange {
        let resource = format!("host/{}/router/{uuid}", host.uuid);
        census.add(
            Kind::RouterUnknown,
            resource,
            format!("{} has a router that is gone or elsewhere", host.name),
            None,
        );
    }
    Ok(())
}

/// Compares a pool with its volumes, a page of disks at a time. The inner error: it can't be asked.
async fn pool_disks(
    looker: &Looker<'_>,
    census: &mut Census,
    reports: &dyn Reports,
    pool: &Pool,
) -> Result<std::result::Result<(), String>> {
    let mut low = String::new();
    let mut missing: HashMap<String, Option<DiskState>> = HashMap::new();
    loop {
        let (disks, more) = match reports.disks(pool.host, &pool.uuid, &low).await {
            Ok(page) => page,
            Err(error) => return Ok(Err(error.text)),
        };
        let high = disks.last().map(|disk| disk.volume_uuid.clone()).filter(|_| more);
        let begun = Instant::now();
        let volumes = rows::volumes_on(looker.db, pool.id, &low, high.as_deref()).await?;
        let by_uuid: HashMap<&str, &DiskState> = disks.iter().map(|d| (d.volume_uuid.as_str(), d)).collect();
        for volume in volumes.iter().filter(|v| v.ready && !v.busy) {
            let disk = by_uuid.get(volume.uuid.as_str()).copied();
            if differs(volume, disk).is_some() && missing.len() < MOST {
                missing.insert(volume.uuid.clone(), disk.cloned());
            }
        }
        unknown(looker, census, pool, &disks, &volumes).await?;
        looker.rest(begun.elapsed()).await;
        match high {
            Some(high) => low = high,
            None => break,
        }
    }
    if missing.is_empty() { Ok(Ok(())) } else { lost(looker, census, reports, pool, missing).await }
}

/// What is wrong with the bytes of a volume.
fn differs(volume: &Volume, disk: Option<&DiskState>) -> Option<(Kind, String)> {
    match disk.filter(|d| Some(&d.path) == volume.path.as_ref()) {
        None => Some((Kind::DiskMissing, "has no bytes".to_owned())),
        Some(disk) if i64::try_from(disk.size) != Ok(volume.size) => {
            Some((Kind::DiskSize, format!("has {} bytes and is {} large", disk.size, volume.size)))
        }
        Some(_) => None,
    }
}

/// Volumes whose bytes one host didn't see, or saw with another size. Others are asked: simulated hosts of several
/// processes each see their own part of a pool, so all of those must be there to tell. And the database is read again: the
/// volumes may have gone since.
async fn lost(
    looker: &Looker<'_>,
    census: &mut Census,
    reports: &dyn Reports,
    pool: &Pool,
    mut missing: HashMap<String, Option<DiskState>>,
) -> Result<std::result::Result<(), String>> {
    let ways = rows::ways(looker.db, pool.id).await?;
    if ways.iter().any(|way| way.simulated && !way.up) {
        return Ok(Err("not all of its simulated hosts can be asked".to_owned()));
    }
    for way in ways.iter().filter(|way| way.up && way.host != pool.host).take(WAYS) {
        if missing.values().all(Option::is_some) {
            break;
        }
        let mut low = String::new();
        loop {
            let Ok((disks, more)) = reports.disks(way.host, &pool.uuid, &low).await else {
                return Ok(Err(format!("host {} doesn't tell what it sees", way.host)));
            };
            let last = disks.last().map(|d| d.volume_uuid.clone());
            for disk in disks {
                if let Some(known) = missing.get_mut(&disk.volume_uuid) {
                    *known = Some(disk);
                }
            }
            match last.filter(|_| more) {
                Some(last) => low = last,
                None => break,
            }
        }
    }
    let uuids: Vec<&str> = missing.keys().map(String::as_str).collect();
    for volume in rows::volumes(looker.db, &uuids).await? {
        if volume.ready
            && !volume.busy
            && volume.pool == Some(pool.id)
            && let Some((kind, what)) = differs(&volume, missing.get(&volume.uuid).and_then(Option::as_ref))
        {
            let resource = format!("pool/{}/volume/{}", pool.uuid, volume.uuid);
            let what = format!("{} {what} on {}", volume.name, pool.name);
            census.add(kind, resource, what, Some(volume.stamp));
        }
    }
    Ok(Ok(()))
}

/// Bytes that belong to no volume.
async fn unknown(
    looker: &Looker<'_>,
    census: &mut Census,
    pool: &Pool,
    disks: &[DiskState],
    volumes: &[Volume],
) -> Result<()> {
    let places: HashSet<(&str, &str)> =
        volumes.iter().filter_map(|v| Some((v.uuid.as_str(), v.path.as_deref()?))).collect();
    let strange: Vec<&DiskState> =
        disks.iter().filter(|d| !places.contains(&(d.volume_uuid.as_str(), d.path.as_str()))).collect();
    if strange.is_empty() {
        return Ok(());
    }
    let uuids: Vec<&str> = strange.iter().map(|d| d.volume_uuid.as_str()).collect();
    let paths: Vec<&str> = strange.iter().map(|d| d.path.as_str()).collect();
    let volumes = rows::volumes(looker.db, &uuids).await?;
    let condemned = rows::condemned(looker.db, &paths).await?;
    for disk in strange.into_iter().filter(|d| !condemned.contains(&d.path)) {
        let of = volumes.iter().find(|v| v.uuid == disk.volume_uuid);
        let here = of.is_some_and(|v| v.pool == Some(pool.id) && v.path.as_deref() == Some(disk.path.as_str()));
        if here || of.is_some_and(|v| v.busy) {
            continue;
        }
        let resource = format!("pool/{}/disk/{}", pool.uuid, disk.volume_uuid);
        let what = format!("{} bytes at {} on {} belong to no volume", disk.size, disk.path, pool.name);
        census.add(Kind::DiskUnknown, resource, what, of.map(|v| v.stamp.clone()));
    }
    Ok(())
}
