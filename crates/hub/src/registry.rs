//! Which hosts are connected with this replica, and how.

use crate::link::Link;
use contract_agent::{AgentKind, HostUp};
use model::HostId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A connected host.
#[derive(Clone)]
pub(crate) struct Connected {
    pub id: HostId,
    pub uuid: String,
    pub conn_epoch: i64,
    pub link: Arc<Link>,
}

#[derive(Default)]
pub(crate) struct Registry(Mutex<State>);

#[derive(Default)]
struct State {
    hosts: HashMap<HostId, Connected>,
    ids: HashMap<String, HostId>,
    factories: HashMap<u64, Arc<Link>>,
    /// Digest of the last report of a host; outlives its connection.
    digests: HashMap<String, Vec<u8>>,
    /// Agents of machines that no host was added for, with what they said; by UUID.
    waiting: HashMap<String, (Arc<Link>, HostUp)>,
}

impl Registry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn host(&self, id: HostId) -> Option<Connected> {
        self.state().hosts.get(&id).cloned()
    }

    /// The connected host with this UUID, when it is this link that it came by.
    pub fn of_link(&self, uuid: &str, link: &Link) -> Option<HostId> {
        let state = self.state();
        let host = state.hosts.get(state.ids.get(uuid)?)?;
        (host.link.id == link.id).then_some(host.id)
    }

    pub fn by_uuid(&self, uuid: &str) -> Option<Connected> {
        let state = self.state();
        state.hosts.get(state.ids.get(uuid)?).cloned()
    }

    /// Notes an agent that waits for its host to be added.
    pub fn wait(&self, link: &Arc<Link>, up: &HostUp) {
        self.state().waiting.insert(up.host_uuid.clone(), (link.clone(), up.clone()));
    }

    /// The agents that wait.
    pub fn waiting(&self) -> Vec<(Arc<Link>, HostUp)> {
        self.state().waiting.values().cloned().collect()
    }

    /// Ends the wait of an agent, whatever its line.
    pub fn end_wait(&self, uuid: &str) {
        self.state().waiting.remove(uuid);
    }

    /// Ends the wait of the agent of this line; gives its UUID.
    pub fn end_wait_of(&self, link: &Link) -> Vec<String> {
        let mut ended = Vec::new();
        self.state().waiting.retain(|uuid, (line, _)| {
            let stays = line.id != link.id;
            if !stays {
                ended.push(uuid.clone());
            }
            stays
        });
        ended
    }

    pub fn hosts(&self) -> Vec<Connected> {
        self.state().hosts.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.state().hosts.len()
    }

    /// Puts a host in; gives the one whose place it takes.
    pub fn insert(&self, host: Connected) -> Option<Connected> {
        let mut state = self.state();
        state.ids.insert(host.uuid.clone(), host.id);
        state.hosts.insert(host.id, host)
    }

    /// Takes hosts out that came by this link: all of them, or those named.
    pub fn remove(&self, link: &Link, uuids: Option<&[String]>) -> Vec<Connected> {
        let mut state = self.state();
        let ids: Vec<HostId> = match uuids {
            Some(uuids) => uuids.iter().filter_map(|uuid| state.ids.get(uuid).copied()).collect(),
            None => state.hosts.values().filter(|h| h.link.id == link.id).map(|h| h.id).collect(),
        };
        let mut removed = Vec::with_capacity(ids.len());
        for id in ids {
            if state.hosts.get(&id).is_some_and(|h| h.link.id == link.id)
                && let Some(host) = state.hosts.remove(&id)
            {
                state.ids.remove(&host.uuid);
                removed.push(host);
            }
        }
        removed
    }

    pub fn add_factory(&self, link: &Arc<Link>) {
        if link.kind == AgentKind::Factory {
            self.state().factories.insert(link.id, link.clone());
        }
    }

    pub fn remove_factory(&self, link: &Link) {
        self.state().factories.remove(&link.id);
    }

    pub fn factories(&self) -> Vec<Arc<Link>> {
        self.state().factories.values().cloned().collect()
    }

    /// The factory that has this host already, else the one with the fewest hosts.
    pub fn factory_for(&self, host_uuid: &str) -> Option<Arc<Link>> {
        let state = self.state();
        if let Some(host) = state.ids.get(host_uuid).and_then(|id| state.hosts.get(id))
            && state.factories.contains_key(&host.link.id)
        {
            return Some(host.link.clone());
        }
        let mut load: HashMap<u64, usize> = state.factories.keys().map(|id| (*id, 0)).collect();
        for host in state.hosts.values() {
            if let Some(n) = load.get_mut(&host.link.id) {
                *n += 1;
            }
        }
        let (least, _) = load.into_iter().min_by_key(|(id, n)| (*n, *id))?;
        state.factories.get(&least).cloned()
    }

    /// Whether the last report that came of this host had this digest.
    pub fn knows_report(&self, uuid: &str, digest: &[u8]) -> bool {
        self.state().digests.get(uuid).is_some_and(|known| known == digest)
    }

    pub fn reported(&self, uuid: &str, digest: Vec<u8>) {
        self.state().digests.insert(uuid.to_owned(), digest);
    }

    pub fn forget_report(&self, uuid: &str) {
        self.state().digests.remove(uuid);
    }
}
