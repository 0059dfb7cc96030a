//! How many consoles a replica serves.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use telemetry::metrics::{self, Counters, Gauges};

/// Consoles that a replica serves at most, whatever the setting says: each is a stream on a connection with an orchestrator
/// on which requests need places, too.
const MOST: usize = 128;

static OPEN: LazyLock<Gauges> = LazyLock::new(|| metrics::gauges("console_sessions", "Consoles that are open"));
static ENDED: LazyLock<Counters> =
    LazyLock::new(|| metrics::counters("console_sessions_ended", "Consoles that were open, by what ended them"));
static REFUSED: LazyLock<Counters> =
    LazyLock::new(|| metrics::counters("console_refused", "Connections to consoles that were refused, by reason"));

/// Open consoles by account.
#[derive(Default)]
pub struct Places(Mutex<HashMap<i64, usize>>);

/// A console is counted until this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    account: i64,
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Places").field(&*self.open()).finish()
    }
}

/// Counts one that ended.
pub fn ended(why: &'static str) {
    ENDED.get_or_create(&vec![("why", why.to_owned())]).inc();
}

/// Counts one that wasn't opened.
pub fn refused(why: &'static str) {
    REFUSED.get_or_create(&vec![("why", why.to_owned())]).inc();
}

impl Places {
    fn open(&self) -> MutexGuard<'_, HashMap<i64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this account, which may have half of the `most` of the setting.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn take(self: &Arc<Self>, account: i64, most: i64) -> Result<Place, &'static str> {
        let most = usize::try_from(most).unwrap_or(0).min(MOST);
        let mut open = self.open();
        if open.values().sum::<usize>() >= most {
            return Err("too many consoles are open: try again later");
        }
        let own = open.entry(account).or_default();
        if *own >= most.div_ceil(2) {
            return Err("too many consoles of this account are open: close one of them");
        }
        *own += 1;
        show(&open);
        Ok(Place { places: self.clone(), account })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open();
        if let Some(own) = open.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.account);
            }
        }
        show(&open);
    }
}

fn show(open: &HashMap<i64, usize>) {
    OPEN.get_or_create(&Vec::new()).set(i64::try_from(open.values().sum::<usize>()).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_half_and_what_ends_is_free_again() {
        let places = Arc::new(Places::default());
        let mut held: Vec<Place> = (0..2).map(|_| places.take(1, 3).unwrap()).collect();
        assert!(places.take(1, 3).unwrap_err().contains("of this account"));
        held.push(places.take(2, 3).unwrap());
        assert!(places.take(3, 3).unwrap_err().contains("too many consoles are open"));
        held.remove(0);
        held.push(places.take(1, 3).unwrap());
        drop(held);
        assert!(places.open().is_empty());
        assert!(places.take(1, 0).is_err() && places.take(1, -1).is_err());
        let all: Vec<_> = (0..400).map_while(|n| places.take(n, 100_000).ok()).collect();
        assert_eq!(all.len(), MOST);
    }
}
