//! `arcus.storage.v1.Snapshots`.

use super::{domain_of, done, given, named, named_ids};
use crate::snapshots::{self as concept, KIND, claim, policies, view};
use crate::store::policies::{self as policy_rows, PolicyRow};
use crate::store::snapshots::{self, Query};
use crate::tasks::{UpdatePolicy, revert_snapshot};
use crate::{Storage, limits};
use contract::api::{JobRef, Success};
use contract::{ApiError, Request as _};
use contract_storage::snapshots_server::Snapshots;
use contract_storage::{
    CreateSnapshotPolicyRequest, CreateSnapshotRequest, DeleteSnapshotPoliciesRequest, DeleteSnapshotRequest,
    ListSnapshotPoliciesRequest, ListSnapshotPoliciesResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    RevertSnapshotRequest, SnapshotPolicy, UpdateSnapshotPolicyRequest,
};
use jobs::{Accept, Claim};
use model::scope::{ListScope, ScopeRequest, may_act_for};
use tonic::{Request, Response, Status};

/// What snapshots are taken at, as requests name it.
const INTERVALS: [&str; 5] = ["MANUAL", "HOURLY", "DAILY", "WEEKLY", "MONTHLY"];

#[tonic::async_trait]
impl Snapshots for Storage {
    async fn create(&self, request: Request<CreateSnapshotRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let order = concept::check(self, &cx, &req).await?;
        let row = &order.row;
        let ticket = self.jobs.ticket().await?;
        limits::reserve_snapshot(self, &cx.caller, &row.uuid, row.owner.account_id, row.held_bytes).await?;
        let accept = order.accept(&cx.caller, req.custom_job_id.clone());
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
            let row = snapshots::find_in(tx, id).await?.ok_or_else(concept::gone)?;
            let accept = concept::deletion(&row, &cx.caller, req.custom_job_id.clone())?;
            // A volume or template is being made of it, or somebody else deletes it.
            jobs::free(tx, &accept.claims).await?;
            self.jobs.accept(tx, ticket.clone(), accept).await
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn revert(&self, request: Request<RevertSnapshotRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let found = snapshots::find(&self.node.db, named(&cx)?.id).await.map_err(ApiError::from)?;
        let row = found.filter(|row| !row.removed).ok_or_else(concept::gone)?;
        let job = revert_snapshot::check(self, &row).await?;
        // The machine may not start meanwhile, and nobody deletes the snapshot.
        let mut claims = vec![Claim::Exclusive(format!("volume/{}", job.volume)), Claim::Shared(claim(row.id))];
        claims.extend(job.vm.map(|vm| Claim::Shared(format!("vm/{vm}"))));
        let ticket = self.jobs.ticket().await?;
        let accept = Accept {
            job,
            caller: cx.caller.clone(),
            command: RevertSnapshotRequest::COMMAND,
            owner: row.owner.clone(),
            instance: Some((KIND.to_owned(), row.uuid.clone())),
            claims,
            custom_id: req.custom_job_id.clone(),
            description: format!("revert snapshot: {}", row.uuid),
            entity_id: None,
        };
        let answer = jobs::mutate!(self.node.db, cx.caller, "revert-snapshot", |tx| {
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn create_policy(
        &self,
        request: Request<CreateSnapshotPolicyRequest>,
    ) -> Result<Response<SnapshotPolicy>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let new = policies::check(self, &cx, &req).await?;
        let answer = jobs::mutate!(self.node.db, cx.caller, "create-snapshot-policy", |tx| {
            let row = match policy_rows::of_kind(tx, new.volume_id, &new.kind).await? {
                Some(old) => {
                    let row = PolicyRow { id: old.id, uuid: old.uuid, ..new.clone() };
                    if !policy_rows::update(tx, &row).await? {
                        return Err(ApiError::concurrent("the policy was deleted meanwhile; try again"));
                    }
                    row
                }
                None => {
                    match policy_rows::insert(tx, &new).await {
                        Err(e) if e.is_unique("live_key") => {
                            let text = "another policy of this kind was made for the volume meanwhile; try again";
                            return Err(ApiError::concurrent(text));
                        }
                        inserted => inserted?,
                    }
                    new.clone()
                }
            };
            let text = format!("creating {} snapshot policy {}", row.kind, row.uuid);
            let about = (policies::ENTITY, row.uuid.as_str());
            let event = done(&cx.caller, "SNAPSHOTPOLICY.CREATE", text, about, Some(&row.owner));
            events::record(tx, &[event]).await?;
            Ok(SnapshotPolicy {
                id: Some(row.uuid),
                max_snaps: i32::try_from(row.max_snaps).ok(),
                ..SnapshotPolicy::default()
            })
        })
        .await?;
        policies::nudge(self);
        // As it is by now, which for a repeat may be another than it was.
        let id = answer.id.clone().unwrap_or_default();
        let row = policy_rows::by_uuid(&self.node.db, &id).await.map_err(ApiError::from)?.ok_or_else(policies::gone)?;
        let shown = policies::view(&self.node.db, vec![row]).await?.pop();
        Ok(Response::new(shown.ok_or_else(policies::gone)?))
    }

    async fn update_policy(&self, request: Request<UpdateSnapshotPolicyRequest>) -> Result<Response<JobRef>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let id = cx.refs.one("id").ok_or_else(|| ApiError::param("parameter id is missing"))?.id;
        let row = policy_rows::find(&self.node.db, id).await.map_err(ApiError::from)?;
        let row = row.filter(|p| !p.removed).ok_or_else(policies::gone)?;
        let admin = cx.caller.is_root_admin();
        let custom = given(&req.custom_id).filter(|_| admin).map(str::to_owned);
        if let Some(id) = &custom {
            check_id(id)?;
        }
        let ticket = self.jobs.ticket().await?;
        let accept = Accept {
            job: UpdatePolicy { policy: row.id, display: req.for_display.filter(|_| admin), custom_id: custom },
            caller: cx.caller.clone(),
            command: UpdateSnapshotPolicyRequest::COMMAND,
            owner: row.owner.clone(),
            instance: Some((policies::ENTITY.to_owned(), row.uuid.clone())),
            claims: vec![Claim::Exclusive(format!("snapshot_policy/{}", row.id))],
            custom_id: req.custom_job_id.clone(),
            description: format!("updating snapshot policy: {}", row.uuid),
            entity_id: None,
        };
        let answer = jobs::mutate!(self.node.db, cx.caller, "update-snapshot-policy", |tx| {
            self.jobs.accept(tx, ticket.clone(), accept.clone()).await
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn delete_policies(
        &self,
        request: Request<DeleteSnapshotPoliciesRequest>,
    ) -> Result<Response<Success>, Status> {
        let (cx, _) = self.node.rpc.enter(request).await?;
        let ids = named_ids(&cx)?;
        if ids.is_empty() {
            return Err(ApiError::param("No policy id(s) specified to delete: give id or ids").into());
        }
        let owners = cx.refs.one("id").into_iter().chain(cx.refs.all("ids")).filter_map(|e| e.owner.as_ref());
        if owners.into_iter().any(|owner| !may_act_for(&cx.caller, owner)) {
            return Err(ApiError::permission("you may not act on that snapshot policy").into());
        }
        let answer = jobs::mutate!(self.node.db, cx.caller, "delete-snapshot-policies", |tx| {
            let rows = policy_rows::by_ids_in(tx, &ids).await?;
            if rows.len() != ids.len() {
                return Err(policies::gone());
            }
            let mut records = Vec::new();
            for row in rows {
                policy_rows::remove(tx, row.id).await?;
                let text = format!("deleting {} snapshot policy {}", row.kind, row.uuid);
                let about = (policies::ENTITY, row.uuid.as_str());
                records.push(done(&cx.caller, "SNAPSHOTPOLICY.DELETE", text, about, Some(&row.owner)));
            }
            events::record(tx, &records).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await?;
        Ok(Response::new(answer))
    }

    async fn list_policies(
        &self,
        request: Request<ListSnapshotPoliciesRequest>,
    ) -> Result<Response<ListSnapshotPoliciesResponse>, Status> {
        let (cx, req) = self.node.rpc.enter(request).await?;
        let page = self.page(req.page, req.page_size)?;
        let (volume, policy) = (cx.refs.one("volumeid"), cx.refs.one("id"));
        if volume.is_none() && policy.is_none() {
            return Err(ApiError::param("give volumeid, or the id of a policy").into());
        }
        let owners = volume.into_iter().chain(policy).filter_map(|e| e.owner.as_ref());
        if owners.into_iter().any(|owner| !may_act_for(&cx.caller, owner)) {
            return Err(ApiError::permission("you may not see the snapshot policies of that volume").into());
        }
        let query = policy_rows::Query {
            volume: volume.map(|e| e.id),
            id: policy.map(|e| e.id),
            display: if cx.caller.is_root_admin() { req.for_display } else { Some(true) },
        };
        let (rows, count) = policy_rows::list(&self.node.db, &query, page).await?;
        let snapshot_policy = policies::view(&self.node.db, rows).await?;
        Ok(Response::new(ListSnapshotPoliciesResponse { count: Some(count), snapshot_policy }))
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

/// Ids that administrators choose are UUIDs.
fn check_id(id: &str) -> Result<(), ApiError> {
    let plain = id.len() <= 40 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if plain { Ok(()) } else { Err(ApiError::param(format!("customid {id} is no UUID"))) }
}
