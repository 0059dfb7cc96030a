//! The ground that workers stand on: offerings, accounts.

use super::PREFIX;
use crate::client::Client;
use anyhow::{Context as _, Result};
use serde_json::Value;

/// What every worker names.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The zone.
    pub zone: String,
    /// A template.
    pub template: String,
    /// A small offering.
    pub offering: String,
    /// An offering for disks of any size.
    pub disk_offering: String,
    /// The offering of isolated networks with a router.
    pub network_offering: String,
}

/// Makes offerings and accounts; gives a client for each account. Most of them are administrators, who read why something
/// failed, some of them users.
///
/// # Errors
/// What couldn't be made.
pub async fn prepare(admin: &Client, accounts: usize) -> Result<(Ground, Vec<Client>)> {
    let zone = first(admin, "listZones", "zone", &[]).await?;
    let template =
        first(admin, "listTemplates", "template", &[("templatefilter", "featured"), ("zoneid", &zone)]).await?;
    let small =
        [("name", "chaos.tiny"), ("displaytext", "chaos"), ("cpunumber", "1"), ("cpuspeed", "100"), ("memory", "128")];
    let offering = text(&admin.call("createServiceOffering", &small).await?, "/serviceoffering/id")?;
    let custom = [("name", "chaos.disk"), ("displaytext", "chaos"), ("customized", "true")];
    let disk_offering = text(&admin.call("createDiskOffering", &custom).await?, "/diskoffering/id")?;
    let by_name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
    let network_offering = first(admin, "listNetworkOfferings", "networkoffering", &by_name).await?;
    let setting = [("name", "allow.user.expunge.recover.vm"), ("value", "true")];
    admin.call("updateConfiguration", &setting).await?;
    let mut clients = Vec::new();
    for n in 0..accounts {
        let name = format!("{PREFIX}account-{n}");
        let kind = if n % 4 == 3 { "0" } else { "1" };
        let params = [
            ("accounttype", kind),
            ("username", name.as_str()),
            ("account", name.as_str()),
            ("password", "x1x1x1x1"),
            ("firstname", "First"),
            ("lastname", "Last"),
            ("email", "someone@example.org"),
        ];
        let made = admin.call("createAccount", &params).await?;
        let user = text(&made, "/account/user/0/id")?;
        let keys = admin.call("registerUserKeys", &[("id", &user)]).await?;
        clients.push(admin.keyed(
            n + 1,
            &name,
            &text(&keys, "/userkeys/apikey")?,
            &text(&keys, "/userkeys/secretkey")?,
        ));
    }
    Ok((Ground { zone, template, offering, disk_offering, network_offering }, clients))
}

async fn first(admin: &Client, command: &str, key: &str, params: &[(&str, &str)]) -> Result<String> {
    text(&admin.call(command, params).await?, &format!("/{key}/0/id"))
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("{pointer} in {value}"))
}
