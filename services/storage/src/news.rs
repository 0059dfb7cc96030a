//! News of hosts and pools: what the orchestrator tells of hosts that come, go or are given up, and this service of its pools.

use coord::{Coord, Notice, Subscription};

/// Where such news is told, for everybody's caches.
const TOPIC: &str = "placement";

/// Follows the news.
#[derive(Debug)]
pub struct News(Subscription);

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// This host.
    Host(i64),
    /// Some host or pool, or several: nobody knows which.
    Any,
}

impl News {
    /// The news from now on.
    pub fn of(coord: &Coord) -> News {
        News(coord.subscribe(TOPIC))
    }

    /// The next piece. It comes after the commit that it tells of, and may be lost when its teller is killed: whoever waits
    /// for something looks by himself now and then.
    pub async fn next(&mut self) -> Changed {
        loop {
            match self.0.next().await {
                Notice::Missed => return Changed::Any,
                Notice::Message(text) => {
                    if let Some(changed) = read(&text) {
                        return changed;
                    }
                }
            }
        }
    }

    /// The next piece that is, or may be, about this host.
    pub async fn about(&mut self, host: i64) {
        loop {
            match self.next().await {
                Changed::Host(id) if id != host => {}
                _ => return,
            }
        }
    }
}

/// What a message is about; none for what is neither a host nor a pool.
fn read(text: &str) -> Option<Changed> {
    match text.split_once('/') {
        Some(("host", id)) => Some(id.parse().map_or(Changed::Any, Changed::Host)),
        Some(("pool", _)) => Some(Changed::Any),
        Some(_) => None,
        None => Some(Changed::Any),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_a_host_names_it() {
        assert_eq!(read("host/7"), Some(Changed::Host(7)));
        assert_eq!(
            (read("all"), read("pool/7"), read("host/x")),
            (Some(Changed::Any), Some(Changed::Any), Some(Changed::Any))
        );
        assert_eq!(read("vm/7"), None);
    }
}
