//! The zone that is driven: what deploys name in it.

use anyhow::{Context, Result};
use arcus::api_client::ApiClient;
use serde_json::Value;

/// Ids of a zone's parts.
pub struct Zone {
    /// The zone.
    pub id: String,
    /// Its first pod.
    pub pod: String,
    /// A template that is ready.
    pub template: String,
    /// A small service offering of our own.
    pub offering: String,
    /// Isolated networks of our own.
    pub networks: Vec<String>,
}

impl Zone {
    /// Finds the first enabled advanced zone, and makes an offering and networks in it.
    pub async fn prepare(api: &ApiClient, networks: usize) -> Result<Zone> {
        let zones = api.call("listZones", &[("available", "true")]).await?;
        let fits = |z: &&Value| z["networktype"] == "Advanced" && z["allocationstate"] == "Enabled";
        let zones = zones["zone"].as_array().cloned().unwrap_or_default();
        let zone = zones.iter().find(fits).context("there is no enabled advanced zone")?;
        let id = text(zone, "/id")?;
        let pod = first(api, "listPods", "pod", &[("zoneid", &id)]).await?;
        let wanted = [("templatefilter", "featured"), ("zoneid", id.as_str())];
        let template = first(api, "listTemplates", "template", &wanted).await?;
        let small = [
            ("name", "bench.tiny"),
            ("displaytext", "bench"),
            ("cpunumber", "1"),
            ("cpuspeed", "100"),
            ("memory", "128"),
        ];
        let offering = text(&api.call("createServiceOffering", &small).await?, "/serviceoffering/id")?;
        let by_name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
        let kind = first(api, "listNetworkOfferings", "networkoffering", &by_name).await?;
        let mut made = Vec::new();
        for n in 0..networks.max(1) {
            let (name, gateway) = (format!("bench-{n}"), format!("10.{}.0.1", 2 + n % 250));
            let network = [
                ("zoneid", id.as_str()),
                ("name", name.as_str()),
                ("displaytext", "bench"),
                ("networkofferingid", kind.as_str()),
                ("gateway", gateway.as_str()),
                // 8,000 addresses each: the networks aren't what is measured.
                ("netmask", "255.255.224.0"),
            ];
            made.push(text(&api.call("createNetwork", &network).await?, "/network/id")?);
        }
        Ok(Zone { id, pod, template, offering, networks: made })
    }

    /// Removes what was made; what can't be is told.
    pub async fn clean(&self, api: &ApiClient) {
        for network in &self.networks {
            if let Err(e) = api.run("deleteNetwork", &[("id", network)]).await {
                println!("left behind: network {network}: {e:#}");
            }
        }
        if let Err(e) = api.call("deleteServiceOffering", &[("id", &self.offering)]).await {
            println!("left behind: service offering {}: {e:#}", self.offering);
        }
    }
}

async fn first(api: &ApiClient, command: &str, key: &str, params: &[(&str, &str)]) -> Result<String> {
    text(&api.call(command, params).await?, &format!("/{key}/0/id"))
}

/// The text at a JSON pointer.
pub fn text(value: &Value, pointer: &str) -> Result<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("{pointer} in {value}"))
}
