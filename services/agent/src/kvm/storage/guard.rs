//! Which addresses images may be fetched from: nobody may look into the inside of a data centre through a host.

use contract::ApiError;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Public addresses, and the inside ones that are allowed.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    /// `cidrs`: inside networks that are allowed, or single addresses. All of them (`0.0.0.0/0`) isn't: that would be no guard.
    ///
    /// # Errors
    /// 431: one that can't be read.
    pub fn new(cidrs: &[String]) -> Result<Guard, ApiError> {
        let parse = |text: &String| {
            let text = text.trim();
            let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            net.filter(|net| net.prefix_len() > 0)
                .ok_or_else(|| ApiError::param(format!("{text:?} is no network that images may be fetched from")))
        };
        Ok(Guard { allowed: cidrs.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// Whether an address may be called.
    pub fn allows(&self, ip: IpAddr) -> bool {
        // What leads to an IPv4 address is judged as that.
        let ip = match ip {
            IpAddr::V6(v6) => inner(v6).map_or(ip, IpAddr::V4),
            IpAddr::V4(_) => ip,
        };
        self.allowed.iter().any(|net| net.contains(&ip)) || is_public(ip)
    }
}

/// The IPv4 address in a mapped, compatible, translated (NAT64) or 6to4 one.
fn inner(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff | 0) if ip != Ipv6Addr::LOCALHOST && ip != Ipv6Addr::UNSPECIFIED => Some(v4(g, h)),
        (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, high, low, ..) => Some(v4(high, low)),
        _ => None,
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let special = matches!(
                (a, b, c),
                (0 | 10 | 127 | 224..=255, ..)      // this network, private, loopback, multicast, reserved, broadcast
                    | (100, 64..=127, _)            // behind carriers
                    | (169, 254, _)                 // link-local, and clouds' metadata
                    | (172, 16..=31, _)
                    | (192, 168, _)
                    | (192, 0, 0 | 2)               // protocols, documentation
                    | (192, 88, 99)                 // 6to4 relays
                    | (198, 18 | 19, _)             // benchmarks
                    | (198, 51, 100)
                    | (203, 0, 113)
            );
            !special
        }
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            // Of what isn't global unicast nothing is public; of that not Teredo, ORCHID and documentation.
            (0x2000..0x4000).contains(&a)
                && !matches!((a, b), (0x2001, 0..=0x1ff | 0xdb8))
                && !matches!((a, b), (0x3fff, 0..=0xfff))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_called() {
        let guard = Guard::default();
        for text in ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(guard.allows(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:0:53aa:64c::",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
        ] {
            assert!(!guard.allows(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn inside_networks_are_called_when_they_are_named() {
        let guard = Guard::new(&["192.168.1.0/24".into(), " 10.0.0.7 ".into(), "fd00::/8".into()]).unwrap();
        for text in ["192.168.1.66", "::ffff:192.168.1.66", "10.0.0.7", "fd12::1", "8.8.8.8"] {
            assert!(guard.allows(text.parse().unwrap()), "{text}");
        }
        for text in ["192.168.2.1", "10.0.0.8", "127.0.0.1", "fe80::1"] {
            assert!(!guard.allows(text.parse().unwrap()), "{text}");
        }
        for text in ["", "0.0.0.0/0", "::/0", "10.0.0.0/33", "host"] {
            assert_eq!(Guard::new(&[text.into()]).unwrap_err().code, 431, "{text}");
        }
    }
}
