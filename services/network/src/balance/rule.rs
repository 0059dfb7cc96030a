//! What a load balancing rule may say. Pure.

use contract::ApiError;

/// How members take turns (NET-168).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// One after the other.
    RoundRobin,
    /// Who has the fewest connections.
    LeastConnections,
    /// One client, one member.
    Source,
}

impl Algorithm {
    /// As clients and hosts call it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "roundrobin",
            Algorithm::LeastConnections => "leastconn",
            Algorithm::Source => "source",
        }
    }

    /// Reads `algorithm`.
    ///
    /// # Errors
    /// 431 when there is none of that name.
    pub fn parse(text: &str) -> Result<Algorithm, ApiError> {
        [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::Source]
            .into_iter()
            .find(|a| a.name().eq_ignore_ascii_case(text.trim()))
            .ok_or_else(|| {
                ApiError::param(format!("Invalid algorithm: {text}. There are roundrobin, leastconn, source"))
            })
    }
}

/// Reads `protocol`: what the load balancer speaks; none: TCP, which answers then leave out.
///
/// # Errors
/// 431 for what the virtual router can't balance. 4.11 takes "udp" and "ssl", too, and does nothing useful with them.
pub fn protocol(text: Option<&str>) -> Result<Option<String>, ApiError> {
    let Some(text) = text.map(str::trim).filter(|t| !t.is_empty()) else { return Ok(None) };
    match text.to_ascii_lowercase().as_str() {
        known @ ("tcp" | "tcp-proxy") => Ok(Some(known.to_owned())),
        _ => Err(ApiError::param(format!(
            "LB service provider cannot support this rule: the virtual router balances tcp and tcp-proxy, not {text}"
        ))),
    }
}

/// Reads a port.
///
/// # Errors
/// 431 naming the parameter.
pub fn port(name: &str, number: Option<i32>) -> Result<i64, ApiError> {
    let number = number.ok_or_else(|| ApiError::empty_param(name))?;
    match number {
        1..=65535 => Ok(i64::from(number)),
        _ => Err(ApiError::param(format!("{name} is an invalid value: {number}. Ports are 1 to 65535"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_protocols_and_ports() {
        for name in ["roundrobin", "leastconn", "source"] {
            assert_eq!(Algorithm::parse(&name.to_uppercase()).unwrap().name(), name);
        }
        assert_eq!(Algorithm::parse("foo").unwrap_err().code, 431);
        assert_eq!(protocol(None).unwrap(), None);
        assert_eq!(protocol(Some(" ")).unwrap(), None);
        assert_eq!(protocol(Some("TCP-Proxy")).unwrap().as_deref(), Some("tcp-proxy"));
        for other in ["udp", "ssl", "sctp"] {
            assert_eq!(protocol(Some(other)).unwrap_err().code, 431);
        }
        assert_eq!(port("publicport", Some(65535)).unwrap(), 65535);
        for bad in [None, Some(0), Some(-1), Some(65536)] {
            assert_eq!(port("publicport", bad).unwrap_err().code, 431);
        }
    }
}
