//! The certificate authority as administrators use it (HOST-131): what it is, certificates of the operator's own ([`issue`]),
//! new ones for agents ([`provision`]), and the end of them ([`revoke`]).

pub mod issue;
pub mod provision;
pub mod revoke;

use crate::world::World;
use contract::api::{Caller, JobRef};
use contract::{ApiError, CommandInfo};
use contract_infra::{CaProvider, Certificate, ListCaProvidersRequest, ListCaProvidersResponse};
use jobs::{Accept, Builder, Claim, Job};
use model::Owner;
use std::sync::Arc;

/// The one provider's name, as 4.11 calls its own.
const ROOT: &str = "root";

/// Lists providers: the built-in one.
#[must_use]
pub fn providers(r: &ListCaProvidersRequest) -> ListCaProvidersResponse {
    let root = CaProvider {
        name: Some(ROOT.to_owned()),
        description: Some("The built-in certificate authority of this installation".to_owned()),
        ..CaProvider::default()
    };
    let asked = r.name.as_deref().unwrap_or_default();
    let caprovider = if asked.is_empty() || asked.eq_ignore_ascii_case(ROOT) { vec![root] } else { Vec::new() };
    ListCaProvidersResponse { count: i64::try_from(caprovider.len()).ok(), caprovider }
}

/// Shows the root's certificate, in the field and under the key where 4.11's clients look for it.
///
/// # Errors
/// 431 for another provider than the built-in one.
pub fn root(world: &World, provider: Option<&str>) -> Result<Certificate, ApiError> {
    check_provider(provider)?;
    Ok(Certificate { certificate: Some(world.pki.ca_pem().to_owned()), ..Certificate::default() })
}

fn check_provider(name: Option<&str>) -> Result<(), ApiError> {
    match name.unwrap_or_default() {
        "" => Ok(()),
        name if name.eq_ignore_ascii_case(ROOT) => Ok(()),
        name => {
            Err(ApiError::param(format!("There is no certificate authority provider '{name}': the one is '{ROOT}'")))
        }
    }
}

/// Makes this room's jobs known.
#[must_use]
pub fn register(builder: Builder, world: &Arc<World>) -> Builder {
    builder
        .register::<issue::Issue>(world.clone())
        .register::<provision::Provision>(world.clone())
        .register::<revoke::Revoke>(world.clone())
}

/// What the jobs of this room are accepted with.
struct Asked {
    command: Option<&'static CommandInfo>,
    instance: Option<(String, String)>,
    claims: Vec<Claim>,
    custom_id: Option<String>,
    description: String,
}

async fn accept<J>(world: &World, caller: &Caller, job: J, asked: Asked) -> Result<JobRef, ApiError>
where
    J: Job<World = World> + Clone,
{
    let ticket = world.jobs.ticket().await?;
    jobs::mutate!(world.node.db, caller, "certificate", |tx| {
        let accept = Accept {
            job: job.clone(),
            caller: caller.clone(),
            command: asked.command,
            owner: Owner::caller(caller),
            instance: asked.instance.clone(),
            claims: asked.claims.clone(),
            custom_id: asked.custom_id.clone().filter(|id| !id.is_empty()),
            description: asked.description.clone(),
            entity_id: None,
        };
        world.jobs.accept(tx, ticket.clone(), accept).await
    })
    .await
}
