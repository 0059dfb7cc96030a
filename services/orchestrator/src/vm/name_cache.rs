//! Names of what VMs refer to, at most a second old. Pages of VMs are the most frequent question of all, and name the same
//! zone, offering and template again and again: joining those tables for each row costs more than the rest of the answer.

use crate::store::vm_names::{self, Kind, Named};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use store::{Db, Result};

/// How old a name may be.
const AGE: Duration = Duration::from_secs(1);
/// Most names kept.
const MOST: usize = 100_000;

type Entry = (Instant, Arc<Named>);

/// The cache. Cheap to clone.
#[derive(Clone, Default)]
pub struct NameCache(Arc<RwLock<HashMap<(Kind, i64), Entry>>>);

/// The names of one page.
#[derive(Default)]
pub struct Names(HashMap<(Kind, i64), Arc<Named>>);

impl Names {
    /// A row's UUID and names.
    pub fn get(&self, kind: Kind, id: Option<i64>) -> Option<&Named> {
        self.0.get(&(kind, id?)).map(Arc::as_ref)
    }
}

impl NameCache {
    /// The names of these rows, removed ones included: one query for each kind of which something isn't known.
    pub async fn all(&self, db: &Db, wanted: impl IntoIterator<Item = (Kind, i64)>) -> Result<Names> {
        let mut names = Names::default();
        let mut missing: HashMap<Kind, Vec<i64>> = HashMap::new();
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            for key in wanted {
                if names.0.contains_key(&key) {
                    continue;
                }
                match known.get(&key).filter(|(read, _)| read.elapsed() < AGE) {
                    Some((_, named)) => drop(names.0.insert(key, named.clone())),
                    None => missing.entry(key.0).or_default().push(key.1),
                }
            }
        }
        for (kind, mut ids) in missing {
            ids.sort_unstable();
            ids.dedup();
            let found = vm_names::named(db, kind, ids).await?;
            let now = Instant::now();
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() > MOST {
                known.clear();
            }
            for (id, named) in found {
                let named = Arc::new(named);
                known.insert((kind, id), (now, named.clone()));
                names.0.insert((kind, id), named);
            }
        }
        Ok(names)
    }
}
