//! Host names of VMs.

use contract::ApiError;

/// Checks a host name: RFC 1035 label that doesn't begin with a digit.
///
/// # Errors
/// 431 with the rule.
pub fn check(name: &str) -> Result<(), ApiError> {
    let ok = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && !name.ends_with('-');
    if ok {
        return Ok(());
    }
    Err(ApiError::param(
        "Invalid name. Vm name can contain ASCII letters 'a' through 'z', the digits '0' through '9', and the hyphen ('-'), \
         must be between 1 and 63 characters long, and can't start or end with \"-\" and can't start with digit",
    ))
}

/// The error when a network has a VM of that name.
pub fn taken(name: &str, network: &str) -> ApiError {
    ApiError::param(format!("The vm with hostName {name} already exists in the network {network}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn accepts_exactly_labels(name in "[a-zA-Z0-9-]{0,66}") {
            let label = !name.is_empty()
                && name.len() <= 63
                && name.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
                && !name.ends_with('-');
            prop_assert_eq!(check(&name).is_ok(), label);
        }

        #[test]
        fn refuses_everything_else(name in ".*[^a-zA-Z0-9-].*") {
            prop_assert!(check(&name).is_err());
        }
    }
}
