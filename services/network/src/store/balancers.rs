//! Load balancing rules: what they are beyond their row among the rules.

use super::rules::{self, Rule};
use super::{page, rules::COLUMNS as RULE};
use model::ListScope;
use store::{Db, Result, Row, Sql, Tx, Value};

/// A load balancing rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// Its row among the rules: public address and port, sources, state, owner.
    pub rule: Rule,
    /// What can be changed.
    pub says: Says,
    /// Port on which the members are reached.
    pub private_port: i64,
    /// The public address: UUID and address.
    pub public_ip: (String, String),
    /// Zone.
    pub zone_id: i64,
}

/// What updateLoadBalancerRule can change of a rule.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Says {
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// roundrobin, leastconn, source.
    pub algorithm: String,
    /// tcp, tcp-proxy; none: it was never said.
    pub protocol: Option<String>,
    /// Whether its owner sees it.
    pub display: bool,
    /// UUID.
    pub uuid: String,
}

/// The columns behind those of the rule.
const COLUMNS: &str = "b.name, b.description, b.algorithm, b.protocol, b.private_port, i.uuid, i.ip, i.zone_id";
const FROM: &str = "firewall_rules f JOIN load_balancers b ON b.rule_id = f.id JOIN ip_addresses i ON i.id = f.ip_id";
/// Where they begin.
const FIRST: usize = rules::WIDTH;

fn read(r: &Row) -> Result<Balancer> {
    let rule = rules::read(r)?;
    Ok(Balancer {
        says: Says {
            name: r.at(FIRST)?,
            description: r.at(FIRST + 1)?,
            algorithm: r.at(FIRST + 2)?,
            protocol: r.at(FIRST + 3)?,
            display: rule.display,
            uuid: rule.uuid.clone(),
        },
        private_port: r.at(FIRST + 4)?,
        public_ip: (r.at(FIRST + 5)?, r.at(FIRST + 6)?),
        zone_id: r.at(FIRST + 7)?,
        rule,
    })
}

fn one_of(id: i64) -> Sql {
    Sql::new(&format!("SELECT {RULE}, {COLUMNS} FROM {FROM} WHERE f.id = ?")).bind(id)
}

/// One rule.
pub async fn one(db: &Db, id: i64) -> Result<Option<Balancer>> {
    db.optional(one_of(id)).await?.map(|r| read(&r)).transpose()
}

/// The same within a transaction.
pub async fn one_in(tx: &mut Tx, id: i64) -> Result<Option<Balancer>> {
    tx.optional(one_of(id)).await?.map(|r| read(&r)).transpose()
}

/// Writes what a rule is beyond its row among the rules.
pub async fn insert(tx: &mut Tx, b: &Balancer) -> Result<()> {
    let description = b.says.description.as_deref();
    let sql = Sql::new(
        "INSERT INTO load_balancers (rule_id, name, name_lower, description, description_lower, algorithm, protocol, \
         private_port) VALUES ",
    )
    .tuple([
        Value::from(b.rule.id),
        (&b.says.name).into(),
        b.says.name.to_lowercase().into(),
        description.into(),
        description.map(str::to_lowercase).into(),
        (&b.says.algorithm).into(),
        b.says.protocol.clone().into(),
        b.private_port.into(),
    ]);
    tx.exec(sql).await.map(drop)
}

/// Writes what a rule says. A unique violation: the UUID is taken.
pub async fn update(tx: &mut Tx, id: i64, says: &Says) -> Result<()> {
    let sql = Sql::new(
        "UPDATE load_balancers SET name = ?, name_lower = ?, description = ?, description_lower = ?, algorithm = ?, protocol = ? \
         WHERE rule_id = ?",
    )
    .bind(&says.name)
    .bind(says.name.to_lowercase())
    .bind(says.description.as_deref())
    .bind(says.description.as_deref().map(str::to_lowercase))
    .bind(&says.algorithm)
    .bind(says.protocol.as_deref())
    .bind(id);
    tx.exec(sql).await?;
    rules::update(tx, id, Some(says.display), Some(&says.uuid)).await.map(drop)
}

/// Deletes what rules are beyond their rows, with members and policies: of those that aren't among the rules any more.
pub async fn sweep(tx: &mut Tx, ids: &[i64]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    for table in ["load_balancers", "lb_members", "lb_stickiness"] {
        let sql = Sql::new(&format!("DELETE FROM {table} WHERE ")).in_list("rule_id", ids.iter().copied());
        let sql = sql.push(&format!(" AND NOT EXISTS (SELECT 1 FROM firewall_rules f WHERE f.id = {table}.rule_id)"));
        tx.exec(sql).await?;
    }
    Ok(())
}

/// Filters of a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Number.
    pub id: Option<i64>,
    /// Name.
    pub name: Option<String>,
    /// Public address.
    pub ip_id: Option<i64>,
    /// VM behind it.
    pub vm_id: Option<i64>,
    /// Zone.
    pub zone_id: Option<i64>,
    /// Network.
    pub network_id: Option<i64>,
    /// Visible to owners.
    pub display: Option<bool>,
    /// Part of name or description, lower-cased.
    pub keyword: Option<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// A page of them, the newest first.
pub async fn list(db: &Db, f: &Filter, scope: &ListScope, p: &model::Page) -> Result<(Vec<Balancer>, i64)> {
    let query = |head: &str| {
        let mut sql = Sql::new(head)
            .push(" FROM ")
            .push(FROM)
            .push(" WHERE f.purpose = 'LoadBalancing'")
            .push_if(" AND f.id = ?", f.id)
            .push_if(" AND b.name = ?", f.name.as_ref())
            .push_if(" AND f.ip_id = ?", f.ip_id)
            .push_if(" AND EXISTS (SELECT 1 FROM lb_members m WHERE m.rule_id = f.id AND m.vm_id = ?)", f.vm_id)
            .push_if(" AND i.zone_id = ?", f.zone_id)
            .push_if(" AND f.network_id = ?", f.network_id)
            .push_if(" AND f.display = ?", f.display);
        if let Some(k) = &f.keyword {
            sql = sql.push(" AND (").contains("b.name_lower", k).push(" OR ");
            sql = sql.contains("COALESCE(b.description_lower, '')", k).push(")");
        }
        scope.and(model::tags::filter(sql, "LoadBalancer", "f.id", &f.tags), "f.")
    };
    page(db, p, &format!("{RULE}, {COLUMNS}"), query, " ORDER BY f.id DESC", read).await
}
