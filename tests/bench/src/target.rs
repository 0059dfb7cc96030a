//! The zone that is driven, and what deploys name in it. Everything that is made carries a tag of this run, so that a run that
//! left things behind doesn't disturb the next one.

use crate::ask::{job, text, value};
use anyhow::{Context, Result, ensure};
use arcus::api_client::ApiClient;
use serde_json::Value;

/// Resources that accounts have limits of, by number: VMs, addresses, volumes, networks, CPUs, memory, primary storage.
const LIMITED: [&str; 7] = ["0", "1", "2", "6", "8", "9", "10"];

/// Bytes of a pool that has room for everything (64 TiB).
const POOL: u64 = 1 << 46;

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
    /// Isolated networks of our own, each with its owner.
    pub networks: Vec<Network>,
    /// Accounts of our own.
    pub accounts: Vec<String>,
    /// Begins the names of what we make.
    pub tag: String,
}

/// A network and whose it is.
pub struct Network {
    /// Its id.
    pub id: String,
    /// Name of the account.
    pub account: String,
    /// The account's domain.
    pub domain: String,
}

impl Zone {
    /// Finds the first enabled advanced zone, and makes accounts without limits, an offering and networks in it.
    ///
    /// # Errors
    /// What is missing, or the API's text.
    pub async fn prepare(api: &ApiClient, networks: usize, accounts: usize) -> Result<Zone> {
        let zones = value(api, "listZones", &[("available", "true")]).await?;
        let fits = |z: &&Value| z["networktype"] == "Advanced" && z["allocationstate"] == "Enabled";
        let zones = zones["zone"].as_array().cloned().unwrap_or_default();
        let zone = zones.iter().find(fits).context("there is no enabled advanced zone")?;
        let id = text(zone, "/id")?;
        let pod = first(api, "listPods", "pod", &[("zoneid", &id)]).await?;
        let wanted = [("templatefilter", "featured"), ("zoneid", id.as_str())];
        let templates = value(api, "listTemplates", &wanted).await?;
        let templates = templates["template"].as_array().cloned().unwrap_or_default();
        let template = templates.iter().find(|t| t["isready"] == true).context("no template is ready")?;
        let tag = format!("b{:x}", started() % 0x100_0000);
        let name = format!("{tag}.tiny");
        let small = [
            ("name", name.as_str()),
            ("displaytext", "bench"),
            ("cpunumber", "1"),
            ("cpuspeed", "100"),
            ("memory", "128"),
        ];
        let offering = text(&value(api, "createServiceOffering", &small).await?, "/serviceoffering/id")?;
        let mut zone = Zone {
            id,
            pod,
            template: text(template, "/id")?,
            offering,
            networks: Vec::new(),
            accounts: Vec::new(),
            tag,
        };
        let mut owners = Vec::new();
        for n in 0..accounts.max(1) {
            owners.push(zone.account(api, n).await.context("an account")?);
        }
        for n in 0..networks.max(1) {
            let (account, domain) = owners[n % owners.len()].clone();
            zone.network(api, n, account, domain).await.context("a network")?;
        }
        Ok(zone)
    }

    async fn account(&mut self, api: &ApiClient, n: usize) -> Result<(String, String)> {
        let name = format!("{}-{n}", self.tag);
        let params = [
            ("accounttype", "0"),
            ("email", "bench@example.org"),
            ("firstname", "Bench"),
            ("lastname", "Bench"),
            ("username", name.as_str()),
            ("password", "pw-12345"),
        ];
        let made = value(api, "createAccount", &params).await?;
        self.accounts.push(text(&made, "/account/id")?);
        let domain = text(&made, "/account/domainid")?;
        for kind in LIMITED {
            let params =
                [("account", name.as_str()), ("domainid", domain.as_str()), ("resourcetype", kind), ("max", "-1")];
            value(api, "updateResourceLimit", &params).await?;
        }
        Ok((name, domain))
    }

    async fn network(&mut self, api: &ApiClient, n: usize, account: String, domain: String) -> Result<()> {
        let by_name = [("name", "DefaultIsolatedNetworkOfferingWithSourceNatService")];
        let kind = first(api, "listNetworkOfferings", "networkoffering", &by_name).await?;
        let (name, gateway) = (format!("{}-{n}", self.tag), format!("10.{}.0.1", 2 + n % 250));
        let params = [
            ("zoneid", self.id.as_str()),
            ("name", name.as_str()),
            ("displaytext", "bench"),
            ("networkofferingid", kind.as_str()),
            ("account", account.as_str()),
            ("domainid", domain.as_str()),
            ("gateway", gateway.as_str()),
            // 65,000 addresses each: their number isn't what is measured.
            ("netmask", "255.255.0.0"),
        ];
        let id = text(&value(api, "createNetwork", &params).await?, "/network/id")?;
        self.networks.push(Network { id, account, domain });
        Ok(())
    }

    /// Gives each cluster of simulated hosts a pool that is never full.
    ///
    /// # Errors
    /// The API's text.
    pub async fn room(&self, api: &ApiClient) -> Result<()> {
        let clusters = value(api, "listClusters", &[("zoneid", &self.id)]).await?;
        for (n, cluster) in clusters["cluster"].as_array().context("no cluster")?.iter().enumerate() {
            let (id, name) = (text(cluster, "/id")?, format!("{}-pool{n}", self.tag));
            let url = format!("nfs://192.0.2.10/export/{name}?capacity={POOL}");
            let params = [
                ("zoneid", self.id.as_str()),
                ("podid", self.pod.as_str()),
                ("clusterid", id.as_str()),
                ("name", name.as_str()),
                ("url", url.as_str()),
            ];
            let made = value(api, "createStoragePool", &params).await?;
            let total = made.pointer("/storagepool/disksizetotal").and_then(Value::as_u64).unwrap_or_default();
            ensure!(total >= POOL, "a pool of {POOL} bytes was asked for, and has {total}");
        }
        Ok(())
    }

    /// Removes what was made; what can't be is told.
    pub async fn clean(&self, api: &ApiClient) {
        for network in &self.networks {
            told("network", &network.id, job(api, "deleteNetwork", &[("id", &network.id)]).await);
        }
        for account in &self.accounts {
            told("account", account, job(api, "deleteAccount", &[("id", account)]).await);
        }
        told("offering", &self.offering, value(api, "deleteServiceOffering", &[("id", &self.offering)]).await);
    }
}

/// How many rows a list says that there are.
///
/// # Errors
/// The API's text.
pub async fn count(api: &ApiClient, command: &str, params: &[(&str, &str)]) -> Result<usize> {
    let mut all = params.to_vec();
    all.extend([("page", "1"), ("pagesize", "1")]);
    let answer = value(api, command, &all).await?;
    Ok(answer.get("count").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or_default())
}

/// Says what stays behind.
pub fn told<T>(what: &str, id: &str, result: Result<T>) {
    if let Err(e) = result {
        println!("left behind: {what} {id}: {e:#}");
    }
}

/// Seconds of the clock: names this run.
fn started() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

async fn first(api: &ApiClient, command: &str, key: &str, params: &[(&str, &str)]) -> Result<String> {
    text(&value(api, command, params).await?, &format!("/{key}/0/id"))
}
