//! VLAN numbers: the ranges of a physical network, and tags as ranges and networks show them.

use contract::ApiError;
use rand::Rng;
use std::collections::HashSet;

/// The highest VLAN.
const MAX_VLAN: u32 = 4095;
/// The highest VXLAN network identifier that 4.11 gives out.
const MAX_VNI: u32 = 16_777_214;

/// Ranges of VLANs (or VNIs), in order, joined where they touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanRanges(Vec<(u32, u32)>);

impl VlanRanges {
    /// Reads "100-200,300-400".
    ///
    /// # Errors
    /// 431 for anything else, numbers out of bounds, or ranges that overlap.
    pub fn parse(text: &str, vxlan: bool) -> Result<VlanRanges, ApiError> {
        let max = if vxlan { MAX_VNI } else { MAX_VLAN };
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let bounds = part.split_once('-').and_then(|(a, b)| Some((digits(a)?, digits(b)?)));
            let Some((first, last)) = bounds else {
                return Err(ApiError::param(format!(
                    "Please provide valid vnet range. vnet range should be a coma seperated list example 500-500,600-601: {part} isn't one"
                )));
            };
            if first > last {
                return Err(ApiError::param(format!(
                    "Please provide valid vnet range between 0-{max}: {part} ends before it starts"
                )));
            }
            if last > max {
                return Err(ApiError::param(format!("Please provide valid vnet range between 0-{max}, not {part}")));
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(previous) if first <= previous.1 => {
                    return Err(ApiError::param(format!("the vnet ranges of {text} overlap")));
                }
                Some(previous) if first == previous.1 + 1 => previous.1 = last,
                _ => joined.push((first, last)),
            }
        }
        Ok(VlanRanges(joined))
    }

    /// Reads what the database keeps, which was checked when it was written.
    pub fn stored(text: Option<&str>) -> VlanRanges {
        text.and_then(|t| VlanRanges::parse(t, true).ok()).unwrap_or_default()
    }

    /// Whether the number lies in a range.
    pub fn contains(&self, vlan: i64) -> bool {
        u32::try_from(vlan).is_ok_and(|v| self.0.iter().any(|(a, b)| (*a..=*b).contains(&v)))
    }

    /// Whether two sets of ranges share a number.
    pub fn overlaps(&self, other: &VlanRanges) -> bool {
        self.0.iter().any(|(a, b)| other.0.iter().any(|(c, d)| a <= d && c <= b))
    }

    /// How many numbers there are.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|(a, b)| u64::from(b - a) + 1).sum()
    }

    /// A free number, random so that replicas seldom meet; none when all are taken.
    pub fn pick(&self, taken: &HashSet<i64>, rng: &mut impl Rng) -> Option<i64> {
        let total = self.size();
        if total == 0 {
            return None;
        }
        let start = rng.random_range(0..total);
        (0..total).map(|i| self.nth((start + i) % total)).find(|v| !taken.contains(v))
    }

    fn nth(&self, mut index: u64) -> i64 {
        for (a, b) in &self.0 {
            let size = u64::from(b - a) + 1;
            if index < size {
                return i64::from(*a) + i64::try_from(index).unwrap_or_default();
            }
            index -= size;
        }
        0
    }
}

impl std::fmt::Display for VlanRanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (a, b)) in self.0.iter().enumerate() {
            write!(f, "{}{a}-{b}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn digits(text: &str) -> Option<u32> {
    let text = text.trim();
    // `parse` alone would take a sign.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// The tag in what a request gives: "50", "vlan://50", "untagged" or "vlan://untagged".
///
/// # Errors
/// 431 for anything else.
pub fn tag_of(text: &str) -> Result<String, ApiError> {
    let bare = text.trim();
    let bare = bare.strip_prefix("vlan://").or_else(|| bare.strip_prefix("vxlan://")).unwrap_or(bare);
    if bare.eq_ignore_ascii_case("untagged") {
        return Ok("untagged".into());
    }
    match digits(bare) {
        Some(tag) if tag <= MAX_VNI => Ok(tag.to_string()),
        _ => Err(ApiError::param(format!("Invalid vlan: {text}. Give a number or \"untagged\""))),
    }
}

/// "vlan://50" for a tag.
pub fn uri_of(scheme: &str, tag: &str) -> String {
    format!("{scheme}://{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // covers: INST-101
    #[test]
    fn ranges_are_read() {
        assert_eq!(VlanRanges::parse("300-310,100-200", false).unwrap().to_string(), "100-200,300-310");
        assert_eq!(VlanRanges::parse("100-200,201-210", false).unwrap().to_string(), "100-210");
        for bad in ["500", "a-b", "200-100", "1-5000", "-1-5", "100-200,150-160", "+1-5"] {
            assert_eq!(VlanRanges::parse(bad, false).unwrap_err().code, 431, "{bad}");
        }
        assert!(VlanRanges::parse("5000-5100,6000-6001", true).is_ok());
        assert!(VlanRanges::parse("1-16777215", true).is_err());
    }

    #[test]
    fn tags_are_read() {
        assert_eq!(tag_of("vlan://50").unwrap(), "50");
        assert_eq!(tag_of("Untagged").unwrap(), "untagged");
        assert!(tag_of("-5").is_err());
        assert!(tag_of("").is_err());
    }

    proptest! {
        #[test]
        fn every_number_is_given_once(first in 0u32..4000, size in 1u32..60, gap in 1u32..20) {
            let second = first + size + gap;
            let text = format!("{first}-{},{second}-{}", first + size - 1, second + 2);
            prop_assume!(second + 2 <= MAX_VLAN);
            let ranges = VlanRanges::parse(&text, false).unwrap();
            let mut taken = HashSet::new();
            let mut rng = rand::rng();
            while let Some(vlan) = ranges.pick(&taken, &mut rng) {
                prop_assert!(ranges.contains(vlan));
                prop_assert!(taken.insert(vlan));
            }
            prop_assert_eq!(taken.len() as u64, ranges.size());
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}") {
            let _ = VlanRanges::parse(&text, false);
            let _ = tag_of(&text);
        }
    }
}
