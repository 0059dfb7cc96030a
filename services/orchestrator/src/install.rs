//! What a fresh installation has: its region, compute offerings, guest operating systems, hypervisor capabilities. Written once, in
//! one transaction; replicas that start together don't meet.

use crate::store::install as rows;
use crate::store::offerings::{self, OfferingRow};
use crate::store::regions::{self, RegionRow};
use ::store::{Error, now_micros};
use config::keys;
use contract::ApiError;
use node::Node;
use serde::Deserialize;

#[derive(Deserialize)]
struct Catalogue {
    service_offerings: Vec<Offering>,
    os_categories: Vec<(i64, String)>,
    os_types: Vec<(i64, i64, String)>,
    hypervisor_capabilities: Vec<rows::Caps>,
}

#[derive(Deserialize)]
struct Offering {
    name: String,
    unique_name: String,
    display_text: Option<String>,
    cpu: i64,
    cpu_mhz: i64,
    memory_mb: i64,
    offer_ha: bool,
    system_use: bool,
    vm_type: Option<String>,
    storage_type: String,
    provisioning_type: String,
    network_rate: Option<i64>,
    default_use: bool,
}

/// Writes what is missing.
///
/// # Errors
/// Those of the database.
pub async fn run(node: &Node) -> Result<(), ApiError> {
    let db = &node.db;
    if node.settings.get(keys::CLOUD_IDENTIFIER).is_none() {
        let id = model::new_uuid();
        let written = ::store::tx!(db, "cloud-identifier", |tx| {
            node.settings.set_first(tx, keys::CLOUD_IDENTIFIER.name, &id).await
        })
        .await;
        if let Err(error) = written {
            // Another replica was as fast; guests that ask meanwhile are told nothing.
            tracing::debug!(%error, "the installation's identifier wasn't written");
        }
    }
    if regions::own(db).await?.is_none() {
        own_region(node, FIRST_REGION).await?;
    }
    if !offerings::seeded(db).await? {
        let catalogue: Catalogue = serde_json::from_str(include_str!("../data/catalogue.json"))
            .map_err(|e| ApiError::internal(format!("the catalogue of a fresh installation can't be read: {e}")))?;
        let written = ::store::tx!(db, "install", |tx| {
            offerings::insert(tx, &seeded(&catalogue.service_offerings)).await?;
            rows::os_categories(tx, &catalogue.os_categories).await?;
            rows::os_types(tx, &catalogue.os_types).await?;
            rows::capabilities(tx, &catalogue.hypervisor_capabilities).await?;
            Ok::<_, Error>(())
        })
        .await;
        match written {
            Ok(()) | Err(Error::Unique { .. }) => {} // another replica was faster
            Err(e) => return Err(e.into()),
        }
    }
    for (kind, table) in [
        ("service_offering", "service_offerings"),
        ("os_type", "os_types"),
        ("os_category", "os_categories"),
        ("hypervisor_caps", "hypervisor_caps"),
    ] {
        db.start_ids(kind, rows::highest(db, table).await? + 1).await?;
    }
    Ok(())
}

/// The region of an installation that isn't told which one it is.
const FIRST_REGION: i64 = 1;

/// Makes a fresh installation the region with this number (INST-043, INST-068). One that is it already stays so.
///
/// # Errors
/// 431 when the number can't be one, or the installation is another region: that can't be changed.
pub async fn own_region(node: &Node, id: i64) -> Result<(), ApiError> {
    let db = &node.db;
    if id < 1 {
        return Err(ApiError::param(format!("{id} isn't the number of a region: they begin at 1")));
    }
    if regions::own(db).await?.is_none() {
        let row = RegionRow { id, name: "Local".into(), endpoint: "http://localhost:8080/client/".into(), own: true };
        match ::store::tx!(db, "own-region", |tx| regions::insert(tx, &row).await).await {
            Ok(_) | Err(Error::Unique { .. }) => {} // another replica was faster
            Err(e) => return Err(e.into()),
        }
    }
    match regions::own(db).await? {
        Some(own) if own == id => Ok(()),
        Some(own) => Err(ApiError::param(format!("this installation is region {own}: it can't become region {id}"))),
        None => Err(ApiError::internal("this installation has no region of its own")),
    }
}

fn seeded(offerings: &[Offering]) -> Vec<OfferingRow> {
    let created = now_micros();
    (1i64..)
        .zip(offerings)
        .map(|(id, o)| OfferingRow {
            id,
            uuid: model::new_uuid(),
            name: o.name.clone(),
            unique_name: Some(o.unique_name.clone()),
            display_text: o.display_text.clone().unwrap_or_else(|| o.name.clone()),
            cpu: Some(o.cpu),
            cpu_mhz: Some(o.cpu_mhz),
            memory_mb: Some(o.memory_mb),
            rate_mbps: o.network_rate,
            offer_ha: o.offer_ha,
            storage_type: o.storage_type.clone(),
            provisioning_type: o.provisioning_type.clone(),
            is_system: o.system_use,
            system_vm_type: o.vm_type.clone(),
            default_use: o.default_use,
            created,
            ..OfferingRow::default()
        })
        .collect()
}
