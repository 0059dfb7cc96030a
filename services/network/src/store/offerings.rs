//! Network offerings.

use crate::catalogue::{Offering, Seed, services_from_json};
use contract::ApiError;
use std::collections::HashMap;
use store::{Db, Row, Sql, Tx, Value, now_micros};

const COLUMNS: &str = "id, uuid, name, display_text, traffic_type, guest_type, availability, state, is_default, system_only, \
     specify_vlan, specify_ip_ranges, conserve_mode, is_persistent, for_vpc, dedicated_lb, redundant_router, elastic_ip, \
     elastic_lb, eip_associate_public_ip, inline_mode, egress_default_policy, keep_alive, streched_l2, public_access, \
     network_rate, max_connections, tags, services, sort_key, created";

fn read(r: &Row) -> Result<Offering, ApiError> {
    Ok(Offering {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        display_text: r.at(3)?,
        traffic_type: r.at(4)?,
        guest_type: r.at(5)?,
        availability: r.at(6)?,
        state: r.at(7)?,
        is_default: r.at(8)?,
        system_only: r.at(9)?,
        specify_vlan: r.at(10)?,
        specify_ip_ranges: r.at(11)?,
        conserve_mode: r.at(12)?,
        is_persistent: r.at(13)?,
        for_vpc: r.at(14)?,
        dedicated_lb: r.at(15)?,
        redundant_router: r.at(16)?,
        elastic_ip: r.at(17)?,
        elastic_lb: r.at(18)?,
        eip_associate_public_ip: r.at(19)?,
        inline_mode: r.at(20)?,
        egress_default_policy: r.at(21)?,
        keep_alive: r.at(22)?,
        streched_l2: r.at(23)?,
        public_access: r.at(24)?,
        network_rate: r.at(25)?,
        max_connections: r.at(26)?,
        tags: r.at(27)?,
        services: services_from_json(&r.at::<String>(28)?)?,
        sort_key: r.at(29)?,
        created: r.at(30)?,
    })
}

/// All that users can see, in list order. There are tens of them: filters are applied in memory.
pub async fn listable(db: &Db) -> Result<Vec<Offering>, ApiError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM network_offerings WHERE removed IS NULL AND system_only = 0 ORDER BY sort_key, id"
    );
    db.all(Sql::new(&sql)).await?.iter().map(read).collect()
}

/// The offerings with these numbers, removed ones too.
pub async fn by_ids(db: &Db, ids: impl IntoIterator<Item = i64>) -> Result<HashMap<i64, Offering>, ApiError> {
    let sql =
        Sql::new(&format!("SELECT {COLUMNS} FROM network_offerings WHERE ")).in_list("id", super::zones::distinct(ids));
    db.all(sql).await?.iter().map(|r| read(r).map(|o| (o.id, o))).collect()
}

/// One living offering.
pub async fn one(db: &Db, id: i64) -> Result<Option<Offering>, ApiError> {
    let sql = format!("SELECT {COLUMNS} FROM network_offerings WHERE id = ? AND removed IS NULL");
    db.optional(Sql::new(&sql).bind(id)).await?.map(|r| read(&r)).transpose()
}

/// What updateNetworkOffering changes; none: left alone.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Name.
    pub name: Option<String>,
    /// Text.
    pub display_text: Option<String>,
    /// Availability.
    pub availability: Option<String>,
    /// Place in lists.
    pub sort_key: Option<i64>,
    /// State.
    pub state: Option<String>,
    /// Keep-alive.
    pub keep_alive: Option<bool>,
    /// Connections.
    pub max_connections: Option<i64>,
    /// Tags.
    pub tags: Option<String>,
}

/// Applies a change.
pub async fn update(tx: &mut Tx, id: i64, change: &Change) -> store::Result<()> {
    let mut sql = Sql::new("UPDATE network_offerings SET removed = NULL");
    if let Some(name) = &change.name {
        sql = sql.push(", name = ?, name_lower = ?").bind(name).bind(name.to_lowercase());
    }
    sql = sql
        .push_if(", display_text = ?", change.display_text.as_ref())
        .push_if(", availability = ?", change.availability.as_ref())
        .push_if(", sort_key = ?", change.sort_key)
        .push_if(", state = ?", change.state.as_ref())
        .push_if(", keep_alive = ?", change.keep_alive)
        .push_if(", max_connections = ?", change.max_connections)
        .push_if(", tags = ?", change.tags.as_ref());
    tx.exec(sql.push(" WHERE id = ? AND removed IS NULL").bind(id)).await.map(drop)
}

/// Inserts the offerings of a fresh install that aren't there.
pub async fn seed(db: &Db, seeds: &[Seed]) -> store::Result<()> {
    db.start_ids("network_offerings", seeds.iter().map(|s| s.id).max().unwrap_or(0) + 1).await?;
    let known: Vec<String> = db
        .all(Sql::new("SELECT unique_name FROM network_offerings WHERE unique_name IS NOT NULL"))
        .await?
        .iter()
        .map(|r| r.at(0))
        .collect::<store::Result<_>>()?;
    let missing: Vec<&Seed> = seeds.iter().filter(|s| !known.contains(&s.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let inserted = store::tx!(db, "seed-network-offerings", |tx| {
        let mut sql = Sql::new(
            "INSERT INTO network_offerings (id, uuid, name, name_lower, unique_name, display_text, traffic_type, guest_type, \
             availability, state, is_default, system_only, specify_vlan, specify_ip_ranges, conserve_mode, is_persistent, \
             for_vpc, public_lb, internal_lb, dedicated_lb, shared_source_nat, redundant_router, elastic_ip, elastic_lb, \
             eip_associate_public_ip, inline_mode, egress_default_policy, keep_alive, streched_l2, public_access, network_rate, \
             services, sort_key, created) VALUES ",
        );
        for (i, s) in missing.iter().enumerate() {
            let services = serde_json::Value::Object(s.services.clone()).to_string();
            sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
                Value::from(s.id),
                model::new_uuid().into(),
                (&s.name).into(),
                s.name.to_lowercase().into(),
                (&s.name).into(),
                (&s.display_text).into(),
                (&s.traffic_type).into(),
                s.guest_type.clone().into(),
                (&s.availability).into(),
                "Enabled".into(),
                true.into(),
                s.system_only.into(),
                s.specify_vlan.into(),
                s.specify_ip_ranges.into(),
                s.conserve_mode.into(),
                s.is_persistent.into(),
                s.for_vpc.into(),
                s.public_lb.into(),
                s.internal_lb.into(),
                s.dedicated_lb.into(),
                false.into(),
                false.into(),
                s.elastic_ip.into(),
                s.elastic_lb.into(),
                s.eip_associate_public_ip.into(),
                false.into(),
                false.into(),
                s.keep_alive_enabled.into(),
                false.into(),
                false.into(),
                s.network_rate.into(),
                services.into(),
                0i64.into(),
                now_micros().into(),
            ]);
        }
        tx.exec(sql).await
    })
    .await;
    match inserted {
        // Another replica seeded them first.
        Ok(_) | Err(store::Error::Unique { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}
