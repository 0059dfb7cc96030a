//! What somebody who isn't a root admin sees of things that are public or reserved for a domain.

use contract::ApiError;
use contract::api::Caller;
use model::state::AllocationState;

/// The domain of an id path and all above it: "/1/5/" is 1 and 5.
pub fn line(path: &str) -> Vec<i64> {
    path.split('/').filter_map(|part| part.parse().ok()).collect()
}

/// The caller's subtree, for administrators of one.
pub fn below(caller: &Caller) -> Option<String> {
    caller.is_admin().then(|| caller.domain_path.clone())
}

/// Reads an allocation state.
///
/// # Errors
/// 431 for any other word.
pub fn allocation_state(word: Option<&str>) -> Result<Option<AllocationState>, ApiError> {
    match word.map(str::trim).filter(|w| !w.is_empty()) {
        None => Ok(None),
        Some(word) => AllocationState::parse(word).map(Some).ok_or_else(|| {
            ApiError::param(format!("Unable to resolve Allocation State '{word}' to a supported state"))
        }),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_line_goes_to_the_root() {
        assert_eq!(super::line("/1/5/17/"), [1, 5, 17]);
        assert!(super::line("").is_empty());
    }
}
