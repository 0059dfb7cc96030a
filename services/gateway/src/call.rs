//! Calls to services with bytes that are already encoded.

use bytes::{Buf, BufMut, Bytes};
use contract::ApiError;
use contract::api::Caller;
use http::uri::PathAndQuery;
use prost::Message as _;
use rpc::{PeerChannel, Repeatable};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::auth::Principal;

/// Largest answer of a service: a page of everything that the largest accounts have.
const LARGEST: usize = 256 * 1024 * 1024;

/// Messages as bytes, on both sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What a request adds to its principal.
#[derive(Clone, Debug, Default)]
pub struct OnBehalf {
    /// Id of the request.
    pub request_id: String,
    /// Where it came from.
    pub remote_address: String,
    /// The idempotency key that came with it.
    pub idempotency_key: Option<String>,
    /// Digest of the canonical request, when there is a key.
    pub request_hash: Vec<u8>,
}

/// The encoded [`Caller`] of a request.
pub fn caller(principal: &Principal, behalf: OnBehalf, command: &str) -> Vec<u8> {
    let known = principal.caller();
    let mut bytes = Vec::with_capacity(known.len() + 128);
    bytes.extend_from_slice(known);
    let added = Caller {
        request_id: behalf.request_id,
        remote_address: behalf.remote_address,
        idempotency_key: behalf.idempotency_key,
        request_hash: behalf.request_hash,
        command: command.to_owned(),
        ..Caller::default()
    };
    // Fields that are unset in the second part leave those of the first as they are.
    bytes.extend_from_slice(&added.encode_to_vec());
    bytes
}

/// Calls an RPC. One that is `repeatable` goes to another replica when the first one's answer is lost.
///
/// # Errors
/// What the service says. 503 when the request may be repeated as it is: nothing has been done, or a repeat does no harm.
pub async fn unary(
    channel: PeerChannel,
    path: PathAndQuery,
    caller: &[u8],
    request_id: &str,
    message: Bytes,
    repeatable: bool,
) -> Result<Bytes, ApiError> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST);
    grpc.ready().await.map_err(|e| ApiError::overloaded(format!("{path}: {e}")))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(rpc::CALLER, MetadataValue::from_bytes(caller));
    if repeatable {
        request.extensions_mut().insert(Repeatable);
    }
    telemetry::propagate::inject(request.metadata_mut());
    if let Ok(id) = request_id.parse() {
        request.metadata_mut().insert(telemetry::REQUEST_ID, id);
    }
    let answered = grpc.unary(request, path, RawCodec).await;
    answered.map(tonic::Response::into_inner).map_err(|status| failure(status, repeatable))
}

/// What a failed call means to the client.
fn failure(status: Status, repeatable: bool) -> ApiError {
    // The channel says Unavailable of itself only when no replica has begun the call.
    let not_begun = status.code() == Code::Unavailable && ApiError::carried_by(&status).is_none();
    let error = ApiError::from(status);
    if error.code == 534 && (not_begun || repeatable) { ApiError::overloaded(error.full_text()) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract_identity::Credentials;

    #[test]
    fn what_may_be_repeated_is_said_to_be() {
        let code = |status: Status, repeatable| failure(status, repeatable).code;
        let carried = || Status::from(ApiError::unavailable("the host is away"));
        assert_eq!((code(carried(), false), code(carried(), true)), (534, 503));
        assert_eq!(code(Status::unavailable("no replica"), false), 503);
        assert_eq!(code(Status::resource_exhausted("full"), false), 503);
        assert_eq!(code(ApiError::overloaded("jobs").into(), false), 503);
        // Whether it was done isn't known.
        assert_eq!(code(Status::unknown("broken"), false), 534);
        assert_eq!(code(ApiError::failed("no").into(), true), 530);
    }

    #[test]
    fn a_caller_is_the_principal_and_the_request() {
        let principal = Principal::new(Credentials {
            user_id: 2,
            user_name: "jo".into(),
            account_id: 3,
            domain_path: "/1/".into(),
            role_id: 4,
            role_type: contract::RoleType::User.into(),
            secret_key: Some("secret".into()),
            ..Credentials::default()
        });
        assert!(principal.credentials().secret_key.is_none());
        let behalf = OnBehalf { request_id: "r".into(), idempotency_key: Some("k".into()), ..OnBehalf::default() };
        let caller = Caller::decode(caller(&principal, behalf, "listZones").as_slice()).unwrap();
        assert_eq!((caller.user_id, caller.account_id, caller.role_id), (2, 3, 4));
        assert_eq!((caller.request_id.as_str(), caller.command.as_str()), ("r", "listZones"));
        assert_eq!(caller.idempotency_key.as_deref(), Some("k"));
        assert_eq!(caller.role(), contract::RoleType::User);
    }
}
