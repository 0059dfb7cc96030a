//! The limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as a gateway has connections at most (`[gateway.limits]`) on both ports, and what else is open.
const WANTED: u64 = 65_536;

/// Raises this process's limit to what it may need, as far as the system allows: a shell's usual 1,024 are fewer than the
/// connections that a gateway lets in.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(WANTED, |most| most.min(WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        // Refused, it goes on with fewer: accepting says so when they are used up.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}
