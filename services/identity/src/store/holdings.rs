//! What accounts own, read from the tables of the services that keep it. A table that isn't there yet holds nothing.

use super::source::Source;
use std::collections::{HashMap, HashSet};
use store::{Db, Error, Result, Sql};

/// Things that an account may own: their table, what people call them, and which rows count.
const KINDS: [(&str, &str, &str); 6] = [
    ("vms", "virtual machines", "removed IS NULL"),
    ("volumes", "volumes", "removed IS NULL"),
    ("networks", "networks", "removed IS NULL AND is_system = 0"),
    ("ip_addresses", "public IP addresses", "removed IS NULL AND state <> 'Free'"),
    ("templates", "templates and ISOs", "removed IS NULL"),
    ("snapshots", "snapshots", "removed IS NULL"),
];

/// Which tables of other services are there.
#[derive(Clone, Debug, Default)]
pub struct Tables(HashSet<&'static str>);

impl Tables {
    /// Looks for them.
    pub async fn look(db: &Db) -> Result<Tables> {
        let mut there = HashSet::new();
        for (table, _, _) in KINDS {
            match db.all(Sql::new(&format!("SELECT 1 FROM {table} WHERE 1 = 0"))).await {
                Ok(_) => drop(there.insert(table)),
                Err(Error::Other(_)) => {} // no such table
                Err(e) => return Err(e),
            }
        }
        Ok(Tables(there))
    }

    /// Whether a table is there.
    pub fn has(&self, table: &str) -> bool {
        self.0.contains(table)
    }
}

/// What a thing is, as its service's commands tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A virtual machine.
    Vm,
    /// A volume.
    Volume,
    /// A guest network.
    Network,
    /// A public address.
    IpAddress,
    /// A template.
    Template,
    /// An ISO.
    Iso,
    /// A snapshot of a volume.
    Snapshot,
}

impl Kind {
    /// What people call such things ([`of_accounts`]).
    pub fn name(self) -> &'static str {
        match self {
            Kind::Vm => "virtual machines",
            Kind::Volume => "volumes",
            Kind::Network => "networks",
            Kind::IpAddress => "public IP addresses",
            Kind::Template | Kind::Iso => "templates and ISOs",
            Kind::Snapshot => "snapshots",
        }
    }
}

/// One thing that an account owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// Its UUID.
    pub uuid: String,
}

/// Which rows of a table one may ask its service to end, and most that are read of each.
const DISPOSABLE: [(&str, Kind, &str); 7] = [
    ("vms", Kind::Vm, "removed IS NULL AND state <> 'Expunging'"),
    ("volumes", Kind::Volume, "removed IS NULL AND vm_id IS NULL"),
    ("snapshots", Kind::Snapshot, "removed IS NULL"),
    ("templates", Kind::Template, "removed IS NULL AND format <> 'ISO'"),
    ("templates", Kind::Iso, "removed IS NULL AND format = 'ISO'"),
    ("networks", Kind::Network, "removed IS NULL AND is_system = 0"),
    ("ip_addresses", Kind::IpAddress, "removed IS NULL AND state = 'Allocated'"),
];
const MOST: i64 = 200;

/// Things of the accounts that may be asked to end, some of each kind: who asks looks again when those are gone.
pub async fn disposable(db: &Db, tables: &Tables, accounts: &[i64]) -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    if accounts.is_empty() {
        return Ok(things);
    }
    for (table, kind, condition) in DISPOSABLE.into_iter().filter(|(t, _, _)| tables.has(t)) {
        let sql = Sql::new(&format!("SELECT uuid FROM {table} WHERE {condition} AND "));
        let sql = sql.in_list("account_id", accounts.iter().copied()).push(" ORDER BY id LIMIT ?").bind(MOST);
        for row in db.all(sql).await? {
            things.push(Thing { kind, uuid: row.at(0)? });
        }
    }
    Ok(things)
}

/// How many of what the accounts still own: only kinds of which there are some.
pub async fn of_accounts(db: &Db, tables: &Tables, accounts: &[i64]) -> Result<Vec<(&'static str, i64)>> {
    let mut owned = Vec::new();
    if accounts.is_empty() {
        return Ok(owned);
    }
    for (table, name, condition) in KINDS.into_iter().filter(|(t, _, _)| tables.has(t)) {
        let sql = Sql::new(&format!("SELECT COUNT(*) FROM {table} WHERE {condition} AND "));
        let count: i64 = db.one(sql.in_list("account_id", accounts.iter().copied())).await?.at(0)?;
        if count > 0 {
            owned.push((name, count));
        }
    }
    Ok(owned)
}

/// VMs of accounts, by account: (stopped, running).
pub async fn vms_by_state(
    from: &mut Source<'_>,
    tables: &Tables,
    accounts: Vec<i64>,
) -> Result<HashMap<i64, (i32, i32)>> {
    let mut states: HashMap<i64, (i32, i32)> = HashMap::new();
    if accounts.is_empty() || !tables.has("vms") {
        return Ok(states);
    }
    let sql = Sql::new(
        "SELECT account_id, state, COUNT(*) FROM vms WHERE removed IS NULL AND state IN ('Running', 'Stopped') AND ",
    )
    .in_list("account_id", accounts)
    .push(" GROUP BY account_id, state");
    for r in from.all(sql).await? {
        let entry = states.entry(r.at(0)?).or_default();
        let count = r.at(2)?;
        if r.at::<String>(1)? == "Running" { entry.1 = count } else { entry.0 = count }
    }
    Ok(states)
}

/// UUIDs of the running VMs of an account.
pub async fn running_vms(db: &Db, tables: &Tables, account: i64) -> Result<Vec<String>> {
    if !tables.has("vms") {
        return Ok(Vec::new());
    }
    let sql =
        Sql::new("SELECT uuid FROM vms WHERE account_id = ? AND removed IS NULL AND state = 'Running' ORDER BY id");
    db.all(sql.bind(account)).await?.iter().map(|r| r.at(0)).collect()
}

/// Of these holders of reservations ("vm:UUID"), those whose thing is alive. `None`: nobody here can tell.
pub async fn alive(db: &Db, tables: &Tables, kind: &str, holders: &[String]) -> Result<Option<HashSet<String>>> {
    // VMs and addresses name their present reservation: an older one of the same thing is nobody's.
    let (table, name, by_key, condition) = match kind {
        "vm" => ("vms", "limits_key", true, "removed IS NULL AND state NOT IN ('Destroyed', 'Error', 'Expunging')"),
        "ip" => ("ip_addresses", "'ip:' || uuid || ':' || holder", false, "removed IS NULL AND holder IS NOT NULL"),
        "volume" => ("volumes", "'volume:' || uuid", false, "removed IS NULL"),
        "network" => ("networks", "'network:' || uuid", false, "removed IS NULL"),
        "template" => ("templates", "'template:' || uuid", false, "removed IS NULL"),
        "snapshot" => ("snapshots", "'snapshot:' || uuid", false, "removed IS NULL AND state <> 'Error'"),
        _ => return Ok(None),
    };
    if !tables.has(table) {
        return Ok(None);
    }
    let sql = Sql::new(&format!("SELECT {name} FROM {table} WHERE {condition} AND "));
    let sql = if by_key {
        sql.in_list("limits_key", holders.iter().map(String::as_str))
    } else {
        sql.in_list("uuid", holders.iter().filter_map(|h| h.split(':').nth(1)))
    };
    db.all(sql).await?.iter().map(|r| r.at(0)).collect::<Result<_>>().map(Some)
}

/// Of these holders, those that a job under way is going to make: a deploy's disks have no rows until it gets there.
pub async fn expected(db: &Db, holders: &[String]) -> Result<HashSet<String>> {
    let (mut after, mut found) = (0i64, HashSet::new());
    loop {
        let sql = "SELECT id, input FROM jobs WHERE ended IS NULL AND id > ? ORDER BY id LIMIT 500";
        let jobs = db.all(Sql::new(sql).bind(after)).await?;
        let Some(last) = jobs.last() else { return Ok(found) };
        after = last.at(0)?;
        for job in &jobs {
            let input: Vec<u8> = job.at(1)?;
            let input = String::from_utf8_lossy(&input);
            let named = |h: &&String| h.split(':').nth(1).is_some_and(|uuid| input.contains(uuid));
            found.extend(holders.iter().filter(named).cloned());
        }
    }
}

/// Of these holders of reservations, those whose thing was there and is removed: it never comes back.
pub async fn removed(db: &Db, tables: &Tables, kind: &str, holders: &[String]) -> Result<HashSet<String>> {
    let table = match kind {
        "vm" => "vms",
        "volume" => "volumes",
        "network" => "networks",
        "template" => "templates",
        "snapshot" => "snapshots",
        _ => return Ok(HashSet::new()),
    };
    if !tables.has(table) {
        return Ok(HashSet::new());
    }
    let sql = if kind == "vm" {
        Sql::new("SELECT limits_key FROM vms WHERE removed IS NOT NULL AND ")
            .in_list("limits_key", holders.iter().map(String::as_str))
    } else {
        Sql::new(&format!("SELECT '{kind}:' || uuid FROM {table} WHERE removed IS NOT NULL AND "))
            .in_list("uuid", holders.iter().filter_map(|h| h.split(':').nth(1)))
    };
    db.all(sql).await?.iter().map(|r| r.at(0)).collect()
}
