//! NICs of running guests: plugged and unplugged.
//!
//! The networks that a guest is in are among our facts in its metadata: whoever ends it looks which bridges can go. A network
//! is noted before its NIC is plugged in, and forgotten after it was unplugged, so that a kill in between costs a look.

use super::devices::{Leaving, Live, RELEASE, release};
use super::domain::{self, Described};
use super::xml::Element;
use super::{Guests, Parts, done, spec, told};
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Work};
use contract::ApiError;
use contract_agent::{PlugNic, UnplugNic, VmNic};
use libvirt::AffectFlags;
use libvirt::domain::Metadata;

/// What guests without NICs get.
const MODEL: &str = "virtio";

impl Guests {
    pub async fn plug_nic(&self, work: &Work, parts: &Parts, order: PlugNic) -> Result<Done, Failure> {
        self.refuse_for_containers("Plugging a NIC into a running VM")?;
        let nic = order.nic.ok_or_else(|| ApiError::param("there is no NIC to plug in"))?;
        spec::check_nic(&nic)?;
        let _turn = self.turn(&order.vm_uuid).await;
        let live = self.live(&order.vm_uuid).await?.filter(|live| live.described.generation == order.generation);
        let Some(live) = live else {
            return Err(ApiError::failed("The VM doesn't run on this host: its NICs can't be changed here").into());
        };
        if find(&live.xml, &nic.uuid).map_err(ApiError::internal)?.is_none() {
            let plug = parts.network.plug(&nic).await?;
            let mut described = live.described.clone();
            described.nics.push(noted(&nic.broadcast_uri));
            self.note(&live, &order.vm_uuid, described).await?;
            let model = model(&live.xml).map_err(ApiError::internal)?;
            let xml = domain::interface(&nic, &model, &plug.bridge, plug.mtu, None);
            let xml = xml.write().map_err(ApiError::param)?;
            let attached = live.lines.orders.attach_device(&live.domain, &xml, AffectFlags::LIVE).await;
            if let Err(error) = attached {
                self.note(&live, &order.vm_uuid, live.described.clone()).await?;
                drop(plug);
                parts.network.unplug(std::slice::from_ref(&nic)).await;
                return Err(told(&error).into());
            }
            self.limit(parts, &order.vm_uuid, std::slice::from_ref(&nic)).await;
        }
        done(work, nothing())
    }

    pub async fn unplug_nic(&self, work: &Work, parts: &Parts, order: UnplugNic) -> Result<Done, Failure> {
        spec::uuid("NIC", &order.nic_uuid)?;
        let _turn = self.turn(&order.vm_uuid).await;
        let live = self.live(&order.vm_uuid).await?.filter(|live| live.described.generation == order.generation);
        if let Some(live) = live
            && let Some(alias) = find(&live.xml, &order.nic_uuid).map_err(ApiError::internal)?
        {
            let there = |xml: &str| Ok(find(xml, &order.nic_uuid)?.is_some());
            let leaving = Leaving { alias, what: format!("NIC {}", order.nic_uuid), there: &there };
            match tokio::time::timeout(RELEASE, release(&live, &leaving)).await {
                Ok(result) => result?,
                Err(_) => {
                    return Err(ApiError::failed(format!(
                        "The VM doesn't let go of NIC {} within {} s: stop the VM",
                        order.nic_uuid,
                        RELEASE.as_secs()
                    ))
                    .into());
                }
            }
            let mut described = live.described.clone();
            if let Some(n) = described.nics.iter().position(|nic| nic.broadcast_uri == order.broadcast_uri) {
                described.nics.remove(n);
            }
            self.note(&live, &order.vm_uuid, described).await?;
            parts.network.unplug(&[noted(&order.broadcast_uri)]).await;
        }
        done(work, nothing())
    }

    /// Notes with a guest what is known of it. One that has ended meanwhile needs no note.
    async fn note(&self, live: &Live, vm: &str, described: Described) -> Result<(), ApiError> {
        let facts = domain::plain_facts(&described).write().map_err(ApiError::internal)?;
        let element = Metadata::Element { uri: domain::NAMESPACE, prefix: domain::PREFIX };
        let noted = live.lines.orders.set_metadata(&live.domain, element, Some(&facts), AffectFlags::LIVE).await;
        match noted {
            Err(error) if error.is_no_domain() => return Ok(()),
            noted => noted.map_err(|e| told(&e))?,
        }
        if let Some(guest) = self.table().guests.get_mut(vm)
            && guest.described.generation == described.generation
        {
            guest.described.nics = described.nics;
        }
        Ok(())
    }
}

/// What is noted of a NIC.
fn noted(uri: &str) -> VmNic {
    VmNic { broadcast_uri: uri.to_owned(), ..VmNic::default() }
}

/// libvirt's name of a NIC, when the domain has it.
fn find(xml: &str, nic: &str) -> Result<Option<String>, String> {
    let domain = Element::read(xml)?;
    let devices = domain.get("devices").ok_or("it has no devices")?;
    let ours = devices.all("interface").find(|interface| domain::own_name(interface) == Some(nic));
    Ok(ours.and_then(|interface| interface.get("alias")?.attribute("name").map(str::to_owned)))
}

/// The model of the NICs that a guest was started with.
fn model(xml: &str) -> Result<String, String> {
    let domain = Element::read(xml)?;
    let devices = domain.get("devices").ok_or("it has no devices")?;
    let model = devices.all("interface").find_map(|interface| interface.get("model")?.attribute("type"));
    Ok(model.unwrap_or(MODEL).to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn a_nic_is_found_by_its_own_name() {
        let xml = "<domain><devices><interface type='bridge'><model type='e1000'/><alias name='ua-one'/></interface>\
                   <interface type='bridge'><alias name='net1'/></interface></devices></domain>";
        assert_eq!(find(xml, "one").unwrap().as_deref(), Some("ua-one"));
        assert_eq!(find(xml, "net1").unwrap(), None, "not one of ours");
        assert_eq!(model(xml).unwrap(), "e1000");
        assert_eq!(model("<domain><devices/></domain>").unwrap(), MODEL);
    }
}
