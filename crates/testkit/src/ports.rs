//! Ports that nobody listens on.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Mutex;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port on 127.0.0.1 that was free a moment ago, never given twice by this process.
pub fn free_port() -> u16 {
    free_ports(1)[0]
}

/// Several different free ports.
pub fn free_ports(n: usize) -> Vec<u16> {
    let mut given = GIVEN.lock().expect("the list of ports");
    let given = given.get_or_insert_default();
    // Held until all are found, so that the kernel doesn't offer one twice.
    let mut held = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < n {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        if given.insert(port) {
            ports.push(port);
        }
        held.push(listener);
    }
    ports
}
