//! Disk offerings: what their administrators may ask for.

use crate::size::{self, Limits};
use contract::ApiError;
use contract::api::{Caller, RoleType};
use contract_storage::CreateDiskOfferingRequest;

/// A disk offering to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewOffering {
    /// Name.
    pub name: String,
    /// Text for users.
    pub display_text: String,
    /// Bytes; 0 when users choose.
    pub disk_size: i64,
    /// Whether users choose the size.
    pub customized: bool,
    /// Whether users choose IOPS; none: the offering has no storage QoS.
    pub customized_iops: Option<bool>,
    /// Least IOPS.
    pub min_iops: Option<i64>,
    /// Most IOPS.
    pub max_iops: Option<i64>,
    /// Percent of the size that is kept for snapshots.
    pub snapshot_reserve: Option<i64>,
    /// Storage tags.
    pub tags: Option<String>,
    /// "shared" or "local".
    pub storage_type: String,
    /// "thin", "sparse" or "fat".
    pub provisioning_type: String,
    /// Whether users see it.
    pub display: bool,
    /// Bytes read a second.
    pub bytes_read_rate: Option<i64>,
    /// Bytes written a second.
    pub bytes_write_rate: Option<i64>,
    /// Reads a second.
    pub iops_read_rate: Option<i64>,
    /// Writes a second.
    pub iops_write_rate: Option<i64>,
    /// The domain that alone may use it: number and id path.
    pub domain: Option<(i64, String)>,
}

/// Checks what createDiskOffering asks for.
///
/// # Errors
/// 431 with the fault.
pub fn of_request(
    caller: &Caller,
    req: &CreateDiskOfferingRequest,
    domain: Option<(i64, String)>,
    limits: Limits,
) -> Result<NewOffering, ApiError> {
    let name = named(req.name.as_deref(), "name")?;
    let display_text = named(req.display_text.as_deref(), "displaytext")?;
    // 4.11: an offering without a size is customized only when it says so.
    let customized = req.customized.unwrap_or(false);
    let disk_size = size::of_offering(customized, req.disk_size, limits)?;
    let storage_type = one_of(req.storage_type.as_deref(), "shared", &["shared", "local"]).map_err(|given| {
        ApiError::param(format!("Invalid storage type {given} specified, valid types are: 'local' and 'shared'"))
    })?;
    let provisioning_type =
        one_of(req.provisioning_type.as_deref(), "thin", &["thin", "sparse", "fat"]).map_err(|given| {
            ApiError::param(format!("Invalid provisioning type {given} specified, valid types are: thin, sparse, fat"))
        })?;
    check_iops(req.customized_iops, req.min_iops, req.max_iops)?;
    let snapshot_reserve = req.hypervisor_snapshot_reserve.map(i64::from);
    if snapshot_reserve.is_some_and(|percent| percent < 0) {
        return Err(ApiError::param("If provided, Hypervisor Snapshot Reserve must be greater than or equal to 0."));
    }
    check_domain(caller, domain.as_ref())?;
    Ok(NewOffering {
        name,
        display_text,
        disk_size,
        customized,
        customized_iops: qos(req),
        min_iops: req.min_iops,
        max_iops: req.max_iops,
        snapshot_reserve,
        tags: clean_tags(req.tags.as_deref()),
        storage_type,
        provisioning_type,
        display: req.display_offering.unwrap_or(true),
        bytes_read_rate: rate(req.bytes_read_rate, "bytesreadrate")?,
        bytes_write_rate: rate(req.bytes_write_rate, "byteswriterate")?,
        iops_read_rate: rate(req.iops_read_rate, "iopsreadrate")?,
        iops_write_rate: rate(req.iops_write_rate, "iopswriterate")?,
        domain,
    })
}

/// Tags as they are kept: trimmed, without empty ones, comma-separated; none when there are none.
pub fn clean_tags(tags: Option<&str>) -> Option<String> {
    let tags: Vec<&str> = split_tags(tags.unwrap_or_default()).collect();
    (!tags.is_empty()).then(|| tags.join(","))
}

/// The single tags of a comma-separated list.
pub fn split_tags(tags: &str) -> impl Iterator<Item = &str> {
    tags.split(',').map(str::trim).filter(|t| !t.is_empty())
}

fn named(value: Option<&str>, param: &str) -> Result<String, ApiError> {
    match value.map(str::trim) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(ApiError::param(format!("Please specify {param}: it must not be empty"))),
    }
}

fn one_of(value: Option<&str>, default: &str, words: &[&str]) -> Result<String, String> {
    let given = value.filter(|v| !v.is_empty()).unwrap_or(default);
    words.iter().find(|w| w.eq_ignore_ascii_case(given)).map(|w| (*w).to_owned()).ok_or_else(|| given.to_owned())
}

fn qos(req: &CreateDiskOfferingRequest) -> Option<bool> {
    match (req.customized_iops, req.min_iops, req.max_iops) {
        (Some(custom), ..) => Some(custom),
        (None, None, None) => None,
        (None, ..) => Some(false),
    }
}

/// Checks the IOPS of an offering or volume.
///
/// # Errors
/// 431 when they contradict each other.
pub fn check_iops(customized: Option<bool>, min: Option<i64>, max: Option<i64>) -> Result<(), ApiError> {
    match (customized.unwrap_or(false), min, max) {
        (true, None, None) | (false, None, None) => Ok(()),
        (true, ..) => Err(ApiError::param(
            "When the user chooses the IOPS (customizediops), the offering must not give miniops and maxiops",
        )),
        (false, Some(min), Some(max)) if min < 1 || max < 1 => {
            Err(ApiError::param("The min IOPS and max IOPS must be greater than 0"))
        }
        (false, Some(min), Some(max)) if min > max => {
            Err(ApiError::param("The min IOPS must be less than or equal to the max IOPS."))
        }
        (false, Some(_), Some(_)) => Ok(()),
        (false, ..) => Err(ApiError::param("Either both miniops and maxiops are given, or none of them")),
    }
}

fn rate(value: Option<i64>, param: &str) -> Result<Option<i64>, ApiError> {
    match value {
        Some(n) if n < 0 => Err(ApiError::param(format!("{param} must not be negative"))),
        Some(0) | None => Ok(None),
        some => Ok(some),
    }
}

/// Domain administrators make offerings for their own subtree only.
fn check_domain(caller: &Caller, domain: Option<&(i64, String)>) -> Result<(), ApiError> {
    if caller.role() == RoleType::Admin {
        return Ok(());
    }
    match domain {
        None => {
            Err(ApiError::param("Unable to create a public disk offering: only root admins may; give your domainid"))
        }
        Some((_, path)) if path.starts_with(&caller.domain_path) => Ok(()),
        Some(_) => Err(ApiError::permission("Unable to create a disk offering for a domain outside of your own")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { custom_min: 1, custom_max: 1024, max: 2000 };

    fn request() -> CreateDiskOfferingRequest {
        CreateDiskOfferingRequest {
            name: Some("n".into()),
            display_text: Some("d".into()),
            disk_size: Some(1),
            ..Default::default()
        }
    }

    fn admin() -> Caller {
        Caller { role_type: RoleType::Admin.into(), domain_path: "/1/".into(), ..Caller::default() }
    }

    #[test]
    fn the_least_that_is_taken() {
        let o = of_request(&admin(), &request(), None, LIMITS).unwrap();
        assert_eq!((o.storage_type.as_str(), o.provisioning_type.as_str(), o.display), ("shared", "thin", true));
        assert_eq!((o.customized_iops, o.tags), (None, None));
    }

    #[test]
    fn faults_are_431() {
        let faults: [fn(&mut CreateDiskOfferingRequest); 8] = [
            |r| r.name = Some("  ".into()),
            |r| r.customized = Some(true),
            |r| r.storage_type = Some("tape".into()),
            |r| r.provisioning_type = Some("thick".into()),
            |r| r.min_iops = Some(1),
            |r| (r.min_iops, r.max_iops) = (Some(2), Some(1)),
            |r| r.hypervisor_snapshot_reserve = Some(-1),
            |r| r.iops_read_rate = Some(-1),
        ];
        for fault in faults {
            let mut r = request();
            fault(&mut r);
            assert_eq!(of_request(&admin(), &r, None, LIMITS).unwrap_err().code, 431, "{r:?}");
        }
    }

    #[test]
    fn domain_admins_stay_in_their_tree() {
        let caller =
            Caller { role_type: RoleType::DomainAdmin.into(), domain_path: "/1/5/".into(), ..Caller::default() };
        assert_eq!(of_request(&caller, &request(), None, LIMITS).unwrap_err().code, 431);
        assert_eq!(of_request(&caller, &request(), Some((6, "/1/6/".into())), LIMITS).unwrap_err().code, 531);
        assert!(of_request(&caller, &request(), Some((7, "/1/5/7/".into())), LIMITS).is_ok());
    }

    // covers: STO-050
    #[test]
    fn tags_round_trip_without_blanks() {
        assert_eq!(clean_tags(Some(" SSD, slow ,,")), Some("SSD,slow".into()));
        assert_eq!(clean_tags(Some(" ,")), None);
    }
}
