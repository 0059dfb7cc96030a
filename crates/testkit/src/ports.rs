//! Ports that nobody listens on.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;
use std::sync::Mutex;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// Below those that the kernel takes for outgoing connections (32768 and up): a killed server finds its port free again.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// A port on 127.0.0.1 that was free a moment ago, never given twice by this process.
pub fn free_port() -> u16 {
    free_ports(1)[0]
}

/// Several different free ports.
pub fn free_ports(n: usize) -> Vec<u16> {
    let mut given = GIVEN.lock().expect("the list of ports");
    let given = given.get_or_insert_default();
    let mut ports = Vec::new();
    for _ in 0..10_000 {
        if ports.len() == n {
            return ports;
        }
        let port = FIRST + u16::try_from(random() % u64::from(LAST - FIRST)).expect("a small number");
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            ports.push(port);
        }
    }
    panic!("no {n} ports between {FIRST} and {LAST} are free");
}

/// Keeps ports that belong to somebody who isn't there yet from being given.
pub(crate) fn reserve(ports: &[u16]) {
    GIVEN.lock().expect("the list of ports").get_or_insert_default().extend(ports);
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
