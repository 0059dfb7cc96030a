//! What values a setting takes.

use crate::{Kind, Setting};
use contract::ApiError;

/// Settings whose number must be above 0: a pause or time-out of nothing would spin.
const POSITIVE: &[&str] = &[
    "account.cleanup.interval",
    "alert.wait",
    "consoleproxy.capacityscan.interval",
    "consoleproxy.loadscan.interval",
    "default.page.size",
    "event.purge.interval",
    "expunge.interval",
    "host.stats.interval",
    "incorrect.login.attempts.allowed",
    "network.gc.interval",
    "ovm3.heartbeat.interval",
    "ovm3.heartbeat.timeout",
    "ping.interval",
    "snapshot.poll.interval",
    "storage.cleanup.interval",
    "storage.stats.interval",
    "wait",
    "xenserver.heartbeat.interval",
    "xenserver.heartbeat.timeout",
];

/// Of [`POSITIVE`], those that may also be -1: no limit.
const OR_UNLIMITED: &[&str] = &["default.page.size"];

const FACTORS: &[&str] =
    &["cpu.overprovisioning.factor", "mem.overprovisioning.factor", "storage.overprovisioning.factor"];

const HYPERVISORS: &[&str] =
    &["Hyperv", "KVM", "XenServer", "VMware", "BareMetal", "Ovm", "LXC", "Ovm3", "Simulator", "Any", "None"];

/// Whether `setting` may be cleared.
pub(crate) fn check_clear(setting: &Setting) -> Result<(), ApiError> {
    if FACTORS.contains(&setting.name) {
        return Err(ApiError::param(format!(
            "value cannot be null for the configuration parameter {}; it should be greater than or equal to 1",
            setting.name
        )));
    }
    Ok(())
}

/// Whether `setting` takes `value`.
///
/// # Errors
/// 431 that says what it takes.
pub(crate) fn check(setting: &Setting, value: &str) -> Result<(), ApiError> {
    let name = setting.name;
    match setting.kind {
        Kind::Bool if value != "true" && value != "false" => {
            return Err(ApiError::param("Please enter either 'true' or 'false'."));
        }
        Kind::Bool => return Ok(()),
        Kind::Int => {
            let number: i32 = number(name, value, "integer")?;
            check_number(setting, f64::from(number))?;
        }
        Kind::Long => {
            let number: i64 = number(name, value, "long")?;
            check_number(setting, number as f64)?;
        }
        Kind::Float => {
            let number: f64 = number(name, value, "float")?;
            if !number.is_finite() {
                return Err(parse_error(name, "float"));
            }
            check_number(setting, number)?;
        }
        Kind::Text => {}
    }
    if let Some(range) = setting.range {
        return check_range(name, range, value);
    }
    if name.ends_with("cidr") || name.ends_with("cidrs") || name.ends_with("cidr.list") {
        return check_cidrs(name, value);
    }
    if name == "usage.stats.job.exec.time" {
        return check_time(name, value);
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str, value: &str, kind: &str) -> Result<T, ApiError> {
    value.trim().parse().map_err(|_| parse_error(name, kind))
}

fn parse_error(name: &str, kind: &str) -> ApiError {
    ApiError::param(format!("There was an error trying to parse the {kind} value for: {name}"))
}

fn check_number(setting: &Setting, value: f64) -> Result<(), ApiError> {
    let name = setting.name;
    if FACTORS.contains(&name) && value < 1.0 {
        return Err(ApiError::param(format!("{name} should be greater than or equal to 1")));
    }
    if (name.ends_with("disablethreshold") || name.ends_with("notificationthreshold")) && !(0.0..=1.0).contains(&value)
    {
        return Err(ApiError::param(format!(
            "Please enter a value between 0 and 1 for the configuration parameter: {name}"
        )));
    }
    let unlimited = value == -1.0 && OR_UNLIMITED.contains(&name);
    if POSITIVE.contains(&name) && value <= 0.0 && !unlimited {
        return Err(ApiError::param(format!("Please enter a positive value for the configuration parameter:{name}")));
    }
    Ok(())
}

fn check_range(name: &str, range: &str, value: &str) -> Result<(), ApiError> {
    let wrong = |what: &str| Err(ApiError::param(format!("a value of {name} must be {what}, not {value}")));
    match range {
        "domainName" if !is_domain_name(value.strip_prefix('*').map_or(value, |v| v.trim_start_matches('.'))) => {
            wrong("a domain name")
        }
        "instanceName" if value.contains('-') || value.contains(' ') => wrong("a name without hyphens and blanks"),
        "hypervisorList" => {
            match value.split(',').find(|v| !HYPERVISORS.iter().any(|h| h.eq_ignore_ascii_case(v.trim()))) {
                Some(_) => wrong("a list of hypervisor types"),
                None => Ok(()),
            }
        }
        "domainName" | "instanceName" => Ok(()),
        _ => match numeric(range) {
            Some((low, high)) => match value.trim().parse::<i64>() {
                Ok(n) if (low..=high).contains(&n) => Ok(()),
                _ => wrong(&format!("from {low} to {high}")),
            },
            None if range.split(',').any(|option| option == value) => Ok(()),
            None => wrong(&format!("one of {range}")),
        },
    }
}

fn numeric(range: &str) -> Option<(i64, i64)> {
    let (low, high) = range.split_once('-')?;
    Some((low.parse().ok()?, high.parse().ok()?))
}

fn is_domain_name(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 253
        && value.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

fn check_cidrs(name: &str, value: &str) -> Result<(), ApiError> {
    let is_cidr = |text: &str| {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let longest = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.is_none_or(|b| b.parse::<u8>().is_ok_and(|b| b <= longest))
    };
    match value.split(',').map(str::trim).find(|c| !is_cidr(c)) {
        Some(bad) => Err(ApiError::param(format!("{bad} in the value of {name} isn't a network in CIDR form"))),
        None => Ok(()),
    }
}

fn check_time(name: &str, value: &str) -> Result<(), ApiError> {
    let time = value.split_once(':').and_then(|(h, m)| Some((h.parse::<u8>().ok()?, m.parse::<u8>().ok()?)));
    match time {
        Some((h, m)) if h < 24 && m < 60 => Ok(()),
        _ => Err(ApiError::param(format!("a value of {name} must be a time of day, HH:MM, not {value}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use crate::find;

    fn refused(name: &str, value: &str) -> String {
        check(find(name).unwrap(), value).unwrap_err().text
    }

    // covers: INST-179, INST-180, INST-181
    #[test]
    fn values_are_checked_by_type_and_range() {
        assert_eq!(refused("agent.lb.enabled", "yes"), "Please enter either 'true' or 'false'.");
        assert!(refused("expunge.delay", "soon").contains("integer value for: expunge.delay"));
        assert!(refused("expunge.delay", "3000000000").contains("integer"));
        assert!(refused("ping.timeout", "NaN").contains("float"));
        assert!(refused("cpu.overprovisioning.factor", "0.9").contains("greater than or equal to 1"));
        assert!(check_clear(find("mem.overprovisioning.factor").unwrap()).is_err());
        assert!(refused("network.dns.basiczone.updates", "none").contains("one of all,pod"));
        assert!(refused("router.extra.public.nics", "6").contains("from 0 to 5"));
        assert!(refused("ping.interval", "0").contains("positive"));
        assert!(refused("hypervisor.list", "KVM,Bhyve").contains("hypervisor"));
        assert!(refused("instance.name", "a-b").contains("hyphens"));
        assert!(refused("management.network.cidr", "10.0.0.0/33").contains("CIDR"));
        assert!(refused("usage.stats.job.exec.time", "25:99").contains("time of day"));
        assert!(refused("cluster.cpu.allocated.capacity.disablethreshold", "1.5").contains("between 0 and 1"));
        for (name, value) in
            [("default.page.size", "-1"), ("ping.timeout", "2.0"), ("hypervisor.list", "KVM,Simulator")]
        {
            check(find(name).unwrap(), value).unwrap();
        }
    }
}
