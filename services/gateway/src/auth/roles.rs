//! Which commands a role may call (api/README, "Access by role").

use contract::{CommandInfo, RoleType};
use contract_identity::RoleRules;

use crate::catalogue::Catalogue;

/// The built-in role that may call everything.
const ROOT: i64 = 1;

/// What a role says about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be called.
    Allowed,
    /// A rule denies it.
    Denied,
    /// No rule allows it.
    Unavailable,
}

/// A role, with the decision for each command.
pub struct Role {
    decisions: Vec<Decision>,
}

impl Role {
    /// Decides for all commands, so that a request only looks the answer up.
    pub fn new(rules: &RoleRules, catalogue: &Catalogue) -> Role {
        let role_type = rules.r#type();
        let lower: Vec<(String, bool)> = rules.rules.iter().map(|r| (r.rule.to_lowercase(), r.allow)).collect();
        let decide = |info: &CommandInfo| {
            if rules.id == ROOT && role_type == RoleType::Admin {
                return Decision::Allowed;
            }
            let name = info.name.to_lowercase();
            match lower.iter().find(|(rule, _)| matches(rule.as_bytes(), name.as_bytes())) {
                Some((_, true)) => Decision::Allowed,
                Some((_, false)) => Decision::Denied,
                None if info.authorized.contains(&role_type) => Decision::Allowed,
                None => Decision::Unavailable,
            }
        };
        Role { decisions: catalogue.entries().iter().map(|e| decide(&e.info)).collect() }
    }

    /// The decision for the command with this index in the catalogue.
    pub fn decision(&self, index: usize) -> Decision {
        self.decisions.get(index).copied().unwrap_or(Decision::Unavailable)
    }
}

/// Without roles' rules (setting `dynamic.apichecker.enabled` false), the contract's own lists decide.
pub fn static_decision(info: &CommandInfo, role_type: RoleType) -> Decision {
    if info.roles.contains(&role_type) || info.authorized.contains(&role_type) {
        Decision::Allowed
    } else {
        Decision::Unavailable
    }
}

/// Whether a rule covers the whole name: `*` stands for any run of letters, digits and `_`.
fn matches(rule: &[u8], name: &[u8]) -> bool {
    let (mut r, mut n) = (0, 0);
    // Where to go on after the last star: it takes one more character each time.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if rule.get(r) == Some(&b'*') {
            star = Some((r + 1, n));
            r += 1;
        } else if rule.get(r) == name.get(n) {
            (r, n) = (r + 1, n + 1);
        } else {
            let Some((after, taken)) = star else { return false };
            if !name.get(taken).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
                return false;
            }
            star = Some((after, taken + 1));
            (r, n) = (after, taken + 1);
        }
    }
    rule.iter().skip(r).all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract_identity::RoleRule;
    use proptest::prelude::*;

    #[test]
    fn stars_cover_runs() {
        for (rule, name) in [
            ("*", "listvms"),
            ("list*", "listvms"),
            ("*vms", "listvms"),
            ("l*t*s", "listvms"),
            ("listvms", "listvms"),
            ("list*", "list"),
        ] {
            assert!(matches(rule.as_bytes(), name.as_bytes()), "{rule} {name}");
        }
        for (rule, name) in
            [("", "listvms"), ("list", "listvms"), ("list*x", "listvms"), ("*", "list.vms"), ("vms*", "listvms")]
        {
            assert!(!matches(rule.as_bytes(), name.as_bytes()), "{rule} {name}");
        }
    }

    proptest! {
        #[test]
        fn as_a_backtracking_matcher_says(rule in "[ab*]{0,8}", name in "[ab]{0,10}") {
            fn slow(rule: &[u8], name: &[u8]) -> bool {
                match rule.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|n| slow(rest, &name[n..])),
                    Some((c, rest)) => name.first() == Some(c) && slow(rest, &name[1..]),
                }
            }
            prop_assert_eq!(matches(rule.as_bytes(), name.as_bytes()), slow(rule.as_bytes(), name.as_bytes()));
        }
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let catalogue = Catalogue::embedded().unwrap();
        let rules = |id, r#type: RoleType, rules: &[(&str, bool)]| RoleRules {
            id,
            name: "r".into(),
            r#type: r#type.into(),
            rules: rules.iter().map(|(rule, allow)| RoleRule { rule: (*rule).into(), allow: *allow }).collect(),
        };
        let decide = |rules: &RoleRules, command: &str| {
            Role::new(rules, &catalogue).decision(catalogue.command(command).unwrap().index)
        };
        let user = rules(4, RoleType::User, &[("listZ*", true), ("LIST*", false), ("*", true)]);
        assert_eq!(decide(&user, "listZones"), Decision::Allowed);
        assert_eq!(decide(&user, "listHosts"), Decision::Denied);
        assert_eq!(decide(&user, "createZone"), Decision::Allowed);
        let none = rules(9, RoleType::User, &[]);
        assert_eq!(decide(&none, "listZones"), Decision::Unavailable);
        assert_eq!(decide(&none, "listApis"), Decision::Allowed);
        let root = rules(1, RoleType::Admin, &[("*", false)]);
        assert_eq!(decide(&root, "createZone"), Decision::Allowed);
        let other_admin = rules(7, RoleType::Admin, &[("createZone", false)]);
        assert_eq!(decide(&other_admin, "createZone"), Decision::Denied);
    }
}
