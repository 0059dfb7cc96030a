//! Agents of machines that no host was added for yet. They are connected and wait: `addHost` finds them in the database,
//! whichever replica holds their line, and makes a host with the agent's own UUID. Then the replica lets it in.
//!
//! A notice hurries that; whoever misses it looks every few seconds. So a kill of either side in between costs nothing: the
//! host's row is there or it isn't, and the agent is let in or waits.

use crate::registrar::{Join, Leave};
use crate::store;
use crate::{Hub, metrics};
use ::store::{Result, Row, Sql, Tx, now_micros};
use contract::ApiError;
use contract_agent::{HostFacts, HostUp, Refused, hub_message};
use coord::Notice;
use model::state::HostStatus;
use std::collections::HashSet;
use std::time::Duration;

/// UUIDs of agents whose host was just added or deleted.
const TOPIC: &str = "agents";
/// Between looks.
const LOOK: Duration = Duration::from_secs(2);

/// An agent that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingAgent {
    /// Its UUID; its host's too, when it is added.
    pub uuid: String,
    /// What names the machine; never two live hosts have the same.
    pub guid: String,
    /// The replica that holds its line.
    pub hub: String,
    /// What it says of its machine.
    pub facts: HostFacts,
}

const COLUMNS: &str = "agent_uuid, hub, guid, name, hypervisor, hypervisor_version, agent_version, private_ip, private_mac, sockets, \
    cpus, cpu_mhz, memory, memory_reserved, capabilities";

fn read(row: &Row) -> Result<WaitingAgent> {
    let small = |n: i64| u32::try_from(n).unwrap_or(0);
    let large = |n: i64| u64::try_from(n).unwrap_or(0);
    let capabilities: String = row.at(14)?;
    let facts = HostFacts {
        name: row.at(3)?,
        hypervisor: row.at(4)?,
        hypervisor_version: row.at(5)?,
        agent_version: row.at(6)?,
        private_ip: row.at(7)?,
        private_mac: row.at(8)?,
        sockets: small(row.at(9)?),
        cpus: small(row.at(10)?),
        cpu_mhz: small(row.at(11)?),
        memory_bytes: large(row.at(12)?),
        dom0_memory_bytes: large(row.at(13)?),
        capabilities: capabilities.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect(),
    };
    Ok(WaitingAgent { uuid: row.at(0)?, guid: row.at(2)?, hub: row.at(1)?, facts })
}

/// All agents that wait, by name. A replica that was killed leaves its rows: whoever acts on one looks whether its hub lives.
///
/// # Errors
/// When the database doesn't answer.
pub async fn waiting(tx: &mut Tx) -> Result<Vec<WaitingAgent>> {
    let sql = Sql::new(&format!("SELECT {COLUMNS} FROM waiting_agents ORDER BY name, agent_uuid"));
    tx.all(sql).await?.iter().map(read).collect()
}

/// Ends an agent's wait, as part of the commit that makes its host. Whether it waited still: of several only one succeeds.
///
/// # Errors
/// When the database doesn't answer.
pub async fn take_waiting(tx: &mut Tx, agent_uuid: &str) -> Result<bool> {
    let sql = Sql::new("DELETE FROM waiting_agents WHERE agent_uuid = ?").bind(agent_uuid);
    Ok(tx.exec(sql).await? == 1)
}

/// Notes that an agent waits at `hub`.
pub(crate) async fn note(tx: &mut Tx, hub: &str, host: &HostUp) -> Result<()> {
    let facts = host.facts.clone().unwrap_or_default();
    // What an agent says of itself has no bounds; the columns have.
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let guid = if host.guid.is_empty() { &host.host_uuid } else { &host.guid };
    take_waiting(tx, &host.host_uuid).await?;
    let sql = Sql::new(&format!(
        "INSERT INTO waiting_agents ({COLUMNS}, since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ))
    .bind(&host.host_uuid)
    .bind(hub)
    .bind(cut(guid, 255))
    .bind(cut(&facts.name, 255))
    .bind(cut(&facts.hypervisor, 32))
    .bind(cut(&facts.hypervisor_version, 64))
    .bind(cut(&facts.agent_version, 64))
    .bind(cut(&facts.private_ip, 40))
    .bind(cut(&facts.private_mac, 40))
    .bind(i64::from(facts.sockets))
    .bind(i64::from(facts.cpus))
    .bind(i64::from(facts.cpu_mhz))
    .bind(number(facts.memory_bytes))
    .bind(number(facts.dom0_memory_bytes))
    .bind(cut(&facts.capabilities.join(","), 255))
    .bind(now_micros());
    tx.exec(sql).await.map(drop)
}

/// Removes what a replica noted of agents; none: all of its.
pub(crate) async fn forget(tx: &mut Tx, hub: &str, agents: Option<&[String]>) -> Result<()> {
    let sql = Sql::new("DELETE FROM waiting_agents WHERE hub = ?").bind(hub);
    let sql = match agents {
        Some(agents) => sql.push(" AND ").in_list("agent_uuid", agents),
        None => sql,
    };
    tx.exec(sql).await.map(drop)
}

/// Lets agents in whose host was added, and tells those whose host was deleted.
pub(crate) fn start(hub: &Hub) {
    let own = hub.clone();
    hub.0.node.spawn("waiting-agents", async move {
        let mut news = own.0.node.coord.subscribe(TOPIC);
        loop {
            let named = match tokio::time::timeout(LOOK, news.next()).await {
                Ok(Notice::Message(uuid)) => Some(uuid),
                Ok(Notice::Missed) | Err(_) => None,
            };
            if let Err(error) = own.look(named.as_deref()).await {
                tracing::debug!(%error, "agents that wait can't be looked after");
            }
        }
    });
}

impl Hub {
    /// Hurries whichever replica holds this agent's line: its host was just added, or deleted.
    pub fn hurry(&self, agent_uuid: &str) {
        self.0.node.coord.publish(TOPIC, agent_uuid);
    }

    /// How many agents wait at this replica for their host to be added.
    pub fn waiting_here(&self) -> usize {
        self.0.registry.waiting().len()
    }

    async fn look(&self, named: Option<&str>) -> std::result::Result<(), ApiError> {
        let (db, replica) = (&self.0.node.db, &self.0.node.replica);
        let waiting = self.0.registry.waiting();
        metrics::waiting(waiting.len());
        if !waiting.is_empty() {
            let uuids: Vec<String> = waiting.iter().map(|(_, up)| up.host_uuid.clone()).collect();
            let added = store::with_row(db, &uuids).await?;
            let noted: HashSet<String> = noted(db, replica).await?;
            // One whose note is gone is noted again: another replica may have taken this one for dead.
            for (link, up) in
                waiting.into_iter().filter(|(_, up)| added.contains(&up.host_uuid) || !noted.contains(&up.host_uuid))
            {
                self.0.registrar.join(Join { link, hosts: vec![up], hello: None }).await?;
            }
        }
        match named.and_then(|uuid| self.0.registry.by_uuid(uuid)) {
            Some(connected) if store::is_removed(db, connected.id).await? => {
                let uuid = connected.uuid.clone();
                let reason = "the host was deleted".to_owned();
                let leave = Leave {
                    link: connected.link.clone(),
                    hosts: Some(vec![uuid.clone()]),
                    status: HostStatus::Disconnected,
                    reason: reason.clone(),
                };
                self.0.registrar.leave(leave).await;
                connected.link.tell(hub_message::Body::Refused(Refused { host_uuid: uuid, reason, forget: true }));
            }
            _ => {}
        }
        Ok(())
    }
}

async fn noted(db: &::store::Db, hub: &str) -> Result<HashSet<String>> {
    let sql = Sql::new("SELECT agent_uuid FROM waiting_agents WHERE hub = ?").bind(hub);
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// The replicas that agents are said to wait at.
pub(crate) async fn hubs(db: &::store::Db) -> Result<Vec<String>> {
    db.all(Sql::new("SELECT DISTINCT hub FROM waiting_agents")).await?.iter().map(|r| r.at(0)).collect()
}
