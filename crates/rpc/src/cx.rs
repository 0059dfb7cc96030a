//! What a handler knows about its request.

use crate::CALLER;
use crate::peer::Peer;
use contract::api::{Caller, RoleType};
use contract::{Access, ApiError, RefParam, Request};
use model::entity::{self, Entity};
use prost::Message;
use store::Db;
use tonic::Status;
use tonic::metadata::MetadataValue;

/// A service's entrance: every handler begins with [`Rpc::enter`].
#[derive(Clone)]
pub struct Rpc {
    db: Db,
}

/// A request that has been let in.
#[derive(Debug)]
pub struct Cx {
    /// On whose behalf.
    pub caller: Caller,
    /// The entities that the request names.
    pub refs: Refs,
}

/// Entities by the name of the parameter that named them.
#[derive(Debug, Default)]
pub struct Refs(Vec<(&'static str, Vec<Entity>)>);

impl Refs {
    /// The entity that `param` names, dead or alive.
    pub fn one(&self, param: &str) -> Option<&Entity> {
        self.all(param).first()
    }

    /// All entities that `param` names, in the order given.
    pub fn all(&self, param: &str) -> &[Entity] {
        self.0.iter().find(|(name, _)| *name == param).map_or(&[], |(_, found)| found)
    }

    /// The number of the living entity that `param` names, when the parameter is there.
    ///
    /// # Errors
    /// 431 when it has been removed.
    pub fn id<I: From<i64>>(&self, param: &str) -> Result<Option<I>, ApiError> {
        self.living(param).map(|e| e.map(|e| I::from(e.id)))
    }

    /// The number of the living entity that the required parameter `param` names.
    ///
    /// # Errors
    /// 431 when it is missing or has been removed.
    pub fn need<I: From<i64>>(&self, param: &str) -> Result<I, ApiError> {
        self.id(param)?.ok_or_else(|| ApiError::param(format!("parameter {param} is missing")))
    }

    /// The living entity that `param` names.
    ///
    /// # Errors
    /// 431 when it has been removed.
    pub fn living(&self, param: &str) -> Result<Option<&Entity>, ApiError> {
        match self.one(param) {
            Some(e) if e.removed => {
                Err(ApiError::param(format!("the entity that {param} names has been removed"))
                    .with_entity(&e.uuid, param))
            }
            found => Ok(found),
        }
    }

    /// The numbers of all living entities that `param` names.
    ///
    /// # Errors
    /// 431 when one has been removed.
    pub fn ids<I: From<i64>>(&self, param: &str) -> Result<Vec<I>, ApiError> {
        self.all(param)
            .iter()
            .map(|e| {
                if e.removed {
                    Err(ApiError::param(format!("an entity that {param} names has been removed"))
                        .with_entity(&e.uuid, param))
                } else {
                    Ok(I::from(e.id))
                }
            })
            .collect()
    }
}

impl Rpc {
    /// An entrance that looks entities up in `db`.
    pub fn new(db: Db) -> Rpc {
        Rpc { db }
    }

    /// Lets a request in: the peer must be one of us, the message must keep to the contract, and each entity that it
    /// names must exist and be within the caller's reach. One query per parameter that names entities.
    ///
    /// # Errors
    /// UNAUTHENTICATED for unknown peers; 431 and 531 as the contract says.
    pub async fn enter<T: Request>(&self, request: tonic::Request<T>) -> Result<(Cx, T), Status> {
        let caller = caller_of(&request)?;
        let mut message = request.into_inner();
        message.restrict(caller.role_type());
        message.check(caller.role_type())?;
        let command = T::COMMAND.map_or("", |c| &c.name);
        let refs = self.resolve(&caller, command, message.refs()).await?;
        Ok((Cx { caller, refs }, message))
    }

    async fn resolve(&self, caller: &Caller, command: &str, params: Vec<RefParam<'_>>) -> Result<Refs, ApiError> {
        let mut refs = Vec::new();
        for param in params {
            let values: Vec<&str> = param.values.iter().copied().filter(|v| readable(&param, v)).collect();
            if values.is_empty() {
                continue;
            }
            let found = entity::find(&self.db, param.kind, &values, !param.since).await?;
            let mut entities = Vec::with_capacity(values.len());
            for value in values {
                let entity = found.get(value).ok_or_else(|| ApiError::not_found(command, param.param, value))?;
                entities.push(entity.clone());
            }
            refs.push((param, entities));
        }
        // All are looked up before any is judged, as 4.11 does.
        for (param, entities) in &refs {
            for entity in entities {
                let allowed = entity::allowed(caller, entity, param.access)
                    || (param.access == Access::Use && entity::shared(&self.db, caller, entity).await?);
                if !allowed {
                    return Err(ApiError::permission(format!(
                        "account {} may not use the entity that {} names",
                        caller.account_name, param.param
                    )));
                }
            }
        }
        let refs = refs.into_iter().map(|(param, entities)| (param.param, entities)).collect();
        Ok(Refs(refs))
    }
}

/// `-1` passes as a number that means "none" or "all"; a parameter that came after 4.0 drops what is no UUID.
fn readable(param: &RefParam<'_>, value: &str) -> bool {
    value != "-1" && (!param.since || contract::is_uuid(value))
}

/// The caller that an authenticated peer asserts.
///
/// # Errors
/// UNAUTHENTICATED when the peer may not assert one, or asserts none.
pub fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    let peer = Peer::of(request);
    if !peer.may_assert_caller() {
        return Err(Status::unauthenticated("only services of this installation may call"));
    }
    let value = request.metadata().get_bin(CALLER).ok_or_else(|| Status::unauthenticated("the caller is missing"))?;
    let bytes = value.to_bytes().map_err(|_| Status::unauthenticated("the caller is malformed"))?;
    Caller::decode(bytes).map_err(|_| Status::unauthenticated("the caller is malformed"))
}

/// A request in the name of `caller`.
pub fn request<T>(caller: &Caller, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    telemetry::propagate::inject(request.metadata_mut());
    if let Ok(id) = caller.request_id.parse() {
        request.metadata_mut().insert(telemetry::REQUEST_ID, id);
    }
    request.metadata_mut().insert_bin(CALLER, MetadataValue::from_bytes(&caller.encode_to_vec()));
    request
}

/// The same for a call that may be made again when its answer is lost: it reads, or its receiver knows a repeat by a key
/// in the message.
pub fn repeatable<T>(caller: &Caller, message: T) -> tonic::Request<T> {
    let mut request = request(caller, message);
    request.extensions_mut().insert(crate::Repeatable);
    request
}

/// The built-in system account as a caller: for duties and jobs that nobody asked for.
pub fn system_caller() -> Caller {
    Caller {
        user_id: 1,
        account_id: 1,
        account_name: "system".into(),
        domain_id: 1,
        domain_path: "/1/".into(),
        role_type: RoleType::Admin.into(),
        role_id: 1,
        user_name: "system".into(),
        ..Caller::default()
    }
}
