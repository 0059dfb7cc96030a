//! IPv4 subnets and ranges as requests give them, checked.

use contract::ApiError;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The number of an address, as the database keeps it.
pub fn number(ip: Ipv4Addr) -> i64 {
    i64::from(u32::from(ip))
}

/// The address of a number from the database.
pub fn ip(number: i64) -> Ipv4Addr {
    Ipv4Addr::from(u32::try_from(number).unwrap_or_default())
}

/// Reads an address.
///
/// # Errors
/// 431 naming `what` when it is none.
pub fn parse_ip(text: &str, what: &str) -> Result<Ipv4Addr, ApiError> {
    text.trim().parse().map_err(|_| ApiError::param(format!("{what} {text} isn't a valid IPv4 address")))
}

/// Reads a CIDR whose address is the network's own: "10.1.1.0/24", not "10.1.1.5/24".
///
/// # Errors
/// 431 when it isn't one.
pub fn parse_cidr(text: &str) -> Result<Ipv4Net, ApiError> {
    let net: Ipv4Net = text
        .trim()
        .parse()
        .map_err(|_| ApiError::param(format!("Invalid format of cidr: {text} isn't a valid CIDR")))?;
    if net.addr() != net.network() {
        return Err(ApiError::param(format!("{text} isn't the address of a network: {} is meant?", net.trunc())));
    }
    Ok(net)
}

/// Whether a network lies within the private (RFC 1918) or shared (RFC 6598) address space.
pub fn is_private(net: &Ipv4Net) -> bool {
    const SPACES: [(Ipv4Addr, u8); 4] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
    ];
    SPACES.iter().filter_map(|(a, l)| Ipv4Net::new(*a, *l).ok()).any(|space| space.contains(net))
}

/// A subnet with its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The gateway: one of the subnet's host addresses.
    pub gateway: Ipv4Addr,
    /// The network.
    pub net: Ipv4Net,
}

impl Subnet {
    /// Reads gateway and netmask as requests give them.
    ///
    /// # Errors
    /// 431 for a malformed address, a mask with holes, a subnet without room, or a gateway that no host can have.
    pub fn parse(gateway: &str, netmask: &str) -> Result<Subnet, ApiError> {
        let address = parse_ip(gateway, "gateway")?;
        let mask = parse_ip(netmask, "netmask")?;
        let prefix = ipnet::ipv4_mask_to_prefix(mask)
            .map_err(|_| ApiError::param(format!("netmask {netmask} isn't a valid netmask")))?;
        if !(8..=30).contains(&prefix) {
            return Err(ApiError::param(format!("netmask {netmask} leaves no usable subnet: give /8 to /30")));
        }
        let net = Ipv4Net::new(address, prefix)
            .map_err(|_| ApiError::param(format!("netmask {netmask} isn't a valid netmask")))?
            .trunc();
        if address == net.network() || address == net.broadcast() {
            return Err(ApiError::param(format!(
                "gateway {gateway} is the network or broadcast address of {net}: give a host address"
            )));
        }
        Ok(Subnet { gateway: address, net })
    }

    /// The subnet of a CIDR, whose first host address is the gateway.
    ///
    /// # Errors
    /// 431 when it isn't a CIDR or leaves no room.
    pub fn of_cidr(cidr: &str) -> Result<Subnet, ApiError> {
        let net = parse_cidr(cidr)?;
        let gateway = Ipv4Addr::from(u32::from(net.network()).saturating_add(1));
        Subnet::parse(&gateway.to_string(), &net.netmask().to_string())
    }

    /// "10.1.1.0/24".
    pub fn cidr(&self) -> String {
        self.net.to_string()
    }

    /// "255.255.255.0".
    pub fn netmask(&self) -> String {
        self.net.netmask().to_string()
    }

    /// All host addresses, the gateway among them.
    pub fn hosts(&self) -> Range {
        Range { start: u32::from(self.net.network()) + 1, end: u32::from(self.net.broadcast()) - 1 }
    }

    /// Checks a range of this subnet.
    ///
    /// # Errors
    /// 431 when it isn't in order, leaves the subnet, or holds the gateway.
    pub fn range(&self, start: &str, end: &str) -> Result<Range, ApiError> {
        let (first, last) = (parse_ip(start, "start IP")?, parse_ip(end, "end IP")?);
        let hosts = self.hosts();
        for address in [first, last] {
            if !hosts.contains(u32::from(address)) {
                return Err(ApiError::param(format!(
                    "Please ensure that your start IP and end IP are in the same subnet as your gateway: {address} isn't a \
                     host address of {}",
                    self.net
                )));
            }
        }
        if first > last {
            return Err(ApiError::param(format!("start IP {start} is higher than end IP {end}")));
        }
        let range = Range { start: u32::from(first), end: u32::from(last) };
        if range.contains(u32::from(self.gateway)) {
            return Err(ApiError::param(format!(
                "The gateway ip {} is overlapped with the ip range {start}-{end}",
                self.gateway
            )));
        }
        Ok(range)
    }
}

/// Addresses from `start` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u32,
    /// The last.
    pub end: u32,
}

impl Range {
    /// Whether the address is one of them.
    pub fn contains(&self, address: u32) -> bool {
        (self.start..=self.end).contains(&address)
    }

    /// Whether two ranges share an address.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// How many there are.
    pub fn size(&self) -> u64 {
        u64::from(self.end.saturating_sub(self.start)) + 1
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", Ipv4Addr::from(self.start), Ipv4Addr::from(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // covers: NET-017
    #[test]
    fn gateways_are_host_addresses() {
        let s = Subnet::parse("10.5.0.1", "255.255.255.128").unwrap();
        assert_eq!(s.cidr(), "10.5.0.0/25");
        assert_eq!(s.hosts().to_string(), "10.5.0.1-10.5.0.126");
        for (gateway, mask) in [
            ("10.5.0.0", "255.255.255.128"),
            ("10.5.0.127", "255.255.255.128"),
            ("10.5.0.1", "255.0.255.0"),
            ("10.5.0.1", "255.255.255.254"),
            ("10.5.0", "255.255.255.0"),
            ("10.5.0.1", "0.0.0.0"),
        ] {
            assert_eq!(Subnet::parse(gateway, mask).unwrap_err().code, 431, "{gateway} {mask}");
        }
    }

    // covers: NET-087
    #[test]
    fn ranges_keep_to_the_subnet_and_off_the_gateway() {
        let s = Subnet::parse("10.1.1.1", "255.255.255.0").unwrap();
        assert_eq!(s.range("10.1.1.10", "10.1.1.12").unwrap().size(), 3);
        assert_eq!(s.range("10.1.1.10", "10.1.1.10").unwrap().size(), 1);
        for (start, end) in
            [("10.1.1.1", "10.1.1.5"), ("10.1.1.9", "10.1.1.5"), ("10.1.1.10", "10.1.2.5"), ("10.1.1.10", "10.1.1.255")]
        {
            assert_eq!(s.range(start, end).unwrap_err().code, 431, "{start} {end}");
        }
    }

    #[test]
    fn cidrs_are_networks() {
        assert!(parse_cidr("10.1.1.0/26").is_ok());
        assert!(parse_cidr("10.1.1.5/24").is_err());
        assert!(parse_cidr("300.1.1.0/24").is_err());
        assert!(is_private(&parse_cidr("172.31.0.0/16").unwrap()));
        assert!(!is_private(&parse_cidr("172.32.0.0/16").unwrap()));
        assert!(!is_private(&parse_cidr("10.0.0.0/7").unwrap_or_else(|_| "8.0.0.0/7".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(gateway in ".{0,20}", mask in ".{0,20}") {
            if let Ok(s) = Subnet::parse(&gateway, &mask) {
                prop_assert!(s.hosts().contains(u32::from(s.gateway)));
            }
        }

        #[test]
        fn numbers_and_addresses_agree(n in any::<u32>()) {
            prop_assert_eq!(ip(number(Ipv4Addr::from(n))), Ipv4Addr::from(n));
        }
    }
}
