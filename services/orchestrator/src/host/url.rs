//! What a host is added by.

use contract::ApiError;

/// A simulated host as its URL describes it: `http://sim/c0/h0/cpucore=64&cpuspeed=8000&memory=274877906944`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// Cores.
    pub cpus: u32,
    /// MHz of each.
    pub mhz: u32,
    /// Bytes.
    pub memory: u64,
}

/// What 4.11's simulator takes where the URL says nothing.
const DEFAULT: Simulated = Simulated { cpus: 4, mhz: 8000, memory: 8 << 30 };
/// Sizes beyond this are mistakes: they would not fit the counters.
const MOST_MEMORY: u64 = 1 << 50;

/// Reads the URL of a simulated host.
///
/// # Errors
/// 431 when it isn't one.
pub fn simulated(url: &str) -> Result<Simulated, ApiError> {
    let wrong = |why: String| ApiError::param(format!("{url} is not the URL of a simulated host: {why}"));
    let rest =
        url.trim().strip_prefix("http://sim").ok_or_else(|| wrong("it must begin with http://sim".to_owned()))?;
    if !(rest.is_empty() || rest.starts_with('/')) {
        return Err(wrong("it must begin with http://sim/".to_owned()));
    }
    let mut host = DEFAULT;
    for pair in rest.rsplit('/').next().unwrap_or_default().split('&').filter(|p| p.contains('=')) {
        let (key, value) = pair.split_once('=').unwrap_or_default();
        let number = |most: u64| match value.trim().parse::<u64>() {
            Ok(n) if (1..=most).contains(&n) => Ok(n),
            _ => Err(wrong(format!("{key} must be from 1 to {most}"))),
        };
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        match key.trim().to_ascii_lowercase().as_str() {
            "cpucore" => host.cpus = small(number(65_536)?),
            "cpuspeed" => host.mhz = small(number(1_000_000)?),
            "memory" => host.memory = number(MOST_MEMORY)?,
            // Local storage and whatever else 4.11's simulator knows means nothing here.
            _ => {}
        }
    }
    Ok(host)
}

/// The URL as it may be kept: without user and password.
///
/// # Errors
/// 431 when it is no URL.
pub fn without_credentials(url: &str) -> Result<String, ApiError> {
    let url = url.trim();
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(ApiError::param("The url of a host has the form http://address"));
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(ApiError::param(format!("{scheme} is not a scheme of a host's url: use http")));
    }
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
    let address = authority.rsplit('@').next().unwrap_or_default();
    if address.is_empty() || url.len() > 255 {
        return Err(ApiError::param("The url of a host has the form http://address"));
    }
    Ok(match path {
        Some(path) => format!("{scheme}://{address}/{path}"),
        None => format!("{scheme}://{address}"),
    })
}

/// The address or name of a real machine: `http://10.0.0.5`, `http://kvm1.example.org:8250/`.
///
/// # Errors
/// 431 when there is none.
pub fn address(url: &str) -> Result<String, ApiError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    if host.is_empty() || !host.chars().all(fine) {
        return Err(ApiError::param("The url of a host has the form http://address"));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_hosts_are_read_from_their_url() {
        let host = simulated("http://sim/c0/h0/cpucore=64&cpuspeed=8000&memory=274877906944").unwrap();
        assert_eq!(host, Simulated { cpus: 64, mhz: 8000, memory: 274_877_906_944 });
        assert_eq!(simulated("http://sim/c0/h0").unwrap(), DEFAULT);
        assert!(simulated("http://simulator/c0/h0").is_err());
        assert!(simulated("http://10.0.0.1").is_err());
        assert!(simulated("http://sim/c/h/cpucore=0").is_err());
        assert!(simulated("http://sim/c/h/memory=99999999999999999999").is_err());
    }

    #[test]
    fn machines_have_an_address() {
        for (url, host) in [
            ("http://10.0.0.5", "10.0.0.5"),
            ("https://kvm1.example.org:22/x", "kvm1.example.org"),
            ("http://[fd00::5]:22", "fd00::5"),
        ] {
            assert_eq!(address(url).unwrap(), host);
        }
        assert!(address("http://").is_err() && address("http://a b").is_err());
    }

    #[test]
    fn passwords_are_not_kept() {
        assert_eq!(without_credentials("http://root:secret@10.0.0.1/x").unwrap(), "http://10.0.0.1/x");
        assert!(without_credentials("10.0.0.1").is_err());
        assert!(without_credentials("ssh://10.0.0.1").is_err());
    }
}
