//! Address ranges.

use super::{Api, domain, given, keyword};
use crate::address::tag_of;
use crate::network::ranges::{self as planning, Wish};
use crate::present;
use crate::store::ranges::{DIRECT, Filter, PUBLIC, VlanRange};
use crate::store::{ips, networks, nics, physical, ranges, routers, zones};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use contract_network as net;
use contract_network::vlan_ip_ranges_server::VlanIpRanges;
use contract_network::{
    CreateVlanIpRangeRequest, DeleteVlanIpRangeRequest, ListVlanIpRangesRequest, ListVlanIpRangesResponse,
};
use events::{EventRecord, EventState, Record};
use model::Owner;
use rpc::Cx;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl VlanIpRanges for Api {
    async fn create(&self, request: Request<CreateVlanIpRangeRequest>) -> Result<Response<net::VlanIpRange>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        let planned = plan(world, &cx, &req).await?;
        let shown =
            present::ranges(&world.node.db, std::slice::from_ref(&planned.range)).await.map_err(ApiError::from)?;
        let answer = shown.into_iter().next().unwrap_or_default();
        let answer = jobs::mutate!(world.node.db, cx.caller, "create-vlan-ip-range", |tx| {
            planning::write(tx, &planned).await?;
            let r = &planned.range;
            let text = format!("creating vlan IP range {}-{} on vlan {}", r.start_ip, r.end_ip, r.vlan);
            events::record(tx, &[event(&cx, "VLAN.IP.RANGE.CREATE", r, text)]).await?;
            Ok(answer.clone())
        })
        .await?;
        refresh(world, planned.range.network_id).await?;
        Ok(Response::new(answer))
    }

    async fn delete(&self, request: Request<DeleteVlanIpRangeRequest>) -> Result<Response<Success>, Status> {
        let world = &self.world;
        let (cx, _) = world.node.rpc.enter(request).await?;
        let gone = || ApiError::param("Please specify a valid IP range id: it has been removed".to_owned());
        let row = ranges::one(&world.node.db, cx.refs.need("id")?).await.map_err(ApiError::from)?.ok_or_else(gone)?;
        let answer = jobs::mutate!(world.node.db, cx.caller, "delete-vlan-ip-range", |tx| {
            networks::touch(tx, row.network_id).await?;
            if !ranges::remove(tx, row.id).await? {
                return Err(gone());
            }
            let free = match row.kind.as_str() {
                DIRECT => !nics::any_between(tx, row.network_id, row.range.0, row.range.1).await?,
                _ => ips::delete_range(tx, row.id).await?,
            };
            if !free {
                return Err(ApiError::param(format!(
                    "Can't delete the IP range {}-{}: Ips are in use",
                    row.start_ip, row.end_ip
                ))
                .with_entity(&row.uuid, "id"));
            }
            routers::raise_for_spec(tx, row.network_id).await?;
            let text = format!("deleting vlan IP range {}-{}", row.start_ip, row.end_ip);
            events::record(tx, &[event(&cx, "VLAN.IP.RANGE.DELETE", &row, text)]).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        refresh(world, row.network_id).await?;
        Ok(Response::new(answer))
    }

    async fn list(
        &self,
        request: Request<ListVlanIpRangesRequest>,
    ) -> Result<Response<ListVlanIpRangesResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let domain = domain(&cx)?;
        let account_id = match given(&req.account) {
            Some(name) => {
                let of = domain.as_ref().map(|(id, path)| (*id, path.as_str()));
                Some(model::scope::owner_for_create(db, &cx.caller, Some(&name), of).await?.account_id)
            }
            None => None,
        };
        let filter = Filter {
            id: cx.refs.one("id").map(|e| e.id),
            zone_id: cx.refs.one("zoneid").map(|e| e.id),
            network_id: cx.refs.one("networkid").map(|e| e.id),
            physical_network_id: cx.refs.one("physicalnetworkid").map(|e| e.id),
            pod_id: cx.refs.one("podid").map(|e| e.id),
            vlan: given(&req.vlan).map(|v| tag_of(&v)).transpose()?,
            kind: req.for_virtual_network.map(|public| if public { PUBLIC } else { DIRECT }),
            account_id,
            domain_id: if account_id.is_some() { None } else { domain.map(|(id, _)| id) },
            keyword: keyword(&req.keyword),
        };
        let page = world.page(req.page, req.page_size)?;
        let (rows, count) = ranges::list(db, &filter, &page).await.map_err(ApiError::from)?;
        let vlan_ip_range = present::ranges(db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListVlanIpRangesResponse { count: Some(count), vlan_ip_range }))
    }
}

async fn plan(world: &World, cx: &Cx, req: &CreateVlanIpRangeRequest) -> Result<planning::Planned, ApiError> {
    let db = &world.node.db;
    let network = match cx.refs.id::<i64>("networkid")? {
        Some(id) => networks::one(db, id).await?,
        None => None,
    };
    let physical = match cx.refs.id::<i64>("physicalnetworkid")? {
        Some(id) => physical::one(db, id).await?,
        None => None,
    };
    if cx.refs.one("podid").is_some() {
        return Err(ApiError::unsupported(
            "podid is for zones with Basic networking, which aren't there yet".to_owned(),
        ));
    }
    let zone_id = cx
        .refs
        .id::<i64>("zoneid")?
        .or(network.as_ref().map(|n| n.zone_id))
        .or(physical.as_ref().map(|p| p.zone_id))
        .ok_or_else(|| ApiError::param("zoneId or physicalNetworkId or networkId must be specified".to_owned()))?;
    let zone = zones::zone(db, zone_id)
        .await?
        .ok_or_else(|| ApiError::param("Please specify a valid zone: it has been removed".to_owned()))?;
    if network.as_ref().is_some_and(|n| n.zone_id != zone.id) || physical.as_ref().is_some_and(|p| p.zone_id != zone.id)
    {
        return Err(ApiError::param("the network isn't one of the zone that zoneid names".to_owned()));
    }
    let wish = Wish {
        physical: physical.map(|p| p.id),
        gateway: given(&req.gateway),
        netmask: given(&req.netmask),
        start_ip: given(&req.start_ip),
        end_ip: given(&req.end_ip),
        vlan: given(&req.vlan),
        dedicated: dedicated(world, cx, req).await?,
        for_system_vms: req.for_system_vms.unwrap_or(false),
    };
    match network {
        Some(network) if !network.is_system => {
            if req.for_virtual_network == Some(true) {
                return Err(ApiError::param(
                    "Can't add a range of public addresses to a guest network: forvirtualnetwork must be false"
                        .to_owned(),
                ));
            }
            if wish.dedicated.is_some() || wish.for_system_vms {
                return Err(ApiError::param("Only ranges of public addresses can be dedicated".to_owned()));
            }
            planning::plan_direct(world, &zone, &network, &wish).await
        }
        _ if req.for_virtual_network == Some(false) => {
            Err(ApiError::param("networkid is required for a range that isn't of public addresses".to_owned()))
        }
        _ => planning::plan_public(world, &zone, &wish).await,
    }
}

async fn dedicated(world: &World, cx: &Cx, req: &CreateVlanIpRangeRequest) -> Result<Option<Owner>, ApiError> {
    let domain = domain(cx)?;
    match (given(&req.account), domain) {
        (None, None) => Ok(None),
        (Some(name), Some((id, path))) => {
            let owner =
                model::scope::owner_for_create(&world.node.db, &cx.caller, Some(&name), Some((id, &path))).await?;
            if owner.account_id == 1 {
                return Err(ApiError::param("Can't dedicate an IP range to the system account".to_owned()));
            }
            Ok(Some(owner))
        }
        (Some(_), None) => Err(ApiError::param("domainid is required with account".to_owned())),
        (None, Some(_)) => {
            Err(ApiError::param("Account is required with domainid: a range is dedicated to an account".to_owned()))
        }
    }
}

fn event(cx: &Cx, kind: &str, range: &VlanRange, text: String) -> Record {
    Record::Event(EventRecord::new(&cx.caller, kind, EventState::Completed, text).about("VlanIpRange", &range.uuid))
}

/// The network's addresses are others now.
async fn refresh(world: &World, network: i64) -> Result<(), ApiError> {
    world.changed(network);
    world.pools.forget(network);
    if let Some(router) = routers::of_network(&world.node.db, network).await? {
        world.routers.wake(router.id);
    }
    Ok(())
}
