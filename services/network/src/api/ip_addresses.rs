//! Public addresses.

use super::{Api, Owners, domain, given, keyword, tag_filter};
use crate::job::{AssociateIp, DisassociateIp, Order, UpdateIp};
use crate::network::View;
use crate::network::implement;
use crate::present;
use crate::store::ips::{self, Filter, Taking};
use crate::store::networks;
use crate::world::{LIMIT_PUBLIC_IP, World};
use contract::api::{Access, JobRef};
use contract::{ApiError, Request as _};
use contract_network::ip_addresses_server::IpAddresses;
use contract_network::{
    AssociateIpAddressRequest, DisassociateIpAddressRequest, ListPublicIpAddressesRequest,
    ListPublicIpAddressesResponse, UpdateIpAddressRequest,
};
use jobs::Claim;
use model::{ListScope, Owner};
use rpc::Cx;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Addresses that one request tries before it says that others are always faster.
const TRIES: usize = 200;

#[tonic::async_trait]
impl IpAddresses for Api {
    async fn list(
        &self,
        request: Request<ListPublicIpAddressesRequest>,
    ) -> Result<Response<ListPublicIpAddressesResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let page = world.page(req.page, req.page_size)?;
        // Addresses of shared networks' guests have no life of their own here: they are those of interfaces.
        if req.for_virtual_network == Some(false) {
            return Ok(Response::new(ListPublicIpAddressesResponse { count: Some(0), public_ip_address: Vec::new() }));
        }
        let id = cx.refs.one("id").map(|e| e.id);
        let owners = Owners {
            account: req.account.as_deref(),
            list_all: req.list_all,
            recursive: req.is_recursive,
            by_id: id.is_some(),
        };
        let mut scope = owners.scope(db, &cx).await?;
        let state = given(&req.state);
        let free =
            state.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("Free")) || req.allocated_only == Some(false);
        // Free addresses belong to nobody: root admins see them all.
        if free && cx.caller.is_root_admin() && given(&req.account).is_none() && cx.refs.one("domainid").is_none() {
            scope = ListScope::All;
        }
        const STATES: &[&str] = &["Free", "Allocating", "Allocated", "Releasing"];
        let filter = Filter {
            id,
            ip: given(&req.ip_address),
            allocated_only: req.allocated_only.unwrap_or(state.is_none()),
            state: state.map(|s| STATES.iter().find(|k| k.eq_ignore_ascii_case(&s)).map_or(s, |k| (*k).to_owned())),
            vlan_range_id: cx.refs.one("vlanid").map(|e| e.id),
            zone_id: cx.refs.one("zoneid").map(|e| e.id),
            physical_network_id: cx.refs.one("physicalnetworkid").map(|e| e.id),
            network_id: cx.refs.one("associatednetworkid").map(|e| e.id),
            source_nat: req.is_source_nat,
            static_nat: req.is_static_nat,
            display: if cx.caller.is_root_admin() { req.for_display } else { Some(true) },
            keyword: keyword(&req.keyword),
            tags: tag_filter(&req.tags),
        };
        let (rows, count) = ips::list(db, &filter, &scope, &page).await.map_err(ApiError::from)?;
        let public_ip_address = present::ips(db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListPublicIpAddressesResponse { count: Some(count), public_ip_address }))
    }

    async fn associate(&self, request: Request<AssociateIpAddressRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        if let Some(answer) = jobs::answered(&world.node.db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        let view = target(world, &cx, &req).await?;
        let owner = view.network.owner.clone();
        if !view.network.is("Isolated") || !view.offering.source_nat() {
            return Err(ApiError::param(format!(
                "Public addresses can be acquired for Isolated networks with source NAT: network {} is none",
                view.network.title()
            ))
            .with_entity(&view.network.uuid, "networkid")
            .into());
        }
        for _ in 0..TRIES {
            if let Some(answer) = acquire(world, &cx, &req, &view, &owner).await? {
                return Ok(Response::new(answer));
            }
        }
        Err(ApiError::concurrent("no address could be had: others were always faster").into())
    }

    async fn update(&self, request: Request<UpdateIpAddressRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let entity = cx.refs.living("id")?.ok_or_else(|| ApiError::empty_param("id"))?;
        let refuse = |text: String| ApiError::param(text).with_entity(&entity.uuid, "id");
        let ip = ips::one(&world.node.db, entity.id).await.map_err(ApiError::from)?;
        let ip = ip.ok_or_else(|| refuse("Unable to find ip address by id: it has been removed".to_owned()))?;
        if ip.state == "Free" {
            return Err(refuse(format!("Ip Address {} is free: nobody has it", ip.ip)).into());
        }
        if !model::entity::allowed(&cx.caller, entity, Access::Operate) {
            return Err(ApiError::permission("that address belongs to somebody else").into());
        }
        let order = Order {
            command: UpdateIpAddressRequest::COMMAND,
            caller: &cx.caller,
            owner: Some(ip.owner.clone()),
            instance: None,
            claims: vec![Claim::Exclusive(format!("ip/{}", ip.id))],
            custom_id: req.custom_job_id.clone(),
            description: format!("updating public ip address with id: {}", ip.uuid),
            entity_id: None,
        };
        let uuid = super::rules::custom_id(&req.custom_id)?;
        let job = UpdateIp { id: ip.id, display: req.for_display, uuid };
        Ok(Response::new(crate::job::accept(world, order, job).await?))
    }

    async fn disassociate(&self, request: Request<DisassociateIpAddressRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let entity = cx.refs.one("id").ok_or_else(|| ApiError::empty_param("id"))?;
        let refuse = |text: String| ApiError::param(text).with_entity(&entity.uuid, "id");
        let ip = ips::one(&world.node.db, entity.id).await.map_err(ApiError::from)?;
        let ip = ip.ok_or_else(|| refuse("Unable to find ip address by id: it has been removed".to_owned()))?;
        if ip.state == "Free" {
            return Err(refuse(format!("Ip Address {} is free already: nobody has it", ip.ip)).into());
        }
        if !model::entity::allowed(&cx.caller, entity, Access::Operate) {
            return Err(ApiError::permission("that address belongs to somebody else").into());
        }
        if ip.is_source_nat {
            return Err(
                refuse("Ip address is used for source nat purposes and can not be disassociated.".to_owned()).into()
            );
        }
        if ip.is_system {
            return Err(refuse(format!("Can't release system IP address {}", ip.ip)).into());
        }
        let network = ip.network_id.ok_or_else(|| refuse(format!("Ip Address {} serves no network", ip.ip)))?;
        let order = Order {
            command: DisassociateIpAddressRequest::COMMAND,
            caller: &cx.caller,
            owner: Some(ip.owner.clone()),
            instance: Some(("IpAddress", ip.uuid.clone())),
            claims: vec![Claim::Exclusive(format!("ip/{}", ip.id)), Claim::Shared(format!("network/{network}"))],
            custom_id: req.custom_job_id.clone(),
            description: format!("Disassociating ip address with id={}", ip.uuid),
            entity_id: None,
        };
        let job = DisassociateIp { id: ip.id, network, limit: ip.limit_key() };
        Ok(Response::new(crate::job::accept(world, order, job).await?))
    }
}

/// The network that an acquired address is for.
async fn target(world: &World, cx: &Cx, req: &AssociateIpAddressRequest) -> Result<Arc<View>, ApiError> {
    let db = &world.node.db;
    if let Some(entity) = cx.refs.living("networkid")? {
        if !model::entity::allowed(&cx.caller, entity, Access::Operate) {
            return Err(ApiError::permission("you may not acquire addresses for that network"));
        }
        return world.views.fresh(db, entity.id).await;
    }
    let zone: i64 = cx
        .refs
        .id("zoneid")?
        .ok_or_else(|| ApiError::param("networkId, vpcId or zoneId must be given to acquire an address".to_owned()))?;
    let domain = domain(cx)?;
    let of = domain.as_ref().map(|(id, path)| (*id, path.as_str()));
    let owner = model::scope::owner_for_create(db, &cx.caller, given(&req.account).as_deref(), of).await?;
    let found = networks::isolated_of(db, zone, owner.account_id).await?;
    match found.as_slice() {
        [one] => world.views.fresh(db, one.id).await,
        [] => Err(ApiError::param(
            "The account has no Isolated network with source NAT in the zone: give a networkid".to_owned(),
        )),
        _ => Err(ApiError::param(
            "Failed to locate account owned isolated network in the zone: there are several, give a networkid"
                .to_owned(),
        )),
    }
}

/// One try. None: another took the address.
async fn acquire(
    world: &World,
    cx: &Cx,
    req: &AssociateIpAddressRequest,
    view: &View,
    owner: &Owner,
) -> Result<Option<JobRef>, ApiError> {
    let db = &world.node.db;
    let ip = implement::free_address(world, view, owner.account_id).await?;
    let holder = model::new_uuid();
    let limit = ips::limit_key(&ip.uuid, &holder);
    world.reserve(&cx.caller, &limit, owner.account_id, LIMIT_PUBLIC_IP).await?;
    // As 4.11: the first address of a network without one is what its guests go out by.
    let source_nat = !ips::of_network(db, view.network.id).await?.iter().any(|other| other.is_source_nat);
    let order = Order {
        command: AssociateIpAddressRequest::COMMAND,
        caller: &cx.caller,
        owner: Some(owner.clone()),
        instance: Some(("IpAddress", ip.uuid.clone())),
        claims: vec![Claim::Exclusive(format!("ip/{}", ip.id)), Claim::Shared(format!("network/{}", view.network.id))],
        custom_id: req.custom_job_id.clone(),
        description: format!("Associating ip to network id: {} in zone {}", view.network.uuid, view.network.zone_id),
        entity_id: Some(ip.uuid.clone()),
    };
    let accept = order.of(AssociateIp { id: ip.id, network: view.network.id, limit: limit.clone() });
    let taking = Taking {
        owner,
        network_id: view.network.id,
        source_nat,
        state: "Allocating",
        display: req.for_display.unwrap_or(true),
        holder: &holder,
    };
    let ticket = world.jobs.ticket().await?;
    let mut lost = false;
    let answer = jobs::mutate!(world.node.db, cx.caller, "associate-ip", |tx| {
        lost = false;
        if !networks::touch(tx, view.network.id).await? {
            return Err(ApiError::param("the network has been removed".to_owned()));
        }
        if !ips::take(tx, ip.id, &taking).await? {
            lost = true;
            return Err(ApiError::concurrent("another was faster".to_owned()));
        }
        world.jobs.accept(tx, ticket.clone(), accept.clone()).await
    })
    .await;
    let ours = answer.as_ref().is_ok_and(|a| a.id.as_deref() == Some(ip.uuid.as_str()));
    if !ours {
        world.release(&cx.caller, &limit).await;
    }
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(_) if lost => Ok(None),
        Err(error) => Err(error),
    }
}
