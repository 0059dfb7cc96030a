//! Facts as producers write them.

use contract::api::Caller;
use model::Owner;
use serde::{Deserialize, Serialize};
use store::{Error, Result, Sql, Tx, Value, now_micros};

/// How far the thing that an event tells of has come (events.json, `states`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventState {
    /// An entity's row exists.
    Created,
    /// A job has been accepted.
    Scheduled,
    /// It runs.
    Started,
    /// It ended, well or (level ERROR) not.
    Completed,
}

/// How grave it is (events.json, `levels`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// All is well.
    Info,
    /// Something to look at.
    Warn,
    /// It failed.
    Error,
}

/// An event as `listEvents` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// UUID of the event.
    pub uuid: String,
    /// Type, "VM.CREATE".
    pub kind: String,
    /// State.
    pub state: EventState,
    /// Level.
    pub level: Level,
    /// One sentence for people; no secrets.
    pub description: String,
    /// Who owns what it is about.
    pub owner: Owner,
    /// Who did it.
    pub user_id: i64,
    /// UUID of the event that began what this one continues.
    pub start: Option<String>,
    /// Kind of the entity, "VirtualMachine".
    pub resource_type: Option<String>,
    /// UUID of the entity.
    pub resource_uuid: Option<String>,
    /// Id of the request that caused it.
    pub request_id: String,
    /// Whence it came.
    pub remote_address: String,
    /// When, UTC µs.
    pub created: i64,
}

impl EventRecord {
    /// An event caused by `caller` about something it owns.
    pub fn new(caller: &Caller, kind: &str, state: EventState, description: impl Into<String>) -> Self {
        EventRecord {
            uuid: model::new_uuid(),
            kind: kind.to_owned(),
            state,
            level: Level::Info,
            description: description.into(),
            owner: Owner::caller(caller),
            user_id: caller.user_id,
            start: None,
            resource_type: None,
            resource_uuid: None,
            request_id: caller.request_id.clone(),
            remote_address: caller.remote_address.clone(),
            created: now_micros(),
        }
    }

    /// What it is about.
    #[must_use]
    pub fn about(mut self, resource_type: &str, uuid: &str) -> Self {
        self.resource_type = Some(resource_type.to_owned());
        self.resource_uuid = Some(uuid.to_owned());
        self
    }

    /// Whose it is, when it isn't the caller's.
    #[must_use]
    pub fn owned_by(mut self, owner: &Owner) -> Self {
        self.owner = owner.clone();
        self
    }

    /// Marks a failure.
    #[must_use]
    pub fn failed(mut self) -> Self {
        self.level = Level::Error;
        self
    }
}

/// A fact for accounting (states.json, `usage`; requirements/10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Type, "VM.START".
    pub kind: String,
    /// Who pays.
    pub owner: Owner,
    /// Zone.
    pub zone_id: i64,
    /// Number of the resource.
    pub resource_id: i64,
    /// UUID of the resource.
    pub resource_uuid: String,
    /// Its name.
    pub resource_name: String,
    /// Offering, for what has one.
    pub offering_id: Option<i64>,
    /// Template, for what has one.
    pub template_id: Option<i64>,
    /// Bytes, for storage.
    pub size: Option<i64>,
    /// Hypervisor, network type and the like.
    pub resource_type: Option<String>,
    /// When, UTC µs.
    pub created: i64,
}

/// A row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// For people and the audit trail.
    Event(EventRecord),
    /// For accounting.
    Usage(UsageRecord),
    /// For services that keep an index: what changed.
    Change {
        /// Kind of row, "host".
        kind: String,
        /// Its number.
        id: i64,
    },
}

impl Record {
    fn topic(&self) -> &'static str {
        match self {
            Record::Event(_) => "event",
            Record::Usage(_) => "usage",
            Record::Change { .. } => "change",
        }
    }

    fn kind(&self) -> &str {
        match self {
            Record::Event(e) => &e.kind,
            Record::Usage(u) => &u.kind,
            Record::Change { kind, .. } => kind,
        }
    }
}

/// A record with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its place in the order that all consumers see.
    pub seq: i64,
    /// What happened.
    pub record: Record,
}

/// Writes facts into the outbox, in one statement, as part of `tx`.
pub async fn record(tx: &mut Tx, records: &[Record]) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO outbox (id, topic, kind, payload, created) VALUES ");
    let now = now_micros();
    for (i, r) in records.iter().enumerate() {
        let payload = serde_json::to_vec(r).map_err(|e| Error::Other(e.to_string()))?;
        // Version 7: rows of one process come in order, and inserts go to the index's end.
        let id = model::new_ordered_uuid();
        sql = sql.push(if i == 0 { "" } else { ", " }).tuple([
            Value::from(id),
            Value::from(r.topic()),
            Value::from(r.kind()),
            Value::from(payload),
            Value::from(now),
        ]);
    }
    tx.exec(sql).await?;
    tx.after_commit(crate::nudge::committed);
    Ok(())
}
