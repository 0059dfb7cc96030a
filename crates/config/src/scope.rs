//! Where a value applies.

use crate::ScopeKind;

/// Where a value applies. A value that a scope doesn't have falls back to the global one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// One zone.
    Zone(i64),
    /// One cluster.
    Cluster(i64),
    /// One primary storage pool.
    Pool(i64),
    /// One account.
    Account(i64),
    /// One domain.
    Domain(i64),
    /// One image store.
    ImageStore(i64),
}

impl Scope {
    /// The kind of scope.
    pub fn kind(self) -> ScopeKind {
        match self {
            Scope::Global => ScopeKind::Global,
            Scope::Zone(_) => ScopeKind::Zone,
            Scope::Cluster(_) => ScopeKind::Cluster,
            Scope::Pool(_) => ScopeKind::Pool,
            Scope::Account(_) => ScopeKind::Account,
            Scope::Domain(_) => ScopeKind::Domain,
            Scope::ImageStore(_) => ScopeKind::ImageStore,
        }
    }

    /// Number of the zone, cluster and so on; 0 for global.
    pub fn id(self) -> i64 {
        match self {
            Scope::Global => 0,
            Scope::Zone(id)
            | Scope::Cluster(id)
            | Scope::Pool(id)
            | Scope::Account(id)
            | Scope::Domain(id)
            | Scope::ImageStore(id) => id,
        }
    }

    /// Reads what the database keeps.
    pub(crate) fn from_row(kind: &str, id: i64) -> Option<Scope> {
        Some(match ScopeKind::parse(kind)? {
            ScopeKind::Global => Scope::Global,
            ScopeKind::Zone => Scope::Zone(id),
            ScopeKind::Cluster => Scope::Cluster(id),
            ScopeKind::Pool => Scope::Pool(id),
            ScopeKind::Account => Scope::Account(id),
            ScopeKind::Domain => Scope::Domain(id),
            ScopeKind::ImageStore => Scope::ImageStore(id),
        })
    }
}
