//! What must hold once everything has healed and every job has ended.

use crate::cast::{Cast, DUTIES};
use crate::client::{Asked, Book};
use crate::sim::lock;
use std::collections::BTreeMap;
use store::{Db, Result, Row, Sql};

/// Jobs that haven't ended, and parked ones among them.
pub async fn unended(db: &Db) -> Result<Vec<(String, String)>> {
    let rows = db.all(Sql::new("SELECT uuid, state FROM jobs WHERE ended IS NULL ORDER BY id")).await?;
    rows.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect()
}

/// All checks.
pub async fn everything(cast: &Cast, db: &Db, book: &Book) -> Result<()> {
    let asked: Vec<Asked> = lock(book).values().cloned().collect();
    for asked in &asked {
        job(cast, db, asked).await?;
    }
    let wrong = |what: String| cast.sim.wrong(what);
    let left = [
        ("claims", "SELECT resource FROM claims WHERE exclusive <> 0 OR shared <> 0 OR waiting <> 0 OR waiting_x <> 0"),
        ("tickets", "SELECT resource FROM claim_queue"),
        ("marks on things", "SELECT name FROM things WHERE busy <> 0 OR readers <> 0"),
        (
            "steps of failed jobs",
            "SELECT e.step FROM effects e JOIN jobs j ON j.id = e.job_id WHERE j.state = 'Failed' AND e.state = 'Done' AND e.undo_data IS NOT NULL",
        ),
    ];
    for (what, sql) in left {
        let rows = db.all(Sql::new(sql)).await?;
        if !rows.is_empty() {
            wrong(format!("{} {what} are left, such as {:?}", rows.len(), rows[0].at::<String>(0)?));
        }
    }
    let (total, marks) = (
        number(db, "SELECT COALESCE(SUM(total), 0) FROM things").await?,
        number(db, "SELECT COUNT(*) FROM marks").await?,
    );
    if total != marks {
        wrong(format!("{marks} local steps were counted {total} times"));
    }
    for row in
        db.all(Sql::new("SELECT payload FROM outbox WHERE payload LIKE '%is parked and keeps its claims%'")).await?
    {
        let payload = String::from_utf8_lossy(&row.at::<Vec<u8>>(0)?).into_owned();
        if !payload.contains("lost its worker") {
            wrong(format!("a job was put aside: {payload}"));
        }
    }
    for row in db.all(Sql::new("SELECT state, epoch, cancel FROM jobs ORDER BY id")).await? {
        let (state, epoch): (String, i64) = (row.at(0)?, row.at(1)?);
        cast.sim.reach(if state == "Done" { "a job succeeded" } else { "a job failed" });
        for _ in 1..epoch {
            cast.sim.reach("a job was taken over");
        }
    }
    duties(cast, db).await
}

async fn number(db: &Db, sql: &str) -> Result<i64> {
    db.one(Sql::new(sql)).await?.at(0)
}

async fn job(cast: &Cast, db: &Db, asked: &Asked) -> Result<()> {
    let craft = &asked.craft;
    let wrong = |what: String| cast.sim.wrong(format!("craft {}: {what}", craft.number));
    let found = |row: &Row| Ok((row.at(0)?, row.at(1)?, row.at(2)?));
    let instance = format!("craft-{}", craft.number);
    let sql = "SELECT uuid, state, error FROM jobs WHERE instance_uuid = ?";
    let rows = db.all(Sql::new(sql).bind(&instance)).await?;
    let jobs: Vec<(String, String, Option<Vec<u8>>)> = rows.iter().map(found).collect::<Result<_>>()?;
    let [(uuid, state, error)] = jobs.as_slice() else {
        wrong(format!("asked for once, there are {} jobs", jobs.len()));
        return Ok(());
    };
    if asked.uuid.as_ref().is_some_and(|told| told != uuid) {
        wrong(format!("was told to be job {:?} and is {uuid}", asked.uuid));
    }
    let done = state == "Done";
    let error = error.as_deref().map(|e| String::from_utf8_lossy(e).into_owned()).unwrap_or_default();
    match state.as_str() {
        "Done" if craft.fails() => wrong("succeeded although a step fails".into()),
        "Failed" if !craft.fails() && !asked.cancelled => {
            wrong(format!("failed though nothing but faults happened: {error}"))
        }
        "Done" | "Failed" => {}
        other => wrong(format!("is {other}")),
    }
    let wanted = |steps: Vec<String>| -> BTreeMap<String, i64> {
        if done { steps.into_iter().map(|s| (s, 1)).collect() } else { BTreeMap::new() }
    };
    for (table, steps) in [("marks", craft.marks()), ("parts", craft.parts())] {
        let sql = format!("SELECT step, COUNT(*) FROM {table} WHERE number = ? GROUP BY step");
        let rows = db.all(Sql::new(&sql).bind(craft.number)).await?;
        let there: BTreeMap<String, i64> = rows.iter().map(|r| Ok((r.at(0)?, r.at(1)?))).collect::<Result<_>>()?;
        let wanted = wanted(steps);
        if there != wanted {
            wrong(format!("ended as {state} and has {table} {there:?} instead of {wanted:?}"));
        }
    }
    let rows = db.all(Sql::new("SELECT state FROM crafts WHERE number = ?").bind(craft.number)).await?;
    let states: Vec<String> = rows.iter().map(|r| r.at(0)).collect::<Result<_>>()?;
    if states != if done { vec!["Ready"] } else { vec![] } {
        wrong(format!("ended as {state} and its row is {states:?}"));
    }
    Ok(())
}

/// No two terms wrote in turns: epochs never fall, and each is one writer's.
async fn duties(cast: &Cast, db: &Db) -> Result<()> {
    for duty in DUTIES {
        let sql = "SELECT epoch, writer, at FROM duty_log WHERE duty = ? ORDER BY n";
        let mut last: Option<(i64, i64)> = None;
        for row in db.all(Sql::new(sql).bind(*duty)).await? {
            let (epoch, writer): (i64, i64) = (row.at(0)?, row.at(1)?);
            if let Some((before, by)) = last
                && (epoch < before || (epoch == before && writer != by))
            {
                cast.sim.wrong(format!(
                    "process {writer} did the duty {duty} in epoch {epoch} after process {by} had in {before}"
                ));
            }
            if last.is_some_and(|(before, _)| before != epoch) {
                cast.sim.reach("a duty changed hands");
            }
            last = Some((epoch, writer));
        }
    }
    Ok(())
}

/// When a duty was last done, in milliseconds.
pub async fn last_done(db: &Db, duty: &str) -> Result<i64> {
    let row = db.one(Sql::new("SELECT COALESCE(MAX(at), 0) FROM duty_log WHERE duty = ?").bind(duty)).await?;
    row.at(0)
}
