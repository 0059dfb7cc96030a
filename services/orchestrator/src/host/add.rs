//! Adding a host. A simulated one: first a row in the state Creating, with capacity and an address; then the agent is told;
//! then the row takes VMs. Whoever is killed in between leaves a row that the sweep removes ([`super::sweep`]). A real
//! machine's agent waits already ([`super::machine`]): one commit makes the host.

use super::{gone, machine, tags, url, view};
use crate::cluster::{self, NewCluster};
use crate::store::clusters::{self, ClusterRow};
use crate::store::hosts::{self as rows, HostRow, NewHost};
use crate::store::pod_ips;
use crate::world::World;
use crate::{hypervisor, pod, zone};
use ::store::Tx;
use contract::ApiError;
use contract_agent::SpawnHost;
use contract_infra::{AddHostRequest, Host, ListHostsResponse};
use model::state::{AllocationState, HostStatus, ResourceState};
use rpc::Cx;
use std::time::Duration;

/// Longest that a factory may take to make a host.
const SPAWN_DEADLINE: Duration = Duration::from_secs(30);

/// Where the host comes from.
enum Source {
    /// A factory makes it.
    Simulated(url::Simulated),
    /// The agent of the machine with this address or name waits.
    Machine(String),
}

/// Everything that is chosen before the transaction.
struct Plan {
    zone: i64,
    pod: i64,
    cluster: Option<i64>,
    new_cluster: NewCluster,
    source: Source,
    url: String,
    id: i64,
    uuid: String,
    guid: String,
    tags: String,
    resource_state: ResourceState,
}

/// Adds a host.
pub async fn add(world: &World, cx: &Cx, r: AddHostRequest) -> Result<ListHostsResponse, ApiError> {
    let plan = checked(world, cx, &r).await?;
    let made = jobs::mutate!(world.node.db, cx.caller, "add-host", |tx| {
        let uuid = reserve(world, tx, cx, &plan).await?;
        Ok(ListHostsResponse { count: Some(1), host: vec![Host { id: Some(uuid), ..Host::default() }] })
    })
    .await?;
    // A repeat with the same idempotency key comes here with the first one's host.
    let uuid = made.host.first().and_then(|h| h.id.clone()).unwrap_or_default();
    let host = rows::by_uuid(&world.node.db, &uuid).await?.filter(|h| h.removed.is_none()).ok_or_else(|| {
        ApiError::failed("The host that this request added has been removed since: add it again with a new request")
    })?;
    let host = match &host.version {
        None => connect(world, host).await?,
        Some(_) if host.status == HostStatus::Connecting => machine::connected(world, host).await?,
        Some(_) => host,
    };
    Ok(ListHostsResponse {
        count: Some(1),
        host: vec![view::shown(host, view::Details::all(), super::ha_tag(&world.node.settings).as_deref())],
    })
}

async fn checked(world: &World, cx: &Cx, r: &AddHostRequest) -> Result<Plan, ApiError> {
    let kind = hypervisor::parse(r.hypervisor())?;
    let name = r.cluster_name.as_deref().map(str::trim).filter(|n| !n.is_empty());
    let cluster: Option<i64> = cx.refs.id("clusterid")?;
    match (cluster, name) {
        (Some(_), Some(_)) => return Err(ApiError::param("Can't specify cluster by both id and name")),
        (None, None) => return Err(ApiError::param("Must specify cluster id or name when adding a host")),
        _ => {}
    }
    let kept = url::without_credentials(r.url())?;
    let source = match kind {
        "Simulator" => Source::Simulated(url::simulated(&kept)?),
        "KVM" | "LXC" => Source::Machine(url::address(&kept)?),
        _ => {
            return Err(ApiError::unsupported(format!(
                "Hosts of {kind} can't be added yet: only those of KVM, LXC and Simulator"
            )));
        }
    };
    let state = crate::reach::allocation_state(r.allocation_state.as_deref())?.unwrap_or(AllocationState::Enabled);
    let guid = format!("SimulatedAgent.{}", model::new_uuid());
    let db = &world.node.db;
    Ok(Plan {
        zone: cx.refs.need("zoneid")?,
        pod: cx.refs.need("podid")?,
        cluster,
        new_cluster: NewCluster {
            id: if name.is_some() { db.next_id("cluster").await? } else { 0 },
            uuid: model::new_uuid(),
            name: name.unwrap_or_default().to_owned(),
            hypervisor: kind,
            cluster_type: "CloudManaged",
            allocation_state: AllocationState::Enabled,
        },
        source,
        url: kept,
        id: db.next_id("host").await?,
        uuid: model::new_uuid(),
        guid,
        tags: tags(&r.host_tags),
        resource_state: match state {
            AllocationState::Enabled => ResourceState::Enabled,
            AllocationState::Disabled => ResourceState::Disabled,
        },
    })
}

/// Writes the host with its capacity and its address. Gives its UUID.
async fn reserve(world: &World, tx: &mut Tx, cx: &Cx, plan: &Plan) -> Result<String, ApiError> {
    let zone = zone::usable(tx, plan.zone, &cx.caller).await?;
    let pod = pod::usable(tx, plan.pod, &zone).await?;
    let cluster = match plan.cluster {
        Some(id) => cluster::usable(tx, id, &pod).await?,
        None => match clusters::named(&mut *tx, pod.id, &plan.new_cluster.name).await? {
            Some(known) => cluster::usable(tx, known.id, &pod).await?,
            None => cluster::make(world, tx, &pod, &plan.new_cluster).await?,
        },
    };
    let kind = plan.new_cluster.hypervisor;
    if cluster.hypervisor != kind {
        return Err(ApiError::param(format!(
            "Can't add a host of {kind} to cluster {}: its hosts run {}",
            cluster.name, cluster.hypervisor
        )));
    }
    let simulated = match &plan.source {
        Source::Simulated(simulated) => simulated,
        Source::Machine(address) => {
            let agent = machine::take(world, tx, kind, address).await?;
            let host = NewHost {
                uuid: agent.uuid.clone(),
                guid: agent.guid.clone(),
                name: if agent.facts.name.is_empty() { address.clone() } else { agent.facts.name.clone() },
                status: HostStatus::Connecting,
                cpus: i64::from(agent.facts.cpus),
                mhz: i64::from(agent.facts.cpu_mhz),
                memory: i64::try_from(agent.facts.memory_bytes).unwrap_or(i64::MAX),
                ip: agent.facts.private_ip.clone(),
                ..plan.new_host(&cluster)
            };
            rows::insert(tx, &host).await?;
            rows::adopt(tx, host.id, &agent.facts).await?;
            return Ok(agent.uuid);
        }
    };
    let holder = format!("host/{}", plan.uuid);
    let range = pod::range_of(&pod)?;
    let Some(ip) = pod_ips::take(tx, zone.id, pod.id, &range, &holder).await? else {
        return Err(ApiError::capacity(format!(
            "Unable to get a management address: all {} of pod {} are in use. Enlarge its range (updatePod)",
            range.size(),
            pod.name
        )));
    };
    let host = NewHost {
        cpus: i64::from(simulated.cpus),
        mhz: i64::from(simulated.mhz),
        memory: i64::try_from(simulated.memory).unwrap_or(i64::MAX),
        ip: ip.to_string(),
        ..plan.new_host(&cluster)
    };
    rows::insert(tx, &host).await?;
    Ok(plan.uuid.clone())
}

impl Plan {
    /// What of the host is known before its machine is.
    fn new_host(&self, cluster: &ClusterRow) -> NewHost {
        NewHost {
            id: self.id,
            uuid: self.uuid.clone(),
            guid: self.guid.clone(),
            name: self.guid.clone(),
            url: self.url.clone(),
            cluster: cluster.id,
            pod: cluster.pod_id,
            zone: cluster.zone_id,
            hypervisor: self.new_cluster.hypervisor.to_owned(),
            status: HostStatus::Creating,
            cpus: 0,
            mhz: 0,
            memory: 0,
            tags: self.tags.clone(),
            ip: String::new(),
            resource_state: self.resource_state,
            overcommit: (cluster.cpu_overcommit, cluster.memory_overcommit),
        }
    }
}

/// Has a factory make the host, then lets it take VMs. When that fails, nothing of the host stays.
async fn connect(world: &World, host: HostRow) -> Result<HostRow, ApiError> {
    let spec = SpawnHost {
        host_uuid: host.uuid.clone(),
        guid: host.guid.clone(),
        name: host.name.clone(),
        cpus: u32::try_from(host.cpu_cores).unwrap_or(0),
        cpu_mhz: u32::try_from(host.cpu_mhz).unwrap_or(0),
        memory_bytes: u64::try_from(host.memory).unwrap_or(0),
        private_ip: host.ip.clone().unwrap_or_default(),
        zone_uuid: host.zone.1.clone(),
        pod_uuid: host.pod.1.clone(),
        cluster_uuid: host.cluster.1.clone(),
    };
    let db = &world.node.db;
    let facts = match world.hub.spawn_on_factory(spec, SPAWN_DEADLINE).await {
        Ok(facts) => facts,
        Err(error) => {
            take_back(world, host.id, &host.uuid).await?;
            return Err(error);
        }
    };
    let adopted = ::store::tx!(db, "adopt-host", |tx| {
        if !rows::adopt(tx, host.id, &facts).await? {
            return Err(gone());
        }
        rows::find(&mut *tx, host.id).await?.ok_or_else(gone)
    })
    .await?;
    world.host_changed(host.id);
    // The factory may be one that connected after faults were set.
    if let Err(error) = crate::mock::push_if_any(world).await {
        tracing::warn!(%error, "a factory wasn't told of the delays and faults in force");
    }
    Ok(adopted)
}

/// Removes a host that never took VMs.
async fn take_back(world: &World, id: i64, uuid: &str) -> Result<(), ApiError> {
    let db = &world.node.db;
    ::store::tx!(db, "take-back-host", |tx| discard(tx, id, uuid).await).await?;
    world.host_changed(id);
    Ok(())
}

/// The same, as part of `tx`.
pub(super) async fn discard(tx: &mut Tx, id: i64, uuid: &str) -> Result<(), ApiError> {
    rows::remove(tx, id).await?;
    Ok(pod_ips::free(tx, &format!("host/{uuid}")).await?)
}
