//! Rows of `jobs` and `job_steps`: what workers write and read.

use crate::claims::Claim;
use contract::ApiError;
use contract::api::{Caller, ErrorDetail};
use events::{EventRecord, EventState, Record};
use model::Owner;
use prost::Message as _;
use store::{Db, Error, Result, Row, Sql, Tx, Value, now_micros};

/// The facts of a job that never change.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub id: i64,
    pub uuid: String,
    pub service: String,
    pub kind: String,
    pub version: i64,
    pub command: String,
    pub job_class: String,
    pub input: Vec<u8>,
    pub caller: Caller,
    pub owner: Owner,
    pub claims: Vec<Claim>,
    pub instance: Option<(String, String)>,
    pub event: String,
    pub event_start: Option<String>,
    pub description: String,
    pub created: i64,
}

/// A line of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub name: String,
    pub seq_no: i64,
    pub hash: String,
    /// What the step returned; none: it may have taken place.
    pub result: Option<Vec<u8>>,
    pub undo: Option<Vec<u8>>,
    pub undone: bool,
}

/// A job as its worker takes it up.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub facts: Facts,
    pub epoch: i64,
    pub seq: i64,
    pub takeovers: i64,
    /// The error whose undos are under way.
    pub undoing: Option<ApiError>,
    pub cancel: bool,
    pub journal: Vec<Entry>,
}

/// What a step shows of itself in listAsyncJobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub step: String,
    pub attempt: u32,
    pub deadline: i64,
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::Other(e.to_string()))
}

/// Inserts a job that runs at once, on `replica` when there is one.
pub(crate) async fn insert(tx: &mut Tx, facts: &Facts, replica: Option<&str>) -> Result<()> {
    let sql = Sql::new(
        "INSERT INTO jobs (id, uuid, service, kind, version, command, job_class, input, caller, account_id, user_id, \
         domain_id, domain_path, resource_owner, claims, state, seq, epoch, owner, takeovers, cancel, instance_type, \
         instance_uuid, event, event_start, description, created, started) VALUES ",
    );
    let (instance_type, instance_uuid) = facts.instance.clone().unzip();
    let caller = &facts.caller;
    let sql = sql.tuple([
        facts.id.into(),
        Value::from(&facts.uuid),
        Value::from(&facts.service),
        Value::from(&facts.kind),
        facts.version.into(),
        Value::from(&facts.command),
        Value::from(&facts.job_class),
        Value::from(facts.input.clone()),
        Value::from(caller.encode_to_vec()),
        caller.account_id.into(),
        caller.user_id.into(),
        caller.domain_id.into(),
        Value::from(&caller.domain_path),
        json(&facts.owner)?.into(),
        json(&facts.claims)?.into(),
        "Running".into(),
        0i64.into(),
        i64::from(replica.is_some()).into(),
        replica.into(),
        0i64.into(),
        0i64.into(),
        instance_type.into(),
        instance_uuid.into(),
        Value::from(&facts.event),
        facts.event_start.clone().into(),
        Value::from(&facts.description),
        facts.created.into(),
        facts.created.into(),
    ]);
    tx.exec(sql).await.map(drop)
}

/// Turns a job that was just inserted into one that waits for its claims.
pub(crate) async fn wait(tx: &mut Tx, id: i64) -> Result<()> {
    let sql = "UPDATE jobs SET state = 'Waiting', owner = NULL, epoch = 0, started = NULL WHERE id = ?";
    tx.exec(Sql::new(sql).bind(id)).await.map(drop)
}

/// The first statement of every write: 0 rows mean that the job is another worker's now, or (`unless_cancelled`) cancelled.
pub(crate) async fn fence(
    tx: &mut Tx,
    id: i64,
    epoch: i64,
    seq: i64,
    shown: Option<&Shown>,
    unless_cancelled: bool,
) -> Result<bool> {
    let mut sql = Sql::new("UPDATE jobs SET seq = seq + 1, takeovers = 0");
    if let Some(shown) = shown {
        let deadline = shown.deadline;
        sql = sql.push(", step = ?, attempt = ?, deadline = ?").bind(&shown.step).bind(shown.attempt).bind(deadline);
    }
    sql = sql.push(" WHERE id = ?").bind(id);
    if !store::chance::is_broken("job-fence") {
        sql = sql.push(" AND epoch = ? AND seq = ?").bind(epoch).bind(seq);
    }
    if unless_cancelled {
        sql = sql.push(" AND cancel = 0");
    }
    Ok(tx.exec(sql).await? == 1)
}

/// Epoch, seq, whether it is to be cancelled.
pub(crate) async fn position(tx: &mut Tx, id: i64) -> Result<Option<(i64, i64, bool)>> {
    let row = tx.optional(Sql::new("SELECT epoch, seq, cancel FROM jobs WHERE id = ?").bind(id)).await?;
    row.map(|r| Ok((r.at(0)?, r.at(1)?, r.at(2)?))).transpose()
}

/// The same, outside of a transaction.
pub(crate) async fn peek(db: &Db, id: i64) -> Result<Option<(i64, bool)>> {
    let row = db.optional(Sql::new("SELECT epoch, cancel FROM jobs WHERE id = ?").bind(id)).await?;
    row.map(|r| Ok((r.at(0)?, r.at(1)?))).transpose()
}

/// Writes lines of the journal.
pub(crate) async fn journal(tx: &mut Tx, id: i64, entries: &[Entry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut sql =
        Sql::new("INSERT INTO job_steps (job_id, name, seq_no, input_hash, result, undo_data, undone) VALUES ");
    for (n, e) in entries.iter().enumerate() {
        sql = sql.push(if n == 0 { "" } else { ", " }).tuple([
            id.into(),
            Value::from(&e.name),
            e.seq_no.into(),
            Value::from(&e.hash),
            e.result.clone().into(),
            e.undo.clone().into(),
            i64::from(e.undone).into(),
        ]);
    }
    tx.exec(sql).await.map(drop)
}

/// Marks steps as undone.
pub(crate) async fn undone(tx: &mut Tx, id: i64, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    tx.exec(Sql::new("UPDATE job_steps SET undone = 1 WHERE job_id = ? AND ").bind(id).in_list("name", names))
        .await
        .map(drop)
}

/// From here on steps are undone, because of `error`.
pub(crate) async fn undoing(tx: &mut Tx, id: i64, error: &ApiError) -> Result<()> {
    let sql = Sql::new("UPDATE jobs SET state = 'Undoing', error = ? WHERE id = ?");
    tx.exec(sql.bind(error.to_detail().encode_to_vec()).bind(id)).await.map(drop)
}

/// Ends the job well, and tells of it.
pub(crate) async fn done(tx: &mut Tx, facts: &Facts, output: Vec<u8>) -> Result<()> {
    let sql = Sql::new("UPDATE jobs SET state = 'Done', result = ?, error = NULL, step = NULL, ended = ? WHERE id = ?");
    tx.exec(sql.bind(output).bind(now_micros()).bind(facts.id)).await?;
    completed(tx, facts, true).await
}

/// Ends the job as failed, and tells of it.
pub(crate) async fn failed(tx: &mut Tx, facts: &Facts, error: &ApiError) -> Result<()> {
    let sql = Sql::new("UPDATE jobs SET state = 'Failed', error = ?, step = NULL, ended = ? WHERE id = ?");
    tx.exec(sql.bind(error.to_detail().encode_to_vec()).bind(now_micros()).bind(facts.id)).await?;
    completed(tx, facts, false).await
}

async fn completed(tx: &mut Tx, facts: &Facts, well: bool) -> Result<()> {
    let words = if well { "Successfully completed" } else { "Error while" };
    let Some(mut record) = event(facts, EventState::Completed, words) else {
        return Ok(());
    };
    record.start = facts.event_start.clone();
    if !well {
        record = record.failed();
    }
    events::record(tx, &[Record::Event(record)]).await
}

/// The job's event in `state`; none when its command raises none.
pub(crate) fn event(facts: &Facts, state: EventState, words: &str) -> Option<EventRecord> {
    if facts.event.is_empty() {
        return None;
    }
    let text = format!("{words} {}", facts.description);
    let record = EventRecord::new(&facts.caller, &facts.event, state, text).owned_by(&facts.owner);
    Some(match &facts.instance {
        Some((kind, uuid)) => record.about(kind, uuid),
        None => record,
    })
}

/// Gives a job that waited and now has its claims to `replica`, or to whoever takes it.
pub(crate) async fn granted(tx: &mut Tx, ids: &[i64], replica: Option<&str>) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = Sql::new("UPDATE jobs SET state = 'Running', seq = seq + 1, epoch = epoch + ?, owner = ?, started = ?")
        .bind(i64::from(replica.is_some()))
        .bind(replica)
        .bind(now_micros())
        .push(" WHERE state = 'Waiting' AND ")
        .in_list("id", ids.iter().copied());
    tx.exec(sql).await.map(drop)
}

/// Takes a job over from `epoch` of a worker that is gone. None: somebody else did.
pub(crate) async fn take_over(tx: &mut Tx, id: i64, epoch: i64, replica: &str) -> Result<Option<Loaded>> {
    // A job that was put down in order (owner NULL) says nothing against itself.
    let sql = Sql::new(
        "UPDATE jobs SET takeovers = takeovers + (CASE WHEN owner IS NULL THEN 0 ELSE 1 END), owner = ?, \
         epoch = epoch + 1, seq = seq + 1 WHERE id = ? AND epoch = ? AND state IN ('Running', 'Undoing')",
    );
    if tx.exec(sql.bind(replica).bind(id).bind(epoch)).await? == 0 {
        return Ok(None);
    }
    let row = tx.one(Sql::new(&format!("{SELECT} WHERE id = ?")).bind(id)).await?;
    let steps = tx.all(steps_of(id)).await?;
    loaded(&row, &steps).map(Some)
}

/// Reads a job that has just been given to `replica`.
pub(crate) async fn load(db: &Db, id: i64, replica: &str) -> Result<Option<Loaded>> {
    let sql = format!("{SELECT} WHERE id = ? AND owner = ? AND state IN ('Running', 'Undoing')");
    let Some(row) = db.optional(Sql::new(&sql).bind(id).bind(replica)).await? else {
        return Ok(None);
    };
    loaded(&row, &db.all(steps_of(id)).await?).map(Some)
}

fn steps_of(id: i64) -> Sql {
    Sql::new(
        "SELECT name, seq_no, input_hash, result, undo_data, undone FROM job_steps WHERE job_id = ? ORDER BY seq_no",
    )
    .bind(id)
}

const SELECT: &str = "SELECT id, uuid, service, kind, version, command, job_class, input, caller, resource_owner, claims, \
    instance_type, instance_uuid, event, event_start, description, created, epoch, seq, takeovers, state, error, cancel FROM jobs";

fn loaded(row: &Row, steps: &[Row]) -> Result<Loaded> {
    let other = |e: String| Error::Other(e);
    let instance_type: Option<String> = row.get("instance_type")?;
    let instance_uuid: Option<String> = row.get("instance_uuid")?;
    let facts = Facts {
        id: row.get("id")?,
        uuid: row.get("uuid")?,
        service: row.get("service")?,
        kind: row.get("kind")?,
        version: row.get("version")?,
        command: row.get("command")?,
        job_class: row.get("job_class")?,
        input: row.get("input")?,
        caller: Caller::decode(row.get::<Vec<u8>>("caller")?.as_slice()).map_err(|e| other(e.to_string()))?,
        owner: serde_json::from_slice(&row.get::<Vec<u8>>("resource_owner")?).map_err(|e| other(e.to_string()))?,
        claims: serde_json::from_slice(&row.get::<Vec<u8>>("claims")?).map_err(|e| other(e.to_string()))?,
        instance: instance_type.zip(instance_uuid),
        event: row.get("event")?,
        event_start: row.get("event_start")?,
        description: row.get("description")?,
        created: row.get("created")?,
    };
    let error: Option<Vec<u8>> = row.get("error")?;
    let undoing = match error {
        Some(bytes) if row.get::<String>("state")? == "Undoing" => {
            Some(ErrorDetail::decode(bytes.as_slice()).map_err(|e| other(e.to_string()))?.into())
        }
        _ => None,
    };
    let journal = steps
        .iter()
        .map(|s| {
            Ok(Entry {
                name: s.at(0)?,
                seq_no: s.at(1)?,
                hash: s.at(2)?,
                result: s.at(3)?,
                undo: s.at(4)?,
                undone: s.at(5)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Loaded {
        facts,
        epoch: row.get("epoch")?,
        seq: row.get("seq")?,
        takeovers: row.get("takeovers")?,
        undoing,
        cancel: row.get("cancel")?,
        journal,
    })
}
