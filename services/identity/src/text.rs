//! Checks of names and other texts that requests give.

use contract::ApiError;

/// Longest path of domain names and longest path of numbers that a row keeps.
pub const NAME_PATH: usize = 2000;
/// As [`NAME_PATH`], for paths of numbers.
pub const ID_PATH: usize = 255;

/// A text that must have something in it.
///
/// # Errors
/// 431 when it is blank.
pub fn filled<'a>(text: Option<&'a str>, what: &str) -> Result<&'a str, ApiError> {
    match text.map(str::trim) {
        Some(t) if !t.is_empty() => Ok(t),
        _ => Err(ApiError::param(format!("{what} is empty"))),
    }
}

/// A DNS domain of guests; empty: none.
///
/// # Errors
/// 431 when it is no name of a DNS domain.
pub fn network_domain(text: Option<&str>) -> Result<Option<&str>, ApiError> {
    let Some(name) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() <= 190 && name.split('.').all(label) {
        return Ok(Some(name));
    }
    Err(ApiError::param(
        "Invalid network domain. Total length shouldn't exceed 190 chars. Each domain label must be between 1 and 63 characters \
         long, can contain ASCII letters 'a' through 'z', the digits '0' through '9', and the hyphen ('-'); can't start or end \
         with \"-\"",
    ))
}

/// A UUID that the request wants a new entity to have; a fresh one without.
///
/// # Errors
/// 431 when it is no UUID.
pub fn new_uuid(given: Option<&str>, param: &str) -> Result<String, ApiError> {
    let Some(text) = given.filter(|t| !t.is_empty()) else { return Ok(model::new_uuid()) };
    let fits = text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    if fits { Ok(text.to_lowercase()) } else { Err(ApiError::param(format!("{param} must be a UUID, not {text}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dns_domains() {
        assert_eq!(network_domain(Some("a-b.example")).unwrap(), Some("a-b.example"));
        assert_eq!(network_domain(Some("")).unwrap(), None);
        for bad in ["-a", "a-", "a..b", "a_b", &"a".repeat(64), &["a"; 100].join(".")] {
            assert!(network_domain(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn wanted_uuids_are_checked() {
        let uuid = model::new_uuid();
        assert_eq!(new_uuid(Some(&uuid.to_uppercase()), "accountid").unwrap(), uuid);
        assert!(new_uuid(Some("5"), "accountid").is_err());
        assert_ne!(new_uuid(None, "accountid").unwrap(), uuid);
    }
}
