//! The identity of an effect: (job, step path). The epoch only fences.

use contract::ApiError;
use contract::api::Caller;
use std::time::Duration;
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue, MetadataMap};

const JOB: &str = telemetry::JOB;
const STEP: &str = "arcus-step-bin";
const UNDO: &str = "arcus-undo-bin";
/// Longest step path that a receiver can keep.
const STEP_LIMIT: usize = 192;
/// Undo data longer than this doesn't travel: headers are bounded.
const UNDO_LIMIT: usize = 4096;

/// The key of a call: a repeat with the same job and step is the same effect, and is answered as the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepKey {
    job: i64,
    step: String,
    epoch: i64,
    undo: bool,
    /// How the job would undo the step: kept by the receiver, for a worker that took over and never got as far.
    undo_data: Option<Vec<u8>>,
}

impl StepKey {
    /// A key made of its parts, for protocols that don't carry gRPC metadata.
    pub fn new(job: i64, step: impl Into<String>, epoch: i64, undo: bool) -> StepKey {
        StepKey { job, step: step.into(), epoch, undo, undo_data: None }
    }

    /// The key of a keyed call.
    ///
    /// # Errors
    /// Internal, when the call carries none.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<StepKey, ApiError> {
        StepKey::optional(request)?
            .ok_or_else(|| ApiError::internal("this call may only be made by a job: it has no step key"))
    }

    /// The key of a call that may be keyed.
    ///
    /// # Errors
    /// Internal, when the key is malformed.
    pub fn optional<T>(request: &tonic::Request<T>) -> Result<Option<StepKey>, ApiError> {
        let metadata = request.metadata();
        let Some(job) = metadata.get(JOB) else {
            return Ok(None);
        };
        read(job, metadata).map(Some).ok_or_else(|| ApiError::internal("the call's step key is malformed"))
    }

    /// The key of a part of this effect, for calls that a receiver makes in turn.
    #[must_use]
    pub fn child(&self, path: &str) -> StepKey {
        StepKey { step: format!("{}/{path}", self.step), undo_data: None, ..self.clone() }
    }

    /// The same effect's key, for undoing it.
    #[must_use]
    pub fn undoing(&self) -> StepKey {
        StepKey { undo: true, undo_data: None, ..self.clone() }
    }

    /// Puts the key on a call.
    pub fn attach<T>(&self, request: &mut tonic::Request<T>) {
        let metadata = request.metadata_mut();
        let text = format!("{}.{}.{}", self.job, self.epoch, u8::from(self.undo));
        // Digits and dots are ASCII.
        if let Ok(value) = AsciiMetadataValue::try_from(text) {
            metadata.insert(JOB, value);
        }
        metadata.insert_bin(STEP, BinaryMetadataValue::from_bytes(self.step.as_bytes()));
        if let Some(undo) = &self.undo_data {
            metadata.insert_bin(UNDO, BinaryMetadataValue::from_bytes(undo));
        }
    }

    /// The job's number.
    pub fn job(&self) -> i64 {
        self.job
    }

    /// The step path, "prepare-nics/nic/3".
    pub fn step(&self) -> &str {
        &self.step
    }

    /// The worker's epoch.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether the effect is to be undone.
    pub fn is_undo(&self) -> bool {
        self.undo
    }

    pub(crate) fn undo_data(&self) -> Option<&[u8]> {
        self.undo_data.as_deref()
    }

    pub(crate) fn with_undo_data(mut self, data: Option<&[u8]>) -> StepKey {
        self.undo_data = data.filter(|d| d.len() <= UNDO_LIMIT).map(<[u8]>::to_vec);
        self
    }
}

impl std::fmt::Display for StepKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.undo { "undo of " } else { "" };
        write!(f, "{what}step {} of job {}", self.step, self.job)
    }
}

fn read(job: &AsciiMetadataValue, metadata: &MetadataMap) -> Option<StepKey> {
    let mut parts = job.to_str().ok()?.split('.');
    let job = parts.next()?.parse().ok()?;
    let epoch = parts.next()?.parse().ok()?;
    let undo = parts.next()? == "1";
    let step = String::from_utf8(metadata.get_bin(STEP)?.to_bytes().ok()?.to_vec()).ok()?;
    let undo_data = match metadata.get_bin(UNDO) {
        Some(value) => Some(value.to_bytes().ok()?.to_vec()),
        None => None,
    };
    (step.len() <= STEP_LIMIT).then_some(StepKey { job, step, epoch, undo, undo_data })
}

/// One attempt of a remote step.
#[derive(Clone, Debug)]
pub struct Call {
    key: StepKey,
    caller: Caller,
    timeout: Duration,
}

impl Call {
    pub(crate) fn new(key: StepKey, caller: Caller, timeout: Duration) -> Call {
        Call { key, caller, timeout }
    }

    /// A request in the name of the job's caller that carries the step's key and what is left of its time.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = rpc::cx::request(&self.caller, message);
        self.key.attach(&mut request);
        request.set_timeout(self.timeout);
        request
    }

    /// The step's key.
    pub fn key(&self) -> &StepKey {
        &self.key
    }

    /// In whose name the job runs.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the step is to be undone.
    pub fn is_undo(&self) -> bool {
        self.key.undo
    }

    /// What is left of the step's time.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// What the closure of a remote step may give: a gRPC answer, or a message with our own error type.
pub trait Answer: Send {
    /// The message.
    type Message: prost::Message + Default + Send;
    /// The message or the error.
    fn into_answer(self) -> Result<Self::Message, ApiError>;
}

impl<M: prost::Message + Default + Send> Answer for Result<tonic::Response<M>, tonic::Status> {
    type Message = M;
    fn into_answer(self) -> Result<M, ApiError> {
        Ok(self?.into_inner())
    }
}

impl<M: prost::Message + Default + Send> Answer for Result<M, ApiError> {
    type Message = M;
    fn into_answer(self) -> Result<M, ApiError> {
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_travel() {
        let key = StepKey::new(7, "prepare/ä", 3, false).with_undo_data(Some(b"{}"));
        let mut request = tonic::Request::new(());
        assert_eq!(StepKey::optional(&request).unwrap(), None);
        key.attach(&mut request);
        assert_eq!(StepKey::of(&request).unwrap(), key);
        let mut request = tonic::Request::new(());
        key.child("nic/3").undoing().attach(&mut request);
        let got = StepKey::of(&request).unwrap();
        assert_eq!((got.step(), got.is_undo(), got.epoch(), got.job()), ("prepare/ä/nic/3", true, 3, 7));
    }
}
