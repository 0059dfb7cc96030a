//! The free addresses of networks as this replica knows them: proposals for the commit, whose unique key decides.

use crate::address::{Pool, Taken};
use crate::network::View;
use crate::store::nics;
use contract::ApiError;
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use store::Db;

/// One pool a network.
#[derive(Default)]
pub struct Pools(Mutex<HashMap<i64, Arc<Entry>>>);

#[derive(Default)]
struct Entry {
    /// Only one reads the database at a time.
    loading: tokio::sync::Mutex<()>,
    known: Mutex<Option<Known>>,
}

struct Known {
    pool: Pool,
    shape: Vec<crate::address::Range>,
    /// Proposed by this replica and not decided yet: in no answer of the database.
    pending: HashSet<u32>,
    /// How often it was read: who found it empty reads it only when nobody did since.
    reads: u64,
}

/// An address that this replica gives to nobody else until it is dropped, or kept by [`Proposal::keep`].
pub struct Proposal {
    entry: Arc<Entry>,
    address: u32,
    kept: bool,
}

impl Proposal {
    /// The address.
    pub fn address(&self) -> u32 {
        self.address
    }

    /// The commit took place: it stays taken.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Another has it: it stays taken, and is nobody's proposal.
    pub fn lost(self) {
        self.keep();
    }
}

impl Drop for Proposal {
    fn drop(&mut self) {
        let mut known = self.entry.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_mut() {
            known.pending.remove(&self.address);
            if !self.kept {
                known.pool.give_back(self.address);
            }
        }
    }
}

impl Pools {
    /// Proposes an address of the network: the one asked for, or any.
    ///
    /// # Errors
    /// 431 when the one asked for isn't the network's or is in use, 533 when none is free.
    pub async fn propose(&self, db: &Db, view: &View, wanted: Option<Ipv4Addr>) -> Result<Proposal, ApiError> {
        let entry = self.entry(view.network.id);
        self.ready(&entry, db, view, None).await?;
        let mut looked = false;
        loop {
            match entry.take(wanted.map(u32::from)) {
                Found::Address(address) => return Ok(Proposal { entry: entry.clone(), address, kept: false }),
                Found::Outside => return Err(outside(view, wanted)),
                Found::Nothing(_) if looked => return Err(exhausted(view, wanted)),
                // Another replica may have given some back: look once, unless somebody just did.
                Found::Nothing(reads) => {
                    self.ready(&entry, db, view, Some(reads)).await?;
                    looked = true;
                }
            }
        }
    }

    /// How many addresses are free, read anew.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn free(&self, db: &Db, view: &View) -> Result<u64, ApiError> {
        let entry = self.entry(view.network.id);
        self.ready(&entry, db, view, None).await?;
        let free = entry.lock().as_ref().map_or(0, |k| k.pool.free());
        if free > 0 {
            return Ok(free);
        }
        let reads = entry.lock().as_ref().map_or(0, |k| k.reads);
        self.ready(&entry, db, view, Some(reads)).await?;
        Ok(entry.lock().as_ref().map_or(0, |k| k.pool.free()))
    }

    /// An address of the network is free again.
    pub fn give_back(&self, network: i64, address: u32) {
        let entry = self.lock().get(&network).cloned();
        if let Some(entry) = entry
            && let Some(known) = entry.lock().as_mut()
            && !known.pending.contains(&address)
        {
            known.pool.give_back(address);
        }
    }

    /// Forgets a network's addresses: its ranges have changed, or it is gone.
    pub fn forget(&self, network: i64) {
        self.lock().remove(&network);
    }

    fn entry(&self, network: i64) -> Arc<Entry> {
        self.lock().entry(network).or_default().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the database when nothing is known, the network has other ranges than known, or nobody read since `stale`.
    /// Gives the number of reads.
    async fn ready(&self, entry: &Entry, db: &Db, view: &View, stale: Option<u64>) -> Result<u64, ApiError> {
        let shape: Vec<_> = view.spans.iter().map(|s| s.range).collect();
        let good = |known: &Option<Known>| {
            known.as_ref().filter(|k| k.shape == shape && stale.is_none_or(|s| k.reads != s)).map(|k| k.reads)
        };
        if let Some(reads) = good(&entry.lock()) {
            return Ok(reads);
        }
        let _loading = entry.loading.lock().await;
        if let Some(reads) = good(&entry.lock()) {
            return Ok(reads);
        }
        let in_use = nics::addresses(db, view.network.id).await?;
        let mut pool = Pool::new(shape.iter().copied());
        for number in in_use {
            if let Ok(address) = u32::try_from(number) {
                pool.take_this(address);
            }
        }
        for address in &view.reserved {
            pool.take_this(u32::from(*address));
        }
        let mut known = entry.lock();
        let (pending, reads) = known.take().map_or_else(Default::default, |k| (k.pending, k.reads));
        for address in &pending {
            pool.take_this(*address);
        }
        *known = Some(Known { pool, shape, pending, reads: reads + 1 });
        Ok(reads + 1)
    }
}

enum Found {
    Address(u32),
    Outside,
    /// With the number of reads that this rests on.
    Nothing(u64),
}

impl Entry {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, wanted: Option<u32>) -> Found {
        let mut known = self.lock();
        let Some(known) = known.as_mut() else { return Found::Nothing(0) };
        let taken = match wanted {
            None => known.pool.take(&mut rand::rng()),
            Some(address) => match known.pool.take_this(address) {
                Taken::Yours => Some(address),
                Taken::ByAnother => None,
                Taken::Outside => return Found::Outside,
            },
        };
        match taken {
            Some(address) => {
                known.pending.insert(address);
                Found::Address(address)
            }
            None => Found::Nothing(known.reads),
        }
    }
}

fn outside(view: &View, wanted: Option<Ipv4Addr>) -> ApiError {
    let ip = wanted.map(|ip| ip.to_string()).unwrap_or_default();
    let spans: Vec<String> = view.spans.iter().map(|s| s.range.to_string()).collect();
    ApiError::param(format!(
        "IP address {ip} can't be given in network {}: its guests get addresses of {}",
        view.network.title(),
        spans.join(", ")
    ))
    .with_entity(&view.network.uuid, "networkids")
}

fn exhausted(view: &View, wanted: Option<Ipv4Addr>) -> ApiError {
    match wanted {
        Some(ip) => {
            ApiError::param(format!("IP address {ip} of network {} is in use or reserved", view.network.title()))
        }
        None => ApiError::capacity(format!(
            "Insufficient address capacity: none of the {} addresses of network {} is free",
            view.size(),
            view.network.title()
        )),
    }
    .with_entity(&view.network.uuid, "networkids")
}
