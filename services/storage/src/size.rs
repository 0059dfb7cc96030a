//! How large a disk may be.

use config::{Settings, keys};
use contract::ApiError;

/// Bytes of a GiB: what the API calls GB.
pub const GIB: i64 = 1 << 30;

/// The limits in force, in GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Least size of a custom disk.
    pub custom_min: i64,
    /// Greatest size of a custom disk.
    pub custom_max: i64,
    /// Greatest size of any disk.
    pub max: i64,
}

impl Limits {
    /// Reads them.
    pub fn of(settings: &Settings) -> Limits {
        Limits {
            custom_min: settings.get(keys::CUSTOM_DISKOFFERING_SIZE_MIN),
            custom_max: settings.get(keys::CUSTOM_DISKOFFERING_SIZE_MAX),
            max: settings.get(keys::STORAGE_MAX_VOLUME_SIZE),
        }
    }
}

/// The size of a disk offering, as its administrator gives it. Bytes; 0 when users choose.
///
/// # Errors
/// 431 when both or neither are given, or the size is out of bounds.
pub fn of_offering(customized: bool, gib: Option<i64>, limits: Limits) -> Result<i64, ApiError> {
    match (customized, gib) {
        (true, None | Some(0)) => Ok(0),
        (true, Some(_)) => Err(ApiError::param("Disksize is not allowed for a customized disk offering")),
        (false, None) => Err(ApiError::param("Disksize is required for a non-customized disk offering")),
        (false, Some(gib)) if gib < 1 => Err(ApiError::param("Please specify a disk size of at least 1 Gb.")),
        (false, Some(gib)) if gib > limits.max => {
            Err(ApiError::param(format!("The maximum size for a disk is {} Gb.", limits.max)))
        }
        (false, Some(gib)) => bytes_of(gib),
    }
}

/// The size of a data disk from an offering, in bytes.
///
/// # Errors
/// 431 when the user must give a size and doesn't, or may not and does, or it is out of bounds.
pub fn of_disk(customized: bool, offering_bytes: i64, asked_gib: Option<i64>, limits: Limits) -> Result<i64, ApiError> {
    if !customized {
        return match asked_gib {
            Some(_) => Err(ApiError::param(
                "This disk offering does not allow custom sizes: leave the size out, or choose a customized disk offering",
            )),
            None => Ok(offering_bytes),
        };
    }
    let Some(gib) = asked_gib else {
        return Err(ApiError::param("This disk offering requires a custom size specified"));
    };
    if gib < limits.custom_min || gib > limits.custom_max {
        return Err(ApiError::param(format!(
            "Volume size: {gib} GB is out of allowed range. Max: {} Min: {}",
            limits.custom_max, limits.custom_min
        )));
    }
    within(gib, limits)
}

/// A size that isn't bound to an offering (`rootdisksize`, resizing a root disk), in bytes.
///
/// # Errors
/// 431 when it is out of bounds.
pub fn within(gib: i64, limits: Limits) -> Result<i64, ApiError> {
    if gib < 1 {
        return Err(ApiError::param("Please specify a size of at least 1 GB."));
    }
    if gib > limits.max {
        return Err(ApiError::param(format!("The size {gib} GB exceeds the maximum size allowed: {} GB", limits.max)));
    }
    bytes_of(gib)
}

fn bytes_of(gib: i64) -> Result<i64, ApiError> {
    gib.checked_mul(GIB).ok_or_else(|| ApiError::param(format!("{gib} GB is too large")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { custom_min: 2, custom_max: 1024, max: 2000 };

    // covers: VM-044, VM-045
    #[test]
    fn offerings_have_a_size_or_let_users_choose() {
        assert_eq!(of_offering(false, Some(5), LIMITS).unwrap(), 5_368_709_120);
        assert_eq!(of_offering(true, None, LIMITS).unwrap(), 0);
        for (custom, gib) in
            [(false, None), (true, Some(5)), (false, Some(0)), (false, Some(2001)), (false, Some(i64::MAX))]
        {
            assert_eq!(of_offering(custom, gib, LIMITS).unwrap_err().code, 431);
        }
    }

    #[test]
    fn custom_disks_have_bounds() {
        assert_eq!(of_disk(false, 7, None, LIMITS).unwrap(), 7);
        assert_eq!(of_disk(true, 0, Some(2), LIMITS).unwrap(), 2 * GIB);
        for (custom, gib) in [(false, Some(3)), (true, None), (true, Some(1)), (true, Some(1025)), (true, Some(-4))] {
            assert_eq!(of_disk(custom, 7, gib, LIMITS).unwrap_err().code, 431);
        }
        assert_eq!(within(2001, LIMITS).unwrap_err().code, 431);
    }
}
