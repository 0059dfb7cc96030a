//! The one error type of every API of Arcus.

use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::api::{EntityRef, ErrorDetail};

/// What callers other than root admins read in place of internal details.
pub const INTERNAL_TEXT: &str = "Internal error executing command, please contact your system administrator";

/// What callers read when there is more to do than can be done.
pub const OVERLOADED_TEXT: &str =
    "The system has more to do than it can do now. Nothing has been done: repeat the request in a few seconds";

/// Metadata key under which a failed RPC carries its [`ErrorDetail`].
const DETAIL_KEY: &str = "arcus-error-bin";
/// Longest text that travels: metadata counts against HTTP/2's limit for headers.
const TEXT_LIMIT: usize = 2048;
/// Most entities that travel.
const ENTITY_LIMIT: usize = 16;

/// Numbers of `cserrorcode`.
mod cs {
    pub const UNLISTED: i32 = -1;
    pub const INTERNAL: i32 = 4250;
    pub const ACCOUNT_LIMIT: i32 = 4280;
    pub const CONCURRENT: i32 = 4300;
    pub const CAPACITY: i32 = 4325;
    pub const INVALID_VALUE: i32 = 4350;
    pub const RULE_CONFLICT: i32 = 4360;
    pub const PERMISSION: i32 = 4365;
    pub const ALLOCATION: i32 = 4370;
    pub const IN_USE: i32 = 4375;
    pub const UNAVAILABLE: i32 = 4380;
    pub const UNSUPPORTED: i32 = 4390;
    pub const RATE_LIMIT: i32 = 4545;
    pub const SERVER_API: i32 = 9999;
}

/// An error as the API shows it: every handler, job and internal RPC fails with this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {}", self.full_text())]
pub struct ApiError {
    /// 401, 429-432, 503, 530-537: the HTTP status of the query API and `errorcode`.
    pub code: u16,
    /// `cserrorcode`; 0: the answer has none.
    pub cs_code: i32,
    /// What everybody reads: what is wrong and what to do.
    pub text: String,
    /// What root admins and logs read instead, where `text` hides internal details.
    pub internal_text: Option<String>,
    /// The entities involved (`uuidList`).
    pub entities: Vec<EntityRef>,
}

impl ApiError {
    fn new(code: u16, cs_code: i32, text: impl Into<String>) -> Self {
        ApiError { code, cs_code, text: text.into(), internal_text: None, entities: Vec::new() }
    }

    fn hidden(code: u16, cs_code: i32, text: impl Into<String>) -> Self {
        ApiError { internal_text: Some(text.into()), ..Self::new(code, cs_code, INTERNAL_TEXT) }
    }

    /// 431/4350: a value that the command doesn't take.
    pub fn param(text: impl Into<String>) -> Self {
        Self::new(431, cs::INVALID_VALUE, text)
    }

    /// 431/9999: a request that breaks the contract's own rules.
    pub fn request(text: impl Into<String>) -> Self {
        Self::new(431, cs::SERVER_API, text)
    }

    /// 430: a map parameter that can't be read.
    pub fn malformed(text: impl Into<String>) -> Self {
        Self::new(430, cs::SERVER_API, text)
    }

    /// 401: not authenticated, or a command that this caller has not.
    pub fn unauthenticated(text: impl Into<String>) -> Self {
        Self::new(401, 0, text)
    }

    /// 432: no such command for this caller.
    pub fn unsupported_command(text: impl Into<String>) -> Self {
        Self::new(432, cs::UNLISTED, text)
    }

    /// 429: too many requests.
    pub fn rate_limited(text: impl Into<String>) -> Self {
        Self::new(429, cs::RATE_LIMIT, text)
    }

    /// 531/4365: the caller may not do this to that entity.
    pub fn permission(text: impl Into<String>) -> Self {
        Self::new(531, cs::PERMISSION, text)
    }

    /// 535/4370: a resource limit of the account or a domain above it is reached (4.11 answers these with 535).
    pub fn limit(text: impl Into<String>) -> Self {
        Self::new(535, cs::ALLOCATION, text)
    }

    /// 532/4280: the account may have no more of something that isn't counted as a resource.
    pub fn account_limit(text: impl Into<String>) -> Self {
        Self::new(532, cs::ACCOUNT_LIMIT, text)
    }

    /// 533/4325: no host, address or pool has room. Only root admins read `detail`.
    pub fn capacity(detail: impl Into<String>) -> Self {
        Self::hidden(533, cs::CAPACITY, detail)
    }

    /// 534/4380: something that the command needs doesn't answer now. Only root admins read `detail`.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::hidden(534, cs::UNAVAILABLE, detail)
    }

    /// 503/9999: there is more to do than can be done, and nothing of this has been done: the same request may be repeated
    /// after a moment. Only root admins read `detail`.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(503, cs::SERVER_API, OVERLOADED_TEXT).with_internal(detail)
    }

    /// 535/4370: a resource can't be given.
    pub fn allocation(text: impl Into<String>) -> Self {
        Self::new(535, cs::ALLOCATION, text)
    }

    /// 536/4375: the entity is used by others.
    pub fn in_use(text: impl Into<String>) -> Self {
        Self::new(536, cs::IN_USE, text)
    }

    /// 537/4360: a network rule that contradicts another.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::new(537, cs::RULE_CONFLICT, text)
    }

    /// 530/4250 with a text for everybody: the command can't be done as things stand, and saying why is safe.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(530, cs::INTERNAL, text)
    }

    /// 530/4300: another change to the same entity was faster.
    pub fn concurrent(text: impl Into<String>) -> Self {
        Self::new(530, cs::CONCURRENT, text)
    }

    /// 431/4390: a thing that this hypervisor, provider or zone doesn't do.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self::new(431, cs::UNSUPPORTED, text)
    }

    /// 530/4250: a fault of the system. Only root admins and logs read `detail`.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::hidden(530, cs::INTERNAL, detail)
    }

    /// 431/9999: a required parameter is missing.
    pub fn missing_param(command: &str, param: &str) -> Self {
        let command = command.to_lowercase();
        Self::request(format!("Unable to execute API command {command} due to missing parameter {param}"))
    }

    /// 431/9999: a value that isn't of the parameter's type.
    pub fn bad_value(command: &str, param: &str, value: &str) -> Self {
        let command = command.to_lowercase();
        Self::request(format!(
            "Unable to execute API command {command} due to invalid value {value} for parameter {param}"
        ))
    }

    /// 431/9999: an id that names nothing.
    pub fn not_found(command: &str, param: &str, value: &str) -> Self {
        Self::invalid_value(
            command,
            &format!(
                "Invalid parameter {param} value={value} due to incorrect long value format, or entity does not exist \
                 or due to incorrect parameter annotation for the field in api cmd class."
            ),
        )
    }

    /// 431/9999: a text that is too long.
    pub fn long_param(command: &str, param: &str, length: u32) -> Self {
        let detail = format!("Value greater than max allowed length {length} for param: {param}");
        Self::invalid_value(command, &detail)
    }

    /// 431/9999: a parameter whose concept doesn't exist yet.
    pub fn refused_param(command: &str, param: &str) -> Self {
        Self::invalid_value(command, &format!("Parameter {param} is not supported yet: leave it out."))
    }

    /// 431/9999: an empty text where none may be.
    pub fn empty_param(param: &str) -> Self {
        Self::request(format!("Empty or null value provided for API arg: {param}"))
    }

    /// 431/9999: a number that must be at least 1.
    pub fn invalid_param(param: &str) -> Self {
        Self::request(format!("Invalid value provided for API arg: {param}"))
    }

    fn invalid_value(command: &str, detail: &str) -> Self {
        let command = command.to_lowercase();
        Self::request(format!("Unable to execute API command {command} due to invalid value. {detail}"))
    }

    /// Names an entity that is involved.
    #[must_use]
    pub fn with_entity(mut self, uuid: impl Into<String>, description: impl Into<String>) -> Self {
        self.entities.push(EntityRef { uuid: uuid.into(), description: description.into() });
        self
    }

    /// Gives root admins and logs a text of their own.
    #[must_use]
    pub fn with_internal(mut self, detail: impl Into<String>) -> Self {
        self.internal_text = Some(detail.into());
        self
    }

    /// The text for a caller: root admins read internal details.
    pub fn text_for(&self, root_admin: bool) -> &str {
        if root_admin { self.full_text() } else { &self.text }
    }

    /// The text for logs and root admins.
    pub fn full_text(&self) -> &str {
        self.internal_text.as_deref().unwrap_or(&self.text)
    }

    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self.code, 429 | 503 | 533 | 534) || (self.code == 530 && self.cs_code == cs::CONCURRENT)
    }

    /// The error that one of our services put into `status`; none when the transport, or a peer that isn't ours, failed.
    pub fn carried_by(status: &Status) -> Option<Self> {
        let value = status.metadata().get_bin(DETAIL_KEY)?.to_bytes().ok()?;
        ErrorDetail::decode(value).ok().map(Self::from)
    }

    /// The error as a message, for journals, jobs and status details.
    pub fn to_detail(&self) -> ErrorDetail {
        ErrorDetail {
            code: i32::from(self.code),
            cs_code: self.cs_code,
            text: self.text.clone(),
            entities: self.entities.clone(),
            internal_text: self.internal_text.clone().unwrap_or_default(),
        }
    }

    fn status_code(&self) -> Code {
        match self.code {
            401 => Code::Unauthenticated,
            429 => Code::ResourceExhausted,
            430 | 431 => Code::InvalidArgument,
            432 => Code::Unimplemented,
            531 => Code::PermissionDenied,
            503 | 532 | 533 | 535 => Code::ResourceExhausted,
            534 => Code::Unavailable,
            536 | 537 => Code::FailedPrecondition,
            530 if self.cs_code == cs::CONCURRENT => Code::Aborted,
            530 if self.internal_text.is_none() => Code::FailedPrecondition,
            _ => Code::Internal,
        }
    }
}

impl From<ErrorDetail> for ApiError {
    fn from(detail: ErrorDetail) -> Self {
        ApiError {
            code: u16::try_from(detail.code).unwrap_or(530),
            cs_code: detail.cs_code,
            text: detail.text,
            internal_text: (!detail.internal_text.is_empty()).then_some(detail.internal_text),
            entities: detail.entities,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut detail = error.to_detail();
        shorten(&mut detail.text);
        shorten(&mut detail.internal_text);
        detail.entities.truncate(ENTITY_LIMIT);
        // The message is for people with grpcurl; the detail is what our own clients read.
        let mut message = error.text.clone();
        message.truncate(message.floor_char_boundary(256));
        let mut status = Status::new(error.status_code(), message);
        let value = MetadataValue::from_bytes(&detail.encode_to_vec());
        status.metadata_mut().insert_bin(DETAIL_KEY, value);
        status
    }
}

fn shorten(text: &mut String) {
    if text.len() > TEXT_LIMIT {
        text.truncate(text.floor_char_boundary(TEXT_LIMIT));
        text.push('…');
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        if let Some(carried) = Self::carried_by(&status) {
            return carried;
        }
        // The transport or a peer that isn't ours failed.
        let text = format!("{}: {}", status.code(), status.message());
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::param(status.message()),
            Code::Unauthenticated => Self::unauthenticated(status.message()),
            Code::PermissionDenied => Self::permission(status.message()),
            // Unknown is what tonic makes of a connection that broke under a call; our handlers never answer it.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Self::unavailable(text),
            // A peer that takes no more.
            Code::ResourceExhausted => Self::overloaded(text),
            Code::Aborted => Self::concurrent(status.message()),
            _ => Self::internal(text),
        }
    }
}

impl From<prost::DecodeError> for ApiError {
    fn from(error: prost::DecodeError) -> Self {
        Self::internal(format!("stored message can't be read: {error}"))
    }
}
