//! Providers of network services, and the router elements behind them.

use super::physical_networks::found;
use super::{Api, given, keyword, slice};
use crate::catalogue::Provider;
use crate::job::{self, Action, AdminJob, Order};
use crate::present;
use crate::store::providers::{self, Filter, NetworkProvider};
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_network as net;
use contract_network::network_service_providers_server::NetworkServiceProviders;
use contract_network::virtual_router_elements_server::VirtualRouterElements;
use contract_network::{
    AddNetworkServiceProviderRequest, ConfigureVirtualRouterElementRequest, DeleteNetworkServiceProviderRequest,
    ListNetworkServiceProvidersRequest, ListNetworkServiceProvidersResponse, ListSupportedNetworkServicesRequest,
    ListSupportedNetworkServicesResponse, ListVirtualRouterElementsRequest, ListVirtualRouterElementsResponse,
    UpdateNetworkServiceProviderRequest,
};
use jobs::Claim;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl NetworkServiceProviders for Api {
    async fn add(&self, request: Request<AddNetworkServiceProviderRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let physical = found(world, cx.refs.need("physicalnetworkid")?).await?;
        let name = given(&req.name).unwrap_or_default();
        let provider = Provider::find(&name).ok_or_else(|| {
            let known: Vec<&str> = Provider::ALL.iter().map(|p| p.name).collect();
            ApiError::param(format!(
                "Invalid Network Service Provider {name}: the providers that work are {}",
                known.join(", ")
            ))
        })?;
        let row = NetworkProvider {
            id: db.next_id("network_providers").await.map_err(ApiError::from)?,
            uuid: model::new_uuid(),
            name: provider.name.to_owned(),
            physical_network_id: physical.id,
            destination_id: cx.refs.id("destinationphysicalnetworkid")?,
            state: "Disabled".into(),
            services: services(provider, &req.service_list)?.unwrap_or_else(|| provider.service_names()),
        };
        let element = db.next_id("router_elements").await.map_err(ApiError::from)?;
        let element_uuid = model::new_uuid();
        let order = order(
            &cx.caller,
            AddNetworkServiceProviderRequest::COMMAND,
            &row,
            "Adding physical network ServiceProvider",
            &req.custom_job_id,
            true,
        );
        let ticket = world.jobs.ticket().await?;
        let accept = order.of(AdminJob { action: Action::AddProvider { id: row.id } });
        let answer = jobs::mutate!(world.node.db, cx.caller, "add-network-provider", |tx| {
            match providers::insert(tx, &row, element, &element_uuid).await {
                Err(store::Error::Unique { .. }) => {
                    return Err(ApiError::failed(format!(
                        "The '{}' provider already exists on physical network : {}",
                        row.name, physical.uuid
                    )));
                }
                other => other?,
            }
            world.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn update(&self, request: Request<UpdateNetworkServiceProviderRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let row = self.provider(cx.refs.need("id")?).await?;
        const STATES: &[&str] = &["Enabled", "Disabled", "Shutdown"];
        let state = match given(&req.state) {
            None => None,
            Some(s) => {
                Some(STATES.iter().find(|k| k.eq_ignore_ascii_case(&s)).map(|k| (*k).to_owned()).ok_or_else(|| {
                    ApiError::param(format!(
                        "Unable to resolve the state of the provider: {s}. Give one of {}",
                        STATES.join(", ")
                    ))
                })?)
            }
        };
        let services = match Provider::find(&row.name) {
            Some(provider) => services(provider, &req.service_list)?,
            None => None,
        };
        let order = order(
            &cx.caller,
            UpdateNetworkServiceProviderRequest::COMMAND,
            &row,
            "Updating physical network ServiceProvider",
            &req.custom_job_id,
            false,
        );
        let action = Action::UpdateProvider { id: row.id, state, services };
        Ok(Response::new(job::accept(world, order, AdminJob { action }).await?))
    }

    async fn delete(&self, request: Request<DeleteNetworkServiceProviderRequest>) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let row = self.provider(cx.refs.need("id")?).await?;
        let order = order(
            &cx.caller,
            DeleteNetworkServiceProviderRequest::COMMAND,
            &row,
            "Deleting Physical network ServiceProvider",
            &req.custom_job_id,
            false,
        );
        let action = Action::DeleteProvider { id: row.id };
        Ok(Response::new(job::accept(world, order, AdminJob { action }).await?))
    }

    async fn list(
        &self,
        request: Request<ListNetworkServiceProvidersRequest>,
    ) -> Result<Response<ListNetworkServiceProvidersResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let filter = Filter {
            physical_network_id: cx.refs.one("physicalnetworkid").map(|e| e.id),
            name: given(&req.name),
            state: given(&req.state),
            keyword: keyword(&req.keyword),
        };
        let page = world.page(req.page, req.page_size)?;
        let (rows, count) = providers::list(&world.node.db, &filter, &page).await.map_err(ApiError::from)?;
        let network_service_provider = present::providers(&world.node.db, &rows).await.map_err(ApiError::from)?;
        Ok(Response::new(ListNetworkServiceProvidersResponse { count: Some(count), network_service_provider }))
    }

    async fn list_supported_services(
        &self,
        request: Request<ListSupportedNetworkServicesRequest>,
    ) -> Result<Response<ListSupportedNetworkServicesResponse>, Status> {
        let world = &self.world;
        let (_, req) = world.node.rpc.enter(request).await?;
        let page = world.page(req.page, req.page_size)?;
        let (provider, service, word) = (given(&req.provider), given(&req.service), keyword(&req.keyword));
        if let Some(name) = &provider
            && Provider::find(name).is_none()
        {
            return Err(ApiError::param(format!("Invalid Network Service Provider={name}")).into());
        }
        let mut all: Vec<net::NetworkService> = Vec::new();
        for p in Provider::ALL.iter().filter(|p| provider.as_ref().is_none_or(|n| p.name.eq_ignore_ascii_case(n))) {
            for (name, capabilities) in p.services {
                if service.as_ref().is_some_and(|s| !name.eq_ignore_ascii_case(s))
                    || word.as_ref().is_some_and(|w| !name.to_lowercase().contains(w))
                {
                    continue;
                }
                all.push(supported(p, name, capabilities));
            }
        }
        let (network_service, count) = slice(all, &page);
        Ok(Response::new(ListSupportedNetworkServicesResponse { count: Some(count), network_service }))
    }
}

#[tonic::async_trait]
impl VirtualRouterElements for Api {
    async fn list(
        &self,
        request: Request<ListVirtualRouterElementsRequest>,
    ) -> Result<Response<ListVirtualRouterElementsResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let page = world.page(req.page, req.page_size)?;
        let id = cx.refs.one("id").map(|e| e.id);
        let provider = cx.refs.one("nspid").map(|e| e.id);
        let (rows, count) =
            providers::elements(&world.node.db, id, provider, req.enabled, &page).await.map_err(ApiError::from)?;
        let virtual_router_element = rows.iter().map(present::element).collect();
        Ok(Response::new(ListVirtualRouterElementsResponse { count: Some(count), virtual_router_element }))
    }

    async fn configure(
        &self,
        request: Request<ConfigureVirtualRouterElementRequest>,
    ) -> Result<Response<JobRef>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let id: i64 = cx.refs.need("id")?;
        let uuid = cx.refs.one("id").map(|e| e.uuid.clone()).unwrap_or_default();
        let order = Order {
            command: ConfigureVirtualRouterElementRequest::COMMAND,
            caller: &cx.caller,
            owner: None,
            instance: None,
            claims: vec![Claim::Exclusive(format!("router-element/{id}"))],
            custom_id: req.custom_job_id.clone(),
            description: format!("configuring virtual router provider: {uuid}"),
            entity_id: None,
        };
        let action = Action::ConfigureElement { id, enabled: req.enabled.unwrap_or(false) };
        Ok(Response::new(job::accept(world, order, AdminJob { action }).await?))
    }
}

impl Api {
    async fn provider(&self, id: i64) -> Result<NetworkProvider, ApiError> {
        let found = providers::one(&self.world.node.db, id).await?;
        found.ok_or_else(|| ApiError::param("the network service provider has been removed".to_owned()))
    }
}

/// The services that a request names, comma-separated; none: it names none.
fn services(provider: &Provider, names: &[String]) -> Result<Option<String>, ApiError> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut known = Vec::new();
    for name in names {
        let found = provider.services.iter().find(|(s, _)| s.eq_ignore_ascii_case(name.trim()));
        let (service, _) = found.ok_or_else(|| {
            ApiError::param(format!("Service {name} is not supported by the provider {}", provider.name))
        })?;
        known.push(*service);
    }
    Ok(Some(known.join(",")))
}

fn supported(p: &Provider, name: &str, capabilities: &[(&'static str, &'static str)]) -> net::NetworkService {
    net::NetworkService {
        name: Some(name.to_owned()),
        provider: vec![net::NetworkServiceProvision {
            name: Some(p.name.to_owned()),
            can_enable_individual_service: Some(true),
            ..net::NetworkServiceProvision::default()
        }],
        capability: capabilities
            .iter()
            .map(|(name, value)| net::NetworkServiceCapability {
                name: Some((*name).to_owned()),
                value: Some((*value).to_owned()),
                can_choose_service_capability: Some(matches!(
                    *name,
                    "SupportedSourceNatTypes" | "RedundantRouter" | "SupportedLBIsolation"
                )),
                ..net::NetworkServiceCapability::default()
            })
            .collect(),
        ..net::NetworkService::default()
    }
}

fn order<'a>(
    caller: &'a contract::api::Caller,
    command: Option<&'static contract::CommandInfo>,
    row: &NetworkProvider,
    verb: &str,
    custom_id: &Option<String>,
    created: bool,
) -> Order<'a> {
    Order {
        command,
        caller,
        owner: None,
        instance: Some(("PhysicalNetworkServiceProvider", row.uuid.clone())),
        claims: vec![Claim::Exclusive(format!("physical-network/{}", row.physical_network_id))],
        custom_id: custom_id.clone(),
        description: format!("{verb}: {}", row.uuid),
        entity_id: created.then(|| row.uuid.clone()),
    }
}
