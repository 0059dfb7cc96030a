//! Parameters of rules, checked.

use super::{Purpose, RuleState, Traffic};
use crate::catalogue;
use crate::network::View;
use crate::store::rules::Rule;
use contract::ApiError;

/// First and last port.
pub type Ports = (i64, i64);

/// Reads a range of ports; without an end it is one port.
///
/// # Errors
/// 431 when one isn't a port, they are out of order, or there is only an end.
pub fn ports(start: Option<i32>, end: Option<i32>) -> Result<Option<Ports>, ApiError> {
    let port = |what: &str, value: i32| match value {
        1..=65535 => Ok(i64::from(value)),
        _ => Err(ApiError::param(format!("{what} is an invalid value: {value}"))),
    };
    match (start, end) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(ApiError::param("An end port needs a start port".to_owned())),
        (Some(start), end) => {
            let first = port("publicPort", start)?;
            let last = end.map_or(Ok(first), |end| port("Public port range", end))?;
            if first > last {
                return Err(ApiError::param("Start port can't be bigger than end port".to_owned()));
            }
            Ok(Some((first, last)))
        }
    }
}

/// Fails where the network hasn't the service that gives such rules.
///
/// # Errors
/// 431 naming service and network.
pub fn service(view: &View, purpose: Purpose) -> Result<(), ApiError> {
    if view.offering.has(purpose.service()) {
        return Ok(());
    }
    Err(ApiError::unsupported(format!(
        "Service {} is not supported in the network id={}: its offering is {}",
        purpose.service(),
        view.network.uuid,
        view.offering.name
    ))
    .with_entity(&view.network.uuid, "networkid"))
}

/// Reads a protocol: one that the network's provider can do for this purpose, in lower case.
///
/// # Errors
/// 431 naming those that it can.
pub fn protocol(view: &View, purpose: Purpose, traffic: Traffic, text: &str) -> Result<String, ApiError> {
    let wanted = text.trim().to_lowercase();
    // 4.11: static NAT takes what forwarding takes.
    let (service, capability) = match (purpose, traffic) {
        (Purpose::Firewall, Traffic::Egress) => ("Firewall", "SupportedEgressProtocols"),
        (Purpose::StaticNat, _) => ("PortForwarding", "SupportedProtocols"),
        _ => (purpose.service(), "SupportedProtocols"),
    };
    let provider = view.offering.services.iter().find(|(s, _)| s == purpose.service()).and_then(|(_, p)| p.first());
    let provider = provider.map_or(catalogue::VIRTUAL_ROUTER, String::as_str);
    let known = catalogue::capabilities_of(provider, service).iter().find(|(name, _)| *name == capability);
    let known = known.map_or("", |(_, value)| value);
    if known.split(',').any(|p| p.trim() == wanted) {
        return Ok(wanted);
    }
    Err(ApiError::param(format!(
        "Protocol {text} is not supported for {} rules in that network: it takes {known}",
        purpose.service()
    )))
}

/// Reads a list of IPv4 CIDRs; `what` names it: "Source", "Destination".
///
/// # Errors
/// 431 naming the one that isn't a CIDR.
pub fn cidrs(what: &str, list: &[String]) -> Result<Vec<String>, ApiError> {
    let mut all: Vec<String> = Vec::with_capacity(list.len());
    for cidr in list.iter().map(|c| c.trim()).filter(|c| !c.is_empty()) {
        let net: Option<ipnet::Ipv4Net> = cidr.parse().ok();
        if net.is_none() {
            return Err(ApiError::param(format!("{what} cidrs formatting error {cidr}: it isn't an IPv4 CIDR")));
        }
        if !all.iter().any(|known| known == cidr) {
            all.push(cidr.to_owned());
        }
    }
    Ok(all)
}

/// The Firewall rule that lets traffic to another rule's ports in (openfirewall). None: `others`, the rules of the
/// address, have one for just these ports already.
pub fn open_firewall(id: i64, of: &Rule, cidrs: &[String], others: &[Rule]) -> Option<Rule> {
    let there = others.iter().any(|r| {
        r.purpose == Purpose::Firewall
            && r.state != RuleState::Revoke
            && r.range() == of.range()
            && r.protocol == of.protocol
    });
    (!there).then(|| Rule {
        id,
        uuid: model::new_uuid(),
        purpose: Purpose::Firewall,
        traffic: Traffic::Ingress,
        state: RuleState::Staged,
        cidrs: if cidrs.is_empty() { vec!["0.0.0.0/0".to_owned()] } else { cidrs.to_vec() },
        dest_cidrs: Vec::new(),
        related_id: Some(of.id),
        target: None,
        display: true,
        system: false,
        ..of.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_range_in_order() {
        assert_eq!(ports(Some(22), None).unwrap(), Some((22, 22)));
        assert_eq!(ports(Some(33), Some(44)).unwrap(), Some((33, 44)));
        assert_eq!(ports(None, None).unwrap(), None);
        for (start, end) in [(Some(44), Some(33)), (Some(0), None), (Some(1), Some(65536)), (None, Some(1))] {
            assert_eq!(ports(start, end).unwrap_err().code, 431);
        }
    }

    #[test]
    fn cidrs_are_checked_one_by_one() {
        let list = |l: &[&str]| l.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        assert_eq!(cidrs("Source", &list(&["10.0.0.0/8", " ", "10.0.0.0/8"])).unwrap(), ["10.0.0.0/8"]);
        for bad in ["10.0.0.0", "10.0.0.0/33", "x", "::/0"] {
            assert_eq!(cidrs("Source", &list(&[bad])).unwrap_err().code, 431, "{bad}");
        }
    }
}
