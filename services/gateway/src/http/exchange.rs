//! A request of the query API, as far as HTTP goes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::server::Limits;
use crate::query::Query;
use crate::render::Language;

/// The cookie of the session's id.
pub const SESSION_COOKIE: &str = "JSESSIONID";
/// The cookie, parameter and header of the session's key.
pub const KEY_NAME: &str = "sessionkey";

/// A request that has arrived whole.
pub struct Exchange {
    /// Its parameters.
    pub query: Query,
    /// Whether it is a POST.
    pub post: bool,
    /// Who sent it.
    pub remote: IpAddr,
    /// Its id.
    pub request_id: String,
    /// The language of the answer.
    pub language: Language,
    /// The session's id.
    pub session: Option<String>,
    /// The session's key as cookie.
    pub cookie_key: Option<String>,
    /// The session's key as header.
    pub header_key: Option<String>,
    /// The header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Its part of what large bodies may take.
    _held: Held,
}

type Held = Option<OwnedSemaphorePermit>;

/// What a port takes in.
pub struct Intake {
    most: usize,
    patience: Duration,
    large: Arc<Semaphore>,
}

/// Bodies up to this size are taken in whatever others send.
const SMALL: usize = 16 * 1024;

impl Intake {
    /// Within these limits.
    pub fn new(limits: &Limits) -> Intake {
        let large = Arc::new(Semaphore::new(limits.bodies.min(Semaphore::MAX_PERMITS)));
        Intake { most: limits.body, patience: limits.arrival, large }
    }

    async fn collect(&self, body: Incoming) -> Result<(Bytes, Held), Unreadable> {
        let late = Unreadable(StatusCode::REQUEST_TIMEOUT, "The request didn't arrive in time");
        tokio::time::timeout(self.patience, self.gather(body)).await.unwrap_or(Err(late))
    }

    async fn gather(&self, mut body: Incoming) -> Result<(Bytes, Held), Unreadable> {
        let (mut whole, mut held): (_, Held) = (BytesMut::new(), None);
        self.check(body.size_hint().lower())?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Unreadable(StatusCode::BAD_REQUEST, "The request ended early"))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = whole.len() + data.len();
            self.check(length as u64)?;
            // Memory is counted as it is used: a body that is only announced takes nothing from others.
            let more = length.saturating_sub(whole.len().max(SMALL));
            if more > 0 {
                let part = self.large.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
                let full =
                    Unreadable(StatusCode::SERVICE_UNAVAILABLE, "Too much is being sent: repeat the request later");
                let part = part.map_err(|_| full)?;
                match &mut held {
                    Some(held) => held.merge(part),
                    none => *none = Some(part),
                }
            }
            whole.extend_from_slice(&data);
        }
        Ok((whole.freeze(), held))
    }

    fn check(&self, length: u64) -> Result<(), Unreadable> {
        if length > self.most as u64 {
            return Err(Unreadable(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large"));
        }
        Ok(())
    }
}

/// A request that can't be read: the answer's status and text.
pub struct Unreadable(pub StatusCode, pub &'static str);

impl Exchange {
    /// Reads the body, and puts the parameters together.
    pub async fn read(
        parts: &Parts,
        body: Incoming,
        remote: IpAddr,
        request_id: String,
        intake: &Intake,
    ) -> Result<Exchange, Unreadable> {
        let post = match parts.method {
            Method::GET | Method::HEAD => false,
            Method::POST => true,
            _ => return Err(Unreadable(StatusCode::METHOD_NOT_ALLOWED, "Please use HTTP GET or POST")),
        };
        let is_form = post && is_form(&parts.headers);
        let (form, held) = if is_form { intake.collect(body).await? } else { (Bytes::new(), None) };
        let query = Query::read(parts.uri.query().unwrap_or_default(), &form)
            .map_err(|_| Unreadable(StatusCode::BAD_REQUEST, "Too many parameters"))?;
        let headers = &parts.headers;
        Ok(Exchange {
            language: Language::of(query.exact("response")),
            query,
            post,
            remote,
            request_id,
            session: cookie(headers, SESSION_COOKIE),
            cookie_key: cookie(headers, KEY_NAME),
            header_key: text(headers, KEY_NAME),
            idempotency_key: text(headers, "idempotency-key"),
            _held: held,
        })
    }
}

/// Parameters are only looked for in forms; a body without a type counts as one.
fn is_form(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        value.to_str().is_ok_and(|t| t.trim().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"))
    })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The value of a cookie. Of several with the same name the first counts: browsers send the most specific path first.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(n, _)| *n == name)
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

/// The client's address: that of the connection, unless it is a trusted proxy which says for whom it asks.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    let peer = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(&peer) {
        return peer;
    }
    let forwarded: Vec<IpAddr> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|ip| ip.trim().parse().ok())
        .map(|ip: IpAddr| ip.to_canonical())
        .collect();
    // The last one that no trusted proxy is: what stands before it may be made up.
    forwarded.iter().rev().find(|ip| !is_trusted(ip)).or(forwarded.first()).copied().unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: &'static str, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|v| (http::HeaderName::from_static(name), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn cookies_are_found_among_others() {
        let h = headers("cookie", &["a=b; JSESSIONID=x1", "sessionkey=\"k=\"; JSESSIONID=x2"]);
        assert_eq!(cookie(&h, "JSESSIONID").as_deref(), Some("x1"));
        assert_eq!(cookie(&h, "sessionkey").as_deref(), Some("k="));
        assert_eq!(cookie(&h, "none"), None);
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let h = headers("x-forwarded-for", &["1.1.1.1, 198.51.100.7, 10.0.0.9"]);
        assert_eq!(client(ip("10.0.0.1"), &h, &trusted), ip("198.51.100.7"));
        assert_eq!(client(ip("::ffff:10.0.0.1"), &h, &trusted), ip("198.51.100.7"));
        assert_eq!(client(ip("192.0.2.1"), &h, &trusted), ip("192.0.2.1"));
        assert_eq!(client(ip("10.0.0.1"), &h, &[]), ip("10.0.0.1"));
        assert_eq!(client(ip("10.0.0.1"), &HeaderMap::new(), &trusted), ip("10.0.0.1"));
    }
}
