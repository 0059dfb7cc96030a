//! Consoles: `/client/console`, as 4.11 serves it, and the WebSocket that its page opens.
//!
//! The page is given to whoever may use the VM, with a token that opens one connection to that VM's console within a minute
//! ([`token`]). The browser shows it to the WebSocket ([`socket`]), at whatever replica; bytes then go through the
//! orchestrator to the VM's host. The viewer is noVNC, from the files of Debian's package ([`assets`]).

mod assets;
mod page;
mod places;
mod socket;
mod thumbnail;
mod token;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use contract::ApiError;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use node::Node;

use crate::auth::Principal;
use crate::auth::signature::{self, Signed};
use crate::gateway::Gateway;
use crate::http::{Answer, Content, Exchange, KEY_NAME};
use crate::store::consoles;

use places::Places;

/// Where noVNC's files are when nothing else is said: there Debian's package puts them.
pub const ASSETS: &str = "/usr/share/novnc";
/// The page; everything else of consoles is below it.
const ROOT: &str = "/client/console";

/// What consoles need of a replica.
pub struct Consoles {
    node: Node,
    assets: PathBuf,
    places: Arc<Places>,
}

/// What is wanted below [`ROOT`].
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted<'p> {
    /// The page, or whatever `cmd` says.
    Page,
    /// The WebSocket.
    Socket,
    /// A file of the page, or of noVNC.
    File(&'p str),
}

impl<'p> Wanted<'p> {
    /// What a path names; none when it isn't about consoles.
    pub fn of(path: &'p str) -> Option<Wanted<'p>> {
        match path.strip_prefix(ROOT)? {
            "" | "/" => Some(Wanted::Page),
            "/socket" => Some(Wanted::Socket),
            below => below.strip_prefix('/').map(Wanted::File),
        }
    }
}

impl Consoles {
    /// Consoles with noVNC's files in this folder.
    pub fn new(node: &Node, assets: PathBuf) -> Consoles {
        Consoles { node: node.clone(), assets, places: Arc::default() }
    }

    /// Forgets tokens that can't be used any more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn sweep(&self) -> Result<(), ApiError> {
        consoles::forget(&self.node.db, store::now_micros() - token::KEPT.as_micros() as i64).await
    }
}

/// An answer that isn't what was asked for: status and text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused(StatusCode, String);

impl Refused {
    fn new(status: StatusCode, text: impl Into<String>) -> Refused {
        Refused(status, text.into())
    }

    /// What an error of the orchestrator means to who wants a console.
    fn of(error: &ApiError, root: bool) -> Refused {
        let status = match error.code {
            431 => return Refused::new(StatusCode::NOT_FOUND, "There is no such virtual machine"),
            531 => return Refused::new(StatusCode::FORBIDDEN, "Permission denied"),
            530 => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refused::new(status, error.text_for(root))
    }
}

/// Serves the page and what `cmd` else may say.
pub async fn page(gateway: &Gateway, exchange: &Exchange, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let answered = match answer(gateway, exchange, headers).await {
        Ok(answered) => answered,
        Err(Refused(status, text)) => {
            tracing::debug!(%status, text, "no console");
            page::Page::error(status, &text)
        }
    };
    answered.into_response(&exchange.request_id)
}

async fn answer(gateway: &Gateway, exchange: &Exchange, headers: &HeaderMap) -> Result<page::Page, Refused> {
    let query = &exchange.query;
    let principal = identify(gateway, exchange).await?;
    let command = query.exact("cmd").unwrap_or_default().to_ascii_lowercase();
    if !matches!(command.as_str(), "access" | "auth" | "thumbnail") {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "Say what is wanted: cmd=access"));
    }
    let vm = query.exact("vm").filter(|vm| !vm.is_empty());
    let vm = vm.ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, "Say which virtual machine: vm=UUID"))?;
    let access = socket::access(gateway, &principal, exchange, vm).await?;
    match command.as_str() {
        // 4.11's proxies ask whether a viewer knows the VM's VNC password. There is none here, so nobody does.
        "auth" => Ok(page::Page::text("failed")),
        "thumbnail" => socket::thumbnail(gateway, &principal, exchange, &access).await,
        _ => {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| is_host(host));
            let host = host.ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, "The request names no host"))?;
            assets::check(&gateway.consoles.assets)
                .await
                .map_err(|text| Refused::new(StatusCode::SERVICE_UNAVAILABLE, text))?;
            let token = token::Token::new(&access.vm_uuid, principal.credentials().user_id, host)
                .map_err(|error| Refused::of(&error, false))?;
            Ok(page::Page::viewer(&access.name, &token.seal(&gateway.consoles.node.vault), host))
        }
    }
}

/// Whose request this is: by the session's cookie alone, as in 4.11, whose page is opened by a link; a session key that is
/// sent must fit. Without a session, by signature.
async fn identify(gateway: &Gateway, exchange: &Exchange) -> Result<Arc<Principal>, Refused> {
    let denied = || Refused::new(StatusCode::UNAUTHORIZED, "Access denied. Invalid web session or API key in request");
    let failed = |error: ApiError| Refused::of(&error, false);
    let (query, from) = (&exchange.query, exchange.remote);
    let session = match &exchange.session {
        Some(id) => gateway.sessions.find(id, from).await.map_err(failed)?,
        None => None,
    };
    let principal = match session {
        Some(session) => {
            let sent = [query.exact(KEY_NAME), exchange.header_key.as_deref(), exchange.cookie_key.as_deref()];
            if !sent.into_iter().flatten().all(|key| session.has_key(key)) {
                return Err(denied());
            }
            gateway.authority.by_user(session.user_id, from).await.map_err(failed)?
        }
        None => {
            let signed = Signed::of(query).ok_or_else(denied)?;
            if !signature::in_time(query, store::now_micros() / 1_000_000) {
                return Err(denied());
            }
            let known = gateway.authority.by_api_key(signed.api_key, from).await.map_err(failed)?;
            known.filter(|p| p.key().is_some_and(|key| signature::verify(query, key, signed.signature)))
        }
    };
    let principal = principal.filter(|p| p.is_enabled()).ok_or_else(denied)?;
    if !gateway.may_come_from(&principal, from) {
        return Err(denied());
    }
    Ok(principal)
}

/// Serves a file of the page or of noVNC.
pub async fn file(gateway: &Gateway, name: &str, request_id: &str) -> Response<Full<Bytes>> {
    let Some((body, content)) = assets::file(&gateway.consoles.assets, name).await else {
        return Answer::text(StatusCode::NOT_FOUND, "Nothing here").into_response(request_id, "", false);
    };
    let mut response = Answer::new(StatusCode::OK, body, Content::Text).into_response(request_id, "", false);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=300"));
    response
}

/// Opens the WebSocket, or says why not.
pub async fn socket(
    gateway: &Arc<Gateway>,
    parts: &mut Parts,
    remote: IpAddr,
    request_id: &str,
) -> Response<Full<Bytes>> {
    match socket::open(gateway, parts, remote, request_id).await {
        Ok(response) => response,
        Err(Refused(status, text)) => {
            tracing::info!(%status, text, %remote, "a console's connection is refused");
            Answer::new(status, text, Content::Text).into_response(request_id, "", false)
        }
    }
}

/// Whether a text can be the host that a request was sent to.
fn is_host(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_wanted() {
        assert_eq!(Wanted::of("/client/console"), Some(Wanted::Page));
        assert_eq!(Wanted::of("/client/console/"), Some(Wanted::Page));
        assert_eq!(Wanted::of("/client/console/socket"), Some(Wanted::Socket));
        assert_eq!(Wanted::of("/client/console/novnc/core/rfb.js"), Some(Wanted::File("novnc/core/rfb.js")));
        assert_eq!(Wanted::of("/client/consoles"), None);
        assert_eq!(Wanted::of("/client/api"), None);
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        for host in ["cloud.example.com", "192.0.2.1:8080", "[2001:db8::1]:8443"] {
            assert!(is_host(host), "{host}");
        }
        for text in ["", "a b", "a/b", "a'", "a;script-src *", "é"] {
            assert!(!is_host(text), "{text}");
        }
    }
}
