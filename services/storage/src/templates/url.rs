//! Where images may be downloaded from (TPL-034).
//!
//! Addresses in a URL are judged here, when a template is registered. Names are not resolved here: what they mean is judged
//! by the host that downloads, each time it connects, with the same networks allowed.

use contract::ApiError;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// The only ports.
const PORTS: &[u16] = &[80, 8080, 443];

/// A URL that may be downloaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// It, without user, password and query.
    pub shown: String,
    /// Its path.
    pub path: String,
}

/// The networks of inside addresses that `secstorage.allowed.internal.sites` names; what is no network there is passed over.
pub fn allowed(setting: &Option<String>) -> Vec<IpNet> {
    let words = setting.as_deref().unwrap_or_default().split([',', ';']).map(str::trim).filter(|w| !w.is_empty());
    words
        .filter_map(|word| {
            let net = word.parse::<IpNet>().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from));
            if net.is_none() {
                tracing::warn!(word, "secstorage.allowed.internal.sites names something that is no network");
            }
            net
        })
        .collect()
}

/// Reads a URL, and judges where it leads to.
///
/// # Errors
/// 431 when it may not be downloaded from.
pub fn check(url: &str, allowed: &[IpNet]) -> Result<Checked, ApiError> {
    let url = url.trim();
    if !url.is_ascii()
        || url.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control() || b"\"<>\\^`{|}".contains(&b))
    {
        return Err(ApiError::request("the URL holds characters that must be percent-encoded"));
    }
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| ApiError::request("the URL has no scheme: give http:// or https://"))?;
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "http" | "https" => {}
        "file" => return Err(ApiError::request("File:// type urls are currently unsupported")),
        other => {
            return Err(ApiError::request(format!("Unsupported scheme for url: {other}; there are http and https")));
        }
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let path = after.split(['?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    if place.starts_with('[') {
        return Err(ApiError::request(format!("IPV6 addresses not supported ({place})")));
    }
    let (host, port) = match place.split_once(':') {
        None => (place, None),
        Some((host, port)) => {
            let port = port.parse::<u16>().map_err(|_| ApiError::request(format!("{port} is no port")))?;
            (host, Some(port))
        }
    };
    if port.is_some_and(|port| !PORTS.contains(&port)) {
        return Err(ApiError::request("Only ports 80, 8080 and 443 are allowed"));
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    check_host(&host, allowed)?;
    let port = port.map(|p| format!(":{p}")).unwrap_or_default();
    Ok(Checked { shown: format!("{scheme}://{host}{port}{path}"), path: path.to_owned() })
}

fn check_host(host: &str, allowed: &[IpNet]) -> Result<(), ApiError> {
    let illegal = || ApiError::request(format!("Illegal host specified in url: {host}"));
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if host.is_empty() || host.split('.').any(|label| label.is_empty() || !label.bytes().all(letters)) {
        return Err(illegal());
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Err(illegal());
    }
    // Whatever ends with a number is an address; other spellings than four decimal numbers only hide one.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    if !numeric {
        return Ok(());
    }
    let address: Ipv4Addr = host.parse().map_err(|_| illegal())?;
    let octets = address.octets();
    if address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || octets[0] == 0
        || octets[0] >= 240
    {
        return Err(illegal());
    }
    let inside = address.is_private() || (octets[0] == 100 && octets[1] & 0xc0 == 64);
    if inside && !allowed.iter().any(|net| net.contains(&IpAddr::V4(address))) {
        return Err(ApiError::request(format!(
            "Illegal host specified in url: {host} is in a private network that secstorage.allowed.internal.sites doesn't name"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_to_the_outside_and_to_what_is_allowed() {
        let sites = allowed(&Some("10.1.0.0/16, 192.168.7.7, nonsense".into()));
        assert_eq!(sites.len(), 2);
        for url in [
            "http://my.web.server/filename.vhd.gz",
            "HTTPS://8.8.8.8:443/x.qcow2",
            "http://u:p@h.example:8080/a/x.qcow2?token=1",
            "http://10.1.2.3/x.iso",
            "http://192.168.7.7/x.iso",
        ] {
            check(url, &sites).unwrap();
        }
        for url in [
            "",
            "my.web.server/x.vhd",
            "file:///etc/passwd",
            "ftp://h/x.vhd",
            "http:///x.vhd",
            "http://h:81/x.vhd",
            "http://h:99999/x.vhd",
            "http://localhost/x.vhd",
            "http://a.localhost./x.vhd",
            "http://127.0.0.1/x.vhd",
            "http://127.1/x.vhd",
            "http://2130706433/x.vhd",
            "http://0x7f.0.0.1/x.vhd",
            "http://0x7f000001/x.vhd",
            "http://u@169.254.169.254/x.vhd",
            "http://224.0.0.1/x.vhd",
            "http://0.0.0.0/x.vhd",
            "http://[::1]/x.vhd",
            "http://10.2.0.1/x.vhd",
            "http://192.168.7.8/x.vhd",
            "http://172.16.0.1/x.vhd",
            "http://100.64.0.1/x.vhd",
            "http://h/x y.vhd",
            "http://h\\@127.0.0.1/x.vhd",
        ] {
            assert_eq!(check(url, &sites).map(|_| ()).unwrap_err().code, 431, "{url}");
        }
    }

    #[test]
    fn what_is_shown_has_no_secrets() {
        let c = check("http://u:pw@H.example:8080/a/x.qcow2?token=1#f", &[]).unwrap();
        assert_eq!((c.shown.as_str(), c.path.as_str()), ("http://h.example:8080/a/x.qcow2", "/a/x.qcow2"));
    }
}
