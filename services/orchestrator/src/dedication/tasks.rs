//! The jobs of dedication: one commit each.

use super::{Kind, sweep, told};
use crate::affinity::Kind as GroupKind;
use crate::store::affinity::{self as groups, GroupRow};
use crate::store::dedications::{self as rows, DedicationRow, Listed, Site};
use crate::vm::VmWorld;
use contract::ApiError;
use contract::api::Success;
use contract_infra::{
    DedicatedCluster, DedicatedHost, DedicatedPod, DedicatedZone, ListDedicatedHostsResponse,
    ListDedicatedPodsResponse, ListDedicatedZonesResponse,
};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use model::Owner;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Tx;

/// The account that owns what belongs to a domain.
const SYSTEM: i64 = 1;

/// Keeps a resource for a domain, or for one account of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dedicate {
    /// What kind of resource.
    pub kind: Kind,
    /// The resource.
    pub resource: i64,
    /// The domain.
    pub domain: i64,
    /// Its id path.
    pub domain_path: String,
    /// The account.
    pub account: Option<i64>,
}

impl Job for Dedicate {
    const KIND: &'static str = "dedication.dedicate";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        let db = &world.node.db;
        let (id, group) = (db.next_id("dedication").await?, db.next_id("affinity_group").await?);
        match self.kind {
            Kind::Cluster => {
                jobs::finish!(ctx, |tx| {
                    let listed = self.write(&world, tx, id, group).await?;
                    Ok::<_, ApiError>(DedicatedCluster::from(listed))
                })
                .await
            }
            Kind::Zone => {
                jobs::finish!(ctx, |tx| {
                    let listed = self.write(&world, tx, id, group).await?;
                    let dedicated_zone = vec![DedicatedZone::from(listed)];
                    Ok::<_, ApiError>(ListDedicatedZonesResponse { count: Some(1), dedicated_zone })
                })
                .await
            }
            Kind::Pod => {
                jobs::finish!(ctx, |tx| {
                    let listed = self.write(&world, tx, id, group).await?;
                    let dedicated_pod = vec![DedicatedPod::from(listed)];
                    Ok::<_, ApiError>(ListDedicatedPodsResponse { count: Some(1), dedicated_pod })
                })
                .await
            }
            Kind::Host => {
                jobs::finish!(ctx, |tx| {
                    let listed = self.write(&world, tx, id, group).await?;
                    let dedicated_host = vec![DedicatedHost::from(listed)];
                    Ok::<_, ApiError>(ListDedicatedHostsResponse { count: Some(1), dedicated_host })
                })
                .await
            }
        }
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Dedicate {
    /// Checks and writes it (IAM-080).
    async fn write(&self, world: &VmWorld, tx: &mut Tx, id: i64, group: i64) -> Result<Listed, ApiError> {
        let Dedicate { kind, resource, .. } = *self;
        // What was kept for somebody who is gone is free (IAM-076).
        sweep::release_orphans(tx).await?;
        let site = rows::site(tx, kind, resource).await?;
        let site =
            site.ok_or_else(|| ApiError::param(format!("Unable to find {} by id", kind.word().to_lowercase())))?;
        let owner = self.owner(tx).await?;
        if rows::of(&mut *tx, kind, resource).await?.is_some() {
            return Err(ApiError::failed(format!("{} {} is already dedicated", kind.word(), site.name)));
        }
        for above in rows::above(tx, kind, &site).await? {
            if !self.fits_below(&above) {
                return Err(ApiError::failed(format!(
                    "Cannot dedicate the {} to {}: the {} that it is in is already dedicated to another account or domain",
                    kind.word(),
                    owner.name,
                    above.kind.word().to_lowercase()
                )));
            }
        }
        let mut merged = Vec::new();
        for (below, name) in rows::below(tx, kind, resource).await? {
            if self.is_for(&below) {
                merged.push(below);
            } else if !self.may_hold(&below) {
                return Err(ApiError::failed(format!(
                    "{} {name} under this {} {} is dedicated to different account/domain",
                    below.kind.word(),
                    kind.word(),
                    site.name
                )));
            }
        }
        let found = self.group(tx, group, &owner).await?;
        let former_domain_id = site.domain_id.filter(|_| kind == Kind::Zone);
        let dedication = DedicationRow {
            id,
            uuid: model::new_uuid(),
            kind,
            resource,
            domain_id: self.domain,
            domain_path: self.domain_path.clone(),
            account_id: self.account,
            group_id: found,
            former_domain_id,
        };
        rows::insert(tx, &dedication, &site).await?;
        // Afterwards: their group has this one, and stays.
        for below in merged {
            rows::release(tx, below.kind, below.resource).await?;
        }
        if kind == Kind::Zone {
            rows::reserve_zone(tx, resource, Some(self.domain)).await?;
        }
        // From here on nobody takes capacity of these hosts until this is decided.
        rows::settle(tx, kind, resource).await?;
        self.nobody_else(tx, &site).await?;
        told(&world.node, tx);
        Ok(rows::shown(tx, id, kind).await?)
    }

    /// No VM of anybody else is on one of its hosts.
    async fn nobody_else(&self, tx: &mut Tx, site: &Site) -> Result<(), ApiError> {
        let stranger = rows::stranger(tx, self.kind, self.resource, &self.domain_path, self.account).await?;
        match stranger {
            None => Ok(()),
            Some((account, host)) => Err(ApiError::failed(format!(
                "{} {} can't be dedicated: host {host} found to be unsuitable for explicit dedication as it is running instances \
                 of another {}: of account {account}",
                self.kind.word(),
                site.name,
                if self.account.is_some() { "account" } else { "domain" }
            ))),
        }
    }

    /// Whether this can be inside of what is dedicated so: to a domain above, or for an account to its own.
    fn fits_below(&self, above: &DedicationRow) -> bool {
        let inside = self.domain_path.starts_with(&above.domain_path);
        above.account_id.is_none() && inside && (self.account.is_some() || self.domain != above.domain_id)
    }

    /// Whether the other is for the same.
    fn is_for(&self, other: &DedicationRow) -> bool {
        self.account == other.account_id && self.domain == other.domain_id
    }

    /// Whether what is dedicated so can stay inside of this.
    fn may_hold(&self, below: &DedicationRow) -> bool {
        self.account.is_none() && below.domain_path.starts_with(&self.domain_path)
    }

    /// Who it is for; it lives.
    async fn owner(&self, tx: &mut Tx) -> Result<Named, ApiError> {
        let name = rows::owner_name(tx, self.domain, self.account).await?;
        let name = name.ok_or_else(|| ApiError::param("the domain or account has been removed"))?;
        Ok(match self.account {
            None => Named { group: format!("DedicatedGrp-domain-{name}"), name: format!("domain {name}") },
            Some(_) => Named { group: format!("DedicatedGrp-{name}"), name: format!("account {name}") },
        })
    }

    /// The group of what is dedicated to the owner; made for the first one (IAM-068, REL-113).
    async fn group(&self, tx: &mut Tx, id: i64, owner: &Named) -> Result<i64, ApiError> {
        if let Some(found) = groups::of_dedications(tx, self.domain, self.account).await? {
            return Ok(found.id);
        }
        let group = GroupRow {
            id,
            uuid: model::new_uuid(),
            name: owner.group.clone(),
            kind: GroupKind::Dedicated,
            description: Some("dedicated resources group".to_owned()),
            owner: Owner {
                account_id: self.account.unwrap_or(SYSTEM),
                domain_id: self.domain,
                domain_path: self.domain_path.clone(),
            },
            of_domain: self.account.is_none(),
        };
        if groups::insert(tx, &group).await? {
            return Ok(id);
        }
        Err(ApiError::param(format!(
            "Unable to create affinity group, a group with name {} already exists.",
            group.name
        )))
    }
}

/// Who a resource is for, in words, and how its group is called.
struct Named {
    group: String,
    name: String,
}

/// Gives a resource to all again (IAM-077).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Release {
    /// What kind of resource.
    pub kind: Kind,
    /// The resource.
    pub resource: i64,
}

impl Job for Release {
    const KIND: &'static str = "dedication.release";
    type World = VmWorld;
    type Undo = ();

    async fn run(self, world: Arc<VmWorld>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::finish!(ctx, |tx| {
            if !rows::release(tx, self.kind, self.resource).await? {
                return Err(ApiError::param("No Dedicated Resource available to release"));
            }
            told(&world.node, tx);
            Ok::<_, ApiError>(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, _world: Arc<VmWorld>, _undo: (), _cx: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _world: Arc<VmWorld>, _error: &ApiError, _tx: &mut Tx, _cx: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

macro_rules! answer {
    ($message:ident, $id:ident, $name:ident) => {
        impl From<Listed> for $message {
            fn from(d: Listed) -> $message {
                $message {
                    id: Some(d.uuid),
                    $id: Some(d.resource_uuid),
                    $name: Some(d.resource_name),
                    domain_id: Some(d.domain_uuid),
                    account_id: d.account_uuid,
                    affinity_group_id: Some(d.group_uuid),
                    ..$message::default()
                }
            }
        }
    };
}

answer!(DedicatedZone, zone_id, zone_name);
answer!(DedicatedPod, pod_id, pod_name);
answer!(DedicatedCluster, cluster_id, cluster_name);
answer!(DedicatedHost, host_id, host_name);
