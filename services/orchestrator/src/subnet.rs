//! IPv4 ranges of pods: the checks of 4.11 and its texts.

use contract::ApiError;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The reserved system range of a pod, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRange {
    /// The pod's subnet.
    pub net: Ipv4Net,
    /// Gateway of the hosts.
    pub gateway: Ipv4Addr,
    /// First reserved address.
    pub start: Ipv4Addr,
    /// Last reserved address.
    pub end: Ipv4Addr,
}

/// An address as a number, as the database keeps it.
pub fn number(ip: Ipv4Addr) -> i64 {
    i64::from(u32::from(ip))
}

/// The address that a number stands for.
pub fn address(number: i64) -> Option<Ipv4Addr> {
    u32::try_from(number).ok().map(Ipv4Addr::from)
}

impl PodRange {
    /// Reads and checks what a command gives. Without an end the range goes to the end of the subnet.
    ///
    /// # Errors
    /// 431 as 4.11 says it.
    pub fn parse(gateway: &str, netmask: &str, start: &str, end: Option<&str>) -> Result<PodRange, ApiError> {
        let gateway: Ipv4Addr = gateway.trim().parse().map_err(|_| ApiError::param("The gateway is invalid"))?;
        let mask: Ipv4Addr = netmask.trim().parse().map_err(|_| ApiError::param("Please specify a valid netmask"))?;
        let prefix = ipnet::ipv4_mask_to_prefix(mask).map_err(|_| ApiError::param("Please specify a valid netmask"))?;
        if !(1..=30).contains(&prefix) {
            return Err(ApiError::param("Please specify a valid netmask"));
        }
        let net = Ipv4Net::new(gateway, prefix).map_err(|_| ApiError::param("Please specify a valid netmask"))?.trunc();
        let parse = |text: &str, what: &str| {
            text.trim()
                .parse::<Ipv4Addr>()
                .map_err(|_| ApiError::param(format!("The {what} address of the IP range is not a valid IP address.")))
        };
        let start = parse(start, "start")?;
        let end = match end.filter(|e| !e.trim().is_empty()) {
            Some(end) => parse(end, "end")?,
            None => last_host(net),
        };
        PodRange { net, gateway, start, end }.check()
    }

    fn check(self) -> Result<PodRange, ApiError> {
        if !is_host(self.net, self.gateway) {
            return Err(ApiError::param("The gateway is not in the CIDR subnet."));
        }
        if !is_host(self.net, self.start) {
            return Err(ApiError::param("The start address of the IP range is not in the CIDR subnet."));
        }
        if !is_host(self.net, self.end) {
            return Err(ApiError::param("The end address of the IP range is not in the CIDR subnet."));
        }
        if self.start > self.end {
            return Err(ApiError::param("The start IP address must have a lower value than the end IP address."));
        }
        if self.holds(number(self.gateway)) {
            return Err(ApiError::param("The gateway shouldn't overlap start/end ip addresses"));
        }
        Ok(self)
    }

    /// Whether an address, as a number, is in the reserved range.
    pub fn holds(&self, ip: i64) -> bool {
        (number(self.start)..=number(self.end)).contains(&ip)
    }

    /// Whether two ranges of numbers share an address.
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        number(self.start) <= end && start <= number(self.end)
    }

    /// How many addresses it reserves.
    pub fn size(&self) -> i64 {
        number(self.end) - number(self.start) + 1
    }
}

fn is_host(net: Ipv4Net, ip: Ipv4Addr) -> bool {
    net.contains(&ip) && ip != net.network() && ip != net.broadcast()
}

fn last_host(net: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.broadcast()) - 1)
}

/// Reads a CIDR; whatever stands behind the prefix is cut off.
pub fn cidr(text: &str) -> Option<Ipv4Net> {
    text.trim().parse::<Ipv4Net>().ok().map(|net| net.trunc())
}

/// Whether two subnets share an address.
pub fn intersect(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Whether guests may have it: a private network as RFC 1918 names them, or carrier-grade NAT space.
pub fn is_guest_cidr(text: &str) -> bool {
    let private = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
    ];
    text.trim().parse::<Ipv4Net>().is_ok_and(|net| {
        private.iter().any(|(base, prefix)| Ipv4Net::new(*base, *prefix).is_ok_and(|p| p.contains(&net)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(gateway: &str, netmask: &str, start: &str, end: Option<&str>) -> String {
        PodRange::parse(gateway, netmask, start, end).unwrap_err().text
    }

    // covers: INST-104, INST-106, INST-107
    #[test]
    fn ranges_are_checked_as_4_11_does() {
        let ok = PodRange::parse("172.16.0.1", "255.255.0.0", "172.16.0.2", Some("172.16.15.254")).unwrap();
        assert_eq!((ok.net.to_string().as_str(), ok.size()), ("172.16.0.0/16", 4093));
        let open = PodRange::parse("10.0.0.1", "255.255.255.0", "10.0.0.10", None).unwrap();
        assert_eq!(open.end.to_string(), "10.0.0.254");
        assert_eq!(
            text("10.0.0.1", "255.255.255.0", "10.0.1.10", None),
            "The start address of the IP range is not in the CIDR subnet."
        );
        assert_eq!(
            text("10.0.0.1", "255.255.255.0", "10.0.0.10", Some("10.0.0.9")),
            "The start IP address must have a lower value than the end IP address."
        );
        assert_eq!(
            text("10.0.0.1", "255.255.255.0", "10.0.0.1", None),
            "The gateway shouldn't overlap start/end ip addresses"
        );
        assert_eq!(text("10.0.0.0", "255.255.255.0", "10.0.0.2", None), "The gateway is not in the CIDR subnet.");
        assert_eq!(text("10.0.0.1", "255.0.255.0", "10.0.0.2", None), "Please specify a valid netmask");
        assert_eq!(text("x", "255.255.255.0", "10.0.0.2", None), "The gateway is invalid");
        assert_eq!(
            text("10.0.0.1", "255.255.255.0", "no", None),
            "The start address of the IP range is not a valid IP address."
        );
    }

    #[test]
    fn guests_live_in_private_networks() {
        assert!(is_guest_cidr("10.1.1.0/24"));
        assert!(is_guest_cidr("192.168.0.0/16"));
        assert!(!is_guest_cidr("8.8.8.0/24"));
        assert!(!is_guest_cidr("10.0.0.0/7"));
        assert!(!is_guest_cidr("10.1.1.0"));
    }

    proptest! {
        /// A range that is accepted never holds its gateway, the network or the broadcast address.
        #[test]
        fn accepted_ranges_are_sound(base: u32, prefix in 8u8..=30, a: u32, b: u32, c: u32) {
            let net = Ipv4Net::new(Ipv4Addr::from(base), prefix).unwrap().trunc();
            let within = |n: u32| Ipv4Addr::from(u32::from(net.network()) + n % (1u32 << (32 - prefix)));
            let mask = net.netmask().to_string();
            if let Ok(r) = PodRange::parse(&within(a).to_string(), &mask, &within(b).to_string(), Some(&within(c).to_string())) {
                prop_assert!(!r.holds(number(r.gateway)) && !r.holds(number(net.network())) && !r.holds(number(net.broadcast())));
                prop_assert!(r.size() >= 1 && intersect(r.net, net));
            }
        }
    }
}
