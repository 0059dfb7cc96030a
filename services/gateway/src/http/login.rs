//! Commands that are answered before any other check: the beginning and the end of sessions.

use contract::ApiError;
use contract_identity::{PasswordLogin, Session, SessionEnd};
use http::StatusCode;
use jiff::tz::TimeZone;
use prost::Message as _;

use super::answer::{Answer, Content};
use super::api::wrapper;
use super::exchange::{Exchange, KEY_NAME, SESSION_COOKIE};
use crate::auth::{NewSession, Principal};
use crate::catalogue::Entry;
use crate::gateway::Gateway;
use crate::render::{self, Style};

/// Names of the requests that are answered here.
const LOGIN: &str = "arcus.identity.v1.LoginRequest";
const LOGOUT: &str = "arcus.identity.v1.LogoutRequest";

const POST_ONLY: &str = "Please use HTTP POST to authenticate using this API";

/// Answers such a command.
pub async fn answer(gateway: &Gateway, exchange: &Exchange, entry: &Entry) -> Answer {
    if entry.info.post_only && !exchange.post {
        // As 4.11 does: plain text under the API's content type.
        return Answer::new(StatusCode::METHOD_NOT_ALLOWED, POST_ONLY, Content::Api(exchange.language));
    }
    let answer = match entry.info.request.as_ref() {
        LOGIN => login(gateway, exchange, entry).await,
        LOGOUT => logout(gateway, exchange, entry).await,
        _ => Err(ApiError::internal(format!("{} has nobody who answers it", entry.info.name))),
    };
    answer.unwrap_or_else(|error| {
        if error.internal_text.is_some() && error.code != 503 {
            tracing::warn!(text = error.full_text(), "login failed");
        }
        Answer::error(wrapper(exchange, Some(entry)), &error, false, exchange.language)
    })
}

async fn login(gateway: &Gateway, exchange: &Exchange, entry: &Entry) -> Result<Answer, ApiError> {
    use crate::auth::Login;
    end_session(gateway, exchange).await?;
    let query = &exchange.query;
    let user_name = query.exact("username").unwrap_or_default();
    let path = query.exact("domain").map(domain_path);
    let domain_id = query.exact("domainId").or_else(|| query.exact("domainid")).map(str::to_owned);
    let login = PasswordLogin {
        user_name: user_name.to_owned(),
        password: query.exact("password").unwrap_or_default().to_owned(),
        domain_path: path.clone().filter(|p| p != "/"),
        domain_id: domain_id.clone(),
        remote_address: exchange.remote.to_string(),
    };
    // Passwords are costly to check.
    let _pass = gateway.gates.stranger(exchange.remote).await?;
    let principal = match gateway.authority.login(login).await? {
        Login::Accepted(principal) => principal,
        Login::NoDomain if domain_id.is_some() => {
            return Err(ApiError::unauthenticated("Invalid domain id entered, please enter a valid one"));
        }
        Login::NoDomain => {
            let path = path.unwrap_or_default();
            return Err(failed(format!("Unable to find the domain from the path {path}")));
        }
        Login::Refused { domain_id } => {
            return Err(failed(format!(
                "Failed to authenticate user {user_name} in domain {domain_id}; please provide valid credentials"
            )));
        }
    };
    let known = principal.credentials();
    let new = gateway.sessions.begin(known.user_id, exchange.remote.to_string()).await?;
    tracing::info!(user = known.user_id, account = known.account_name, "session begins");
    let session = session(&principal, &new, gateway.sessions.idle().as_secs());
    let secure = gateway.settings.get(config::keys::ENABLE_SECURE_SESSION_COOKIE);
    Ok(Answer {
        cookies: vec![cookie(SESSION_COOKIE, &new.id, secure), cookie(KEY_NAME, &new.key, secure)],
        ..written(gateway, exchange, entry, &session.encode_to_vec(), &principal)?
    })
}

async fn logout(gateway: &Gateway, exchange: &Exchange, entry: &Entry) -> Result<Answer, ApiError> {
    end_session(gateway, exchange).await?;
    let end = SessionEnd { description: Some("success".into()), ..SessionEnd::default() };
    let cleared = [SESSION_COOKIE, KEY_NAME]
        .map(|name| format!("{name}=; Path=/client; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly"));
    Ok(Answer { cookies: cleared.into(), ..written(gateway, exchange, entry, &end.encode_to_vec(), &gateway.system)? })
}

async fn end_session(gateway: &Gateway, exchange: &Exchange) -> Result<(), ApiError> {
    if let Some(id) = &exchange.session
        && let Some(session) = gateway.sessions.find(id, exchange.remote).await?
    {
        gateway.sessions.end(&session).await?;
    }
    Ok(())
}

fn written(
    gateway: &Gateway,
    exchange: &Exchange,
    entry: &Entry,
    bytes: &[u8],
    principal: &Principal,
) -> Result<Answer, ApiError> {
    let style = Style { language: exchange.language, role: principal.role_type(), encode: false };
    Ok(Answer::ok(render::answer(&gateway.catalogue, entry, bytes, style)?, exchange.language))
}

/// 531 as 4.11 writes it for logins: without a `cserrorcode`.
fn failed(text: String) -> ApiError {
    ApiError { cs_code: 0, ..ApiError::permission(text) }
}

/// A domain's path with its outer slashes.
fn domain_path(given: &str) -> String {
    match given.trim_matches('/') {
        "" => "/".to_owned(),
        inner => format!("/{inner}/"),
    }
}

fn cookie(name: &str, value: &str, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path=/client; HttpOnly; SameSite=Lax{secure}")
}

fn session(principal: &Principal, new: &NewSession, idle_seconds: u64) -> Session {
    let known = principal.credentials();
    let zone = known.time_zone.as_deref().unwrap_or("UTC");
    Session {
        username: Some(known.user_name.clone()),
        user_id: Some(known.user_uuid.clone()),
        domain_id: Some(known.domain_uuid.clone()),
        timeout: Some(i32::try_from(idle_seconds).unwrap_or(i32::MAX)),
        account: Some(known.account_name.clone()),
        first_name: Some(known.first_name.clone()),
        last_name: Some(known.last_name.clone()),
        r#type: Some(known.account_type.to_string()),
        timezone: Some(zone.to_owned()),
        timezone_offset: Some(offset_hours(zone)),
        registered: Some(known.registered.to_string()),
        session_key: Some(new.key.clone()),
        ..Session::default()
    }
}

/// The present offset of a zone in hours, `5.5` for five and a half; unknown zones are UTC, as in Java.
fn offset_hours(zone: &str) -> String {
    let seconds = TimeZone::get(zone).map_or(0, |tz| tz.to_offset(jiff::Timestamp::now()).seconds());
    format!("{:?}", f64::from(seconds) / 3600.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_get_their_slashes() {
        for (given, path) in [("", "/"), ("/", "/"), ("a", "/a/"), ("/a/b", "/a/b/"), ("a/b/", "/a/b/")] {
            assert_eq!(domain_path(given), path);
        }
    }

    #[test]
    fn offsets_are_hours() {
        assert_eq!(offset_hours("Asia/Kolkata"), "5.5");
        assert_eq!(offset_hours("UTC"), "0.0");
        assert_eq!(offset_hours("Nowhere/Land"), "0.0");
    }
}
