//! What a role's rules let through, and whether one role would give more than another.

use crate::role_type;
use contract::RoleType;
use std::collections::HashMap;
use std::sync::LazyLock;

/// All commands of the API with the role types that may call them where no rule decides: `name bits` a line.
const COMMANDS: &str = include_str!("../data/commands.txt");

static AUTHORIZED: LazyLock<HashMap<&'static str, u8>> = LazyLock::new(|| {
    COMMANDS
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, bits)| (name, bits.parse().unwrap_or(0)))
        .collect()
});

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Letters, digits and `*`.
    pub pattern: String,
    /// Whether what it matches may be called.
    pub allow: bool,
}

/// A role as far as access goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Number of the role.
    pub id: i64,
    /// Its kind.
    pub kind: RoleType,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

impl Rights {
    /// Whether the role lets a command through (api/README, "Access by role").
    pub fn allow(&self, command: &str) -> bool {
        if self.id == 1 {
            return true;
        }
        match self.rules.iter().find(|r| matches(&r.pattern, command)) {
            Some(rule) => rule.allow,
            None => AUTHORIZED.get(command).is_some_and(|bits| bits & role_type::bit(self.kind) != 0),
        }
    }

    /// A command that this role lets through although neither `giver` does nor the built-in role of this kind:
    /// nobody may hand out such a role.
    pub fn beyond<'a>(&'a self, giver: &Rights, built_in: &Rights) -> Option<&'a str> {
        let named = self.rules.iter().filter(|r| r.allow && !r.pattern.contains('*')).map(|r| r.pattern.as_str());
        AUTHORIZED.keys().copied().chain(named).find(|c| self.allow(c) && !giver.allow(c) && !built_in.allow(c))
    }
}

/// Whether a rule may be written so.
pub fn is_valid(pattern: &str) -> bool {
    !pattern.is_empty() && pattern.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'*')
}

/// Whether a rule's pattern matches a whole command name; `*` stands for any run of letters, digits or `_`.
pub fn matches(pattern: &str, command: &str) -> bool {
    let (p, c) = (pattern.as_bytes(), command.as_bytes());
    if !c.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        return false;
    }
    let (mut i, mut j) = (0, 0);
    // Where to go on when the text after the last `*` doesn't fit: the star takes one character more.
    let mut star: Option<(usize, usize)> = None;
    while j < c.len() {
        if i < p.len() && p[i] == b'*' {
            star = Some((i, j));
            i += 1;
        } else if i < p.len() && p[i].eq_ignore_ascii_case(&c[j]) {
            i += 1;
            j += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            i = at + 1;
            j = taken + 1;
        } else {
            return false;
        }
    }
    p[i..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rights(id: i64, kind: RoleType, rules: &[(&str, bool)]) -> Rights {
        let rules = rules.iter().map(|(p, allow)| Rule { pattern: (*p).to_owned(), allow: *allow }).collect();
        Rights { id, kind, rules }
    }

    #[test]
    fn stars_match_any_run_and_case_does_not_count() {
        for (pattern, command, expected) in [
            ("*", "listZones", true),
            ("LISTZ*", "listZones", true),
            ("list*s", "listZones", true),
            ("list*s", "listZone", false),
            ("l*t*s", "listZones", true),
            ("listZones", "listZones", true),
            ("listZones", "listZonesMetrics", false),
            ("*Zones", "listZones", true),
            ("list*", "list_x", true),
            ("*", "", true),
            ("list*", "list x", false),
        ] {
            assert_eq!(matches(pattern, command), expected, "{pattern} {command}");
        }
        assert!(is_valid("list*") && is_valid("a1"));
        assert!(!is_valid("list-*") && !is_valid("") && !is_valid("a b") && !is_valid("a_b"));
    }

    #[test]
    fn the_first_match_decides_and_defaults_follow() {
        let role = rights(9, RoleType::User, &[("listVirtualMachines", false), ("list*", true)]);
        assert!(!role.allow("listVirtualMachines"));
        assert!(role.allow("listVolumes"));
        let turned = rights(9, RoleType::User, &[("list*", true), ("listVirtualMachines", false)]);
        assert!(turned.allow("listVirtualMachines"));
        let bare = rights(9, RoleType::User, &[]);
        assert!(bare.allow("getUserKeys") && !bare.allow("addHost") && !bare.allow("createDomain"));
        assert!(rights(1, RoleType::Admin, &[("*", false)]).allow("addHost"));
    }

    #[test]
    fn nobody_hands_out_more_than_he_has() {
        let built_in = rights(4, RoleType::User, &[("list*", true)]);
        let giver = rights(3, RoleType::DomainAdmin, &[("list*", true), ("createAccount", true)]);
        assert_eq!(rights(9, RoleType::User, &[("listZones", true)]).beyond(&giver, &built_in), None);
        assert_eq!(rights(9, RoleType::User, &[("addHost", true)]).beyond(&giver, &built_in), Some("addHost"));
        assert!(rights(9, RoleType::User, &[("add*", true)]).beyond(&giver, &built_in).is_some());
        assert_eq!(
            rights(9, RoleType::User, &[("laterCommand", true)]).beyond(&giver, &built_in),
            Some("laterCommand")
        );
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[aB*]{0,6}", command in "[ab]{0,6}") {
            fn slow(p: &[u8], c: &[u8]) -> bool {
                match p.first() {
                    None => c.is_empty(),
                    Some(b'*') => (0..=c.len()).any(|n| slow(&p[1..], &c[n..])),
                    Some(b) => c.first().is_some_and(|x| x.eq_ignore_ascii_case(b)) && slow(&p[1..], &c[1..]),
                }
            }
            prop_assert_eq!(matches(&pattern, &command), slow(pattern.as_bytes(), command.as_bytes()));
        }
    }
}
