//! What a router's spec is compiled from: the router with its generation, and all that belongs to it, in one statement, so
//! that what is compiled is what that generation means.
//!
//! Each row has the router's columns, a word for what it is, nine texts and seven numbers. Who adds something adds an
//! [`Arm`] and its case in [`Snapshot::take`].

use super::routers::{COLUMNS, Router, WIDTH, read};
use super::rules::split;
use crate::rule::{Purpose, Traffic};
use std::collections::BTreeMap;
use store::{Db, Result, Row, Sql};

/// A lease as specs need it.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// MAC.
    pub mac: String,
    /// Address.
    pub ip: String,
    /// Name of the guest.
    pub host_name: String,
    /// UUID of the VM.
    pub vm_uuid: String,
    /// Whether it is to go.
    pub removed: bool,
    /// The guest's user data, base64.
    pub user_data: Option<String>,
    /// The SSH key that the guest lets in.
    pub public_key: Option<String>,
    /// The guest's password, sealed; none when the guest took it.
    pub password_sealed: Option<String>,
    /// Text of the VM's compute offering.
    pub offering: Option<String>,
    /// The public address that stands for the VM.
    pub public_ip: Option<String>,
    /// Whether the VM's default route goes by it.
    pub is_default: bool,
}

/// A rule that is wanted, as specs need it.
#[derive(Clone, Debug)]
pub struct WantedRule {
    /// Number; rules are compiled in this order.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Which way.
    pub traffic: Traffic,
    /// tcp, udp, icmp, all.
    pub protocol: String,
    /// The public address; none for Egress.
    pub public_ip: Option<String>,
    /// First and last port.
    pub ports: Option<(i64, i64)>,
    /// ICMP type; -1: any.
    pub icmp_type: Option<i64>,
    /// ICMP code; -1: any.
    pub icmp_code: Option<i64>,
    /// From where.
    pub cidrs: Vec<String>,
    /// To where.
    pub dest_cidrs: Vec<String>,
    /// The guest that gets the traffic.
    pub guest_ip: Option<String>,
    /// Its first and last port.
    pub guest_ports: Option<(i64, i64)>,
}

/// A load balancing rule that is wanted, as specs need it.
#[derive(Clone, Debug)]
pub struct WantedBalancer {
    /// Number; rules are compiled in this order.
    pub id: i64,
    /// UUID.
    pub uuid: String,
    /// The public address.
    pub public_ip: String,
    /// Port on which clients come.
    pub public_port: i64,
    /// Port on which members are reached.
    pub private_port: i64,
    /// roundrobin, leastconn, source.
    pub algorithm: String,
    /// tcp, tcp-proxy; none: tcp.
    pub protocol: Option<String>,
    /// Who is served; empty: all.
    pub cidrs: Vec<String>,
    /// Method and parameters of the stickiness policy.
    pub stickiness: Option<(String, BTreeMap<String, String>)>,
    /// Addresses of who is behind it, in the order in which they came.
    pub members: Vec<String>,
}

/// What one statement saw of a router.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The row.
    pub router: Router,
    /// The leases: for a whole spec all living ones, else those that changed.
    pub leases: Vec<Lease>,
    /// The public addresses of its network. As far as their section is read.
    pub public_ips: Vec<String>,
    /// Public address and guest's address of static NAT. As far as their section is read.
    pub static_nats: Vec<(String, String)>,
    /// The wanted rules of its network; by number. As far as their section is read.
    pub rules: Vec<WantedRule>,
    /// The wanted load balancing rules of its network; by number. As far as their section is read.
    pub balancers: Vec<WantedBalancer>,
}

/// One kind of rows: its word, its texts and numbers as SQL, and where they come from. The router is `r`. Each placeholder
/// is the base: rows of a section are read when that section changed after it.
struct Arm {
    kind: &'static str,
    texts: &'static [&'static str],
    numbers: &'static [&'static str],
    from: &'static str,
}

/// What a snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Whole,
    /// The leases that changed after this generation.
    Leases(i64),
    /// The leases and the sections that changed after this generation.
    Changed(i64),
}

/// Texts of a row.
const TEXTS: usize = 9;
/// Numbers of a row.
const NUMBERS: usize = 7;

/// The router alone, so that it is told even when nothing belongs to it.
const ROUTER: Arm = Arm { kind: "router", texts: &[], numbers: &[], from: "" };

const LEASES: Arm = Arm {
    kind: "lease",
    texts: &[
        "n.mac",
        "n.ip",
        "n.host_name",
        "n.vm_uuid",
        "v.user_data",
        "v.public_key",
        // One that the guest took isn't offered again, whichever router asks (`model::sealed::password_id`).
        "CASE WHEN v.password_taken = SUBSTR(v.password_sealed, -24) THEN NULL ELSE v.password_sealed END",
        "so.display_text",
        "(SELECT MIN(i.ip) FROM ip_addresses i WHERE i.vm_id = n.vm_id AND i.vm_ip = n.ip AND i.network_id = n.network_id AND \
         i.is_static_nat <> 0 AND i.state = 'Allocated')",
    ],
    numbers: &["n.removed", "n.is_default"],
    from: " JOIN nics n ON n.network_id = r.network_id AND n.vm_id IS NOT NULL AND n.ip IS NOT NULL AND n.removed IS NULL \
           LEFT JOIN vms v ON v.id = n.vm_id LEFT JOIN service_offerings so ON so.id = v.service_offering_id",
};

const CHANGED_LEASES: Arm = Arm {
    from: " JOIN nics n ON n.network_id = r.network_id AND n.vm_id IS NOT NULL AND n.ip IS NOT NULL AND n.lease_generation > ? \
           LEFT JOIN vms v ON v.id = n.vm_id LEFT JOIN service_offerings so ON so.id = v.service_offering_id",
    ..LEASES
};

/// What sections are made of.
const SECTIONS: &[Arm] = &[
    Arm {
        kind: "ip",
        texts: &["i.ip", "CASE WHEN i.is_static_nat <> 0 THEN i.vm_ip END"],
        numbers: &[],
        from: " JOIN ip_addresses i ON i.network_id = r.network_id AND i.state IN ('Allocating', 'Allocated') AND \
               (r.interfaces_generation > ? OR r.nat_generation > ?)",
    },
    // Rules of an address that is being released are no longer wanted.
    Arm {
        kind: "rule",
        texts: &["f.uuid", "f.purpose", "f.traffic", "f.protocol", "i.ip", "f.cidrs", "f.dest_cidrs", "f.vm_ip"],
        numbers: &[
            "f.id",
            "f.start_port",
            "f.end_port",
            "f.icmp_type",
            "f.icmp_code",
            "f.vm_start_port",
            "f.vm_end_port",
        ],
        from: " JOIN firewall_rules f ON f.network_id = r.network_id AND f.state IN ('Add', 'Active') AND \
               ((f.purpose = 'Firewall' AND r.firewall_generation > ?) OR \
               (f.purpose IN ('PortForwarding', 'StaticNat') AND r.nat_generation > ?)) LEFT JOIN ip_addresses i ON \
               i.id = f.ip_id AND i.network_id = f.network_id AND i.state = 'Allocated'",
    },
    Arm {
        kind: "balancer",
        texts: &["f.uuid", "i.ip", "b.algorithm", "b.protocol", "f.cidrs", "s.method", "s.params"],
        numbers: &["f.id", "f.start_port", "b.private_port"],
        from: " JOIN firewall_rules f ON f.network_id = r.network_id AND f.purpose = 'LoadBalancing' AND f.state IN ('Add', 'Active') \
               AND r.balancers_generation > ? JOIN load_balancers b ON b.rule_id = f.id JOIN ip_addresses i ON i.id = f.ip_id AND i.network_id = f.network_id AND \
               i.state = 'Allocated' LEFT JOIN lb_stickiness s ON s.rule_id = f.id AND s.state IN ('Add', 'Active')",
    },
    Arm {
        kind: "member",
        texts: &["m.ip"],
        numbers: &["m.rule_id", "m.id"],
        from: " JOIN firewall_rules f ON f.network_id = r.network_id AND f.purpose = 'LoadBalancing' AND \
               r.balancers_generation > ? JOIN lb_members m ON m.rule_id = f.id AND m.state IN ('Add', 'Active') JOIN nics n ON n.id = m.nic_id AND n.removed IS NULL",
    },
];

impl Arm {
    fn select(&self, sql: Sql, id: i64, base: i64) -> Sql {
        let mut text = format!("SELECT {COLUMNS}, '{}'", self.kind);
        for (columns, count) in [(self.texts, TEXTS), (self.numbers, NUMBERS)] {
            for i in 0..count {
                text.push_str(", ");
                text.push_str(columns.get(i).copied().unwrap_or("NULL"));
            }
        }
        text.push_str(" FROM routers r");
        text.push_str(self.from);
        text.push_str(" WHERE r.id = ? AND r.removed IS NULL");
        let bases = self.from.matches('?').count();
        (0..bases).fold(sql.push(&text), |sql, _| sql.bind(base)).bind(id)
    }
}

/// A row's own part.
struct Part<'r>(&'r Row);

impl Part<'_> {
    fn text(&self, n: usize) -> Result<Option<String>> {
        self.0.at(WIDTH + 1 + n)
    }

    fn number(&self, n: usize) -> Result<Option<i64>> {
        self.0.at(WIDTH + 1 + TEXTS + n)
    }

    fn range(&self, first: usize) -> Result<Option<(i64, i64)>> {
        Ok(self.number(first)?.zip(self.number(first + 1)?))
    }

    fn list(&self, n: usize) -> Result<Vec<String>> {
        Ok(split(&self.text(n)?.unwrap_or_default()))
    }
}

fn known<T>(word: Option<String>, parse: fn(&str) -> Option<T>) -> Result<T> {
    let word = word.unwrap_or_default();
    parse(&word).ok_or_else(|| store::Error::Column { column: "rule".into(), reason: format!("unknown word {word}") })
}

impl Snapshot {
    fn take(&mut self, row: &Row, members: &mut Vec<(i64, i64, String)>) -> Result<()> {
        let part = Part(row);
        let kind: String = row.at(WIDTH)?;
        match kind.as_str() {
            "lease" => self.leases.push(Lease {
                mac: part.text(0)?.unwrap_or_default(),
                ip: part.text(1)?.unwrap_or_default(),
                host_name: part.text(2)?.unwrap_or_default(),
                vm_uuid: part.text(3)?.unwrap_or_default(),
                removed: part.number(0)?.is_some(),
                user_data: part.text(4)?,
                public_key: part.text(5)?,
                password_sealed: part.text(6)?,
                offering: part.text(7)?,
                public_ip: part.text(8)?,
                is_default: part.number(1)? != Some(0),
            }),
            "ip" => {
                let ip = part.text(0)?.unwrap_or_default();
                self.static_nats.extend(part.text(1)?.map(|guest| (ip.clone(), guest)));
                self.public_ips.push(ip);
            }
            "rule" => self.rule(&part)?,
            "balancer" => self.balancers.push(balancer(&part)?),
            "member" => {
                let (rule, id) = (part.number(0)?.unwrap_or_default(), part.number(1)?.unwrap_or_default());
                members.push((rule, id, part.text(0)?.unwrap_or_default()));
            }
            _ => {}
        }
        Ok(())
    }

    fn rule(&mut self, part: &Part<'_>) -> Result<()> {
        let rule = WantedRule {
            id: part.number(0)?.unwrap_or_default(),
            uuid: part.text(0)?.unwrap_or_default(),
            purpose: known(part.text(1)?, Purpose::parse)?,
            traffic: known(part.text(2)?, Traffic::parse)?,
            protocol: part.text(3)?.unwrap_or_default(),
            public_ip: part.text(4)?,
            ports: part.range(1)?,
            icmp_type: part.number(3)?,
            icmp_code: part.number(4)?,
            cidrs: part.list(5)?,
            dest_cidrs: part.list(6)?,
            guest_ip: part.text(7)?,
            guest_ports: part.range(5)?,
        };
        if rule.traffic == Traffic::Egress || rule.public_ip.is_some() {
            self.rules.push(rule);
        }
        Ok(())
    }
}

fn balancer(part: &Part<'_>) -> Result<WantedBalancer> {
    let stickiness = match (part.text(5)?, part.text(6)?) {
        (Some(method), Some(params)) => Some((method, super::stickiness::params(&params)?)),
        _ => None,
    };
    Ok(WantedBalancer {
        id: part.number(0)?.unwrap_or_default(),
        uuid: part.text(0)?.unwrap_or_default(),
        public_ip: part.text(1)?.unwrap_or_default(),
        public_port: part.number(1)?.unwrap_or_default(),
        private_port: part.number(2)?.unwrap_or_default(),
        algorithm: part.text(2)?.unwrap_or_default(),
        protocol: part.text(3)?,
        cidrs: part.list(4)?,
        stickiness,
        members: Vec::new(),
    })
}

/// The router, and what belongs to it as far as `extent` goes.
pub async fn snapshot(db: &Db, id: i64, extent: Extent) -> Result<Option<Snapshot>> {
    let (leases, sections, base) = match extent {
        // Every generation is after it.
        Extent::Whole => (&LEASES, SECTIONS, -1),
        Extent::Leases(base) => (&CHANGED_LEASES, &[][..], base),
        Extent::Changed(base) => (&CHANGED_LEASES, SECTIONS, base),
    };
    let mut sql = ROUTER.select(Sql::new(""), id, base).push(" UNION ALL ");
    sql = leases.select(sql, id, base);
    for arm in sections {
        sql = arm.select(sql.push(" UNION ALL "), id, base);
    }
    let rows = db.all(sql).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let mut found = Snapshot {
        router: read(first)?,
        leases: Vec::with_capacity(rows.len()),
        public_ips: Vec::new(),
        static_nats: Vec::new(),
        rules: Vec::new(),
        balancers: Vec::new(),
    };
    let mut members = Vec::new();
    rows.iter().try_for_each(|row| found.take(row, &mut members))?;
    found.rules.sort_by_key(|r| r.id);
    found.balancers.sort_by_key(|b| b.id);
    members.sort_unstable();
    for (rule, _, ip) in members {
        if let Some(balancer) = found.balancers.iter_mut().find(|b| b.id == rule) {
            balancer.members.push(ip);
        }
    }
    Ok(Some(found))
}
