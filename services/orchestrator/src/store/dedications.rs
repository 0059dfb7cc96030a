//! Zones, pods, clusters and hosts that are kept for a domain or an account; and what that means for each host.

use super::{Reader, paged};
use crate::dedication::Kind;
use ::store::{Db, Error, Result, Row, Sql, Tx, Value, now_micros};
use model::Page;

/// A resource that is kept for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedicationRow {
    /// Number.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// What kind of resource.
    pub kind: Kind,
    /// The resource.
    pub resource: i64,
    /// The domain that it is for.
    pub domain_id: i64,
    /// Its id path.
    pub domain_path: String,
    /// The account that it is for alone.
    pub account_id: Option<i64>,
    /// The affinity group whose VMs go there.
    pub group_id: i64,
    /// Of a zone: the domain that it was private to before.
    pub former_domain_id: Option<i64>,
}

/// Where a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// UUID of the resource.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Its zone, or itself.
    pub zone: i64,
    /// Its pod, or itself.
    pub pod: Option<i64>,
    /// Its cluster, or itself.
    pub cluster: Option<i64>,
    /// Of a zone: the domain that it is private to.
    pub domain_id: Option<i64>,
}

const COLUMNS: &str = "d.id, d.uuid, d.kind, d.resource_id, d.domain_id, d.domain_path, d.account_id, d.group_id, \
    d.former_domain_id";

fn read(r: &Row) -> Result<DedicationRow> {
    let kind: String = r.at(2)?;
    Ok(DedicationRow {
        id: r.at(0)?,
        uuid: r.at(1)?,
        kind: Kind::parse(&kind)
            .ok_or_else(|| Error::Column { column: "kind".into(), reason: format!("{kind} can't be dedicated") })?,
        resource: r.at(3)?,
        domain_id: r.at(4)?,
        domain_path: r.at(5)?,
        account_id: r.at(6)?,
        group_id: r.at(7)?,
        former_domain_id: r.at(8)?,
    })
}

fn select() -> Sql {
    Sql::new(&format!("SELECT {COLUMNS} FROM dedications d WHERE "))
}

async fn some(from: impl Reader, sql: Sql) -> Result<Vec<DedicationRow>> {
    from.rows(sql).await?.iter().map(read).collect()
}

/// Notes in the resource's own row that it is worked on, and says where it is; none: it is gone.
pub async fn site(tx: &mut Tx, kind: Kind, id: i64) -> Result<Option<Site>> {
    let (table, columns) = match kind {
        Kind::Zone => ("zones", "id, NULL, NULL, domain_id"),
        Kind::Pod => ("pods", "zone_id, id, NULL, NULL"),
        Kind::Cluster => ("clusters", "zone_id, pod_id, id, NULL"),
        Kind::Host => ("hosts", "zone_id, pod_id, cluster_id, NULL"),
    };
    // A host's own row has no such column: its capacity's is written below.
    if kind != Kind::Host && !super::touch(tx, table, id).await? {
        return Ok(None);
    }
    let sql = Sql::new(&format!("SELECT uuid, name, {columns} FROM {table} WHERE id = ? AND removed IS NULL"));
    let row = tx.optional(sql.bind(id)).await?;
    row.map(|r| {
        Ok(Site {
            uuid: r.at(0)?,
            name: r.at(1)?,
            zone: r.at(2)?,
            pod: r.at(3)?,
            cluster: r.at(4)?,
            domain_id: r.at(5)?,
        })
    })
    .transpose()
}

/// The dedication of a resource.
pub async fn of(from: impl Reader, kind: Kind, resource: i64) -> Result<Option<DedicationRow>> {
    let sql = select().push("d.kind = ? AND d.resource_id = ?").bind(kind.word()).bind(resource);
    Ok(some(from, sql).await?.into_iter().next())
}

/// The dedications of what a resource is in, the narrowest first.
pub async fn above(tx: &mut Tx, kind: Kind, site: &Site) -> Result<Vec<DedicationRow>> {
    let mut found = Vec::new();
    let places = [(Kind::Cluster, site.cluster), (Kind::Pod, site.pod), (Kind::Zone, Some(site.zone))];
    for (above, id) in places {
        if let Some(id) = id.filter(|_| above.is_above(kind)) {
            found.extend(of(&mut *tx, above, id).await?);
        }
    }
    Ok(found)
}

/// The dedications of what is in a resource, with the names of what is dedicated.
pub async fn below(tx: &mut Tx, kind: Kind, resource: i64) -> Result<Vec<(DedicationRow, String)>> {
    let column = match kind {
        Kind::Zone => "d.zone_id",
        Kind::Pod => "d.pod_id",
        Kind::Cluster => "d.cluster_id",
        Kind::Host => return Ok(Vec::new()),
    };
    let sql = Sql::new(&format!(
        "SELECT {COLUMNS}, COALESCE(p.name, c.name, h.name, '') FROM dedications d LEFT JOIN pods p ON p.id = d.resource_id \
         AND d.kind = 'Pod' LEFT JOIN clusters c ON c.id = d.resource_id AND d.kind = 'Cluster' LEFT JOIN hosts h \
         ON h.id = d.resource_id AND d.kind = 'Host' WHERE {column} = ? AND NOT (d.kind = ? AND d.resource_id = ?) ORDER BY d.id"
    ));
    let rows = tx.all(sql.bind(resource).bind(kind.word()).bind(resource)).await?;
    rows.iter().map(|r| Ok((read(r)?, r.at(9)?))).collect()
}

/// Writes a dedication.
pub async fn insert(tx: &mut Tx, d: &DedicationRow, site: &Site) -> Result<()> {
    let sql = Sql::new(
        "INSERT INTO dedications (id, uuid, kind, resource_id, zone_id, pod_id, cluster_id, domain_id, domain_path, \
         account_id, group_id, former_domain_id, created) VALUES ",
    )
    .tuple([
        Value::from(d.id),
        Value::from(&d.uuid),
        Value::from(d.kind.word()),
        Value::from(d.resource),
        Value::from(site.zone),
        Value::from(site.pod),
        Value::from(site.cluster),
        Value::from(d.domain_id),
        Value::from(&d.domain_path),
        Value::from(d.account_id),
        Value::from(d.group_id),
        Value::from(d.former_domain_id),
        Value::from(now_micros()),
    ]);
    tx.exec(sql).await.map(drop)
}

/// The name of a living domain, or of a living account of it.
pub async fn owner_name(tx: &mut Tx, domain: i64, account: Option<i64>) -> Result<Option<String>> {
    let sql = match account {
        None => Sql::new("SELECT name FROM domains WHERE id = ? AND removed IS NULL").bind(domain),
        Some(account) => Sql::new("SELECT name FROM accounts WHERE id = ? AND domain_id = ? AND removed IS NULL")
            .bind(account)
            .bind(domain),
    };
    tx.optional(sql).await?.map(|r| r.at(0)).transpose()
}

/// Who sees a zone: those of one domain, or all.
pub async fn reserve_zone(tx: &mut Tx, zone: i64, domain: Option<i64>) -> Result<()> {
    tx.exec(Sql::new("UPDATE zones SET domain_id = ? WHERE id = ?").bind(domain).bind(zone)).await.map(drop)
}

/// The name of an account of another owner, or another domain, that has a VM on a host of this resource, and that host's name.
/// Whoever asks has written the hosts' capacities before ([`settle`]): nobody comes in meanwhile.
pub async fn stranger(
    tx: &mut Tx,
    kind: Kind,
    resource: i64,
    domain_path: &str,
    account: Option<i64>,
) -> Result<Option<(String, String)>> {
    for table in ["vm_capacity", "vm_moves"] {
        let sql = Sql::new(&format!(
            "SELECT a.name, h.name FROM host_capacity k JOIN {table} c ON c.host_id = k.host_id JOIN vms v ON v.id = c.vm_id \
             JOIN accounts a ON a.id = v.account_id JOIN hosts h ON h.id = k.host_id WHERE k.{} = ? AND ",
            kind.capacity_column()
        ))
        .bind(resource);
        let sql = match account {
            Some(account) => sql.push("v.account_id <> ?").bind(account),
            None => sql
                .push("NOT (v.domain_path >= ? AND v.domain_path < ?)")
                .bind(domain_path)
                .bind(format!("{}0", domain_path.trim_end_matches('/'))),
        };
        if let Some(row) = tx.optional(sql.push(" LIMIT 1")).await? {
            return Ok(Some((row.at(0)?, row.at(1)?)));
        }
    }
    Ok(None)
}

/// Writes anew what dedications mean for the hosts of a resource.
pub async fn settle(tx: &mut Tx, kind: Kind, resource: i64) -> Result<()> {
    let of = |kind: &str, column: &str| {
        format!(
            "(SELECT d.group_id FROM dedications d WHERE d.kind = '{kind}' AND d.resource_id = host_capacity.{column})"
        )
    };
    let sql = Sql::new(&format!(
        "UPDATE host_capacity SET dedicated_to = COALESCE({}, {}, {}), zone_dedicated_to = {} WHERE {} = ?",
        of("Host", "host_id"),
        of("Cluster", "cluster_id"),
        of("Pod", "pod_id"),
        of("Zone", "zone_id"),
        kind.capacity_column()
    ));
    tx.exec(sql.bind(resource)).await.map(drop)
}

/// Ends a dedication; its group, too, when that was its last (IAM-068). Gives whether there was one.
pub async fn release(tx: &mut Tx, kind: Kind, resource: i64) -> Result<bool> {
    let Some(found) = of(&mut *tx, kind, resource).await? else { return Ok(false) };
    if tx.exec(Sql::new("DELETE FROM dedications WHERE id = ?").bind(found.id)).await? == 0 {
        return Ok(false);
    }
    if kind == Kind::Zone {
        reserve_zone(tx, resource, found.former_domain_id).await?;
    }
    settle(tx, kind, resource).await?;
    let left = Sql::new("SELECT 1 FROM dedications WHERE group_id = ? LIMIT 1").bind(found.group_id);
    if tx.optional(left).await?.is_none() {
        super::affinity::remove(tx, found.group_id).await?;
    }
    Ok(true)
}

/// The dedications that belong to a group.
pub async fn of_group(tx: &mut Tx, group: i64) -> Result<Vec<DedicationRow>> {
    some(tx, select().push("d.group_id = ? ORDER BY d.id").bind(group)).await
}

/// Dedications whose account or domain is gone.
pub async fn orphans(from: impl Reader) -> Result<Vec<DedicationRow>> {
    let sql = Sql::new(&format!(
        "SELECT {COLUMNS} FROM dedications d LEFT JOIN accounts a ON a.id = d.account_id LEFT JOIN domains o ON o.id = d.domain_id \
         WHERE o.id IS NULL OR o.removed IS NOT NULL OR (d.account_id IS NOT NULL AND (a.id IS NULL OR a.removed IS NOT NULL)) \
         ORDER BY d.id"
    ));
    some(from, sql).await
}

/// Groups whose account or domain is gone.
pub async fn orphaned_groups(from: impl Reader) -> Result<Vec<i64>> {
    let sql = Sql::new(
        "SELECT g.id FROM affinity_groups g LEFT JOIN accounts a ON a.id = g.account_id LEFT JOIN domains o ON o.id = g.domain_id \
         WHERE g.removed IS NULL AND (a.id IS NULL OR a.removed IS NOT NULL OR o.id IS NULL OR o.removed IS NOT NULL) ORDER BY g.id",
    );
    from.rows(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// The dedication of a VM's zone as placement asks for it: who it is for, and whether the VM's owner is a root admin, to whom
/// that is no bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneOf {
    /// The affinity group.
    pub group: i64,
    /// The zone's name.
    pub zone: String,
    /// The account that it is for alone.
    pub account_id: Option<i64>,
    /// The domain's id path.
    pub domain_path: String,
    /// Whether the owner who asks is a root admin.
    pub root: bool,
}

impl ZoneOf {
    /// Whether VMs of `owner` may be in the zone (IAM-066).
    pub fn admits(&self, owner: &model::Owner) -> bool {
        self.root
            || match self.account_id {
                Some(account) => account == owner.account_id,
                None => owner.domain_path.starts_with(&self.domain_path),
            }
    }
}

/// For whom a zone is kept.
pub async fn of_zone(from: impl Reader, zone: i64, account: i64) -> Result<Option<ZoneOf>> {
    let sql = Sql::new(
        "SELECT d.group_id, z.name, d.account_id, d.domain_path, \
         CASE WHEN EXISTS (SELECT 1 FROM accounts a WHERE a.id = ? AND a.type = 1) THEN 1 ELSE 0 END \
         FROM dedications d JOIN zones z ON z.id = d.zone_id WHERE d.kind = 'Zone' AND d.resource_id = ?",
    )
    .bind(account)
    .bind(zone);
    let rows = from.rows(sql).await?;
    let Some(r) = rows.first() else { return Ok(None) };
    Ok(Some(ZoneOf { group: r.at(0)?, zone: r.at(1)?, account_id: r.at(2)?, domain_path: r.at(3)?, root: r.at(4)? }))
}

/// The hosts that VMs of these groups may use.
pub async fn hosts_of(db: &Db, groups: &[i64]) -> Result<Vec<i64>> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let sql = Sql::new("SELECT host_id FROM host_capacity WHERE ")
        .in_list("dedicated_to", groups.iter().copied())
        .push(" OR ")
        .in_list("zone_dedicated_to", groups.iter().copied());
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}

/// For whom a host is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The host's name.
    pub host: String,
    /// The affinity group; none: all may use it.
    pub group: Option<i64>,
    /// The account or domain, in words.
    pub owner: Option<String>,
}

/// For whom a host is kept, by itself or by what it is in; `None`: it is gone.
pub async fn keeper(tx: &mut Tx, host: i64) -> Result<Option<Keeper>> {
    let sql = Sql::new(
        "SELECT h.name, g.id, CASE WHEN g.is_public = 1 THEN 'domain ' || o.name ELSE 'account ' || a.name END \
         FROM host_capacity k JOIN hosts h ON h.id = k.host_id LEFT JOIN affinity_groups g \
         ON g.id = COALESCE(k.dedicated_to, k.zone_dedicated_to) LEFT JOIN accounts a ON a.id = g.account_id \
         LEFT JOIN domains o ON o.id = g.domain_id WHERE k.host_id = ?",
    );
    let row = tx.optional(sql.bind(host)).await?;
    row.map(|r| {
        let group: Option<i64> = r.at(1)?;
        Ok(Keeper { host: r.at(0)?, group, owner: if group.is_some() { r.at(2)? } else { None } })
    })
    .transpose()
}

/// A row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// UUID of the dedication.
    pub uuid: String,
    /// UUID of the resource.
    pub resource_uuid: String,
    /// Its name.
    pub resource_name: String,
    /// UUID of the domain.
    pub domain_uuid: String,
    /// UUID of the account.
    pub account_uuid: Option<String>,
    /// UUID of the affinity group.
    pub group_uuid: String,
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only the dedication of this resource.
    pub resource: Option<i64>,
    /// Only those of this domain.
    pub domain: Option<i64>,
    /// Only those of this account.
    pub account: Option<i64>,
    /// Only those of this group.
    pub group: Option<i64>,
    /// Part of the resource's name.
    pub keyword: Option<String>,
}

const LISTED: &str = "d.uuid, r.uuid, r.name, o.uuid, a.uuid, g.uuid";

fn from_tables(kind: Kind) -> String {
    format!(
        " FROM dedications d JOIN {} r ON r.id = d.resource_id JOIN domains o ON o.id = d.domain_id \
         JOIN affinity_groups g ON g.id = d.group_id LEFT JOIN accounts a ON a.id = d.account_id WHERE d.kind = '{}'",
        kind.table(),
        kind.word()
    )
}

fn read_listed(r: &Row) -> Result<Listed> {
    Ok(Listed {
        uuid: r.at(0)?,
        resource_uuid: r.at(1)?,
        resource_name: r.at(2)?,
        domain_uuid: r.at(3)?,
        account_uuid: r.at(4)?,
        group_uuid: r.at(5)?,
    })
}

/// A page of dedicated resources of a kind, and how many there are (REL-056).
pub async fn list(db: &Db, kind: Kind, filter: &Filter, page: Page) -> Result<(Vec<Listed>, i64)> {
    let body = |sql: Sql| {
        // One whose owner is gone is none: the next sweep releases it.
        let sql = sql
            .push(&from_tables(kind))
            .push(" AND o.removed IS NULL AND (d.account_id IS NULL OR a.removed IS NULL)")
            .push_if(" AND d.resource_id = ?", filter.resource)
            .push_if(" AND d.domain_id = ?", filter.domain)
            .push_if(" AND d.account_id = ?", filter.account)
            .push_if(" AND d.group_id = ?", filter.group);
        match filter.keyword.as_deref().map(str::to_lowercase) {
            Some(word) => sql.push(" AND ").contains("r.name_lower", &word),
            None => sql,
        }
    };
    let (rows, count) = paged(db, LISTED, body, "d.id", page).await?;
    Ok((rows.iter().map(read_listed).collect::<Result<_>>()?, count))
}

/// One of them, within the transaction that wrote it.
pub async fn shown(tx: &mut Tx, id: i64, kind: Kind) -> Result<Listed> {
    let sql = Sql::new(&format!("SELECT {LISTED}{} AND d.id = ?", from_tables(kind)));
    read_listed(&tx.one(sql.bind(id)).await?)
}
