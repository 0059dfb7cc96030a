//! How fast a guest's interfaces are. Not libvirt's own way, which needs queueing that many kernels don't have, and would
//! keep the guest from starting there.

use super::xml::Element;
use super::{Guests, Parts, told};
use contract::ApiError;
use contract_agent::VmNic;
use libvirt::XmlFlags;

impl Guests {
    /// Limits the interfaces of a guest that is there. One that can't be limited is told of, and runs all the same.
    pub(super) async fn limit(&self, parts: &Parts, vm: &str, nics: &[VmNic]) {
        if let Err(error) = self.limited(parts, vm, nics).await {
            tracing::warn!(vm, %error, "a guest's interfaces aren't as slow as they should be");
        }
    }

    async fn limited(&self, parts: &Parts, vm: &str, nics: &[VmNic]) -> Result<(), ApiError> {
        let Some(domain) = self.table().guests.get(vm).map(|guest| guest.domain.clone()) else { return Ok(()) };
        let lines = self.daemon.lines()?;
        let xml = lines.orders.xml(&domain, XmlFlags::none()).await.map_err(|e| told(&e))?;
        for (mac, device) in devices(&xml).map_err(ApiError::internal)? {
            if let Some(nic) = nics.iter().find(|nic| nic.mac.eq_ignore_ascii_case(&mac)) {
                parts.network.limit(&device, nic.rate_mbps).await?;
            }
        }
        Ok(())
    }
}

/// MAC addresses of a domain's interfaces, and the host's devices that they are.
fn devices(xml: &str) -> Result<Vec<(String, String)>, String> {
    let domain = Element::read(xml)?;
    let devices = domain.get("devices").ok_or("it has no devices")?;
    let device = |nic: &Element| {
        let mac = nic.get("mac")?.attribute("address")?.to_owned();
        Some((mac, nic.get("target")?.attribute("dev")?.to_owned()))
    };
    Ok(devices.all("interface").filter_map(device).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::devices;

    #[test]
    fn interfaces_are_found_by_their_address() {
        let xml = "<domain><devices><interface type='bridge'><mac address='02:00:00:00:00:01'/><target dev='vnet7'/></interface>\
                   <interface type='bridge'><mac address='02:00:00:00:00:02'/></interface></devices></domain>";
        assert_eq!(devices(xml).unwrap(), [("02:00:00:00:00:01".to_owned(), "vnet7".to_owned())]);
    }
}
