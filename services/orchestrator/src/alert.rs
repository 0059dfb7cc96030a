//! Alerts that administrators raise themselves.

use crate::world::World;
use ::store::Tx;
use contract::api::{JobRef, Success};
use contract::{ApiError, Request as _};
use contract_infra::GenerateAlertRequest;
use events::{ALERT_TYPES, EventRecord, EventState, Record, alert_number};
use jobs::{AbortCx, Accept, Ctx, Finished, Job, UndoCx};
use model::Owner;
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Raises an alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Generate {
    /// The type of its event, "ALERT.USERVM".
    pub kind: String,
    /// What it tells.
    pub text: String,
    /// What it is about: kind and UUID.
    pub about: Option<(String, String)>,
}

/// Accepts generateAlert. Types are those of 4.11; it can't be given types of one's own.
///
/// # Errors
/// 431 when number and name aren't those of one type.
pub async fn generate(world: &World, cx: &Cx, r: GenerateAlertRequest) -> Result<JobRef, ApiError> {
    let (number, name) = (usize::try_from(r.r#type()).ok(), r.name().trim().to_uppercase());
    let by_number = number.and_then(|n| ALERT_TYPES.get(n).copied());
    let kind = match by_number {
        Some(kind) if kind == name => kind.to_owned(),
        Some(kind) => return Err(default_type(r.r#type(), kind)),
        None => {
            let known = alert_number(&name).and_then(|n| i32::try_from(n).ok());
            return Err(known.map_or_else(
                || ApiError::param(format!("There is no type of alerts {} ({name})", r.r#type())),
                |n| default_type(n, &name),
            ));
        }
    };
    let pod = cx.refs.living("podid")?.map(|e| ("Pod".to_owned(), e.uuid.clone()));
    let zone = cx.refs.living("zoneid")?.map(|e| ("Zone".to_owned(), e.uuid.clone()));
    let job = Generate { kind, text: r.description().to_owned(), about: pod.or(zone) };
    let ticket = world.jobs.ticket().await?;
    let custom_id = r.custom_job_id.clone().filter(|id| !id.is_empty());
    jobs::mutate!(world.node.db, cx.caller, Generate::KIND, |tx| {
        let accept = Accept {
            job: job.clone(),
            caller: cx.caller.clone(),
            command: GenerateAlertRequest::COMMAND,
            owner: Owner::caller(&cx.caller),
            instance: None,
            claims: Vec::new(),
            custom_id: custom_id.clone(),
            description: format!("Generating alert of type {}", job.kind),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}

fn default_type(number: i32, name: &str) -> ApiError {
    ApiError::param(format!("There is a default alert having type {number} and name {name}"))
}

impl Job for Generate {
    const KIND: &'static str = "alert.generate";
    type World = World;
    type Undo = ();

    async fn run(self, _: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        jobs::finish!(ctx, |tx| {
            let mut alert =
                EventRecord::new(ctx.caller(), &self.kind, EventState::Completed, self.text.clone()).failed();
            if let Some((kind, uuid)) = &self.about {
                alert = alert.about(kind, uuid);
            }
            events::record(tx, &[Record::Event(alert)]).await?;
            Ok::<_, ApiError>(Success { success: true, display_text: None })
        })
        .await
    }

    async fn undo(self, _: Arc<World>, (): (), _: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}
