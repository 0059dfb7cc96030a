//! The agent's state file: typed entries over the [`crate::log`].
//!
//! Whoever changes state does so within a [`Section`]: the change in memory and its record get the same place in the
//! order of things, and a snapshot (which replaces the file when it has grown) never falls in between.

use crate::log::{Log, Ticket};
use contract::ApiError;
use contract_agent::state_entry::Body;
use contract_agent::{StateBatch, StateEntry};
use prost::Message as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// A file that is smaller isn't worth a snapshot.
const SMALL: u64 = 16 * 1024 * 1024;
/// Entries of one record of a snapshot.
const CHUNK: usize = 256;

pub(crate) struct Journal {
    log: Log,
    /// Read by sections, written by snapshots.
    gate: RwLock<()>,
    /// The size at which the next snapshot is due.
    due: AtomicU64,
}

/// The right to change state. Never held across an await.
pub(crate) struct Section<'j> {
    journal: &'j Journal,
    _open: RwLockReadGuard<'j, ()>,
}

impl Journal {
    /// Opens the state file of a folder, and gives what is in it.
    pub fn open(dir: &Path, durable: bool) -> Result<(Journal, Vec<Body>), ApiError> {
        let unusable = |e: &dyn std::fmt::Display| {
            ApiError::internal(format!("the agent's state in {} can't be used: {e}", dir.display()))
        };
        let (log, records) = Log::open(dir, "state.log", durable).map_err(|e| unusable(&e))?;
        let mut entries = Vec::new();
        for record in records {
            let batch = StateBatch::decode(record.as_slice()).map_err(|e| unusable(&e))?;
            entries.extend(batch.entries.into_iter().filter_map(|entry| entry.body));
        }
        let due = AtomicU64::new(SMALL.max(log.size() * 4));
        Ok((Journal { log, gate: RwLock::new(()), due }, entries))
    }

    /// Begins a change of state.
    pub fn section(&self) -> Section<'_> {
        Section { journal: self, _open: self.gate.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Whether the file has grown so much that a snapshot is due.
    pub fn is_due(&self) -> bool {
        self.log.size() >= self.due.load(Ordering::Relaxed)
    }

    /// Replaces the file by what `collect` gives: everything that is to be kept.
    pub fn snapshot(&self, collect: impl FnOnce() -> Vec<Body>) {
        let _closed = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut entries = collect().into_iter().map(|body| StateEntry { body: Some(body) });
        let mut records = Vec::new();
        loop {
            let batch = StateBatch { entries: entries.by_ref().take(CHUNK).collect() };
            if batch.entries.is_empty() {
                break;
            }
            records.push(batch.encode_to_vec());
        }
        let size: usize = records.iter().map(Vec::len).sum();
        self.due.store(SMALL.max(size as u64 * 4), Ordering::Relaxed);
        self.log.rewrite(records.iter().map(Vec::as_slice));
    }

    /// Whether the file can't be written any more: then the agent must end.
    pub fn has_failed(&self) -> bool {
        self.log.has_failed()
    }
}

impl Section<'_> {
    /// Writes what the change was: all of it or, after a kill, nothing.
    pub fn write(&self, entries: Vec<Body>) -> Ticket {
        let entries = entries.into_iter().map(|body| StateEntry { body: Some(body) }).collect();
        self.journal.log.append(&StateBatch { entries }.encode_to_vec())
    }
}
