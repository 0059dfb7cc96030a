//! Regions: this installation, and others beside it, each with its own database. Nothing is shared with them; that one is
//! down concerns no other.

use crate::store::regions::{self as rows, RegionRow, Taken};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use contract_infra::{
    AddRegionRequest, ListRegionsRequest, ListRegionsResponse, Region, RemoveRegionRequest, UpdateRegionRequest,
};
use rpc::Cx;

/// Registers another installation (INST-070).
///
/// # Errors
/// 431 when its number or name is taken, or the endpoint isn't an HTTP address.
pub async fn add(world: &World, cx: &Cx, r: AddRegionRequest) -> Result<Region, ApiError> {
    if r.id() < 1 {
        return Err(ApiError::param(format!("{} isn't the number of a region: they begin at 1", r.id())));
    }
    let region = RegionRow {
        id: r.id().into(),
        name: name(r.name())?.to_owned(),
        endpoint: endpoint(r.endpoint())?.to_owned(),
        own: false,
    };
    jobs::mutate!(world.node.db, cx.caller, "add-region", |tx| {
        match rows::insert(tx, &region).await? {
            None => Ok(message(region.clone())),
            Some(Taken::Id) => Err(ApiError::param(format!("Region with id: {} already exists", region.id))),
            Some(Taken::Name) => Err(name_taken(&region.name)),
        }
    })
    .await
}

/// Changes what is said of a region; of this one, too.
///
/// # Errors
/// 431 when it isn't known, the name is another's, or the endpoint isn't an HTTP address.
pub async fn update(world: &World, cx: &Cx, r: UpdateRegionRequest) -> Result<Region, ApiError> {
    let id = i64::from(r.id());
    let new_name = r.name.as_deref().map(name).transpose()?;
    let new_endpoint = r.endpoint.as_deref().map(endpoint).transpose()?;
    jobs::mutate!(world.node.db, cx.caller, "update-region", |tx| {
        if !rows::update(tx, id, new_name, new_endpoint).await? {
            return Err(name_taken(new_name.unwrap_or_default()));
        }
        Ok(message(rows::find(&mut *tx, id).await?.ok_or_else(|| unknown(id))?))
    })
    .await
}

/// Forgets another installation. Nothing of it is touched (INST-076).
///
/// # Errors
/// 431 when it isn't known, or is this one.
pub async fn remove(world: &World, cx: &Cx, r: RemoveRegionRequest) -> Result<Success, ApiError> {
    let id = i64::from(r.id());
    jobs::mutate!(world.node.db, cx.caller, "remove-region", |tx| {
        if rows::find(&mut *tx, id).await?.is_some_and(|r| r.own) {
            return Err(ApiError::param(format!("Region {id} is this one, and can't be removed from itself")));
        }
        if !rows::delete(tx, id).await? {
            return Err(unknown(id));
        }
        Ok(Success { success: true, ..Success::default() })
    })
    .await
}

/// Lists regions, to everybody (TOPO-030).
///
/// # Errors
/// Those of paging and of the database.
pub async fn list(world: &World, r: ListRegionsRequest) -> Result<ListRegionsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let (found, count) = rows::list(
        &world.node.db,
        r.id.map(i64::from),
        r.name.as_deref().filter(|n| !n.is_empty()),
        r.keyword.as_deref().filter(|k| !k.is_empty()),
        page,
    )
    .await?;
    Ok(ListRegionsResponse { count: Some(count), region: found.into_iter().map(message).collect() })
}

fn name(name: &str) -> Result<&str, ApiError> {
    let name = name.trim();
    if name.is_empty() { Err(ApiError::param("The name of a region can't be empty")) } else { Ok(name) }
}

fn endpoint(text: &str) -> Result<&str, ApiError> {
    match text.parse::<http::Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => Ok(text),
        _ => Err(ApiError::param(format!(
            "'{text}' isn't the address of a region's API, such as http://region2.example.com:8080/client"
        ))),
    }
}

fn name_taken(name: &str) -> ApiError {
    ApiError::param(format!("Region with name: {name} already exists"))
}

fn unknown(id: i64) -> ApiError {
    ApiError::param(format!("Region with id: {id} doesn't exist"))
}

fn message(r: RegionRow) -> Region {
    Region {
        id: i32::try_from(r.id).ok(),
        name: Some(r.name),
        endpoint: Some(r.endpoint),
        // As 4.11 shows a region at first; neither is switched by any command.
        gslb_service_enabled: Some(true),
        portableip_service_enabled: Some(false),
        ..Region::default()
    }
}
