//! Network offerings.

use super::{Api, given, keyword, slice};
use crate::catalogue::Offering;
use crate::present;
use crate::store::offerings::{self, Change};
use crate::store::{networks, zones};
use config::{Scope, keys};
use contract::{ApiError, Request as _};
use contract_network as net;
use contract_network::network_offerings_server::NetworkOfferings;
use contract_network::{ListNetworkOfferingsRequest, ListNetworkOfferingsResponse, UpdateNetworkOfferingRequest};
use events::{EventRecord, EventState, Record};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl NetworkOfferings for Api {
    async fn list(
        &self,
        request: Request<ListNetworkOfferingsRequest>,
    ) -> Result<Response<ListNetworkOfferingsResponse>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let db = &world.node.db;
        let page = world.page(req.page, req.page_size)?;
        let id = cx.refs.one("id").map(|e| e.id);
        let zone = cx.refs.one("zoneid").map(|e| e.id);
        let from = match cx.refs.living("networkid")? {
            Some(network) => match networks::one(db, network.id).await.map_err(ApiError::from)? {
                Some(network) => offerings::one(db, network.offering_id).await?,
                None => None,
            },
            None => None,
        };
        if let Some(zone) = zone
            && zones::zone(db, zone).await.map_err(ApiError::from)?.is_none()
        {
            return Err(ApiError::param("the zone has been removed".to_owned()).into());
        }
        let mut found = offerings::listable(db).await?;
        found.retain(|o| {
            id.is_none_or(|id| o.id == id) && fits(o, &req) && from.as_ref().is_none_or(|f| upgrades(f, o))
        });
        let (rows, count) = slice(found, &page);
        let rate = match zone {
            Some(zone) => world.node.settings.get_in(keys::NETWORK_THROTTLING_RATE, Scope::Zone(zone)),
            None => world.node.settings.get(keys::NETWORK_THROTTLING_RATE),
        };
        let network_offering = rows.iter().map(|o| present::offering(o, rate, None)).collect();
        Ok(Response::new(ListNetworkOfferingsResponse { count: Some(count), network_offering }))
    }

    async fn update(
        &self,
        request: Request<UpdateNetworkOfferingRequest>,
    ) -> Result<Response<net::NetworkOffering>, Status> {
        let world = &self.world;
        let (cx, req) = world.node.rpc.enter(request).await?;
        let id: i64 = cx.refs.need("id")?;
        let gone = || ApiError::param("unable to find network offering: it has been removed".to_owned());
        let mut row = offerings::one(&world.node.db, id).await?.ok_or_else(gone)?;
        if row.system_only {
            return Err(ApiError::param("Can't update system network offerings".to_owned()).into());
        }
        let change = change(&row, &req)?;
        apply(&mut row, &change);
        let rate = world.node.settings.get(keys::NETWORK_THROTTLING_RATE);
        let answer = present::offering(&row, rate, None);
        let command = UpdateNetworkOfferingRequest::COMMAND.map_or("", |c| c.event.as_ref());
        let answer = jobs::mutate!(world.node.db, cx.caller, "update-network-offering", |tx| {
            offerings::update(tx, id, &change).await?;
            let text = format!("Updating network offering {}", row.name);
            let event = EventRecord::new(&cx.caller, command, EventState::Completed, text);
            events::record(tx, &[Record::Event(event.about("NetworkOffering", &row.uuid))]).await?;
            Ok(answer.clone())
        })
        .await?;
        Ok(Response::new(answer))
    }
}

fn fits(o: &Offering, req: &ListNetworkOfferingsRequest) -> bool {
    let same = |wanted: &Option<String>, value: &str| given(wanted).is_none_or(|w| w.eq_ignore_ascii_case(value));
    let flag = |wanted: Option<bool>, value: bool| wanted.is_none_or(|w| w == value);
    given(&req.name).is_none_or(|n| n == o.name)
        && given(&req.display_text).is_none_or(|d| d == o.display_text)
        && same(&req.traffic_type, &o.traffic_type)
        && flag(req.is_default, o.is_default)
        && flag(req.specify_vlan, o.specify_vlan)
        && same(&req.availability, &o.availability)
        && same(&req.state, &o.state)
        && same(&req.guest_ip_type, o.guest_type.as_deref().unwrap_or_default())
        && req.supported_services.iter().all(|s| o.services.iter().any(|(name, _)| name.eq_ignore_ascii_case(s.trim())))
        && flag(req.source_nat_supported, o.source_nat())
        && flag(req.specify_ip_ranges, o.specify_ip_ranges)
        && given(&req.tags).is_none_or(|t| o.tags.as_deref() == Some(t.as_str()))
        && flag(req.is_tagged, o.tags.as_deref().is_some_and(|t| !t.is_empty()))
        && flag(req.for_vpc, o.for_vpc)
        && keyword(&req.keyword)
            .is_none_or(|k| o.name.to_lowercase().contains(&k) || o.display_text.to_lowercase().contains(&k))
}

/// Whether a network may change from one offering to the other.
fn upgrades(from: &Offering, to: &Offering) -> bool {
    to.id != from.id
        && from.is("Isolated")
        && to.is("Isolated")
        && to.state == "Enabled"
        && to.for_vpc == from.for_vpc
        && to.specify_vlan == from.specify_vlan
        && to.source_nat() == from.source_nat()
}

fn change(row: &Offering, req: &UpdateNetworkOfferingRequest) -> Result<Change, ApiError> {
    let choose = |given_word: Option<String>, words: &[&str], what: &str| match given_word {
        None => Ok(None),
        Some(word) => match words.iter().find(|w| w.eq_ignore_ascii_case(&word)) {
            Some(known) => Ok(Some((*known).to_owned())),
            None => Err(ApiError::param(format!("Invalid value for {what}: {word}. Supported: {}", words.join(", ")))),
        },
    };
    let availability = choose(given(&req.availability), &["Required", "Optional", "Unavailable"], "Availability")?;
    if let Some(wanted) = &availability
        && wanted == "Unavailable"
        && row.is_default
        && row.availability == "Required"
    {
        return Err(ApiError::param(format!(
            "Availability of the default network offering {} can't be changed to Unavailable",
            row.name
        )));
    }
    let state = choose(given(&req.state), &["Enabled", "Disabled"], "state")?;
    if req.max_connections.is_some_and(|m| m < 0) {
        return Err(ApiError::param("maxconnections must be 0 or more".to_owned()));
    }
    Ok(Change {
        name: given(&req.name),
        display_text: given(&req.display_text),
        availability,
        sort_key: req.sort_key.map(i64::from),
        state,
        keep_alive: req.keep_alive_enabled,
        max_connections: req.max_connections.map(i64::from),
        tags: req.tags.clone(),
    })
}

fn apply(row: &mut Offering, c: &Change) {
    let c = c.clone();
    row.name = c.name.unwrap_or_else(|| std::mem::take(&mut row.name));
    row.display_text = c.display_text.unwrap_or_else(|| std::mem::take(&mut row.display_text));
    row.availability = c.availability.unwrap_or_else(|| std::mem::take(&mut row.availability));
    row.state = c.state.unwrap_or_else(|| std::mem::take(&mut row.state));
    row.sort_key = c.sort_key.unwrap_or(row.sort_key);
    row.keep_alive = c.keep_alive.unwrap_or(row.keep_alive);
    row.max_connections = c.max_connections.or(row.max_connections);
    row.tags = c.tags.or_else(|| row.tags.take());
}
