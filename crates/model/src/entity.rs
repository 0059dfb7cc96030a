//! Where the entities that parameters refer to live, and who owns them.

use crate::scope::{Owner, is_admin, may_act_for};
use contract::ApiError;
use contract::api::{Access, Caller, Ref, RoleType};
use std::collections::HashMap;
use store::{Db, Sql};

/// Who may reach rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody in particular: infrastructure and catalogues.
    None,
    /// An account, by `account_id`, `domain_id`, `domain_path`.
    Account,
    /// As `Account`; rows whose `public` column is set may be used by anyone.
    AccountOrPublic,
    /// The row is a domain: reached by its `path`.
    Domain,
    /// The row is an account, with `domain_id` and `domain_path`.
    IsAccount,
}

/// One kind of entity.
#[derive(Clone, Copy, Debug)]
pub struct EntitySource {
    /// Its table.
    pub table: &'static str,
    /// Who may reach its rows.
    pub ownership: Ownership,
    /// A further condition that tells kinds in one table apart.
    pub condition: Option<&'static str>,
}

const fn source(table: &'static str, ownership: Ownership) -> Option<EntitySource> {
    Some(EntitySource { table, ownership, condition: None })
}

/// Where entities of `kind` live; `None` for concepts that don't exist yet.
pub const fn source_of(kind: Ref) -> Option<EntitySource> {
    use Ownership::{Account, AccountOrPublic, Domain, IsAccount, None as Nobody};
    match kind {
        Ref::Domain => source("domains", Domain),
        Ref::Account => source("accounts", IsAccount),
        Ref::UserRef => source("users", Account),
        Ref::Role => source("roles", Nobody),
        Ref::RolePermission => source("role_permissions", Nobody),
        Ref::Zone => source("zones", Nobody),
        Ref::Pod => source("pods", Nobody),
        Ref::Cluster => source("clusters", Nobody),
        Ref::Host => source("hosts", Nobody),
        Ref::PhysicalNetwork => source("physical_networks", Nobody),
        Ref::TrafficType => source("traffic_types", Nobody),
        Ref::NetworkServiceProvider => source("network_providers", Nobody),
        Ref::VirtualRouterElement => source("router_elements", Nobody),
        Ref::VlanIpRange => source("vlan_ranges", Nobody),
        Ref::ServiceOffering => source("service_offerings", Nobody),
        Ref::DiskOffering => source("disk_offerings", Nobody),
        Ref::NetworkOffering => source("network_offerings", Nobody),
        Ref::VirtualMachine => source("vms", Account),
        Ref::AffinityGroup => source("affinity_groups", AccountOrPublic),
        Ref::SshKeyPair => source("ssh_keypairs", Account),
        Ref::InstanceGroup => source("instance_groups", Account),
        Ref::Router => source("routers", Account),
        Ref::Network => source("networks", AccountOrPublic),
        Ref::Nic => source("nics", Account),
        Ref::IpAddress => source("ip_addresses", Account),
        Ref::FirewallRule => source("firewall_rules", Account),
        Ref::LoadBalancerRule => Some(EntitySource {
            table: "firewall_rules",
            ownership: Account,
            condition: Some("purpose = 'LoadBalancing'"),
        }),
        Ref::StickinessPolicy => source("lb_stickiness", Account),
        Ref::StoragePool => source("storage_pools", Nobody),
        Ref::ImageStore => source("image_stores", Nobody),
        Ref::Volume => source("volumes", Account),
        Ref::Snapshot => source("snapshots", Account),
        Ref::SnapshotPolicy => source("snapshot_policies", Account),
        Ref::Template => source("templates", AccountOrPublic),
        Ref::Iso => {
            Some(EntitySource { table: "templates", ownership: AccountOrPublic, condition: Some("format = 'ISO'") })
        }
        Ref::OsType => source("os_types", Nobody),
        Ref::OsCategory => source("os_categories", Nobody),
        Ref::HypervisorCapabilities => source("hypervisor_caps", Nobody),
        Ref::Job => source("jobs", Account),
        Ref::Event | Ref::Alert => source("events", Account),
        _ => None,
    }
}

/// An entity that a request names, found and allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// Its kind.
    pub kind: Ref,
    /// Its number.
    pub id: i64,
    /// Its UUID.
    pub uuid: String,
    /// Who owns it, for owned kinds.
    pub owner: Option<Owner>,
    /// Whether it has been removed: most commands want it alive.
    pub removed: bool,
    /// Whether anyone may use it.
    pub public: bool,
}

/// Finds the entities of one kind by UUID, or by number where `numbers` allows it; removed ones included.
/// One query however many values.
pub async fn find(db: &Db, kind: Ref, values: &[&str], numbers: bool) -> Result<HashMap<String, Entity>, ApiError> {
    let Some(source) = source_of(kind) else {
        return Ok(HashMap::new());
    };
    let number = |v: &&&str| numbers && v.parse::<i64>().is_ok_and(|n| n > 0);
    let ids: Vec<i64> = values.iter().filter(number).filter_map(|v| v.parse().ok()).collect();
    let uuids: Vec<&str> = values.iter().filter(|v| !number(v)).copied().collect();
    let owner_columns = match source.ownership {
        Ownership::None => "0 AS account_id, 0 AS domain_id, '' AS domain_path, 1 AS is_public",
        Ownership::Account => "account_id, domain_id, domain_path, 0 AS is_public",
        Ownership::AccountOrPublic => "account_id, domain_id, domain_path, is_public",
        Ownership::Domain => "0 AS account_id, id AS domain_id, path AS domain_path, 0 AS is_public",
        Ownership::IsAccount => "id AS account_id, domain_id, domain_path, 0 AS is_public",
    };
    let removed = if matches!(kind, Ref::Job) { "NULL AS removed" } else { "removed" };
    let mut sql = Sql::new(&format!("SELECT id, uuid, {owner_columns}, {removed} FROM {} WHERE (", source.table))
        .in_list("uuid", uuids);
    if !ids.is_empty() {
        sql = sql.push(" OR ").in_list("id", ids);
    }
    sql = sql.push(")");
    if let Some(condition) = source.condition {
        sql = sql.push(" AND ").push(condition);
    }
    let mut found = HashMap::new();
    for row in db.all(sql).await? {
        let owned = !matches!(source.ownership, Ownership::None);
        let entity = Entity {
            kind,
            id: row.get("id")?,
            uuid: row.get("uuid")?,
            owner: owned
                .then(|| {
                    Ok::<_, store::Error>(Owner {
                        account_id: row.get("account_id")?,
                        domain_id: row.get("domain_id")?,
                        domain_path: row.get("domain_path")?,
                    })
                })
                .transpose()?,
            removed: row.get::<Option<i64>>("removed")?.is_some(),
            public: row.get("is_public")?,
        };
        if numbers {
            found.insert(entity.id.to_string(), entity.clone());
        }
        found.insert(entity.uuid.clone(), entity);
    }
    Ok(found)
}

/// Whether a template or ISO that isn't the caller's was shared with its account (updateTemplatePermissions).
///
/// # Errors
/// Those of the database.
pub async fn shared(db: &Db, caller: &Caller, entity: &Entity) -> Result<bool, ApiError> {
    if !matches!(entity.kind, Ref::Template | Ref::Iso) {
        return Ok(false);
    }
    let sql = Sql::new("SELECT 1 FROM template_shares WHERE template_id = ? AND account_id = ?");
    Ok(db.optional(sql.bind(entity.id).bind(caller.account_id)).await?.is_some())
}

/// Whether `caller` may do `access` on the entity; for templates [`shared`] may allow more.
pub fn allowed(caller: &Caller, entity: &Entity, access: Access) -> bool {
    let Some(owner) = &entity.owner else {
        return true;
    };
    match (entity.kind, access) {
        (_, Access::Nothing) => true,
        // A domain may be used by those who are in it or administer above it.
        (Ref::Domain, _) => match caller.role_type() {
            RoleType::Admin => true,
            role if is_admin(role) => owner.domain_path.starts_with(&caller.domain_path),
            _ => owner.domain_id == caller.domain_id,
        },
        (_, Access::Use) if entity.public => true,
        _ => may_act_for(caller, owner),
    }
}
