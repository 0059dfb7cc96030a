//! What a service declares: kinds of jobs, and jobs to accept.

use crate::claims::Claim;
use crate::ctx::{AbortCx, Ctx};
use crate::undo::UndoCx;
use contract::api::Caller;
use contract::{ApiError, CommandInfo};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::Owner;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::sync::Arc;
use store::Tx;

/// A kind of job. Its value is the input; `run` is run again from the start after a crash, and finished steps then
/// return what they returned the first time. So `run` may depend on nothing but its input and what its steps return.
pub trait Job: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Its name, "vm.deploy".
    const KIND: &'static str;
    /// Raised when the list of steps changes; the old version stays registered for one release.
    const VERSION: u32 = 1;
    /// Handles that steps use: clients, settings.
    type World: Send + Sync + 'static;
    /// How steps are undone, as data.
    type Undo: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    /// How what was done before the job was accepted is undone when it fails: after all steps, whichever was the first.
    fn accepted(&self) -> Option<Self::Undo> {
        None
    }

    /// The work. Ends with [`crate::finish!`].
    fn run(self, world: Arc<Self::World>, ctx: Ctx) -> impl Future<Output = Result<Finished, ApiError>> + Send;

    /// Undoes one step, which finished or may have taken place in part. Retried until it succeeds.
    fn undo(
        self,
        world: Arc<Self::World>,
        undo: Self::Undo,
        cx: UndoCx,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Writes of the commit that ends the job as failed, after all undos.
    fn abort(
        self,
        world: Arc<Self::World>,
        error: &ApiError,
        tx: &mut Tx,
        cx: &AbortCx,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Proof that a job's last commit took place. Only [`crate::finish!`] makes it.
#[derive(Debug)]
pub struct Finished(pub(crate) ());

/// The number and UUID of a job to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) id: i64,
    pub(crate) uuid: String,
}

impl Ticket {
    /// The job's number.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The job's UUID, unless [`Accept::custom_id`] sets another.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }
}

/// A job to be accepted.
#[derive(Clone, Debug)]
pub struct Accept<J> {
    /// Its input.
    pub job: J,
    /// In whose name it runs.
    pub caller: Caller,
    /// The command that it carries out; none for the system's own work.
    pub command: Option<&'static CommandInfo>,
    /// Who owns what it works on.
    pub owner: Owner,
    /// Kind and UUID of what it works on: `("VirtualMachine", uuid)`.
    pub instance: Option<(String, String)>,
    /// What it needs before its first step.
    pub claims: Vec<Claim>,
    /// `customjobid`: the job's UUID, which must be a new one.
    pub custom_id: Option<String>,
    /// What it does, for events: "deploying Vm. Vm Id: 5".
    pub description: String,
    /// UUID of the entity that the caller is told at once.
    pub entity_id: Option<String>,
}

/// A kind, without its types.
pub(crate) trait Kind: Send + Sync {
    fn run(&self, input: &[u8], ctx: Ctx) -> Result<BoxFuture<'static, Result<Finished, ApiError>>, ApiError>;
    fn undo(&self, input: &[u8], undo: &[u8], cx: UndoCx)
    -> Result<BoxFuture<'static, Result<(), ApiError>>, ApiError>;
    /// The undo data of the acceptance.
    fn accepted(&self, input: &[u8]) -> Result<Option<Vec<u8>>, ApiError>;
    fn abort<'a>(
        &self,
        input: &[u8],
        error: &'a ApiError,
        tx: &'a mut Tx,
        cx: &'a AbortCx,
    ) -> Result<BoxFuture<'a, Result<(), ApiError>>, ApiError>;
    /// Whether this is undo data of the kind: a step with any other could never be undone.
    fn knows_undo(&self, undo: &[u8]) -> bool;
}

pub(crate) struct KindOf<J: Job> {
    pub world: Arc<J::World>,
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| ApiError::internal(format!("{what} can't be read: {e}")))
}

impl<J: Job> Kind for KindOf<J> {
    fn run(&self, input: &[u8], ctx: Ctx) -> Result<BoxFuture<'static, Result<Finished, ApiError>>, ApiError> {
        let job: J = decode(input, "the job's input")?;
        Ok(job.run(self.world.clone(), ctx).boxed())
    }

    fn undo(
        &self,
        input: &[u8],
        undo: &[u8],
        cx: UndoCx,
    ) -> Result<BoxFuture<'static, Result<(), ApiError>>, ApiError> {
        let job: J = decode(input, "the job's input")?;
        let undo: J::Undo = decode(undo, "the step's undo")?;
        Ok(job.undo(self.world.clone(), undo, cx).boxed())
    }

    fn accepted(&self, input: &[u8]) -> Result<Option<Vec<u8>>, ApiError> {
        let job: J = decode(input, "the job's input")?;
        job.accepted().map(|undo| crate::step::encode(&undo, "the acceptance's undo")).transpose()
    }

    fn abort<'a>(
        &self,
        input: &[u8],
        error: &'a ApiError,
        tx: &'a mut Tx,
        cx: &'a AbortCx,
    ) -> Result<BoxFuture<'a, Result<(), ApiError>>, ApiError> {
        let job: J = decode(input, "the job's input")?;
        Ok(job.abort(self.world.clone(), error, tx, cx).boxed())
    }

    fn knows_undo(&self, undo: &[u8]) -> bool {
        serde_json::from_slice::<J::Undo>(undo).is_ok()
    }
}
