//! Answers of the query API as HTTP responses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use contract::ApiError;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;

use crate::render::{self, Language};

/// The id of a request, on its answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The text of an error.
const DESCRIPTION: HeaderName = HeaderName::from_static("x-description");
/// Longest text of that header.
const LONGEST: usize = 2000;
/// A version of HTTP in which any status may be sent.
const FALLBACK: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

/// An answer before it is HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
    /// Its type.
    pub content: Content,
    /// Text of the error, for the header.
    pub description: Option<String>,
    /// Cookies to set.
    pub cookies: Vec<String>,
}

/// The type of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An answer of the API.
    Api(Language),
    /// A page.
    Html,
    /// A line of text.
    Text,
}

impl Answer {
    /// A successful answer of the API.
    pub fn ok(body: String, language: Language) -> Answer {
        Answer::new(StatusCode::OK, body, Content::Api(language))
    }

    /// A line of text.
    pub fn text(status: StatusCode, text: &'static str) -> Answer {
        Answer::new(status, text, Content::Text)
    }

    /// Any answer.
    pub fn new(status: StatusCode, body: impl Into<Bytes>, content: Content) -> Answer {
        Answer { status, body: body.into(), content, description: None, cookies: Vec::new() }
    }

    /// An error. `root`: the caller reads internal details.
    pub fn error(wrapper: &str, error: &ApiError, root: bool, language: Language) -> Answer {
        let wrapper = if error.code == 432 { "errorresponse" } else { wrapper };
        let body = render::error(wrapper, error, root, language);
        Answer {
            status: StatusCode::from_u16(error.code).unwrap_or(FALLBACK),
            body: body.into(),
            content: Content::Api(language),
            // Answers from before a command is looked at have neither number nor header.
            description: (error.cs_code != 0).then(|| error.text_for(root).to_owned()),
            cookies: Vec::new(),
        }
    }

    /// The answer as HTTP. `reason`: errors show their text as reason phrase.
    pub fn into_response(self, request_id: &str, json: &str, reason: bool) -> Response<Full<Bytes>> {
        let content = match self.content {
            Content::Api(Language::Json) => json,
            Content::Api(Language::Xml) => "text/xml; charset=UTF-8",
            Content::Html => "text/html; charset=UTF-8",
            Content::Text => "text/plain; charset=UTF-8",
        };
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let content = HeaderValue::from_str(content)
            .unwrap_or_else(|_| HeaderValue::from_static("application/json; charset=UTF-8"));
        headers.insert(header::CONTENT_TYPE, content);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::X_XSS_PROTECTION, HeaderValue::from_static("1;mode=block"));
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, retry_after().as_secs().into());
        }
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, id);
        }
        for cookie in &self.cookies {
            if let Ok(value) = HeaderValue::from_str(cookie) {
                headers.append(header::SET_COOKIE, value);
            }
        }
        if let Some(text) = self.description.map(|text| one_line(&text)) {
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                headers.insert(DESCRIPTION, value);
            }
            if reason && let Ok(phrase) = ReasonPhrase::try_from(text.into_bytes()) {
                response.extensions_mut().insert(phrase);
            }
        }
        response
    }
}

/// When to repeat what was refused for overload: not all at the same time.
pub fn retry_after() -> Duration {
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    Duration::from_secs(1 + REFUSED.fetch_add(1, Ordering::Relaxed) % 3)
}

/// A text as a header can hold it.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(LONGEST));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_repeat_the_text() {
        let error = ApiError::param("two\nlines: ä");
        let response = Answer::error("w", &error, false, Language::Json).into_response("id", "application/json", true);
        assert_eq!(response.status().as_u16(), 431);
        assert_eq!(response.headers()["x-description"].as_bytes(), "two lines: ä".as_bytes());
        assert_eq!(response.headers()["x-request-id"], "id");
        assert!(response.extensions().get::<ReasonPhrase>().is_some());
        assert!(response.headers().get("retry-after").is_none());
        let error = ApiError::overloaded("why");
        let response = Answer::error("w", &error, false, Language::Json).into_response("id", "x", false);
        let after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(response.status().as_u16() == 503 && (1..=3).contains(&after));
        let error = ApiError::unauthenticated("no");
        let response = Answer::error("w", &error, false, Language::Xml).into_response("id", "x", true);
        assert!(response.headers().get("x-description").is_none());
        assert_eq!(response.headers()["content-type"], "text/xml; charset=UTF-8");
    }
}
