//! A certificate for something of the operator's own. The key that is made along lies sealed in the job's result, and is
//! opened for who asks for it.

use super::{Asked, accept, check_provider};
use crate::world::World;
use ::store::Tx;
use config::keys;
use contract::api::JobRef;
use contract::{ApiError, Request as _};
use contract_infra::{Certificate, IssueCertificateRequest};
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use pki::{San, Wanted};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest that can be asked for: the root's own time ends every certificate anyway.
const MOST_DAYS: i32 = 36_500;

/// The job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Issue {
    csr_pem: Option<String>,
    /// Domains and addresses.
    names: Vec<String>,
    days: u32,
}

/// Accepts the job. That the request can be signed is seen at once.
///
/// # Errors
/// 431 when there is nothing to name, or a name, the request or the duration can't be.
pub async fn issue(world: &World, cx: &Cx, r: IssueCertificateRequest) -> Result<JobRef, ApiError> {
    check_provider(r.provider.as_deref())?;
    let days = match r.duration {
        None => i32::try_from(world.node.settings.get(keys::CA_CERT_VALIDITY_PERIOD)).unwrap_or(365),
        Some(days) => days,
    };
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(ApiError::param(format!("A certificate can be valid for 1 to {MOST_DAYS} days, not {days}")));
    }
    let csr_pem = r.csr.clone().filter(|csr| !csr.trim().is_empty());
    let names: Vec<String> = list(r.domain()).chain(list(r.ip_address())).map(str::to_owned).collect();
    if csr_pem.is_none() && names.is_empty() {
        return Err(ApiError::param("Please provide the domain or the CSR, none of them are provided"));
    }
    for address in list(r.ip_address()) {
        address.parse::<IpAddr>().map_err(|_| ApiError::param(format!("'{address}' isn't an IP address")))?;
    }
    for domain in list(r.domain()) {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-._*".contains(c);
        if domain.len() > 253 || !domain.chars().all(letters) {
            return Err(ApiError::param(format!("'{domain}' isn't a domain name")));
        }
    }
    let job = Issue { csr_pem, names, days: days.unsigned_abs() };
    world.pki.sign_named(&job.wanted())?;
    let asked = Asked {
        command: IssueCertificateRequest::COMMAND,
        instance: None,
        claims: Vec::new(),
        custom_id: r.custom_job_id.clone(),
        description: "issuing certificate".to_owned(),
    };
    accept(world, &cx.caller, job, asked).await
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

impl Issue {
    fn wanted(&self) -> Wanted {
        Wanted {
            csr_pem: self.csr_pem.clone(),
            names: self.names.iter().map(|name| San::parse(name)).collect(),
            validity: DAY * self.days,
        }
    }
}

impl Job for Issue {
    const KIND: &'static str = "certificate.issue";
    type World = World;
    type Undo = ();

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        // It counts once its record is committed with the result: what a killed replica signed is known to nobody.
        let named = world.pki.sign_named(&self.wanted())?;
        let shown = Certificate {
            private_key: named.key_pem.as_ref().map(|key| seal(&world, ctx.job_uuid(), key.expose())),
            certificate: Some(named.certificate_pem.clone()),
            ca_certificates: Some(world.pki.ca_pem().to_owned()),
            ..Certificate::default()
        };
        jobs::finish!(ctx, |tx| {
            world.pki.record_named(tx, &named).await?;
            Ok(shown.clone())
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

fn sealed_for(job_uuid: &str) -> String {
    format!("jobs.result.private_key:{job_uuid}")
}

fn seal(world: &World, job_uuid: &str, key_pem: &str) -> String {
    world.node.vault.seal(&sealed_for(job_uuid), key_pem.as_bytes())
}

/// The key as it is given to who may see the job.
///
/// # Errors
/// Internal, when it was sealed with another master key.
pub fn open(world: &World, job_uuid: &str, sealed: &str) -> Result<String, ApiError> {
    let key = world.node.vault.open_sealed(&sealed_for(job_uuid), sealed)?;
    String::from_utf8(key.to_vec()).map_err(|_| ApiError::internal("a sealed key is no text"))
}
