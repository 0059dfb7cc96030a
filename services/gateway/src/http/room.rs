//! Room for connections: so many in all, and only a part of them for one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gates::site;

/// The places of one port.
pub struct Room {
    all: Arc<Semaphore>,
    of_one: usize,
    by_site: Mutex<HashMap<IpAddr, usize>>,
    trusted: Vec<IpNet>,
}

/// A connection's place, until dropped.
pub struct Place {
    room: Arc<Room>,
    site: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    /// `all` places, `of_one` of them for one address; proxies that are trusted may have all.
    pub fn new(all: usize, of_one: usize, trusted: &[IpNet]) -> Arc<Room> {
        Arc::new(Room {
            all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            of_one,
            by_site: Mutex::default(),
            trusted: trusted.to_vec(),
        })
    }

    /// A place for a connection of this peer; none when there is no room.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let permit = self.all.clone().try_acquire_owned().ok()?;
        let peer = peer.to_canonical();
        if self.trusted.iter().any(|net| net.contains(&peer)) {
            return Some(Place { room: self.clone(), site: None, _permit: permit });
        }
        let site = site(peer);
        let mut by_site = self.by_site.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by_site.entry(site).or_default();
        if *taken >= self.of_one {
            return None;
        }
        *taken += 1;
        Some(Place { room: self.clone(), site: Some(site), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(site) = self.site else { return };
        let mut by_site = self.room.by_site.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = by_site.get_mut(&site) {
            *taken -= 1;
            if *taken == 0 {
                by_site.remove(&site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_part() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let room = Room::new(4, 2, &["10.0.0.0/8".parse().unwrap()]);
        let a = [room.take(ip("192.0.2.1")), room.take(ip("192.0.2.1"))];
        assert!(a.iter().all(Option::is_some) && room.take(ip("192.0.2.1")).is_none());
        let proxy = [room.take(ip("10.0.0.1")), room.take(ip("10.0.0.1"))];
        assert!(proxy.iter().all(Option::is_some) && room.take(ip("192.0.2.2")).is_none());
        drop((a, proxy));
        assert!(room.take(ip("192.0.2.1")).is_some());
        assert!(room.by_site.lock().unwrap().is_empty());
    }
}
