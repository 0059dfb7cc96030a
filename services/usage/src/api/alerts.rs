//! Alerts.

use crate::store::events::{AlertFilter, EventRow, Tidied, alerts};
use crate::tidy::{self, Wish};
use config::keys;
use contract::api::Success;
use contract::{ApiError, Page};
use contract_usage::alerts_server;
use contract_usage::{Alert, ArchiveAlertsRequest, DeleteAlertsRequest, ListAlertsRequest, ListAlertsResponse};
use events::{ALERT_TYPES, alert_number};
use node::Node;
use rpc::Cx;
use tonic::{Request, Response, Status};

/// `arcus.usage.v1.Alerts`.
pub(crate) struct Alerts {
    node: Node,
}

impl Alerts {
    pub fn new(node: Node) -> Alerts {
        Alerts { node }
    }

    async fn page(&self, cx: &Cx, request: &ListAlertsRequest) -> Result<ListAlertsResponse, ApiError> {
        let page = Page::of(request.page, request.page_size, self.node.settings.get(keys::DEFAULT_PAGE_SIZE))?;
        let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        let mut kinds: Vec<&'static str> = ALERT_TYPES.to_vec();
        if let Some(word) = given(&request.r#type) {
            let wanted: usize =
                word.parse().map_err(|_| ApiError::param(format!("{word} is no number of a type of alerts")))?;
            kinds.retain(|kind| alert_number(kind) == Some(wanted));
        }
        if let Some(name) = given(&request.name) {
            kinds.retain(|kind| kind.eq_ignore_ascii_case(&name));
        }
        let filter = AlertFilter { id: cx.refs.one("id").map(|e| e.id), kinds, keyword: given(&request.keyword) };
        let (rows, count) = alerts(&self.node.db, &filter, page).await?;
        Ok(ListAlertsResponse { count: Some(count), alert: rows.into_iter().map(shown).collect() })
    }
}

fn shown(row: EventRow) -> Alert {
    Alert {
        id: Some(row.uuid),
        r#type: alert_number(&row.kind).and_then(|n| i32::try_from(n).ok()),
        name: Some(row.kind),
        description: Some(row.description),
        sent: Some(row.created),
        ..Alert::default()
    }
}

#[tonic::async_trait]
impl alerts_server::Alerts for Alerts {
    async fn list(&self, request: Request<ListAlertsRequest>) -> Result<Response<ListAlertsResponse>, Status> {
        let (cx, request) = self.node.rpc.enter(request).await?;
        Ok(Response::new(self.page(&cx, &request).await?))
    }

    async fn archive(&self, request: Request<ArchiveAlertsRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.node.rpc.enter(request).await?;
        let wish = Wish { ids: cx.refs.ids("ids")?, kind: given(r.r#type), from: r.start_date, until: r.end_date };
        Ok(Response::new(tidy::alerts(&self.node, &cx.caller, wish, Tidied::Archived).await?))
    }

    async fn delete(&self, request: Request<DeleteAlertsRequest>) -> Result<Response<Success>, Status> {
        let (cx, r) = self.node.rpc.enter(request).await?;
        let wish = Wish { ids: cx.refs.ids("ids")?, kind: given(r.r#type), from: r.start_date, until: r.end_date };
        Ok(Response::new(tidy::alerts(&self.node, &cx.caller, wish, Tidied::Deleted).await?))
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}
