//! Lists of VMs: one query for a page, one for its NICs. Names of what they refer to come from `vm_names`.

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
    pub account_id: i64,
    pub domain_id: i64,
    pub user_id: i64,
    pub created: i64,
    pub ha_enabled: bool,
    pub zone_id: i64,
    pub host_id: Option<i64>,
    pub template_id: i64,
    /// The ISO in its CD drive.
    pub iso_id: Option<i64>,
    pub password_enabled: bool,
    pub service_offering_id: i64,
    pub disk_offering_id: Option<i64>,
    pub cpu: i64,
    pub cpu_mhz: i64,
    pub memory_mb: i64,
    pub os_type_id: Option<i64>,
    pub hypervisor: String,
    pub key_pair: Option<String>,
    pub details: BTreeMap<String, String>,
    pub display_vm: bool,
    pub dynamic_scaling: bool,
    pub public_ip_uuid: Option<String>,
    pub public_ip: Option<String>,
    pub group_id: Option<i64>,
    /// Whether it is in an affinity group.
    pub grouped: bool,
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
    /// Only those with this ISO in their CD drive.
    pub iso: Option<i64>,
    pub offering: Option<i64>,
    pub user: Option<i64>,
    pub group: Option<i64>,
    pub network: Option<i64>,
    pub pool: Option<i64>,
    pub hypervisor: Option<String>,
    pub key_pair: Option<String>,
    pub display: Option<bool>,
    /// Whether it has a NIC in an isolated (true) or shared (false) network.
    pub for_virtual_network: Option<bool>,
    pub tags: Vec<(String, String)>,
    /// A load balancing rule, and whether they are behind it.
    pub behind: Option<(i64, bool)>,
    /// An affinity group that they are in.
    pub affinity_group: Option<i64>,
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
        .push_if(" AND v.iso_id = ?", filter.iso)
        .push_if(" AND v.service_offering_id = ?", filter.offering)
        .push_if(" AND v.user_id = ?", filter.user)
        .push_if(" AND v.group_id = ?", filter.group)
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
        )
        .push_if(
            " AND EXISTS (SELECT 1 FROM affinity_group_vms m WHERE m.vm_id = v.id AND m.group_id = ?)",
            filter.affinity_group,
        );
    if let Some(isolated) = filter.for_virtual_network {
        let kind = if isolated { "Isolated" } else { "Shared" };
        sql = sql
            .push(" AND EXISTS (SELECT 1 FROM nics n WHERE n.vm_id = v.id AND n.removed IS NULL AND n.guest_type = ?)")
            .bind(kind);
    }
    if let Some((rule, applied)) = filter.behind {
        let word = if applied { "" } else { "NOT " };
        sql = sql
            .push(&format!(" AND {word}EXISTS (SELECT 1 FROM lb_members m WHERE m.rule_id = ? AND m.vm_id = v.id)"))
            .bind(rule)
            .push(" AND v.state NOT IN (?, ?, ?)")
            .bind(VmState::Destroyed)
            .bind(VmState::Expunging)
            .bind(VmState::Error);
    }
    model::tags::filter(sql, "UserVm", "v.id", &filter.tags)
}

/// How many match.
pub async fn count(db: &Db, scope: &ListScope, filter: &Filter) -> Result<i64> {
    db.one(conditions(Sql::new("SELECT COUNT(*) FROM vms v"), scope, filter)).await?.at(0)
}

/// A page, in the order of the numbers.
pub async fn page(db: &Db, scope: &ListScope, filter: &Filter, page: &contract::Page) -> Result<Vec<Listed>> {
    let sql = conditions(Sql::new(SELECT), scope, filter).push(" ORDER BY v.id");
    db.all(page.apply(sql)).await?.iter().map(read).collect()
}

/// One VM, removed ones included.
pub async fn by_id(db: &Db, id: i64) -> Result<Option<Listed>> {
    let sql = Sql::new(SELECT).push(" WHERE v.id = ?").bind(id);
    db.optional(sql).await?.map(|r| read(&r)).transpose()
}

const SELECT: &str = "SELECT v.id, v.uuid, v.name, v.display_name, v.instance_name, v.state, v.account_id, v.domain_id, \
    v.user_id, v.created, v.ha_enabled, v.zone_id, v.host_id, v.template_id, v.password_enabled, v.service_offering_id, \
    v.disk_offering_id, v.cpu, v.cpu_mhz, v.memory_mb, v.os_type_id, v.hypervisor, v.key_pair, v.details, v.display_vm, \
    v.dynamic_scaling, i.uuid, i.ip, v.group_id, \
    CASE WHEN EXISTS (SELECT 1 FROM affinity_group_vms m WHERE m.vm_id = v.id) THEN 1 ELSE 0 END, v.iso_id FROM vms v LEFT JOIN ip_addresses i ON i.vm_id = v.id AND i.is_static_nat = 1";

fn read(r: &Row) -> Result<Listed> {
    Ok(Listed {
        id: r.at(0)?,
        uuid: r.at(1)?,
        name: r.at(2)?,
        display_name: r.at(3)?,
        instance_name: r.at(4)?,
        state: r.at(5)?,
        account_id: r.at(6)?,
        domain_id: r.at(7)?,
        user_id: r.at(8)?,
        created: r.at(9)?,
        ha_enabled: r.at(10)?,
        zone_id: r.at(11)?,
        host_id: r.at(12)?,
        template_id: r.at(13)?,
        password_enabled: r.at(14)?,
        service_offering_id: r.at(15)?,
        disk_offering_id: r.at(16)?,
        cpu: r.at(17)?,
        cpu_mhz: r.at(18)?,
        memory_mb: r.at(19)?,
        os_type_id: r.at(20)?,
        hypervisor: r.at(21)?,
        key_pair: r.at(22)?,
        details: vms::details(&r.at::<String>(23)?)?,
        display_vm: r.at(24)?,
        dynamic_scaling: r.at(25)?,
        public_ip_uuid: r.at(26)?,
        public_ip: r.at(27)?,
        group_id: r.at(28)?,
        grouped: r.at(29)?,
        iso_id: r.at(30)?,
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
