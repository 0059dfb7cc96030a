//! Physical networks.

use super::{Api, domain, given, keyword};
use crate::address::VlanRanges;
use crate::catalogue::{Provider, VIRTUAL_ROUTER};
use crate::job::{self, Action, AdminJob, Order};
use crate::network::system::system_networks;
use crate::present;
use crate::store::physical::{self, Filter, Physical};
use crate::store::providers::{self, NetworkProvider};
use crate::store::{ranges, zones};
use crate::world::World;
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_network::physical_networks_server::PhysicalNetworks;
use contract_network::{
    CreatePhysicalNetworkRequest, DeletePhysicalNetworkRequest, ListPhysicalNetworksRequest,
    ListPhysicalNetworksResponse, UpdatePhysicalNetworkRequest,
};
use jobs::Claim;
use tonic::{Request, Response, Status};

/// Ways to keep guests apart that work.
const ISOLATION: &[&str] = &["VLAN", "VXLAN"];

#[tonic::async_trait]
impl PhysicalNetworks for Api {
    async fn create(&self, request: Request<CreatePhysicalNetworkRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let gone = || ApiError::param("the zone has been removed".to_owned());
        let zone = zones::zone(db, cx.refs.need("zoneid")?).await.map_err(ApiError::from)?.ok_or_else(gone)?;
        if zone.enabled {
            return Err(ApiError::permission(format!(
                "Cannot create PhysicalNetwork since the Zone is currently enabled, zone Id: {}",
                zone.uuid
            ))
            .into());
        }
        let existing = physical::of_zone(db, zone.id).await.map_err(ApiError::from)?;
        if zone.is_basic() && !existing.is_empty() {
            return Err(ApiError::failed("Cannot add the physical network to basic zone: it has one already").into());
        }
        let name = given(&req.name).ok_or_else(|| ApiError::empty_param("name"))?;
        let isolation = isolation(&req.isolation_methods)?;
        let mut row = Physical {
            id: db.next_id("physical_networks").await.map_err(ApiError::from)?,
            uuid: model::new_uuid(),
            name,
            zone_id: zone.id,
            state: "Disabled".into(),
            vlan: None,
            speed: given(&req.network_speed),
            domain_id: domain(&cx)?.map(|(id, _)| id),
            broadcast_range: broadcast_range(&req.broadcast_domain_range, zone.is_basic())?,
            tags: req.tags.join(","),
            isolation_methods: isolation,
        };
        if let Some(vlan) = given(&req.vlan) {
            row.vlan = Some(check_vlans(world, &zone, &row, &vlan).await?);
        }
        let provider = NetworkProvider {
            id: db.next_id("network_providers").await.map_err(ApiError::from)?,
            uuid: model::new_uuid(),
            name: VIRTUAL_ROUTER.into(),
            physical_network_id: row.id,
            destination_id: None,
            state: "Disabled".into(),
            services: Provider::find(VIRTUAL_ROUTER).map(Provider::service_names).unwrap_or_default(),
        };
        let element = db.next_id("router_elements").await.map_err(ApiError::from)?;
        let element_uuid = model::new_uuid();
        let systems = system_networks(world, &zone).await?;
        let order = Order {
            command: CreatePhysicalNetworkRequest::COMMAND,
            caller: &cx.caller,
            owner: None,
            instance: Some(("PhysicalNetwork", row.uuid.clone())),
            claims: vec![Claim::Exclusive(format!("physical-network/{}", row.id))],
            custom_id: req.custom_job_id.clone(),
            description: format!("creating Physical Network {} in zone {}", row.name, zone.name),
            entity_id: Some(row.uuid.clone()),
        };
        let ticket = world.jobs.ticket().await?;
        let accept = order.of(AdminJob { action: Action::CreatePhysical { id: row.id } });
        let answer = jobs::mutate!(world.node.db, cx.caller, "create-physical-network", |tx| {
            physical::insert(tx, &row).await?;
            providers::insert(tx, &provider, element, &element_uuid).await?;
            systems.write(tx).await?;
            world.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn update(&self, request: Request<UpdatePhysicalNetworkRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let row = found(world, cx.refs.need("id")?).await?;
        let state = match given(&req.state) {
            None => None,
            Some(s) if s.eq_ignore_ascii_case("Enabled") => Some("Enabled".to_owned()),
            Some(s) if s.eq_ignore_ascii_case("Disabled") => Some("Disabled".to_owned()),
            Some(s) => {
                return Err(ApiError::param(format!(
                    "Unable to resolve state '{s}' to a supported value {{Enabled or Disabled}}"
                ))
                .into());
            }
        };
        let vlan = match given(&req.vlan) {
            Some(vlan) => {
                let zone = zones::zone(&world.node.db, row.zone_id).await.map_err(ApiError::from)?;
                let zone = zone.ok_or_else(|| ApiError::param("the zone has been removed".to_owned()))?;
                Some(check_vlans(world, &zone, &row, &vlan).await?)
            }
            None => None,
        };
        let tags = (!req.tags.is_empty()).then(|| req.tags.join(","));
        let order = order(
            &cx.caller,
            UpdatePhysicalNetworkRequest::COMMAND,
            &row,
            "Updating Physical network",
            &req.custom_job_id,
        );
        let action = Action::UpdatePhysical { id: row.id, state, vlan, speed: given(&req.network_speed), tags };
        Ok(Response::new(job::accept(world, order, AdminJob { action }).await?))
    }

    async fn delete(&self, request: Request<DeletePhysicalNetworkRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let row = found(world, cx.refs.need("id")?).await?;
        let order = order(
            &cx.caller,
            DeletePhysicalNetworkRequest::COMMAND,
            &row,
            "Deleting Physical network",
            &req.custom_job_id,
        );
        let action = Action::DeletePhysical { id: row.id };
        Ok(Response::new(job::accept(world, order, AdminJob { action }).await?))
    }

    async fn list(
        &self,
        request: Request<ListPhysicalNetworksRequest>,
    ) -> Result<Response<ListPhysicalNetworksResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let filter = Filter {
            id: cx.refs.one("id").map(|e| e.id),
            zone_id: cx.refs.one("zoneid").map(|e| e.id),
            name: given(&req.name),
            keyword: keyword(&req.keyword),
        };
        let page = world.page(req.page, req.page_size)?;
        let (rows, count) = physical::list(&world.node.db, &filter, &page).await.map_err(ApiError::from)?;
        let physical_network = present::physicals(&world.node.db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListPhysicalNetworksResponse { count: Some(count), physical_network }))
    }
}

pub(super) async fn found(world: &World, id: i64) -> Result<Physical, ApiError> {
    physical::one(&world.node.db, id)
        .await?
        .ok_or_else(|| ApiError::param("the physical network has been removed".to_owned()))
}

fn order<'a>(
    caller: &'a contract::api::Caller,
    command: Option<&'static contract::CommandInfo>,
    row: &Physical,
    verb: &str,
    custom_id: &Option<String>,
) -> Order<'a> {
    Order {
        command,
        caller,
        owner: None,
        instance: Some(("PhysicalNetwork", row.uuid.clone())),
        claims: vec![Claim::Exclusive(format!("physical-network/{}", row.id))],
        custom_id: custom_id.clone(),
        description: format!("{verb}: {}", row.uuid),
        entity_id: None,
    }
}

fn isolation(methods: &[String]) -> Result<String, ApiError> {
    let given: Vec<&str> = methods.iter().map(|m| m.trim()).filter(|m| !m.is_empty()).collect();
    match given.as_slice() {
        [] => Ok(String::new()),
        [one] => ISOLATION
            .iter()
            .find(|known| known.eq_ignore_ascii_case(one))
            .map(|known| (*known).to_owned())
            .ok_or_else(|| {
                ApiError::param(format!("isolation method {one} isn't there yet: give one of {}", ISOLATION.join(", ")))
            }),
        _ => Err(ApiError::param(
            "Only one isolationMethod can be specified for a physical network at this time".to_owned(),
        )),
    }
}

fn broadcast_range(text: &Option<String>, basic: bool) -> Result<String, ApiError> {
    let word = given(text).unwrap_or_else(|| if basic { "POD" } else { "ZONE" }.to_owned()).to_uppercase();
    match word.as_str() {
        "ZONE" => Ok(word),
        "POD" if basic => Ok(word),
        "POD" => Err(ApiError::param(
            "Basic zone is the only type of zone that can have a POD broadcast domain range".to_owned(),
        )),
        _ => Err(ApiError::param(format!(
            "Unable to resolve broadcastDomainRange '{word}' to a supported value {{Pod or Zone}}"
        ))),
    }
}

/// Checks the guest VLANs of a physical network; gives them in order.
async fn check_vlans(world: &World, zone: &zones::Zone, row: &Physical, text: &str) -> Result<String, ApiError> {
    if zone.is_basic() {
        return Err(ApiError::param(
            "Can't add vnet range to the physical network in the zone that supports Basic network".to_owned(),
        ));
    }
    let wanted = VlanRanges::parse(text, row.is_vxlan())?;
    let db = &world.node.db;
    for other in physical::of_zone(db, zone.id).await? {
        let known = VlanRanges::stored(other.vlan.as_deref());
        if other.id != row.id && row.is_vxlan() && other.is_vxlan() && known.overlaps(&wanted) {
            return Err(ApiError::param(format!(
                "a VNI of {text} already exists on another network in zone: physical network {} has {known}",
                other.name
            )));
        }
    }
    // VLANs of different traffic on one wire must not meet.
    for tag in ranges::public_tags(db, row.id).await? {
        if tag.parse().is_ok_and(|vlan| wanted.contains(vlan)) {
            return Err(ApiError::param(format!(
                "VLAN {tag} of physical network {} carries public addresses: leave it out of the guest range",
                row.name
            )));
        }
    }
    Ok(wanted.to_string())
}
