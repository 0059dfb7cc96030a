//! Texts of a spec as values. Everything that ends up in a tool's configuration passes through here, so that nothing in a
//! spec can write configuration of its own.

use ipnet::Ipv4Net;
use std::fmt;
use std::net::Ipv4Addr;

/// Why a section can't be compiled, for people.
pub(crate) type Refusal = String;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Ports from the first to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// At least 1.
    pub first: u16,
    /// Not below `first`.
    pub last: u16,
}

impl Ports {
    /// How many.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Whether both hold a port.
    pub fn overlaps(self, other: Ports) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// How a network's frames travel between hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BroadcastUri {
    /// `vlan://untagged`: on the host's bridge as it is.
    Untagged,
    /// `vlan://100`.
    Vlan(u16),
    /// `vxlan://4096`.
    Vxlan(u32),
}

impl BroadcastUri {
    /// Reads a network's `broadcasturi`.
    ///
    /// # Errors
    /// What isn't understood.
    pub fn parse(text: &str) -> Result<BroadcastUri, String> {
        let no = || {
            format!(
                "the broadcast URI {text:?} isn't one that a Linux bridge can carry (vlan://ID, vlan://untagged, vxlan://ID)"
            )
        };
        let (scheme, id) = text.split_once("://").ok_or_else(no)?;
        match (scheme, id) {
            ("vlan", "untagged") => Ok(BroadcastUri::Untagged),
            ("vlan", id) => match id.parse() {
                Ok(id @ 1..=4094) => Ok(BroadcastUri::Vlan(id)),
                _ => Err(no()),
            },
            ("vxlan", id) => match id.parse() {
                Ok(id @ 1..=0xff_ffff) => Ok(BroadcastUri::Vxlan(id)),
                _ => Err(no()),
            },
            _ => Err(no()),
        }
    }
}

impl fmt::Display for BroadcastUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BroadcastUri::Untagged => f.write_str("vlan://untagged"),
            BroadcastUri::Vlan(id) => write!(f, "vlan://{id}"),
            BroadcastUri::Vxlan(id) => write!(f, "vxlan://{id}"),
        }
    }
}

pub(crate) fn ip4(what: &str, text: &str) -> Result<Ipv4Addr, Refusal> {
    text.parse().map_err(|_| format!("{what} {text:?} is not an IPv4 address"))
}

/// An address with its prefix length: `10.1.1.1/24`.
pub(crate) fn address(what: &str, text: &str) -> Result<Ipv4Net, Refusal> {
    match text.parse::<Ipv4Net>() {
        Ok(net) if net.prefix_len() > 0 => Ok(net),
        _ => Err(format!("{what} {text:?} is not an IPv4 address with a prefix length")),
    }
}

/// Networks, without those that lie in others. An address alone is a network of its own.
pub(crate) fn cidrs(what: &str, texts: &[String]) -> Result<Vec<Ipv4Net>, Refusal> {
    let read = |text: &String| {
        let text = text.trim();
        let net = text.parse::<Ipv4Net>().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from));
        net.map(|n| n.trunc()).map_err(|_| format!("{what} {text:?} is not an IPv4 network"))
    };
    let all = texts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(Ipv4Net::aggregate(&all))
}

pub(crate) fn mac(what: &str, text: &str) -> Result<Mac, Refusal> {
    let no = || format!("{what} {text:?} is not a MAC address of a NIC");
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(no)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| no())?;
    }
    let multicast = bytes.first().is_some_and(|b| b & 1 == 1);
    if parts.next().is_some() || multicast || bytes == [0; 6] { Err(no()) } else { Ok(Mac(bytes)) }
}

pub(crate) fn port(what: &str, number: u32) -> Result<u16, Refusal> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{what} {number} is not a port (1-65535)")),
    }
}

pub(crate) fn ports(what: &str, first: u32, last: u32) -> Result<Ports, Refusal> {
    let ports = Ports { first: port(what, first)?, last: port(what, last)? };
    if ports.first > ports.last {
        Err(format!("{what} {first}-{last}: the end lies before the start"))
    } else {
        Ok(ports)
    }
}

/// A rule's id, which goes into names and comments.
pub(crate) fn id(what: &str, text: &str) -> Result<String, Refusal> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(fine) {
        Ok(text.to_owned())
    } else {
        Err(format!("{what} {text:?} has to be 1 to 64 letters, digits, dots, hyphens and underscores"))
    }
}

/// A name of DNS with or without dots, in lower case.
pub(crate) fn dns_name(what: &str, text: &str) -> Result<String, Refusal> {
    let label = |l: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&l.len()) && l.bytes().all(fine) && !l.starts_with('-') && !l.ends_with('-')
    };
    if text.len() <= 190 && text.split('.').all(label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{what} {text:?} is not a name of DNS"))
    }
}

/// A name of one label.
pub(crate) fn host_name(what: &str, text: &str) -> Result<String, Refusal> {
    if text.contains('.') { Err(format!("{what} {text:?} must not have dots")) } else { dns_name(what, text) }
}

/// The name of a network device.
pub(crate) fn device(what: &str, text: &str) -> Result<String, Refusal> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=15).contains(&text.len()) && text.bytes().all(fine) && !text.starts_with(['.', '-']) && text != "lo" {
        Ok(text.to_owned())
    } else {
        Err(format!("{what} {text:?} can't be the name of a network device"))
    }
}

/// A word in haproxy's configuration: a cookie's name, a domain.
pub(crate) fn word(what: &str, text: &str) -> Result<String, Refusal> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=128).contains(&text.len()) && text.bytes().all(fine) {
        Ok(text.to_owned())
    } else {
        Err(format!("{what} {text:?} has to be letters, digits, dots, hyphens and underscores"))
    }
}

/// A number with an optional unit out of `units`: "30m", "200k".
pub(crate) fn quantity(what: &str, text: &str, units: &[&str]) -> Result<String, Refusal> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if (1..=10).contains(&digits) && (unit.is_empty() || units.contains(&unit)) {
        Ok(format!("{number}{unit}"))
    } else {
        Err(format!("{what} {text:?} is not a number with a unit of {units:?}"))
    }
}

/// One line of text that a configuration file holds as it is.
pub(crate) fn line(what: &str, text: &str) -> Result<String, Refusal> {
    if text.len() <= 512
        && text.chars().all(|c| c == ' ' || (c.is_ascii_graphic() && c != '#' && c != '"' && c != '\\'))
    {
        Ok(text.trim().to_owned())
    } else {
        Err(format!("{what} has characters that aren't allowed, or more than 512"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn nothing_that_writes_configuration_passes() {
        for bad in ["", "a b", "a\nb", "a;b", "a{", "../x", "é", "a\"b"] {
            assert!(id("id", bad).is_err(), "{bad:?}");
            assert!(host_name("host", bad).is_err(), "{bad:?}");
            assert!(device("device", bad).is_err(), "{bad:?}");
            assert!(word("word", bad).is_err(), "{bad:?}");
            assert!(mac("mac", bad).is_err(), "{bad:?}");
        }
        assert!(line("option", "a\nb").is_err());
        assert!(mac("mac", "01:00:5e:00:00:01").is_err(), "multicast");
        assert_eq!(mac("mac", "02:00:0A:00:00:01").unwrap().to_string(), "02:00:0a:00:00:01");
    }

    #[test]
    fn networks_that_overlap_become_one() {
        let texts = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7"].map(str::to_owned);
        let nets: Vec<String> = cidrs("cidr", &texts).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.0/8", "192.0.2.7/32"]);
        assert!(cidrs("cidr", &["::/0".into()]).is_err());
    }

    #[test]
    fn uris() {
        assert_eq!(BroadcastUri::parse("vxlan://77"), Ok(BroadcastUri::Vxlan(77)));
        assert_eq!(BroadcastUri::parse("vlan://4094"), Ok(BroadcastUri::Vlan(4094)));
        assert_eq!(BroadcastUri::parse("vlan://untagged"), Ok(BroadcastUri::Untagged));
        for bad in ["vlan://0", "vlan://4095", "vxlan://16777216", "lswitch://1", "77", ""] {
            assert!(BroadcastUri::parse(bad).is_err(), "{bad}");
        }
    }
}
