//! Accepting jobs, and giving claims on to those who wait.

use crate::claims;
use crate::engine::Engine;
use crate::job::{Accept, Job, Ticket};
use crate::rows::{self, Facts, Loaded};
use crate::step::encode;
use contract::ApiError;
use contract::api::JobRef;
use events::{EventState, Record};
use std::sync::Arc;
use store::{Error, Sql, Tx, now_micros};

/// Longest event text that a row keeps.
const DESCRIPTION_LIMIT: usize = 1000;

impl Engine {
    pub(crate) async fn accept<J: Job>(
        self: &Arc<Self>,
        tx: &mut Tx,
        ticket: Ticket,
        accept: Accept<J>,
    ) -> Result<JobRef, ApiError> {
        // The system's own work is bounded by whoever begins it.
        if accept.command.is_some() {
            self.has_room(accept.caller.account_id)?;
        }
        let mut facts = self.facts(ticket, &accept)?;
        let scheduled = rows::event(&facts, EventState::Scheduled, "Scheduled async job for");
        facts.event_start = scheduled.as_ref().map(|e| e.uuid.clone());
        let replica = self.is_live().then_some(self.replica.as_str());
        match rows::insert(tx, &facts, replica).await {
            Err(e) if e.is_unique("uuid") => {
                return Err(ApiError::param(format!("there is a job with the id {} already", facts.uuid)));
            }
            inserted => inserted?,
        }
        if let Some(record) = scheduled {
            events::record(tx, &[Record::Event(record)]).await?;
        }
        let job_id = facts.uuid.clone();
        // Last, so that the rows of busy containers are locked only briefly.
        let granted = claims::take(tx, facts.id, &facts.claims).await?;
        self.begin_after(tx, facts, granted).await?;
        Ok(JobRef { id: accept.entity_id, job_id })
    }

    fn facts<J: Job>(&self, ticket: Ticket, accept: &Accept<J>) -> Result<Facts, ApiError> {
        let command = accept.command;
        let mut description = accept.description.clone();
        description.truncate(description.floor_char_boundary(DESCRIPTION_LIMIT));
        Ok(Facts {
            id: ticket.id,
            uuid: accept.custom_id.clone().unwrap_or(ticket.uuid),
            service: self.service.to_owned(),
            kind: J::KIND.to_owned(),
            version: i64::from(J::VERSION),
            command: command.map_or_else(String::new, |c| c.name.to_string()),
            job_class: command.map_or_else(String::new, |c| c.class_for(accept.caller.role()).to_owned()),
            input: encode(&accept.job, "the job's input")?,
            caller: accept.caller.clone(),
            owner: accept.owner.clone(),
            claims: claims::ordered(accept.claims.clone()),
            instance: accept.instance.clone(),
            event: command.map_or_else(String::new, |c| c.event.to_string()),
            event_start: None,
            description,
            created: now_micros(),
        })
    }

    async fn begin_after(self: &Arc<Self>, tx: &mut Tx, facts: Facts, granted: bool) -> Result<(), Error> {
        let engine = self.clone();
        if !granted {
            rows::wait(tx, facts.id).await?;
            tx.after_commit(move || engine.backlog.add(facts.caller.account_id));
        } else if self.is_live() {
            let job =
                Loaded { facts, epoch: 1, seq: 0, takeovers: 0, undoing: None, cancel: false, journal: Vec::new() };
            tx.after_commit(move || engine.work(job));
        } else {
            tx.after_commit(move || engine.nudge(engine.service, "accepted"));
        }
        Ok(())
    }

    /// Gives up the claims of a job that ends, and sees to those who get them.
    pub(crate) async fn release(self: &Arc<Self>, tx: &mut Tx, facts: &Facts) -> Result<(), ApiError> {
        if facts.claims.is_empty() {
            return Ok(());
        }
        let next = claims::release(tx, facts.id, &facts.claims).await?;
        Ok(self.start_granted(tx, &next).await?)
    }

    /// Has jobs start that have just been granted their claims: here when they are of this service, else elsewhere.
    pub(crate) async fn start_granted(self: &Arc<Self>, tx: &mut Tx, ids: &[i64]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let sql = Sql::new("SELECT id, service, kind, version FROM jobs WHERE state = 'Waiting' AND ");
        let (mut here, mut elsewhere, mut services) = (Vec::new(), Vec::new(), Vec::new());
        for row in tx.all(sql.in_list("id", ids.iter().copied())).await? {
            let (id, service): (i64, String) = (row.at(0)?, row.at(1)?);
            let known = self.kinds().contains_key(&(row.at(2)?, row.at(3)?));
            if service == self.service && known && self.is_live() {
                here.push(id);
            } else {
                elsewhere.push(id);
                services.push(service);
            }
        }
        rows::granted(tx, &here, Some(&self.replica)).await?;
        rows::granted(tx, &elsewhere, None).await?;
        let engine = self.clone();
        tx.after_commit(move || {
            for id in here {
                let worker = engine.clone();
                engine.spawn(async move { worker.take_up(id).await });
            }
            for service in services {
                engine.nudge(&service, "granted");
            }
        });
        Ok(())
    }

    /// Starts a job that is this replica's already.
    async fn take_up(self: Arc<Self>, id: i64) {
        match rows::load(&self.db, id, &self.replica).await {
            Ok(Some(job)) => self.work(job),
            Ok(None) => {}
            // The sweep finds it.
            Err(error) => tracing::warn!(job = id, %error, "a job that was granted its claims can't be read"),
        }
    }
}
