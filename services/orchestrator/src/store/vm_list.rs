//! Lists of VMs: one query for a page with the names of what it refers to, one for the NICs.

use crate::store::vms;
use contract_network::Nic;
use model::ListScope;
use model::Paged as _;
use model::state::VmState;
use std::collections::{BTreeMap, HashMap};
use store::{Db, Result, Row, Sql};

/// A row of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub display_name: String,
    pub instance_name: String,
    pub state: VmState,
    pub account: String,
    pub domain_uuid: String,
    pub domain: String,
    pub user_uuid: Option<String>,
    pub user_name: Option<String>,
    pub created: i64,
    pub ha_enabled: bool,
    pub zone_uuid: String,
    pub zone: String,
    pub host_uuid: Option<String>,
    pub host: Option<String>,
    pub template_uuid: Option<String>,
    pub template: Option<String>,
    pub template_text: Option<String>,
    pub password_enabled: bool,
    pub offering_uuid: Option<String>,
    pub offering: Option<String>,
    pub disk_offering_uuid: Option<String>,
    pub disk_offering: Option<String>,
    pub cpu: i64,
    pub cpu_mhz: i64,
    pub memory_mb: i64,
    pub os_type_uuid: Option<String>,
    pub hypervisor: String,
    pub key_pair: Option<String>,
    pub details: BTreeMap<String, String>,
    pub display_vm: bool,
    pub dynamic_scaling: bool,
    pub public_ip_uuid: Option<String>,
    pub public_ip: Option<String>,
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these.
    pub ids: Option<Vec<i64>>,
    /// Substring of the host or shown name.
    pub keyword: Option<String>,
    /// Substring of the name.
    pub name: Option<String>,
    /// State; "Present" is everything but Destroyed and Expunging.
    pub state: Option<String>,
    pub zone: Option<i64>,
    pub pod: Option<i64>,
    pub host: Option<i64>,
    pub template: Option<i64>,
    pub offering: Option<i64>,
    pub user: Option<i64>,
    pub network: Option<i64>,
    pub pool: Option<i64>,
    pub hypervisor: Option<String>,
    pub key_pair: Option<String>,
    pub display: Option<bool>,
    /// Whether it has a NIC in an isolated (true) or shared (false) network.
    pub for_virtual_network: Option<bool>,
    pub tags: Vec<(String, String)>,
}

fn conditions(sql: Sql, scope: &ListScope, filter: &Filter) -> Sql {
    let mut sql = scope.and(sql.push(" WHERE v.removed IS NULL"), "v.");
    if let Some(ids) = &filter.ids {
        sql = sql.push(" AND ").in_list("v.id", ids.iter().copied());
    }
    if let Some(word) = &filter.keyword {
        let word = word.to_lowercase();
        sql = sql.push(" AND (").contains("v.name_lower", &word).push(" OR ").contains("v.display_lower", &word);
        sql = sql.push(" OR ").contains("v.instance_name", &word).push(" OR v.state = ?").bind(&word).push(")");
    }
    if let Some(name) = &filter.name {
        sql = sql.push(" AND ").contains("v.name_lower", &name.to_lowercase());
    }
    if let Some(state) = &filter.state {
        sql = if state.eq_ignore_ascii_case("present") {
            sql.push(" AND v.state NOT IN (?, ?)").bind(VmState::Destroyed).bind(VmState::Expunging)
        } else {
            let known = VmState::parse(state).map_or_else(|| state.clone(), |s| s.to_string());
            sql.push(" AND v.state = ?").bind(known)
        };
    }
    sql = sql
        .push_if(" AND v.zone_id = ?", filter.zone)
        .push_if(" AND v.pod_id = ?", filter.pod)
        .push_if(" AND v.host_id = ?", filter.host)
        .push_if(" AND v.template_id = ?", filter.template)
        .push_if(" AND v.service_offering_id = ?", filter.offering)
        .push_if(" AND v.user_id = ?", filter.user)
        .push_if(" AND v.hypervisor = ?", filter.hypervisor.as_deref())
        .push_if(" AND v.key_pair = ?", filter.key_pair.as_deref())
        .push_if(" AND v.display_vm = ?", filter.display)
        .push_if(
            " AND EXISTS (SELECT 1 FROM nics n WHERE n.vm_id = v.id AND n.removed IS NULL AND n.network_id = ?)",
            filter.network,
        )
        .push_if(
            " AND EXISTS (SELECT 1 FROM volumes o WHERE o.vm_id = v.id AND o.removed IS NULL AND o.pool_id = ?)",
            filter.pool,
        );
    if let Some(isolated) = filter.for_virtual_network {
        let kind = if isolated { "Isolated" } else { "Shared" };
        sql = sql
            .push(" AND EXISTS (SELECT 1 FROM nics n WHERE n.vm_id = v.id AND n.removed IS NULL AND n.guest_type = ?)")
            .bind(kind);
    }
    model::tags::filter(sql, "UserVm", "v.id", &filter.tags)
}

/// How many match.
pub async fn count(db: &Db, scope: &ListScope, filter: &Filter) -> Result<i64> {
    db.one(conditions(Sql::new("SELECT COUNT(*) FROM vms v"), scope, filter)).await?.at(0)
}

/// A page, in the order of the numbers.
pub async fn page(db: &Db, scope: &ListScope, filter: &Filter, page: &contract::Page) -> Result<Vec<Listed>> {
    // The page's ids come first and alone, so that the joins touch its rows only.
    let mut sql = Sql::new(SELECT).push(" FROM (SELECT v.id FROM vms v");
    sql = page.apply(conditions(sql, scope, filter).push(" ORDER BY v.id"));
    db.all(sql.push(") p JOIN vms v ON v.id = p.id").push(JOINS).push(" ORDER BY v.id")).await?.iter().map(read).collect()
}

/// One VM, removed ones included.
pub async fn by_id(db: &Db, id: i64) -> Result<Option<Listed>> {
    let sql = Sql::new(SELECT).push(" FROM vms v").push(JOINS).push(" WHERE v.id = ?").bind(id);
    db.optional(sql).await?.map(|r| read(&r)).transpose()
}

const SELECT: &str = "SELECT v.id, v.uuid, v.name, v.display_name, v.instance_name, v.state, a.name AS account, \
    d.uuid AS domain_uuid, d.name AS domain_name, u.uuid AS user_uuid, u.username AS user_name, v.created, v.ha_enabled, \
    z.uuid AS zone_uuid, z.name AS zone_name, h.uuid AS host_uuid, h.name AS host_name, t.uuid AS template_uuid, \
    t.name AS template_name, t.display_text AS template_text, v.password_enabled, s.uuid AS offering_uuid, \
    s.name AS offering_name, o.uuid AS disk_offering_uuid, o.name AS disk_offering_name, v.cpu, v.cpu_mhz, v.memory_mb, \
    g.uuid AS os_uuid, v.hypervisor, v.key_pair, v.details, v.display_vm, v.dynamic_scaling, \
    i.uuid AS ip_uuid, i.ip AS public_ip";
const JOINS: &str = " LEFT JOIN accounts a ON a.id = v.account_id LEFT JOIN domains d ON d.id = v.domain_id \
    LEFT JOIN users u ON u.id = v.user_id LEFT JOIN zones z ON z.id = v.zone_id LEFT JOIN hosts h ON h.id = v.host_id \
    LEFT JOIN templates t ON t.id = v.template_id LEFT JOIN service_offerings s ON s.id = v.service_offering_id \
    LEFT JOIN disk_offerings o ON o.id = v.disk_offering_id LEFT JOIN os_types g ON g.id = v.os_type_id \
    LEFT JOIN ip_addresses i ON i.vm_id = v.id AND i.is_static_nat = 1";

fn read(r: &Row) -> Result<Listed> {
    Ok(Listed {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        display_name: r.at(3)?,
        instance_name: r.at(4)?,
        state: r.at(5)?,
        account: r.at::<Option<String>>(6)?.unwrap_or_default(),
        domain_uuid: r.at::<Option<String>>(7)?.unwrap_or_default(),
        domain: r.at::<Option<String>>(8)?.unwrap_or_default(),
        user_uuid: r.at(9)?,
        user_name: r.at(10)?,
        created: r.at(11)?,
        ha_enabled: r.at(12)?,
        zone_uuid: r.at::<Option<String>>(13)?.unwrap_or_default(),
        zone: r.at::<Option<String>>(14)?.unwrap_or_default(),
        host_uuid: r.at(15)?,
        host: r.at(16)?,
        template_uuid: r.at(17)?,
        template: r.at(18)?,
        template_text: r.at(19)?,
        password_enabled: r.at(20)?,
        offering_uuid: r.at(21)?,
        offering: r.at(22)?,
        disk_offering_uuid: r.at(23)?,
        disk_offering: r.at(24)?,
        cpu: r.at(25)?,
        cpu_mhz: r.at(26)?,
        memory_mb: r.at(27)?,
        os_type_uuid: r.at(28)?,
        hypervisor: r.at(29)?,
        key_pair: r.at(30)?,
        details: vms::details(&r.at::<String>(31)?)?,
        display_vm: r.at(32)?,
        dynamic_scaling: r.at(33)?,
        public_ip_uuid: r.at(34)?,
        public_ip: r.at(35)?,
    })
}

/// The NICs of these VMs, the default one first.
pub async fn nics(db: &Db, vms: &[i64]) -> Result<HashMap<i64, Vec<Nic>>> {
    let mut found: HashMap<i64, Vec<Nic>> = HashMap::new();
    if vms.is_empty() {
        return Ok(found);
    }
    let sql = Sql::new(
        "SELECT n.vm_id, n.uuid, w.uuid, w.name, n.netmask, n.gateway, n.ip, w.broadcast_uri, n.traffic_type, n.guest_type, \
         n.is_default, n.mac, n.device_id FROM nics n JOIN networks w ON w.id = n.network_id WHERE n.removed IS NULL AND ",
    )
    .in_list("n.vm_id", vms.iter().copied())
    .push(" ORDER BY n.vm_id, n.device_id");
    for r in db.all(sql).await? {
        let uri: Option<String> = r.at(7)?;
        found.entry(r.at(0)?).or_default().push(Nic {
            id: Some(r.at(1)?),
            network_id: Some(r.at(2)?),
            network_name: r.at(3)?,
            netmask: r.at(4)?,
            gateway: r.at(5)?,
            ip_address: r.at(6)?,
            isolation_uri: uri.clone(),
            broadcast_uri: uri,
            traffic_type: r.at(8)?,
            r#type: r.at(9)?,
            is_default: Some(r.at(10)?),
            mac_address: Some(r.at(11)?),
            device_id: Some(r.at::<i64>(12)?.to_string()),
            ..Nic::default()
        });
    }
    Ok(found)
}
