//! What settings there are.

#[rustfmt::skip] // one setting a line
mod table;

use std::collections::HashMap;
use std::sync::LazyLock;

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// Number with a fraction.
    Float,
    /// `true` or `false`.
    Bool,
    /// Any text.
    Text,
}

/// The scope in which a setting may differ from its global value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeKind {
    /// Only global.
    Global,
    /// By zone.
    Zone,
    /// By cluster.
    Cluster,
    /// By primary storage pool.
    Pool,
    /// By account.
    Account,
    /// By domain.
    Domain,
    /// By image store.
    ImageStore,
}

impl ScopeKind {
    const ALL: [ScopeKind; 7] = [
        ScopeKind::Global,
        ScopeKind::Zone,
        ScopeKind::Cluster,
        ScopeKind::Pool,
        ScopeKind::Account,
        ScopeKind::Domain,
        ScopeKind::ImageStore,
    ];

    /// The word that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            ScopeKind::Global => "global",
            ScopeKind::Zone => "zone",
            ScopeKind::Cluster => "cluster",
            ScopeKind::Pool => "storagepool",
            ScopeKind::Account => "account",
            ScopeKind::Domain => "domain",
            ScopeKind::ImageStore => "imagestore",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<ScopeKind> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name, "expunge.delay".
    pub name: &'static str,
    /// Category, "Advanced".
    pub category: &'static str,
    /// How its value is read.
    pub kind: Kind,
    /// The value when nobody has set one.
    pub default: Option<&'static str>,
    /// The value of a fresh installation, where it isn't the default: this is what counts until somebody sets one.
    pub initial: Option<Option<&'static str>>,
    /// Where it may differ.
    pub scope: ScopeKind,
    /// The part that it belongs to, as 4.11 names it.
    pub component: Option<&'static str>,
    /// 4.11 reads it again without a restart (Arcus does so with all).
    pub dynamic: bool,
    /// The values that it takes: a list, or `low-high`, or the name of a form.
    pub range: Option<&'static str>,
    /// It is never listed.
    pub hidden: bool,
    /// It is stored encrypted.
    pub encrypted: bool,
}

impl Setting {
    /// The value while nobody has set one.
    pub fn unset_value(&self) -> Option<&'static str> {
        self.initial.unwrap_or(self.default)
    }

    /// Whether code of this build reads it: the others are only kept.
    pub fn effective(&self) -> bool {
        crate::keys::NAMES.contains(&self.name)
    }

    /// One sentence for people; empty where there is none yet.
    pub fn description(&self) -> &'static str {
        crate::keys::description(self.name)
    }

    const fn dynamic(mut self) -> Self {
        self.dynamic = true;
        self
    }

    const fn initial(mut self, value: Option<&'static str>) -> Self {
        self.initial = Some(value);
        self
    }

    const fn range(mut self, range: &'static str) -> Self {
        self.range = Some(range);
        self
    }

    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    const fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }
}

const fn setting(
    name: &'static str,
    category: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    scope: ScopeKind,
    component: Option<&'static str>,
) -> Setting {
    Setting {
        name,
        category,
        kind,
        default,
        initial: None,
        scope,
        component,
        dynamic: false,
        range: None,
        hidden: false,
        encrypted: false,
    }
}

/// Names that the documentation spells otherwise than the system does.
const ALIASES: &[(&str, &str)] = &[
    ("max.project.publicip", "max.project.public.ips"),
    ("max.project.snapshot", "max.project.snapshots"),
    ("max.project.template", "max.project.templates"),
    ("max.project.uservm", "max.project.user.vms"),
    ("max.project.volume", "max.project.volumes"),
];

static BY_NAME: LazyLock<HashMap<&'static str, &'static Setting>> =
    LazyLock::new(|| table::TABLE.iter().map(|s| (s.name, s)).collect());
static LISTED: LazyLock<Vec<Setting>> = LazyLock::new(|| table::TABLE.iter().filter(|s| !s.hidden).copied().collect());

/// The setting of this name, hidden ones included. Misspelt names of the documentation lead to the real one.
pub fn find(name: &str) -> Option<&'static Setting> {
    BY_NAME.get(aliased(name).unwrap_or(name)).copied()
}

/// The real name, when `name` is one that only the documentation has.
pub fn aliased(name: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, real)| *real)
}

/// All settings that may be listed, by name.
pub(crate) fn listed() -> &'static [Setting] {
    &LISTED
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::validate::check;

    #[test]
    fn the_table_is_sound() {
        assert_eq!(BY_NAME.len(), table::TABLE.len(), "names are unique");
        assert!(table::TABLE.is_sorted_by_key(|s| s.name));
        for s in table::TABLE {
            for value in [s.default, s.unset_value()].into_iter().flatten() {
                if !value.is_empty() {
                    check(s, value).unwrap_or_else(|e| panic!("{} = {value}: {e}", s.name));
                }
            }
        }
        for (_, real) in ALIASES {
            assert!(BY_NAME.contains_key(real));
        }
    }
}
