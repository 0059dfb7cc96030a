//! Jobs as the API shows them.

use contract::api::{Caller, ErrorDetail, JobResult};
use contract::{ApiError, Page};
use model::{ListScope, Paged as _};
use prost::Message as _;
use std::collections::HashMap;
use store::{Db, Row, Sql};

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits for its claims.
    Waiting,
    /// Steps are done.
    Running,
    /// It failed, and steps are undone.
    Undoing,
    /// It ended well.
    Done,
    /// It failed; what it had done has been undone.
    Failed,
    /// It can't go on by itself.
    Parked,
}

impl JobState {
    fn parse(word: &str) -> JobState {
        match word {
            "Waiting" => JobState::Waiting,
            "Undoing" => JobState::Undoing,
            "Done" => JobState::Done,
            "Failed" => JobState::Failed,
            "Parked" => JobState::Parked,
            _ => JobState::Running,
        }
    }
}

/// A job as the API shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// Number.
    pub id: i64,
    /// `jobid`.
    pub uuid: String,
    /// Number of the caller's account.
    pub account_id: i64,
    /// `accountid`.
    pub account_uuid: String,
    /// `userid`.
    pub user_uuid: String,
    /// Name of the command; empty for the system's own work.
    pub command: String,
    /// `cmd`.
    pub job_class: String,
    /// State.
    pub state: JobState,
    /// `jobinstancetype`.
    pub instance_type: Option<String>,
    /// `jobinstanceid`.
    pub instance_uuid: Option<String>,
    /// What it does.
    pub description: String,
    /// The step that it was last known to be at.
    pub step: Option<String>,
    /// Which attempt at it.
    pub attempt: Option<i64>,
    /// When that step must have ended, UTC µs.
    pub deadline: Option<i64>,
    /// Member id of the replica that works on it.
    pub replica: Option<String>,
    /// When it was accepted, UTC µs.
    pub created: i64,
    /// When it began, UTC µs.
    pub started: Option<i64>,
    /// When it ended, UTC µs.
    pub ended: Option<i64>,
    /// How it ended; none while it hasn't.
    pub result: Option<JobResult>,
}

impl JobView {
    /// `jobstatus`: 0 pending, 1 done, 2 failed.
    pub fn status(&self) -> i32 {
        match self.state {
            JobState::Done => 1,
            JobState::Failed => 2,
            _ => 0,
        }
    }

    /// `jobresultcode`: 0, or 530 on any failure.
    pub fn result_code(&self) -> i32 {
        if self.state == JobState::Failed { 530 } else { 0 }
    }

    /// The error of a failed job.
    pub fn error(&self) -> Option<ApiError> {
        self.result.as_ref().and_then(|r| r.error.clone()).map(ApiError::from)
    }

    /// The result message of a job that ended well.
    ///
    /// # Errors
    /// The job's error when it failed; 530/4300 while it hasn't ended.
    pub fn output<M: prost::Message + Default>(&self) -> Result<M, ApiError> {
        match &self.result {
            Some(JobResult { error: Some(e), .. }) => Err(e.clone().into()),
            Some(result) => Ok(M::decode(result.output.as_slice())?),
            None => Err(ApiError::concurrent(format!("job {} has not ended", self.uuid))),
        }
    }
}

/// What a list of jobs shows.
#[derive(Clone, Debug)]
pub struct JobFilter<'a> {
    /// Whose jobs.
    pub scope: &'a ListScope,
    /// Only those accepted then or later, UTC µs.
    pub since: Option<i64>,
    /// Only those whose `cmd` contains it, whatever the case.
    pub keyword: Option<&'a str>,
    /// The page.
    pub page: Page,
}

const COLUMNS: &str = "id, uuid, account_id, caller, command, job_class, state, instance_type, instance_uuid, description, step, \
    attempt, deadline, owner, created, started, ended, result, error";

/// A job by its UUID.
pub async fn find(db: &Db, uuid: &str) -> Result<Option<JobView>, ApiError> {
    let row = db.optional(Sql::new(&format!("SELECT {COLUMNS} FROM jobs WHERE uuid = ?")).bind(uuid)).await?;
    row.as_ref().map(read).transpose()
}

/// A page of the jobs of commands, oldest first, and how many there are.
pub async fn list(db: &Db, filter: &JobFilter<'_>) -> Result<(Vec<JobView>, i64), ApiError> {
    let conditions = |columns: &str| {
        let sql = Sql::new(&format!("SELECT {columns} FROM jobs WHERE command <> ''"));
        let sql = filter.scope.and(sql, "").push_if(" AND created >= ?", filter.since);
        match filter.keyword.filter(|k| !k.is_empty()) {
            Some(k) => sql.push(" AND ").contains("LOWER(job_class)", &k.to_lowercase()),
            None => sql,
        }
    };
    let rows = db.all(filter.page.apply(conditions(COLUMNS).push(" ORDER BY id"))).await?;
    let jobs: Vec<JobView> = rows.iter().map(read).collect::<Result<_, _>>()?;
    let count = match filter.page.proves_count(jobs.len()) {
        Some(count) => count,
        None => db.one(conditions("COUNT(*)")).await?.at(0)?,
    };
    Ok((jobs, count))
}

/// The pending jobs (`jobid`, `jobstatus`) of entities, by the entity's UUID; the newest of each.
pub async fn pending(db: &Db, instance_uuids: &[String]) -> Result<HashMap<String, (String, i32)>, ApiError> {
    if instance_uuids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = Sql::new("SELECT instance_uuid, uuid FROM jobs WHERE ended IS NULL AND ")
        .in_list("instance_uuid", instance_uuids);
    let mut pending = HashMap::new();
    for row in db.all(sql.push(" ORDER BY id")).await? {
        pending.insert(row.at(0)?, (row.at(1)?, 0));
    }
    Ok(pending)
}

fn read(row: &Row) -> Result<JobView, ApiError> {
    let caller = Caller::decode(row.get::<Vec<u8>>("caller")?.as_slice())?;
    let command: String = row.get("command")?;
    let state = JobState::parse(&row.get::<String>("state")?);
    let error: Option<Vec<u8>> = row.get("error")?;
    let result = match state {
        JobState::Done => {
            let output = row.get::<Option<Vec<u8>>>("result")?.unwrap_or_default();
            Some(JobResult { command: command.clone(), output, error: None })
        }
        JobState::Failed => {
            let error = ErrorDetail::decode(error.unwrap_or_default().as_slice())?;
            Some(JobResult { command: command.clone(), output: Vec::new(), error: Some(error) })
        }
        _ => None,
    };
    Ok(JobView {
        id: row.get("id")?,
        uuid: row.get("uuid")?,
        account_id: row.get("account_id")?,
        account_uuid: caller.account_uuid,
        user_uuid: caller.user_uuid,
        command,
        job_class: row.get("job_class")?,
        state,
        instance_type: row.get("instance_type")?,
        instance_uuid: row.get("instance_uuid")?,
        description: row.get("description")?,
        step: row.get("step")?,
        attempt: row.get("attempt")?,
        deadline: row.get("deadline")?,
        replica: row.get("owner")?,
        created: row.get("created")?,
        started: row.get("started")?,
        ended: row.get("ended")?,
        result,
    })
}
