//! Which limit is in force: the one that was set, else one from above, else the setting.

use crate::resource::{Resource, finite};
use crate::store::limits::{Count, Figures, Of};
use config::Settings;

/// Limits and counts of some owners.
#[derive(Clone)]
pub struct Ceilings {
    figures: Figures,
    settings: Settings,
}

/// The numbers of a domain and of those above it, from the root: "/1/5/" is [1, 5].
pub fn chain(path: &str) -> Vec<i64> {
    path.split('/').filter_map(|part| part.parse().ok()).collect()
}

const ROOT: i64 = 1;

impl Ceilings {
    pub(super) fn new(figures: Figures, settings: &Settings) -> Ceilings {
        Ceilings { figures, settings: settings.clone() }
    }

    fn set(&self, of: Of, resource: Resource) -> Option<i64> {
        self.figures.limits.get(&(of, resource.number())).copied()
    }

    /// What an owner uses; a domain only where it is counted.
    pub fn count(&self, of: Of, resource: Resource) -> Option<Count> {
        self.figures.counts.get(&(of, resource.number())).copied()
    }

    /// What an account may have. Root administrators may have everything.
    pub fn account(&self, account: i64, root_admin: bool, resource: Resource) -> Option<i64> {
        if root_admin {
            return None;
        }
        match self.set(Of::Account(account), resource) {
            Some(max) => finite(max),
            None => resource.account_default(&self.settings),
        }
    }

    /// What a domain may have, as it is shown: its own limit, the nearest one above (the root's aside), or the setting.
    pub fn domain(&self, chain: &[i64], resource: Resource) -> Option<i64> {
        let (&id, above) = chain.split_last()?;
        if let Some(max) = self.set(Of::Domain(id), resource) {
            return finite(max);
        }
        if id == ROOT {
            return None;
        }
        match self.nearest(above, resource) {
            Some(max) => finite(max),
            None => resource.domain_default(&self.settings),
        }
    }

    /// The limit that is checked at this very domain: one that was set above is checked there.
    pub fn checked_at(&self, chain: &[i64], resource: Resource) -> Option<i64> {
        let (&id, above) = chain.split_last()?;
        match self.set(Of::Domain(id), resource) {
            Some(max) => finite(max),
            None if id == ROOT || self.nearest(above, resource).is_some() => None,
            None => resource.domain_default(&self.settings),
        }
    }

    fn nearest(&self, above: &[i64], resource: Resource) -> Option<i64> {
        above.iter().rev().filter(|id| **id != ROOT).find_map(|id| self.set(Of::Domain(*id), resource))
    }
}
