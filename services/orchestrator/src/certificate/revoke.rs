//! The end of a certificate before its time.

use super::{Asked, accept, check_provider};
use crate::world::World;
use ::store::Tx;
use contract::api::{JobRef, Success};
use contract::{ApiError, Request as _};
use contract_infra::RevokeCertificateRequest;
use jobs::{AbortCx, Ctx, Finished, Job, UndoCx};
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Revoke {
    serial: String,
    reason: String,
}

/// Accepts the job.
///
/// # Errors
/// 431 when the serial number can't be one, or for another provider than the built-in one.
pub async fn revoke(world: &World, cx: &Cx, r: RevokeCertificateRequest) -> Result<JobRef, ApiError> {
    check_provider(r.provider.as_deref())?;
    let serial = canonical(r.serial())?;
    let cn: String = r.cn().chars().take(200).collect();
    let reason = format!("revokeCertificate {cn}").trim_end().to_owned();
    let asked = Asked {
        command: RevokeCertificateRequest::COMMAND,
        instance: None,
        claims: Vec::new(),
        custom_id: r.custom_job_id.clone(),
        description: format!("revoking certificate with serial id={serial}"),
    };
    accept(world, &cx.caller, Revoke { serial, reason }, asked).await
}

/// As the books write it, from any way that tools show it: "4A:0F:...", "0x4a0f...".
fn canonical(text: &str) -> Result<String, ApiError> {
    let text = text.trim().to_ascii_lowercase();
    let digits: String = text.strip_prefix("0x").unwrap_or(&text).chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || digits.len() > 40 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(ApiError::param(format!("'{text}' isn't a certificate's serial number: it is hexadecimal")));
    }
    Ok(digits)
}

impl Job for Revoke {
    const KIND: &'static str = "certificate.revoke";
    type World = World;
    type Undo = ();

    async fn run(self, world: Arc<World>, ctx: Ctx) -> Result<Finished, ApiError> {
        let finished = jobs::finish!(ctx, |tx| {
            if !world.pki.revoke_in(tx, &self.serial, &self.reason).await? {
                return Err(ApiError::failed(format!(
                    "No valid certificate has the serial number {}: it was never issued here, has expired or was revoked",
                    self.serial
                )));
            }
            Ok(Success { success: true, ..Success::default() })
        })
        .await?;
        // Lost with the replica, this is made up for by the others' own reading of the list, every 30 seconds.
        world.pki.announce().await?;
        Ok(finished)
    }

    async fn undo(self, _: Arc<World>, (): (), _: UndoCx) -> Result<(), ApiError> {
        Ok(())
    }

    async fn abort(self, _: Arc<World>, _: &ApiError, _: &mut Tx, _: &AbortCx) -> Result<(), ApiError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn a_serial_number_is_read_as_tools_show_it() {
        for text in ["4a0f99", " 4A:0F:99 ", "0x4A0F99"] {
            assert_eq!(canonical(text).unwrap(), "4a0f99", "{text}");
        }
        for text in ["", "0x", "4a0g", &"1".repeat(41)] {
            assert!(canonical(text).is_err(), "{text}");
        }
    }
}
