//! Explicit dedication: a zone, pod, cluster or host is kept for a domain (and those below it) or for one account of it
//! (IAM-064 to IAM-080). VMs get there by the affinity group that the first dedication to its owner makes; all others avoid it.
//!
//! What that means for a host stands in `host_capacity`, which whoever takes capacity writes: a dedication and a placement at
//! the same moment see each other.

mod sweep;
mod tasks;

pub use sweep::start;
pub use tasks::{Dedicate, Release};

use crate::store::dedications::{self as rows, Filter, Listed};
use crate::vm::VmWorld;
use config::keys;
use contract::api::JobRef;
use contract::{ApiError, CommandInfo, Page};
use jobs::{Accept, Claim, Job};
use model::Owner;
use node::Node;
use rpc::Cx;
use store::Tx;

/// What can be dedicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// A zone.
    Zone,
    /// A pod.
    Pod,
    /// A cluster.
    Cluster,
    /// A host.
    Host,
}

impl Kind {
    /// Its name.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Zone => "Zone",
            Kind::Pod => "Pod",
            Kind::Cluster => "Cluster",
            Kind::Host => "Host",
        }
    }

    /// Reads the name.
    pub fn parse(word: &str) -> Option<Kind> {
        [Kind::Zone, Kind::Pod, Kind::Cluster, Kind::Host].into_iter().find(|k| k.word() == word)
    }

    /// The table of such resources.
    pub const fn table(self) -> &'static str {
        match self {
            Kind::Zone => "zones",
            Kind::Pod => "pods",
            Kind::Cluster => "clusters",
            Kind::Host => "hosts",
        }
    }

    /// Whose table this is.
    pub fn of_table(table: &str) -> Option<Kind> {
        [Kind::Zone, Kind::Pod, Kind::Cluster, Kind::Host].into_iter().find(|k| k.table() == table)
    }

    /// The column of `host_capacity` that says in which one a host is.
    pub const fn capacity_column(self) -> &'static str {
        match self {
            Kind::Zone => "zone_id",
            Kind::Pod => "pod_id",
            Kind::Cluster => "cluster_id",
            Kind::Host => "host_id",
        }
    }

    /// Whether resources of `other` are inside of such ones.
    pub fn is_above(self, other: Kind) -> bool {
        self < other
    }
}

/// The claim of jobs that change dedications: one after the other.
pub fn claim() -> Claim {
    Claim::Exclusive("dedication/1".to_owned())
}

/// Tells all replicas, once `tx` is committed, that hosts are kept for others than before.
pub fn told(node: &Node, tx: &mut Tx) {
    let coord = node.coord.clone();
    tx.after_commit(move || coord.publish("placement", "all"));
}

/// A request to dedicate or to release.
#[derive(Debug)]
pub struct Wish {
    /// What kind of resource.
    pub kind: Kind,
    /// The parameter that names it.
    pub param: &'static str,
    /// The command.
    pub command: Option<&'static CommandInfo>,
    /// Id that the job gets.
    pub custom_job_id: Option<String>,
}

/// Accepts the dedication of a resource to `account` of the domain that `domainid` names, or to that domain.
///
/// # Errors
/// 431 for a domain, account or resource that isn't there.
pub async fn dedicate(world: &VmWorld, cx: &Cx, wish: Wish, account: Option<String>) -> Result<JobRef, ApiError> {
    let resource: i64 = cx.refs.need(wish.param)?;
    let domain = cx.refs.living("domainid")?.and_then(|d| d.owner.clone());
    let domain = domain.ok_or_else(|| ApiError::param("Unable to find domain by id"))?;
    let account = match account.filter(|a| !a.is_empty()) {
        Some(name) => {
            let domain = Some((domain.domain_id, domain.domain_path.as_str()));
            let db = &world.node.db;
            Some(model::scope::owner_for_create(db, &cx.caller, Some(&name), domain).await?.account_id)
        }
        None => None,
    };
    let job =
        Dedicate { kind: wish.kind, resource, domain: domain.domain_id, domain_path: domain.domain_path, account };
    accept(world, cx, wish, resource, job, "Dedicating").await
}

/// Accepts the release of a dedicated resource.
///
/// # Errors
/// 431 for a resource that isn't there.
pub async fn release(world: &VmWorld, cx: &Cx, wish: Wish) -> Result<JobRef, ApiError> {
    let resource: i64 = cx.refs.need(wish.param)?;
    let job = Release { kind: wish.kind, resource };
    accept(world, cx, wish, resource, job, "Releasing dedicated").await
}

async fn accept<J: Job>(
    world: &VmWorld,
    cx: &Cx,
    wish: Wish,
    resource: i64,
    job: J,
    what: &str,
) -> Result<JobRef, ApiError> {
    let uuid = cx.refs.one(wish.param).map(|e| e.uuid.clone()).unwrap_or_default();
    let ticket = world.jobs.ticket().await?;
    let mut claims = vec![claim()];
    if wish.kind == Kind::Host {
        // It isn't deleted meanwhile; the others' rows say that by themselves.
        claims.push(Claim::Shared(format!("host/{resource}")));
    }
    jobs::mutate!(world.node.db, &cx.caller, J::KIND, |tx| {
        let accept = Accept {
            job: job.clone(),
            caller: cx.caller.clone(),
            command: wish.command,
            owner: Owner::caller(&cx.caller),
            instance: None,
            claims: claims.clone(),
            custom_id: wish.custom_job_id.clone(),
            description: format!("{what} {}: {uuid}", wish.kind.word().to_lowercase()),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}

/// What a list asks for beside its page.
#[derive(Debug, Default)]
pub struct Ask {
    /// The parameter that names the resource.
    pub param: &'static str,
    /// Name of an account of the domain that `domainid` names, or of the caller's.
    pub account: Option<String>,
    /// Part of the name.
    pub keyword: Option<String>,
    /// Number of the page.
    pub page: Option<i32>,
    /// Entries on it.
    pub page_size: Option<i32>,
}

/// A page of dedicated resources of a kind, and how many there are.
///
/// # Errors
/// 431 for an account that isn't there, or a page that can't be.
pub async fn list(world: &VmWorld, cx: &Cx, kind: Kind, ask: Ask) -> Result<(Vec<Listed>, i64), ApiError> {
    let db = &world.node.db;
    let page = Page::of(ask.page, ask.page_size, world.node.settings.get(keys::DEFAULT_PAGE_SIZE))?;
    let domain = cx.refs.one("domainid").and_then(|d| d.owner.clone());
    let account = match ask.account.filter(|a| !a.is_empty()) {
        Some(name) => {
            let domain = domain.as_ref().map(|o| (o.domain_id, o.domain_path.as_str()));
            Some(model::scope::owner_for_create(db, &cx.caller, Some(&name), domain).await?.account_id)
        }
        None => None,
    };
    let filter = Filter {
        resource: cx.refs.one(ask.param).map(|e| e.id),
        domain: domain.map(|o| o.domain_id),
        account,
        group: cx.refs.one("affinitygroupid").map(|e| e.id),
        keyword: ask.keyword.filter(|k| !k.is_empty()),
    };
    Ok(rows::list(db, kind, &filter, page).await?)
}
