//! `arcus.storage.v1.Snapshots`.

use super::{domain_of, given, named, named_ids};
use crate::snapshots::{self as concept, KIND, claim, view};
use crate::store::snapshots::{self, BACKED_UP, ERROR, Query};
use crate::tasks::{CreateSnapshot, DeleteSnapshot};
use crate::{Storage, limits};
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_storage::snapshots_server::Snapshots;
use contract_storage::{CreateSnapshotRequest, DeleteSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse};
use jobs::{Accept, Claim};
use model::scope::{ListScope, ScopeRequest};
use tonic::{Request, Response, Status};

/// What snapshots are taken at, as requests name it.
const INTERVALS: [&str; 5] = ["MANUAL", "HOURLY", "DAILY", "WEEKLY", "MONTHLY"];

#[tonic::async_trait]
impl Snapshots for Storage {
    async fn create(&self, request: Request<CreateSnapshotRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let order = concept::check(self, &cx, &req).await?;
        let (row, v) = (&order.row, &order.volume);
        let ticket = self.jobs.ticket().await?;
        limits::reserve_snapshot(self, &cx.caller, &row.uuid, row.owner.account_id, row.held_bytes).await?;
        let mut claims = vec![Claim::Exclusive(claim(row.id)), Claim::Exclusive(format!("volume/{}", v.id))];
        claims.extend(v.vm_id.map(|vm| Claim::Shared(format!("vm/{vm}"))));
        let accept = Accept {
            job: CreateSnapshot { snapshot: row.id, volume: v.id, vm: v.vm_id },
            caller: cx.caller.clone(),
            command: CreateSnapshotRequest::COMMAND,
            owner: row.owner.clone(),
            instance: Some((KIND.to_owned(), row.uuid.clone())),
            claims,
            custom_id: req.custom_job_id.clone(),
            description: format!("creating snapshot for volume: {}", v.uuid),
            entity_id: Some(row.uuid.clone()),
        };
        let answer = jobs::mutate!(self.node.db, cx.caller, "create-snapshot", |tx| {
            snapshots::insert(tx, row).await?;
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await;
        // Counted for nothing: refused, or the same request with the same idempotency key made another snapshot before.
        let made = answer.as_ref().is_ok_and(|answer| answer.id.as_ref() == Some(&row.uuid));
        if !made && snapshots::find(&self.node.db, row.id).await.is_ok_and(|found| found.is_none()) {
            limits::give_back_snapshot(self, &cx.caller, &row.uuid).await;
        }
        Ok(Response::new(answer?))
    }

    async fn delete(&self, request: Request<DeleteSnapshotRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let id = named(&cx)?.id;
        let ticket = self.jobs.ticket().await?;
        let answer = jobs::mutate!(self.node.db, cx.caller, "delete-snapshot", |tx| {
            let row = snapshots::find_in(tx, id).await?.filter(|row| !row.removed).ok_or_else(concept::gone)?;
            if row.state != BACKED_UP && row.state != ERROR {
                let text = format!("Can't delete snapshot {} due to it is in {} Status", row.uuid, row.state);
                return Err(ApiError::param(text).with_entity(&row.uuid, "id"));
            }
            let claims = vec![Claim::Exclusive(claim(id))];
            // A volume or template is being made of it, or somebody else deletes it.
            jobs::free(tx, &claims).await?;
            let accept = Accept {
                job: DeleteSnapshot { snapshot: id },
                caller: cx.caller.clone(),
                command: DeleteSnapshotRequest::COMMAND,
                owner: row.owner.clone(),
                instance: Some((KIND.to_owned(), row.uuid.clone())),
                claims,
                custom_id: req.custom_job_id.clone(),
                description: format!("deleting snapshot: {}", row.uuid),
                entity_id: None,
            };
            self.jobs.accept(tx, ticket.clone(), accept).await
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn list(&self, request: Request<ListSnapshotsRequest>) -> Result<Response<ListSnapshotsResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let ids = named_ids(&cx)?;
        let domain = domain_of(&cx)?;
        let scope = ScopeRequest {
            account: given(&req.account),
            domain: domain.as_ref().map(|(id, path)| (*id, path.as_str())),
            list_all: req.list_all.unwrap_or(false),
            recursive: req.is_recursive.unwrap_or(false),
            by_id: !ids.is_empty(),
        };
        let volume = cx.refs.one("volumeid").map(|e| e.id);
        let query = Query {
            scope: ListScope::of(&self.node.db, &cx.caller, &scope).await?,
            ids,
            name: given(&req.name),
            keyword: given(&req.keyword),
            kinds: kinds(given(&req.snapshot_type), given(&req.interval_type).filter(|_| volume.is_some()))?,
            volume,
            zone: cx.refs.one("zoneid").map(|e| e.id),
            tags: crate::view::tag_filter(&req.tags),
        };
        let (rows, count) = snapshots::list(&self.node.db, &query, page).await?;
        let snapshot = view::snapshots(&self.node.db, rows).await?;
        Ok(Response::new(ListSnapshotsResponse { count: Some(count), snapshot }))
    }
}

/// The kinds that `snapshottype`, or else `intervaltype` of a volume, means.
fn kinds(kind: Option<&str>, interval: Option<&str>) -> Result<Vec<&'static str>, ApiError> {
    let known = |word: &str| INTERVALS.iter().find(|i| i.eq_ignore_ascii_case(word)).copied();
    match (kind, interval) {
        (Some(kind), _) if kind.eq_ignore_ascii_case("RECURRING") => Ok(INTERVALS[1..].to_vec()),
        // What templates are made of isn't kept as a snapshot here.
        (Some(kind), _) if kind.eq_ignore_ascii_case("TEMPLATE") => Ok(vec!["TEMPLATE"]),
        (Some(kind), _) => {
            known(kind).map(|k| vec![k]).ok_or_else(|| ApiError::param(format!("Unsupported snapshot type {kind}")))
        }
        (None, Some(interval)) => known(interval)
            .map(|k| vec![k])
            .ok_or_else(|| ApiError::param(format!("Unsupported snapshot interval type {interval}"))),
        (None, None) => Ok(Vec::new()),
    }
}
