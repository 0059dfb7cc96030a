//! Events, and their types.

use crate::event_types::EVENT_TYPES;
use crate::store::events::{EventRow, Filter, Tidied, list, user_names};
use crate::tidy::{self, Wish};
use config::keys;
use contract::api::Success;
use contract::{ApiError, Page};
use contract_usage::events_server;
use contract_usage::{
    ArchiveEventsRequest, DeleteEventsRequest, Event, EventType, ListEventTypesRequest, ListEventTypesResponse,
    ListEventsRequest, ListEventsResponse,
};
use model::names::{self, Table};
use model::{ListScope, ScopeRequest};
use node::Node;
use rpc::Cx;
use tonic::{Request, Response, Status};

/// `arcus.usage.v1.Events`.
pub(crate) struct Events {
    node: Node,
}

impl Events {
    pub fn new(node: Node) -> Events {
        Events { node }
    }

    async fn page(&self, cx: &Cx, request: &ListEventsRequest) -> Result<ListEventsResponse, ApiError> {
        let page = Page::of(request.page, request.page_size, self.node.settings.get(keys::DEFAULT_PAGE_SIZE))?;
        let domain =
            cx.refs.one("domainid").and_then(|e| e.owner.as_ref()).map(|o| (o.domain_id, o.domain_path.as_str()));
        let asked = ScopeRequest {
            account: request.account.as_deref(),
            domain,
            list_all: request.list_all.unwrap_or(false),
            recursive: request.is_recursive.unwrap_or(false),
            by_id: request.id.is_some() || request.start_id.is_some(),
        };
        let scope = ListScope::of(&self.node.db, &cx.caller, &asked).await?;
        let filter = Filter {
            id: cx.refs.one("id").map(|e| e.id),
            chain: cx.refs.one("startid").map(|e| e.uuid.clone()),
            kind: request.r#type.as_deref().map(str::to_uppercase),
            level: request.level.as_deref().map(str::to_uppercase),
            from: request.start_date,
            // Times of the API are whole seconds: all of the last one belongs to it.
            until: request.end_date.map(|t| t.saturating_add(999_999)),
            keyword: request.keyword.clone().filter(|k| !k.is_empty()),
            // As in 4.11, one of the two alone says nothing.
            pending: request.entry_time.zip(request.duration).map(|(e, d)| (i64::from(e), i64::from(d))),
        };
        if filter.pending.is_some_and(|(entry, duration)| entry <= duration) {
            return Err(ApiError::param("Entry time must be greater than duration"));
        }
        let (rows, count) = list(&self.node.db, &scope, &filter, page).await?;
        Ok(ListEventsResponse { count: Some(count), event: self.shown(rows).await? })
    }

    /// Adds the names: three queries, however many rows.
    async fn shown(&self, rows: Vec<EventRow>) -> Result<Vec<Event>, ApiError> {
        let db = &self.node.db;
        let accounts = names::named(db, Table::Accounts, rows.iter().map(|r| r.account_id)).await?;
        let domains = names::domains(db, rows.iter().map(|r| r.domain_id)).await?;
        let users = user_names(db, rows.iter().map(|r| r.user_id)).await?;
        let event = |row: EventRow| {
            let domain = domains.get(&row.domain_id);
            Event {
                id: Some(row.uuid),
                username: users.get(&row.user_id).cloned(),
                r#type: Some(row.kind),
                level: Some(row.level),
                description: Some(row.description),
                account: accounts.get(&row.account_id).map(|a| a.name.clone()),
                domain_id: domain.map(|d| d.uuid.clone()),
                domain: domain.map(|d| d.name.clone()),
                created: Some(row.created),
                state: Some(row.state),
                parent_id: row.start_uuid,
                ..Event::default()
            }
        };
        Ok(rows.into_iter().map(event).collect())
    }
}

#[tonic::async_trait]
impl events_server::Events for Events {
    async fn list(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let (cx, request) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.page(&cx, &request).await?))
    }

    async fn list_types(
        &self,
        request: Request<ListEventTypesRequest>,
    ) -> Result<Response<ListEventTypesResponse>, Status> {
        self.node.rpc.enter(request).await?;
        let event_type = EVENT_TYPES.iter().map(|t| EventType { name: Some((*t).to_owned()), ..EventType::default() });
        let event_type: Vec<EventType> = event_type.collect();
        Ok(Response::new(ListEventTypesResponse { count: i64::try_from(event_type.len()).ok(), event_type }))
    }

    async fn archive(&self, request: Request<ArchiveEventsRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.node.rpc.enter(request).await?;
        let wish = Wish { ids: cx.refs.ids("ids")?, kind: given(r.r#type), from: r.start_date, until: r.end_date };
        Ok(Response::new(tidy::events(&self.node, &cx.caller, wish, Tidied::Archived).await?))
    }

    async fn delete(&self, request: Request<DeleteEventsRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.node.rpc.enter(request).await?;
        let wish = Wish { ids: cx.refs.ids("ids")?, kind: given(r.r#type), from: r.start_date, until: r.end_date };
        Ok(Response::new(tidy::events(&self.node, &cx.caller, wish, Tidied::Deleted).await?))
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}
