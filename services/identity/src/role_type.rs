//! The four kinds of roles, and the account types that older clients know instead.

use contract::RoleType;

/// All kinds, from the most to the least powerful.
pub const ALL: [RoleType; 4] = [RoleType::Admin, RoleType::ResourceAdmin, RoleType::DomainAdmin, RoleType::User];

/// The kind that the API calls so.
pub fn parse(name: &str) -> Option<RoleType> {
    ALL.into_iter().find(|t| self::name(*t).eq_ignore_ascii_case(name))
}

/// What the API calls it.
pub fn name(role: RoleType) -> &'static str {
    match role {
        RoleType::Admin => "Admin",
        RoleType::ResourceAdmin => "ResourceAdmin",
        RoleType::DomainAdmin => "DomainAdmin",
        RoleType::User => "User",
        RoleType::Unspecified => "Unknown",
    }
}

/// The account type of accounts with such a role.
pub fn account_type(role: RoleType) -> i32 {
    match role {
        RoleType::Admin => 1,
        RoleType::ResourceAdmin => 3,
        RoleType::DomainAdmin => 2,
        RoleType::User | RoleType::Unspecified => 0,
    }
}

/// The kind of role that accounts of this type have.
pub fn of_account_type(account_type: i64) -> Option<RoleType> {
    ALL.into_iter().find(|t| i64::from(self::account_type(*t)) == account_type)
}

/// How far its power reaches: 0 is the most.
pub fn rank(role: RoleType) -> usize {
    ALL.iter().position(|t| *t == role).unwrap_or(ALL.len())
}

/// The number of the built-in role of this kind.
pub fn built_in(role: RoleType) -> i64 {
    match role {
        RoleType::Admin => 1,
        RoleType::ResourceAdmin => 2,
        RoleType::DomainAdmin => 3,
        RoleType::User | RoleType::Unspecified => 4,
    }
}

/// The kind as a bit: 1, 2, 4, 8.
pub fn bit(role: RoleType) -> u8 {
    match role {
        RoleType::Unspecified => 0,
        other => 1 << rank(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_types_and_kinds_belong_together() {
        assert_eq!(ALL.map(account_type), [1, 3, 2, 0]);
        assert_eq!(ALL.map(bit), [1, 2, 4, 8]);
        for role in ALL {
            assert_eq!(parse(name(role)), Some(role));
            assert_eq!(of_account_type(i64::from(account_type(role))), Some(role));
        }
        assert_eq!(of_account_type(5), None);
    }
}
