//! The network of a VM whose request names none.

use crate::catalogue::Offering;
use crate::network::create::{self, Wish};
use crate::store::{networks, offerings, zones};
use crate::world::World;
use contract::ApiError;
use contract::api::Caller;
use contract_network::{DefaultNetworkRequest, DefaultNetworkResponse};
use model::Owner;

/// Finds, or makes, the account's isolated network with source NAT.
///
/// # Errors
/// 431 when the account has several, or none can be made.
pub async fn default_network(
    world: &World,
    caller: &Caller,
    request: &DefaultNetworkRequest,
) -> Result<DefaultNetworkResponse, ApiError> {
    let db = &world.node.db;
    let owner = Owner {
        account_id: request.account_id,
        domain_id: request.domain_id,
        domain_path: request.domain_path.clone(),
    };
    let gate = format!("default-network/{}/{}", request.zone_id, owner.account_id);
    let _alone = world.gates.enter(&gate).await;
    let found = networks::isolated_of(db, request.zone_id, owner.account_id).await?;
    match found.as_slice() {
        [one] => return Ok(DefaultNetworkResponse { network_id: one.id, network_uuid: one.uuid.clone() }),
        [] => {}
        several => {
            return Err(ApiError::param(format!(
                "More than 1 default Isolated networks are found for account {}: please specify networkIds ({})",
                owner.account_id,
                several.iter().map(|n| n.title().to_owned()).collect::<Vec<_>>().join(", ")
            )));
        }
    }
    let zone = zones::zone(db, request.zone_id)
        .await?
        .ok_or_else(|| ApiError::param(format!("zone {} has been removed", request.zone_id)))?;
    let offering = required(world).await?;
    let name = format!("{}-network", zones::account_name(db, owner.account_id).await?);
    let wish = Wish {
        name: name.clone(),
        display_text: name,
        owner: Some(owner),
        unique: Some(format!("default/{}/{}", request.zone_id, request.account_id)),
        ..Wish::default()
    };
    let network = create::create(world, caller, &zone, &offering, wish).await?;
    Ok(DefaultNetworkResponse { network_id: network.id, network_uuid: network.uuid })
}

/// The offering that administrators made the one for such networks.
async fn required(world: &World) -> Result<Offering, ApiError> {
    let all = offerings::listable(&world.node.db).await?;
    let fits = |o: &Offering| {
        o.availability == "Required" && o.state == "Enabled" && o.is("Isolated") && o.source_nat() && !o.for_vpc
    };
    all.into_iter().find(fits).ok_or_else(|| {
        ApiError::param(
            "Unable to find network offering with availability=Required to automatically create the network as a part of vm creation"
                .to_owned(),
        )
    })
}
