//! The query API: authentication, access, parameters, the call, the answer, in this order.

use std::sync::Arc;

use bytes::Bytes;
use contract::ApiError;
use futures::FutureExt as _;
use http::StatusCode;
use store::now_micros;

use super::answer::Answer;
use super::exchange::{Exchange, KEY_NAME};
use super::login;
use crate::auth::signature::{self, Signed};
use crate::auth::{Principal, Session};
use crate::call::OnBehalf;
use crate::catalogue::Entry;
use crate::gateway::{Gateway, Kept, no_plan};
use crate::idempotency;
use crate::params;
use crate::render::Style;

/// A request whose sender isn't known: everything that may be wrong with it reads the same.
const UNVERIFIED: &str = "unable to verify user credentials and/or request signature";
/// A session that doesn't hold.
const NO_SESSION: &str = "unable to verify user credentials";
const NO_COMMAND: &str = "no command specified";

/// What is wanted of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// That it is done.
    Call,
    /// To know what it would do.
    Plan,
}

/// An error, and how it is told.
struct Refusal {
    error: ApiError,
    root: bool,
    ends_session: bool,
}

impl Refusal {
    fn new(error: ApiError) -> Refusal {
        Refusal { error, root: false, ends_session: false }
    }

    fn unverified() -> Refusal {
        Refusal::new(ApiError::unauthenticated(UNVERIFIED))
    }

    fn ending(text: &str) -> Refusal {
        Refusal { ends_session: true, ..Refusal::new(ApiError::unauthenticated(text)) }
    }

    fn told_to(self, principal: &Principal) -> Refusal {
        Refusal { root: principal.is_root_admin(), ..self }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Refusal::new(error)
    }
}

/// Answers a request of `/client/api` or `/client/plan`.
pub async fn answer(gateway: &Gateway, exchange: &Exchange, purpose: Purpose) -> Answer {
    let command = exchange.query.exact("command");
    let entry = command.and_then(|name| gateway.catalogue.command(name));
    if let Some(entry) = entry.filter(|e| e.info.authenticator && purpose == Purpose::Call) {
        return login::answer(gateway, exchange, entry).boxed().await;
    }
    let refusal = match identify(gateway, exchange, command, entry).await {
        Ok((principal, entry)) => match in_turn(gateway, exchange, &principal, entry, purpose, false).await {
            Ok(answer) => return answer,
            Err(error) => Refusal::new(error).told_to(&principal),
        },
        Err(refusal) => refusal,
    };
    refused(exchange, entry, &refusal)
}

/// Answers a request of the integration port, in the name of the built-in system account.
pub async fn trusted(gateway: &Gateway, exchange: &Exchange) -> Answer {
    let command = exchange.query.exact("command");
    let entry = command.and_then(|name| gateway.catalogue.command(name)).filter(|e| !e.info.authenticator);
    let done = match (command, entry) {
        (None, _) => Err(ApiError::unsupported_command("Invalid request, no command sent")),
        (Some(name), None) => Err(unknown_command(name)),
        (_, Some(entry)) => in_turn(gateway, exchange, &gateway.system, entry, Purpose::Call, true).await,
    };
    done.unwrap_or_else(|error| {
        let refusal = Refusal { root: true, ..Refusal::new(error) };
        refused(exchange, entry, &refusal)
    })
}

fn refused(exchange: &Exchange, entry: Option<&Entry>, refusal: &Refusal) -> Answer {
    let error = &refusal.error;
    tracing::debug!(code = error.code, text = error.full_text(), "refused");
    if matches!(error.code, 530 | 534) && error.internal_text.is_some() {
        tracing::warn!(command = entry.map(|e| e.info.name.as_ref()), text = error.full_text(), "command failed");
    }
    Answer::error(wrapper(exchange, entry), error, refusal.root, exchange.language)
}

/// The outermost name of an error's answer.
pub fn wrapper<'a>(exchange: &Exchange, entry: Option<&'a Entry>) -> &'a str {
    match entry {
        Some(entry) => &entry.info.response,
        None if exchange.query.exact("command").is_some() || exchange.query.is_empty() => "errorresponse",
        // As 4.11 prints it.
        None => "null",
    }
}

/// Finds out who calls, and whether they may call this command.
async fn identify<'a>(
    gateway: &'a Gateway,
    exchange: &Exchange,
    command: Option<&str>,
    entry: Option<&'a Entry>,
) -> Result<(Arc<Principal>, &'a Entry), Refusal> {
    if let Some(id) = &exchange.session
        && let Some(session) = gateway.sessions.find(id, exchange.remote).await?
    {
        let found = in_session(gateway, exchange, &session, command, entry).await;
        if let Err(refusal) = &found
            && refusal.ends_session
        {
            gateway.sessions.end(&session).await?;
        }
        return found;
    }
    signed(gateway, exchange, entry).await
}

async fn in_session<'a>(
    gateway: &'a Gateway,
    exchange: &Exchange,
    session: &Session,
    command: Option<&str>,
    entry: Option<&'a Entry>,
) -> Result<(Arc<Principal>, &'a Entry), Refusal> {
    // The cookie comes by itself, from forged requests too: one of the others must be there, and all must match.
    let shown = [exchange.query.exact(KEY_NAME), exchange.header_key.as_deref()];
    let sent = || shown.into_iter().chain([exchange.cookie_key.as_deref()]).flatten();
    if shown.iter().flatten().next().is_none() || !sent().all(|key| session.has_key(key)) {
        return Err(Refusal::ending(NO_SESSION));
    }
    let principal = gateway.authority.by_user(session.user_id, exchange.remote).await?.filter(|p| p.is_enabled());
    let Some(principal) = principal else { return Err(Refusal::ending(NO_SESSION)) };
    let Some(command) = command else {
        return Err(Refusal::new(ApiError { code: 400, ..ApiError::unauthenticated(NO_COMMAND) }));
    };
    let Some(entry) = entry.filter(|e| !e.info.authenticator) else {
        let error = if principal.is_root_admin() { unknown_command(command) } else { unavailable(command) };
        return Err(Refusal::new(error).told_to(&principal));
    };
    match gateway.admit(&principal, entry, exchange.remote).await {
        Ok(()) => Ok((principal, entry)),
        Err(Kept::Denied) => Err(Refusal::ending(UNVERIFIED)),
        Err(Kept::Unavailable) => Err(Refusal::new(unavailable(command)).told_to(&principal)),
        Err(Kept::Failed(error)) => Err(Refusal::new(error).told_to(&principal)),
    }
}

async fn signed<'a>(
    gateway: &'a Gateway,
    exchange: &Exchange,
    entry: Option<&'a Entry>,
) -> Result<(Arc<Principal>, &'a Entry), Refusal> {
    let query = &exchange.query;
    let (Some(entry), Some(signed)) = (entry.filter(|e| !e.info.authenticator), Signed::of(query)) else {
        return Err(Refusal::unverified());
    };
    if !signature::in_time(query, now_micros() / 1_000_000) {
        return Err(Refusal::unverified());
    }
    let principal = gateway.authority.by_api_key(signed.api_key, exchange.remote).await?.filter(|p| p.is_enabled());
    let verified = principal.filter(|p| p.key().is_some_and(|key| signature::verify(query, key, signed.signature)));
    let Some(principal) = verified else { return Err(Refusal::unverified()) };
    match gateway.admit(&principal, entry, exchange.remote).await {
        Ok(()) => Ok((principal, entry)),
        Err(Kept::Denied | Kept::Unavailable) => Err(Refusal::unverified()),
        Err(Kept::Failed(error)) => Err(Refusal::new(error).told_to(&principal)),
    }
}

/// Carries a request out when its turn comes.
async fn in_turn(
    gateway: &Gateway,
    exchange: &Exchange,
    principal: &Principal,
    entry: &Entry,
    purpose: Purpose,
    integration: bool,
) -> Result<Answer, ApiError> {
    let _pass = gateway.gates.pass(principal, entry).await?;
    // Boxed: requests that wait don't hold the room that work takes.
    perform(gateway, exchange, principal, entry, purpose, integration).boxed().await
}

/// Reads the parameters, calls the service and writes the answer.
async fn perform(
    gateway: &Gateway,
    exchange: &Exchange,
    principal: &Principal,
    entry: &Entry,
    purpose: Purpose,
    integration: bool,
) -> Result<Answer, ApiError> {
    let info = &entry.info;
    tracing::Span::current().record("account", &principal.credentials().account_name);
    if info.post_only && !exchange.post {
        return Ok(Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Please use HTTP POST for this command"));
    }
    let plan = purpose == Purpose::Plan;
    if plan && entry.plan.is_none() {
        return Err(no_plan(entry));
    }
    let query = &exchange.query;
    let read = params::read(entry, query, principal.role_type(), integration)?;
    if !read.unknown.is_empty() {
        tracing::info!(command = %info.name, parameters = ?read.unknown, "unknown parameters ignored");
    }
    let key = idempotency::key(exchange.idempotency_key.as_deref(), query)?;
    let behalf = OnBehalf {
        request_id: exchange.request_id.clone(),
        remote_address: exchange.remote.to_string(),
        idempotency_key: key.map(str::to_owned),
        request_hash: if key.is_some() { idempotency::request_hash(query) } else { Vec::new() },
    };
    let message = Bytes::from(read.message);
    let style = Style {
        language: exchange.language,
        role: principal.role_type(),
        encode: gateway.settings.get(config::keys::ENCODE_API_RESPONSE),
    };
    let bytes = match plan {
        true => gateway.plan(principal, entry, behalf, message).await?,
        false => gateway.call(principal, entry, behalf, message).await?,
    };
    let body = gateway.writers.write(entry, plan, bytes, style).await?;
    Ok(Answer::ok(body, exchange.language))
}

fn unknown_command(name: &str) -> ApiError {
    ApiError::unsupported_command(format!("Unknown API command: {name}"))
}

fn unavailable(name: &str) -> ApiError {
    ApiError::unsupported_command(format!("The API {name} does not exist or is not available for this account."))
}
