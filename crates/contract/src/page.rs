//! Paging of list commands.

use crate::error::ApiError;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Matches to skip.
    pub offset: i64,
    /// Most entries to answer; none: all.
    pub limit: Option<i64>,
}

/// `pagesize` and `default.page.size` of this value mean everything.
const UNLIMITED: i64 = -1;

impl Page {
    /// Reads `page` and `pagesize`. `default_size` is the setting `default.page.size`: the size when none is given,
    /// and the most that may be asked for.
    pub fn of(page: Option<i32>, page_size: Option<i32>, default_size: i64) -> Result<Page, ApiError> {
        let (page, size) = (page.map(i64::from), page_size.map(i64::from));
        match (page, size) {
            (Some(_), None) => {
                return Err(ApiError::request("\"pagesize\" parameter is required when \"page\" is specified"));
            }
            (None, Some(size)) if size != UNLIMITED => {
                return Err(ApiError::request("\"page\" parameter is required when \"pagesize\" is specified"));
            }
            (Some(_), Some(UNLIMITED)) => {
                return Err(ApiError::param("Can't specify page parameter when pagesize is -1 (Unlimited)"));
            }
            _ => {}
        }
        let size = size.unwrap_or(default_size);
        if default_size != UNLIMITED && size > default_size {
            return Err(ApiError::param(format!("Page size can't exceed max allowed page size value: {default_size}")));
        }
        if size < 0 && size != UNLIMITED {
            return Err(ApiError::param(format!("{size} isn't a page size: give 1 to {default_size}, or -1")));
        }
        if size == UNLIMITED {
            return Ok(Page { offset: 0, limit: None });
        }
        let number = page.unwrap_or(1).max(1);
        Ok(Page { offset: size.saturating_mul(number - 1), limit: Some(size) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn page_and_size_come_together() {
        let error = Page::of(Some(1), None, 500).unwrap_err();
        assert_eq!((error.code, error.cs_code), (431, 9999));
        assert_eq!(error.text, "\"pagesize\" parameter is required when \"page\" is specified");
        assert!(Page::of(None, Some(10), 500).is_err());
        assert!(Page::of(Some(1), Some(-1), 500).is_err());
        assert!(Page::of(Some(1), Some(501), 500).is_err());
        assert!(Page::of(Some(1), Some(-2), 500).is_err());
    }

    #[test]
    fn offsets_follow_the_size() {
        assert_eq!(Page::of(None, None, 500).unwrap(), Page { offset: 0, limit: Some(500) });
        assert_eq!(Page::of(Some(3), Some(20), 500).unwrap(), Page { offset: 40, limit: Some(20) });
        assert_eq!(Page::of(None, Some(-1), 500).unwrap(), Page { offset: 0, limit: None });
        assert_eq!(Page::of(None, None, -1).unwrap(), Page { offset: 0, limit: None });
        assert_eq!(Page::of(Some(i32::MAX), Some(i32::MAX), -1).unwrap().limit, Some(i64::from(i32::MAX)));
    }
}
