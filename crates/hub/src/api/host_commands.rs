//! What services and other replicas call.

use crate::Hub;
use crate::forward::FORWARDED;
use contract::ApiError;
use contract_agent::{MockList, Outcome, command, outcome};
use contract_infra::host_commands_server;
use contract_infra::{ExecuteRequest, ExecuteResponse};
use jobs::StepKey;
use model::HostId;
use rpc::Peer;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// How long a host may take when the caller doesn't say.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct HostCommandsApi(pub Hub);

#[tonic::async_trait]
impl host_commands_server::HostCommands for HostCommandsApi {
    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        if !Peer::of(&request).may_assert_caller() {
            return Err(Status::unauthenticated("only services of this installation may command hosts"));
        }
        let key = StepKey::optional(&request)?;
        let forwarded = request.metadata().contains_key(FORWARDED);
        let message = request.into_inner();
        let deadline = match message.deadline_millis {
            0 => DEADLINE,
            millis => Duration::from_millis(millis.into()),
        };
        let command = message.command.ok_or_else(|| ApiError::internal("the command is missing"))?;
        let host = HostId(message.host_id);
        let outcome = match (host.0, forwarded) {
            (0, true) => self.to_factories(command, deadline).await?,
            (0, false) => return Err(ApiError::internal("the host is missing").into()),
            (_, true) => Some(self.0.execute_here(host, key.as_ref(), message.undo, command, deadline).await?),
            (_, false) => Some(self.0.execute(host, key.as_ref(), message.undo, command, deadline).await?),
        };
        Ok(Response::new(ExecuteResponse { outcome }))
    }
}

impl HostCommandsApi {
    /// For another replica that has no factory, or asks all: one spawns a host, each takes the others' orders.
    async fn to_factories(
        &self,
        command: contract_agent::Command,
        deadline: Duration,
    ) -> Result<Option<Outcome>, ApiError> {
        if matches!(command.body, Some(command::Body::SpawnHost(_))) {
            return self.0.spawn_here(&command, deadline).await;
        }
        let outcomes = self.0.on_factories_here(&command, deadline).await?;
        let mut mocks = Vec::new();
        let mut last = None;
        for outcome in outcomes {
            if let Some(outcome::Body::Mocks(list)) = &outcome.body {
                mocks.extend(list.mocks.iter().cloned());
            }
            last = Some(outcome);
        }
        if !mocks.is_empty() {
            last = Some(Outcome { body: Some(outcome::Body::Mocks(MockList { mocks })) });
        }
        Ok(last)
    }
}
