//! What updateNetwork may change, and when.

use crate::address::{Subnet, number, parse_cidr};
use crate::catalogue::Offering;
use crate::network::View;
use crate::network::create::check_domain;
use crate::store::networks::Change;
use crate::store::nics;
use contract::ApiError;
use model::state::NetworkState;
use store::Tx;

/// What a request asks for.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Wish {
    /// Name.
    pub name: Option<String>,
    /// Text.
    pub display_text: Option<String>,
    /// DNS domain.
    pub network_domain: Option<String>,
    /// CIDR for guests.
    pub guest_cidr: Option<String>,
    /// Visible to its owner.
    pub display: Option<bool>,
    /// UUID.
    pub uuid: Option<String>,
    /// Whether services may be lost.
    pub forced: bool,
}

/// Checks a wish against the network as it is; `offering` is the new one, when it is to change.
///
/// # Errors
/// 431 that says what can't be.
pub fn plan(view: &View, wish: &Wish, offering: Option<&Offering>) -> Result<Change, ApiError> {
    let network = &view.network;
    if network.is_system {
        return Err(ApiError::param("Can't update system networks".to_owned()).with_entity(&network.uuid, "id"));
    }
    let new_offering = offering.filter(|o| o.id != network.offering_id);
    if let Some(domain) = &wish.network_domain {
        if !offering.unwrap_or(&view.offering).has("Dns") {
            return Err(ApiError::param(
                "Domain name change is not supported for this network: it has no Dns service".to_owned(),
            ));
        }
        check_domain(domain)?;
    }
    if let Some(new) = new_offering {
        check_offering_change(view, new, wish.forced)?;
    }
    let cidr = match &wish.guest_cidr {
        Some(_) if new_offering.is_some() => {
            return Err(ApiError::param(
                "Cannot specify this CIDR reservation and an offering change at once".to_owned(),
            ));
        }
        Some(cidr) => Some(reserve(view, cidr)?),
        None => None,
    };
    Ok(Change {
        name: wish.name.clone(),
        display_text: wish.display_text.clone(),
        network_domain: wish.network_domain.clone(),
        offering_id: new_offering.map(|o| o.id),
        cidr,
        display: wish.display,
        uuid: wish.uuid.clone(),
    })
}

fn check_offering_change(view: &View, new: &Offering, forced: bool) -> Result<(), ApiError> {
    let refuse = |text: String| Err(ApiError::param(text).with_entity(&new.uuid, "networkofferingid"));
    if !view.network.is("Isolated") {
        return refuse(
            "NetworkOffering and domain suffix upgrade can be perfomed for Isolated networks only".to_owned(),
        );
    }
    if new.state != "Enabled" {
        return refuse(format!("Can't update network with network offering {}: its state is not Enabled", new.name));
    }
    if !new.is("Isolated") || new.system_only || new.for_vpc || new.traffic_type != "Guest" {
        return refuse(format!("Can't upgrade from network offering {} to {}", view.offering.name, new.name));
    }
    if new.specify_vlan != view.offering.specify_vlan || new.source_nat() != view.offering.source_nat() {
        return refuse(format!(
            "Can't upgrade from network offering {} to {}: they differ in specifyVlan or source NAT",
            view.offering.name, new.name
        ));
    }
    new.check_supported()?;
    let lost: Vec<&str> = view.offering.services.iter().map(|(s, _)| s.as_str()).filter(|s| !new.has(s)).collect();
    if !lost.is_empty() && !forced {
        return refuse(format!(
            "The new offering doesn't have the following services of the network: {}. Give forced=true to go on without them",
            lost.join(", ")
        ));
    }
    Ok(())
}

/// A part of the network for guests: the CIDR for guests, and the whole one where it is only a part.
fn reserve(view: &View, cidr: &str) -> Result<(String, Option<String>), ApiError> {
    let network = &view.network;
    if !network.is("Isolated") {
        return Err(ApiError::param("Can only allow IP Reservation in networks with guest type Isolated".to_owned()));
    }
    if network.state != NetworkState::Implemented {
        return Err(ApiError::param(format!(
            "The network must be in Implemented state. IP Reservation cannot be applied in {} state",
            network.state
        )));
    }
    let guests = parse_cidr(cidr)?;
    let whole = network.network_cidr.as_ref().or(network.cidr.as_ref());
    let whole = parse_cidr(whole.map(String::as_str).unwrap_or_default())?;
    if !whole.contains(&guests) {
        return Err(ApiError::param(format!(
            "Invalid value of Guest VM CIDR. For IP Reservation, Guest VM CIDR {guests} should be a subset of network CIDR {whole}"
        )));
    }
    // Without room for a guest there is nothing to reserve for.
    Subnet::of_cidr(cidr)?;
    let rest = (guests != whole).then(|| whole.to_string());
    Ok((guests.to_string(), rest))
}

/// What must hold when the change is written: no guest outside of the new CIDR, none running while the offering changes.
///
/// # Errors
/// 431 that names what is in the way.
pub async fn check_guests(tx: &mut Tx, network: i64, change: &Change) -> Result<(), ApiError> {
    if let Some((cidr, _)) = &change.cidr {
        let hosts = Subnet::of_cidr(cidr)?.hosts();
        let (first, last) = (number(hosts.start.into()), number(hosts.end.into()));
        if let Some(ip) = nics::outside(tx, network, first, last).await? {
            return Err(ApiError::param(format!(
                "Active IPs like {ip} exist outside the guest VM CIDR {cidr}: IP reservation can't be applied"
            )));
        }
    }
    if change.offering_id.is_some() {
        let (_, running) = nics::of_vms(tx, network).await?;
        if running > 0 {
            return Err(ApiError::param(format!(
                "All user vms of network must be stopped before its offering is changed: {running} of them are not"
            )));
        }
    }
    Ok(())
}
