//! Providers of network services and the router elements behind them.

use super::page;
use store::{Db, Result, Row, Sql, Tx, Value, now_micros};

/// A provider on a physical network.
#[derive(Clone, Debug, Default)]
pub struct NetworkProvider {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// Name, "VirtualRouter".
    pub name: String,
    /// Physical network.
    pub physical_network_id: i64,
    /// Physical network at the other side.
    pub destination_id: Option<i64>,
    /// Disabled, Enabled, Shutdown.
    pub state: String,
    /// Services, comma-separated.
    pub services: String,
}

const COLUMNS: &str = "id, uuid, name, physical_network_id, destination_id, state, services";

fn read(r: &Row) -> Result<NetworkProvider> {
    Ok(NetworkProvider {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        physical_network_id: r.at(3)?,
        destination_id: r.at(4)?,
        state: r.at(5)?,
        services: r.at(6)?,
    })
}

/// One living provider.
pub async fn one(db: &Db, id: i64) -> Result<Option<NetworkProvider>> {
    let sql = format!("SELECT {COLUMNS} FROM network_providers WHERE id = ? AND removed IS NULL");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// State of a provider on a physical network, if it is there.
pub async fn state(db: &Db, physical: i64, name: &str) -> Result<Option<String>> {
    db.optional(
        Sql::new("SELECT state FROM network_providers WHERE physical_network_id = ? AND name = ? AND removed IS NULL")
            .bind(physical)
            .bind(name),
    )
    .await?
    .map(|r| r.at(0))
    .transpose()
}

/// Filters of a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Physical network.
    pub physical_network_id: Option<i64>,
    /// Name.
    pub name: Option<String>,
    /// State.
    pub state: Option<String>,
    /// Part of the name, lower-cased.
    pub keyword: Option<String>,
}

/// A page of them.
pub async fn list(db: &Db, f: &Filter, p: &model::Page) -> Result<(Vec<NetworkProvider>, i64)> {
    let query = |head: &str| {
        let sql = Sql::new(head)
            .push(" FROM network_providers WHERE removed IS NULL")
            .push_if(" AND physical_network_id = ?", f.physical_network_id)
            .push_if(" AND name = ?", f.name.as_ref())
            .push_if(" AND LOWER(state) = ?", f.state.as_ref().map(|s| s.to_lowercase()));
        match &f.keyword {
            Some(k) => sql.push(" AND ").contains("LOWER(name)", k),
            None => sql,
        }
    };
    page(db, p, COLUMNS, query, " ORDER BY id", read).await
}

/// Writes a new one with its element (numbers given); a unique violation means that the network has it.
pub async fn insert(tx: &mut Tx, p: &NetworkProvider, element_id: i64, element_uuid: &str) -> Result<()> {
    let now = now_micros();
    tx.exec(
        Sql::new(
            "INSERT INTO network_providers (id, uuid, name, physical_network_id, destination_id, state, services, live_key, \
             created) VALUES ",
        )
        .tuple([
            Value::from(p.id),
            (&p.uuid).into(),
            (&p.name).into(),
            p.physical_network_id.into(),
            p.destination_id.into(),
            (&p.state).into(),
            (&p.services).into(),
            format!("{}/{}", p.physical_network_id, p.name).into(),
            now.into(),
        ]),
    )
    .await?;
    tx.exec(
        Sql::new("INSERT INTO router_elements (id, uuid, provider_id, enabled, created) VALUES (?, ?, ?, 0, ?)")
            .bind(element_id)
            .bind(element_uuid)
            .bind(p.id)
            .bind(now),
    )
    .await
    .map(drop)
}

/// Writes state and services. False: it is gone.
pub async fn update(tx: &mut Tx, id: i64, state: &str, services: &str) -> Result<bool> {
    let n = tx
        .exec(
            Sql::new("UPDATE network_providers SET state = ?, services = ? WHERE id = ? AND removed IS NULL")
                .bind(state)
                .bind(services)
                .bind(id),
        )
        .await?;
    Ok(n > 0)
}

/// Marks it and its element removed.
pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
    let now = now_micros();
    tx.exec(
        Sql::new("UPDATE network_providers SET removed = ?, live_key = NULL WHERE id = ? AND removed IS NULL")
            .bind(now)
            .bind(id),
    )
    .await?;
    tx.exec(
        Sql::new("UPDATE router_elements SET removed = ? WHERE provider_id = ? AND removed IS NULL").bind(now).bind(id),
    )
    .await
    .map(drop)
}

/// A router element.
#[derive(Clone, Debug)]
pub struct Element {
    /// UUID.
    pub uuid: String,
    /// UUID of the provider.
    pub provider_uuid: String,
    /// Whether it may be used.
    pub enabled: bool,
}

const ELEMENT: &str = "e.uuid, p.uuid, e.enabled";

fn read_element(r: &Row) -> Result<Element> {
    Ok(Element { uuid: r.at(0)?, provider_uuid: r.at(1)?, enabled: r.at(2)? })
}

/// A page of elements, by number, provider and whether enabled.
pub async fn elements(
    db: &Db,
    id: Option<i64>,
    provider: Option<i64>,
    enabled: Option<bool>,
    p: &model::Page,
) -> Result<(Vec<Element>, i64)> {
    let query = |head: &str| {
        Sql::new(head)
            .push(" FROM router_elements e JOIN network_providers p ON p.id = e.provider_id WHERE e.removed IS NULL")
            .push_if(" AND e.id = ?", id)
            .push_if(" AND e.provider_id = ?", provider)
            .push_if(" AND e.enabled = ?", enabled)
    };
    page(db, p, ELEMENT, query, " ORDER BY e.id", read_element).await
}

/// Whether the provider's element is configured.
pub async fn element_enabled(db: &Db, provider: i64) -> Result<bool> {
    let row = db
        .optional(
            Sql::new("SELECT enabled FROM router_elements WHERE provider_id = ? AND removed IS NULL").bind(provider),
        )
        .await?;
    row.map_or(Ok(false), |r| r.at(0))
}

/// Enables or disables an element. False: it is gone.
pub async fn set_element(tx: &mut Tx, id: i64, enabled: bool) -> Result<bool> {
    let n = tx
        .exec(
            Sql::new("UPDATE router_elements SET enabled = ? WHERE id = ? AND removed IS NULL").bind(enabled).bind(id),
        )
        .await?;
    Ok(n > 0)
}
