//! What a deployment must know of other tables: offering, template, zone, networks, key pair. Reads only.

use model::Owner;
use std::collections::BTreeMap;
use store::{Db, Result, Row, Sql};

/// A zone.
#[derive(Clone, Debug)]
pub struct ZoneFacts {
    /// Whether users may deploy in it.
    pub enabled: bool,
    /// Whether guests have networks of their own ("Advanced").
    pub advanced: bool,
    /// Whether guest networks rely on security groups.
    pub security_groups: bool,
    /// Only for this domain: number and id path.
    pub domain: Option<(i64, String)>,
    /// Only for this account, or (none) for all of the domain with this id path.
    pub dedicated: Option<(Option<i64>, String)>,
}

/// Reads a living zone.
pub async fn zone(db: &Db, id: i64) -> Result<Option<ZoneFacts>> {
    let sql = Sql::new(
        "SELECT z.allocation_state, z.network_type, z.security_groups, z.domain_id, d.path, k.account_id, k.domain_path FROM zones z \
         LEFT JOIN domains d ON d.id = z.domain_id LEFT JOIN dedications k ON k.kind = 'Zone' AND k.resource_id = z.id WHERE z.id = ? AND z.removed IS NULL",
    )
    .bind(id);
    db.optional(sql)
        .await?
        .map(|r| {
            let domain: Option<i64> = r.at(3)?;
            Ok(ZoneFacts {
                enabled: r.at::<String>(0)? == "Enabled",
                advanced: r.at::<String>(1)? == "Advanced",
                security_groups: r.at(2)?,
                domain: domain.map(|d| Ok::<_, store::Error>((d, r.at(4)?))).transpose()?,
                dedicated: match r.at::<Option<String>>(6)? {
                    Some(path) => Some((r.at(5)?, path)),
                    None => None,
                },
            })
        })
        .transpose()
}

/// A compute offering.
#[derive(Clone, Debug)]
pub struct OfferingFacts {
    /// Name.
    pub name: String,
    /// CPUs, MHz and MiB; none where the user chooses.
    pub cpu: Option<i64>,
    /// MHz.
    pub cpu_mhz: Option<i64>,
    /// MiB.
    pub memory_mb: Option<i64>,
    /// Whether the user chooses what is open.
    pub customized: bool,
    /// Whether VMs of it are restarted after a failure.
    pub ha: bool,
    /// For system VMs only.
    pub system: bool,
    /// Only for this domain and those below it: id path.
    pub domain_path: Option<String>,
    /// Host tags.
    pub host_tags: Vec<String>,
    /// Storage tags.
    pub storage_tags: Vec<String>,
    /// Whether disks lie on the host.
    pub local_storage: bool,
}

fn tags(r: &Row, column: &str) -> Result<Vec<String>> {
    let text: Option<String> = r.get(column)?;
    Ok(text.unwrap_or_default().split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect())
}

/// Reads a living compute offering.
pub async fn offering(db: &Db, id: i64) -> Result<Option<OfferingFacts>> {
    let sql = Sql::new(
        "SELECT name, cpu, cpu_mhz, memory_mb, customized, offer_ha, is_system, domain_path, host_tags, tags, storage_type \
         FROM service_offerings WHERE id = ? AND removed IS NULL",
    )
    .bind(id);
    db.optional(sql)
        .await?
        .map(|r| {
            Ok(OfferingFacts {
                name: r.get("name")?,
                cpu: r.get("cpu")?,
                cpu_mhz: r.get("cpu_mhz")?,
                memory_mb: r.get("memory_mb")?,
                customized: r.get("customized")?,
                ha: r.get("offer_ha")?,
                system: r.get("is_system")?,
                domain_path: r.get("domain_path")?,
                host_tags: tags(&r, "host_tags")?,
                storage_tags: tags(&r, "tags")?,
                local_storage: r.get::<String>("storage_type")? == "local",
            })
        })
        .transpose()
}

/// A data disk offering.
#[derive(Clone, Debug)]
pub struct DiskOfferingFacts {
    /// Bytes; 0 where the user chooses.
    pub size: i64,
    /// Whether the user chooses the size.
    pub customized: bool,
    /// Only for this domain and those below it: id path.
    pub domain_path: Option<String>,
}

/// Reads a living disk offering.
pub async fn disk_offering(db: &Db, id: i64) -> Result<Option<DiskOfferingFacts>> {
    let sql =
        Sql::new("SELECT disk_size, customized, domain_path FROM disk_offerings WHERE id = ? AND removed IS NULL")
            .bind(id);
    db.optional(sql)
        .await?
        .map(|r| Ok(DiskOfferingFacts { size: r.at(0)?, customized: r.at(1)?, domain_path: r.at(2)? }))
        .transpose()
}

/// A template.
#[derive(Clone, Debug)]
pub struct TemplateFacts {
    /// Name.
    pub name: String,
    /// "VHD", "QCOW2", "ISO".
    pub format: String,
    /// Hypervisor it is made for; "None" for any.
    pub hypervisor: String,
    /// Guest OS.
    pub os_type_id: i64,
    /// Bytes of the root disk.
    pub size: i64,
    /// Whether it can set passwords.
    pub password_enabled: bool,
    /// Whether VMs of it may be scaled while they run.
    pub dynamic_scaling: bool,
    /// Whether an ISO can be booted from.
    pub bootable: bool,
    /// Whether it is there, in the zone asked about, and usable.
    pub ready: bool,
    /// What its VMs begin with: "rootDiskController", "nicAdapter", "keyboard" and the like.
    pub details: BTreeMap<String, String>,
}

impl TemplateFacts {
    /// Whether it is an ISO: disks of VMs that boot from it are empty.
    pub fn is_iso(&self) -> bool {
        self.format.eq_ignore_ascii_case("iso")
    }
}

/// Account types that administer (enums.json).
const ADMIN: i64 = 1;
const DOMAIN_ADMIN: i64 = 2;

/// What decides whether an account may use a template or an ISO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// It is everybody's.
    pub public: bool,
    /// It was shared with the account.
    pub shared: bool,
    /// Whose it is.
    pub account: i64,
    /// Id path of that one's domain.
    pub domain_path: String,
    /// Type of the account that would use it; none: it isn't there.
    pub user_type: Option<i64>,
}

impl Access {
    /// Everybody's, its own, one that was shared with it, or one within its reach as an administrator.
    pub fn admits(&self, owner: &Owner) -> bool {
        let administers = match self.user_type {
            Some(ADMIN) => true,
            Some(DOMAIN_ADMIN) => self.domain_path.starts_with(&owner.domain_path),
            _ => false,
        };
        self.public || self.shared || self.account == owner.account_id || administers
    }
}

/// Reads a living template as seen in a zone.
pub async fn template(db: &Db, id: i64, zone: i64) -> Result<Option<TemplateFacts>> {
    let sql = Sql::new(
        "SELECT t.name, t.format, t.hypervisor, t.os_type_id, t.size, t.password_enabled, t.dynamically_scalable, t.bootable, \
         CASE WHEN EXISTS (SELECT 1 FROM template_store_refs r JOIN image_stores s ON s.id = r.store_id \
         WHERE r.template_id = t.id AND r.state = 'Ready' AND s.removed IS NULL AND (s.zone_id = ? OR s.zone_id IS NULL)) \
         THEN 1 ELSE 0 END AS ready, d.name AS detail, d.value AS detail_value FROM templates t LEFT JOIN template_details d ON \
         d.template_id = t.id WHERE t.id = ? AND t.removed IS NULL",
    )
    .bind(zone)
    .bind(id);
    let mut found: Option<TemplateFacts> = None;
    // A row for each detail.
    for r in db.all(sql).await? {
        let detail = r.get::<Option<String>>("detail")?.zip(r.get::<Option<String>>("detail_value")?);
        if found.is_none() {
            found = Some(TemplateFacts {
                name: r.get("name")?,
                format: r.get("format")?,
                hypervisor: r.get("hypervisor")?,
                os_type_id: r.get("os_type_id")?,
                size: r.get("size")?,
                password_enabled: r.get("password_enabled")?,
                dynamic_scaling: r.get("dynamically_scalable")?,
                bootable: r.get("bootable")?,
                ready: r.get("ready")?,
                details: BTreeMap::new(),
            });
        }
        if let Some(facts) = &mut found {
            facts.details.extend(detail);
        }
    }
    Ok(found)
}

/// A guest network.
#[derive(Clone, Debug)]
pub struct NetworkFacts {
    /// Number.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Zone.
    pub zone_id: i64,
    /// "Isolated", "Shared".
    pub guest_type: String,
    /// Who owns it.
    pub owner: Owner,
    /// Whether all accounts may use it.
    pub public: bool,
    /// "Account" or "Domain".
    pub acl_type: String,
    /// With ACL type Domain: whether domains below may use it too.
    pub subdomain_access: bool,
}

impl NetworkFacts {
    /// Whether VMs of `owner` may be in it (VM-080).
    pub fn admits(&self, owner: &Owner) -> bool {
        if self.public {
            return true;
        }
        if self.acl_type == "Domain" {
            return owner.domain_id == self.owner.domain_id
                || (self.subdomain_access && owner.domain_path.starts_with(&self.owner.domain_path));
        }
        owner.account_id == self.owner.account_id
    }
}

const NETWORK: &str = "SELECT id, name, zone_id, guest_type, account_id, domain_id, domain_path, is_public, acl_type, \
    subdomain_access FROM networks WHERE removed IS NULL AND is_system = 0 AND ";

fn network(r: &Row) -> Result<NetworkFacts> {
    Ok(NetworkFacts {
        id: r.get("id")?,
        name: r.get::<Option<String>>("name")?.unwrap_or_default(),
        zone_id: r.get("zone_id")?,
        guest_type: r.get::<Option<String>>("guest_type")?.unwrap_or_default(),
        owner: Owner {
            account_id: r.get("account_id")?,
            domain_id: r.get("domain_id")?,
            domain_path: r.get("domain_path")?,
        },
        public: r.get("is_public")?,
        acl_type: r.get::<Option<String>>("acl_type")?.unwrap_or_default(),
        subdomain_access: r.get("subdomain_access")?,
    })
}

/// Living guest networks by number.
pub async fn networks(db: &Db, ids: &[i64]) -> Result<Vec<NetworkFacts>> {
    db.all(Sql::new(NETWORK).in_list("id", ids.iter().copied())).await?.iter().map(network).collect()
}

/// An account's isolated networks of a zone.
pub async fn isolated_of(db: &Db, account: i64, zone: i64) -> Result<Vec<NetworkFacts>> {
    let sql = Sql::new(NETWORK)
        .push("account_id = ? AND zone_id = ? AND guest_type = 'Isolated' ORDER BY id")
        .bind(account)
        .bind(zone);
    db.all(sql).await?.iter().map(network).collect()
}

/// An account's public key by the name of its pair.
pub async fn public_key(db: &Db, account: i64, name: &str) -> Result<Option<String>> {
    let sql = Sql::new("SELECT public_key FROM ssh_keypairs WHERE account_id = ? AND name = ? AND removed IS NULL")
        .bind(account)
        .bind(name);
    db.optional(sql).await?.map(|r| r.at(0)).transpose()
}

/// Name and state of an account: VMs are made for enabled ones.
pub async fn account(db: &Db, id: i64) -> Result<Option<(String, String, String)>> {
    let sql = Sql::new(
        "SELECT a.name, a.state, d.uuid FROM accounts a JOIN domains d ON d.id = a.domain_id WHERE a.id = ? AND a.removed IS NULL",
    )
    .bind(id);
    db.optional(sql).await?.map(|r| Ok((r.at(0)?, r.at(1)?, r.at(2)?))).transpose()
}

/// Whether VMs of a compute offering, removed or not, can be restarted after a failure.
pub async fn offers_ha(db: &Db, offering: i64) -> Result<bool> {
    let row = db.optional(Sql::new("SELECT offer_ha FROM service_offerings WHERE id = ?").bind(offering)).await?;
    row.map_or(Ok(false), |r| r.at(0))
}

/// The compute offering of a VM that exists: removed ones included (VM-052).
pub async fn offering_of_vm(db: &Db, id: i64) -> Result<VmOffering> {
    let r = db.one(Sql::new("SELECT host_tags FROM service_offerings WHERE id = ?").bind(id)).await?;
    Ok(VmOffering { host_tags: tags(&r, "host_tags")? })
}

/// What a VM's start needs of its offering.
#[derive(Clone, Debug)]
pub struct VmOffering {
    /// Host tags.
    pub host_tags: Vec<String>,
}

/// What a host is told of a guest beside its size: whether its CPU is capped, and its operating system's name.
pub async fn guest(db: &Db, service_offering: i64, os_type: Option<i64>) -> Result<(bool, String)> {
    let sql = Sql::new(
        "SELECT s.limit_cpu_use, g.name FROM service_offerings s LEFT JOIN os_types g ON g.id = ? WHERE s.id = ?",
    )
    .bind(os_type)
    .bind(service_offering);
    let r = db.one(sql).await?;
    Ok((r.at(0)?, r.at::<Option<String>>(1)?.unwrap_or_default()))
}

/// UUIDs of networks, in the order of their numbers given.
pub async fn network_uuids(db: &Db, ids: &[i64]) -> Result<Vec<String>> {
    let found = model::names::named(db, model::names::Table::Networks, ids.iter().copied()).await?;
    Ok(ids.iter().filter_map(|id| found.get(id).map(|n| n.uuid.clone())).collect())
}

/// UUID and name of a host.
pub async fn host(db: &Db, id: i64) -> Result<(String, String)> {
    let r = db.one(Sql::new("SELECT uuid, name FROM hosts WHERE id = ?").bind(id)).await?;
    Ok((r.at(0)?, r.at(1)?))
}
