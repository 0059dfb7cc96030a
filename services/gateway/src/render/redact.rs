//! Answers over gRPC: the same bytes, without what the caller may not see.

use bytes::Bytes;
use contract::api::JobResult;
use contract::{ApiError, RoleType};
use prost::Message as _;

use crate::catalogue::{Catalogue, Kind, MessageId};
use crate::wire::{Fields, Raw, put_bytes_field, put_raw};

/// The message without the fields that this role type doesn't see. Copies only messages that hold such fields.
///
/// # Errors
/// When the bytes aren't the message.
pub fn redact(catalogue: &Catalogue, id: MessageId, bytes: Bytes, role: RoleType) -> Result<Bytes, ApiError> {
    if role == RoleType::Admin || !catalogue.messages().get(id).restricted {
        return Ok(bytes);
    }
    copy(catalogue, id, &bytes, role).map(Bytes::from)
}

fn copy(catalogue: &Catalogue, id: MessageId, bytes: &[u8], role: RoleType) -> Result<Vec<u8>, ApiError> {
    let plan = catalogue.messages().get(id);
    let mut out = Vec::with_capacity(bytes.len());
    for field in Fields::of(bytes) {
        let (number, raw) = field?;
        let Some(of) = plan.find(number, 0).and_then(|index| plan.fields.get(index)) else {
            // Nobody said who may see what this build doesn't know.
            continue;
        };
        if !of.is_for(role) {
            continue;
        }
        match (&of.kind, raw) {
            (Kind::Message(inner), Raw::Bytes(bytes)) if catalogue.messages().get(*inner).restricted => {
                put_bytes_field(&mut out, number, &copy(catalogue, *inner, bytes, role)?);
            }
            (Kind::JobResult, Raw::Bytes(bytes)) => {
                let result = job_result(catalogue, JobResult::decode(bytes)?, role)?;
                put_bytes_field(&mut out, number, &result.encode_to_vec());
            }
            _ => put_raw(&mut out, number, raw),
        }
    }
    Ok(out)
}

fn job_result(catalogue: &Catalogue, mut result: JobResult, role: RoleType) -> Result<JobResult, ApiError> {
    if let Some(error) = &mut result.error {
        error.internal_text.clear();
    }
    if let Some(entry) = catalogue.command(&result.command) {
        result.output = redact(catalogue, entry.result, result.output.into(), role)?.to_vec();
    } else {
        result.output.clear();
    }
    Ok(result)
}
