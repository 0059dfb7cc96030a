//! Guest networks.

use super::{Api, Owners, domain, given, keyword, tag_filter};
use crate::job::{self, DeleteNetwork, Order, RestartNetwork, UpdateNetwork};
use crate::network::change;
use crate::network::create::{self, Wish};
use crate::network::{View, implement};
use crate::present;
use crate::store::networks::{self, Filter, SharedWith};
use crate::store::{offerings, zones};
use crate::world::World;
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_network as net;
use contract_network::networks_server::Networks;
use contract_network::{
    CreateNetworkRequest, DeleteNetworkRequest, ListNetworksRequest, ListNetworksResponse, RestartNetworkRequest,
    UpdateNetworkRequest,
};
use jobs::Claim;
use model::Owner;
use model::state::NetworkState;
use rpc::Cx;
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Networks for Api {
    async fn create(&self, request: Request<CreateNetworkRequest>) -> Result<Response<net::Network>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        if let Some(answer) = jobs::answered(db, &cx.caller).await? {
            return Ok(Response::new(answer));
        }
        let gone = |what: &str| ApiError::param(format!("the {what} has been removed"));
        let zone =
            zones::zone(db, cx.refs.need("zoneid")?).await.map_err(ApiError::from)?.ok_or_else(|| gone("zone"))?;
        let offering =
            offerings::one(db, cx.refs.need("networkofferingid")?).await?.ok_or_else(|| gone("network offering"))?;
        let planned = create::plan(world, &cx.caller, &zone, &offering, wish(world, &cx, &req).await?).await?;
        create::reserve(world, &cx.caller, &planned).await?;
        let made = make(world, &cx, &planned).await;
        let ours = made.as_ref().is_ok_and(|n| n.id.as_deref() == Some(planned.network.uuid.as_str()));
        if !ours {
            create::give_back(world, &cx.caller, &planned).await;
        }
        let mut answer = made?;
        if ours && offering.is_persistent {
            let view = implement::ready(world, &cx.caller, planned.network.id).await?;
            answer = one(world, &cx, &view).await?;
        }
        Ok(Response::new(answer))
    }

    async fn update(&self, request: Request<UpdateNetworkRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let view = self.view(&cx).await?;
        let offering = match cx.refs.id::<i64>("networkofferingid")? {
            Some(id) => offerings::one(&world.node.db, id).await?,
            None => None,
        };
        let wish = change::Wish {
            name: given(&req.name),
            display_text: given(&req.display_text),
            network_domain: given(&req.network_domain),
            guest_cidr: given(&req.guest_vm_cidr),
            display: req.display_network,
            uuid: given(&req.custom_id),
            forced: req.forced.unwrap_or(false),
        };
        // Errors come before the job; it checks again, with its claim.
        change::plan(&view, &wish, offering.as_ref())?;
        let job = UpdateNetwork { id: view.network.id, wish, offering: offering.map(|o| o.id) };
        let order = order(&cx, UpdateNetworkRequest::COMMAND, &view, "Updating network", None, &req.custom_job_id);
        Ok(Response::new(job::accept(world, order, job).await?))
    }

    async fn delete(&self, request: Request<DeleteNetworkRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let view = self.view(&cx).await?;
        if view.network.is_system {
            return Err(ApiError::param("Network is system and can't be deleted".to_owned())
                .with_entity(&view.network.uuid, "id")
                .into());
        }
        let order =
            order(&cx, DeleteNetworkRequest::COMMAND, &view, "Deleting network", Some("Network"), &req.custom_job_id);
        Ok(Response::new(job::accept(world, order, DeleteNetwork { id: view.network.id }).await?))
    }

    async fn list(&self, request: Request<ListNetworksRequest>) -> Result<Response<ListNetworksResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let page = world.page(req.page, req.page_size)?;
        let id = cx.refs.one("id").map(|e| e.id);
        let owners = Owners {
            account: req.account.as_deref(),
            list_all: req.list_all,
            recursive: req.is_recursive,
            by_id: id.is_some(),
        };
        let scope = owners.scope(db, &cx).await?;
        let named = given(&req.account).is_some() || cx.refs.one("domainid").is_some();
        let shared =
            (!named).then(|| SharedWith { domain_id: cx.caller.domain_id, domain_path: cx.caller.domain_path.clone() });
        // No VPC exists, and every guest network of Arcus can take VMs while it has addresses.
        if req.for_vpc == Some(true) {
            return Ok(Response::new(ListNetworksResponse { count: Some(0), network: Vec::new() }));
        }
        let filter = Filter {
            id,
            zone_id: cx.refs.one("zoneid").map(|e| e.id),
            guest_type: capital(&req.r#type, &["Isolated", "Shared", "L2"]),
            system: if id.is_some() && cx.caller.is_root_admin() {
                req.is_system
            } else {
                Some(req.is_system.unwrap_or(false) && cx.caller.is_admin())
            },
            acl_type: capital(&req.acl_type, &["Account", "Domain"]),
            traffic_type: capital(&req.traffic_type, &["Guest", "Public", "Management", "Control", "Storage"]),
            physical_network_id: cx.refs.one("physicalnetworkid").map(|e| e.id),
            restart_required: req.restart_required,
            display: if cx.caller.is_root_admin() { req.display_network } else { Some(true) },
            specify_ip_ranges: req.specify_ip_ranges,
            services: req.supported_services.clone(),
            keyword: keyword(&req.keyword),
            tags: tag_filter(&req.tags),
        };
        let (rows, mut count) =
            networks::list(db, &filter, &scope, shared.as_ref(), &page).await.map_err(ApiError::from)?;
        let mut network = present::networks(db, &cx.caller, &rows).await?;
        if let Some(wanted) = req.can_use_for_deploy {
            // As 4.11: a filter over the page, which is what the UI asks for.
            let before = network.len();
            network.retain(|n| n.can_use_for_deploy == Some(wanted));
            count -= i64::try_from(before - network.len()).unwrap_or_default();
        }
        Ok(Response::new(ListNetworksResponse { count: Some(count), network }))
    }

    async fn restart(&self, request: Request<RestartNetworkRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let view = self.view(&cx).await?;
        let state = view.network.state;
        if view.network.is_system || !(state == NetworkState::Implemented || view.network.specified_vlan) {
            return Err(ApiError::param(format!(
                "Network is not in the right state to be restarted. Correct states are: Implemented, Setup; it is {state}"
            ))
            .with_entity(&view.network.uuid, "id")
            .into());
        }
        let job = RestartNetwork { id: view.network.id, cleanup: req.cleanup.unwrap_or(false) };
        let order = order(&cx, RestartNetworkRequest::COMMAND, &view, "Restarting network", None, &req.custom_job_id);
        Ok(Response::new(job::accept(world, order, job).await?))
    }
}

impl Api {
    async fn view(&self, cx: &Cx) -> Result<Arc<View>, ApiError> {
        self.world.views.fresh(&self.world.node.db, cx.refs.need("id")?).await
    }
}

/// The word of `words` that the text is in any case; a text that is none of them matches nothing.
fn capital(text: &Option<String>, words: &[&str]) -> Option<String> {
    given(text).map(|t| words.iter().find(|w| w.eq_ignore_ascii_case(&t)).map_or(t, |w| (*w).to_owned()))
}

fn order<'a>(
    cx: &'a Cx,
    command: Option<&'static contract::CommandInfo>,
    view: &View,
    verb: &str,
    instance: Option<&'static str>,
    custom_id: &Option<String>,
) -> Order<'a> {
    Order {
        command,
        caller: &cx.caller,
        owner: Some(view.network.owner.clone()),
        instance: instance.map(|kind| (kind, view.network.uuid.clone())),
        claims: vec![Claim::Exclusive(format!("network/{}", view.network.id))],
        custom_id: custom_id.clone(),
        description: format!("{verb}: {}", view.network.uuid),
        entity_id: None,
    }
}

async fn make(world: &World, cx: &Cx, planned: &create::Planned) -> Result<net::Network, ApiError> {
    let db = &world.node.db;
    let shown = present::networks(db, &cx.caller, std::slice::from_ref(&planned.network)).await?;
    let answer = shown.into_iter().next().unwrap_or_default();
    jobs::mutate!(world.node.db, cx.caller, "create-network", |tx| {
        create::write(tx, &cx.caller, planned).await?;
        Ok(answer.clone())
    })
    .await
}

async fn one(world: &World, cx: &Cx, view: &View) -> Result<net::Network, ApiError> {
    let shown = present::networks(&world.node.db, &cx.caller, std::slice::from_ref(&view.network)).await?;
    Ok(shown.into_iter().next().unwrap_or_default())
}

async fn wish(world: &World, cx: &Cx, req: &CreateNetworkRequest) -> Result<Wish, ApiError> {
    let domain = domain(cx)?;
    let owner: Option<Owner> = match given(&req.account) {
        Some(name) => {
            let (id, path) = domain.as_ref().ok_or_else(|| {
                ApiError::param("domainid is required with account: it names the account's domain".to_owned())
            })?;
            Some(model::scope::owner_for_create(&world.node.db, &cx.caller, Some(&name), Some((*id, path))).await?)
        }
        None => None,
    };
    if owner.is_none()
        && let Some((_, path)) = &domain
    {
        let reach = cx.caller.is_root_admin() || path.starts_with(&cx.caller.domain_path);
        if !reach || (!cx.caller.is_admin() && *path != cx.caller.domain_path) {
            return Err(ApiError::permission("the domain is outside of what you may use".to_owned()));
        }
    }
    let required = |text: &Option<String>, name: &str| given(text).ok_or_else(|| ApiError::empty_param(name));
    Ok(Wish {
        name: required(&req.name, "name")?,
        display_text: required(&req.display_text, "displaytext")?,
        owner,
        physical: cx.refs.id("physicalnetworkid")?,
        gateway: given(&req.gateway),
        netmask: given(&req.netmask),
        start_ip: given(&req.start_ip),
        end_ip: given(&req.end_ip),
        network_domain: given(&req.network_domain),
        acl_type: given(&req.acl_type),
        domain,
        subdomain_access: req.subdomain_access,
        external_id: given(&req.external_id),
        display: req.display_network,
        vlan: given(&req.vlan),
        bypass_vlan_check: req.bypass_vlan_overlap_check.unwrap_or(false),
        unique: None,
    })
}
