//! What a browser is shown.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::http::{Answer, Content};

/// A page, or another answer to `cmd`.
#[derive(Debug)]
pub struct Page {
    status: StatusCode,
    body: Bytes,
    content: &'static str,
    /// What the page may load.
    policy: String,
}

/// A page that only shows text.
const PLAIN: &str = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const HTML: &str = "text/html; charset=UTF-8";

impl Page {
    /// The viewer. `host`: that from which it is served.
    pub fn viewer(name: &str, token: &str, host: &str) -> Page {
        // 'self' means WebSockets, too, but not to all browsers.
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self' ws://{host} wss://{host}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        );
        let (name, token) = (escape(name), escape(token));
        let body = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title>\n\
             <meta name=\"console-token\" content=\"{token}\">\n\
             <link rel=\"stylesheet\" href=\"/client/console/console.css\">\n\
             <script type=\"module\" src=\"/client/console/console.js\"></script></head>\n\
             <body><header><h1>{name}</h1><span id=\"status\" role=\"status\">Connecting…</span>\n\
             <button id=\"keys\" type=\"button\" disabled>Ctrl+Alt+Del</button>\n\
             <button id=\"again\" type=\"button\" hidden>Connect again</button></header>\n\
             <noscript><p class=\"message\">The console needs JavaScript.</p></noscript>\n\
             <main id=\"screen\"></main></body></html>\n"
        );
        Page { status: StatusCode::OK, body: body.into(), content: HTML, policy }
    }

    /// A text that says why there is no console.
    pub fn error(status: StatusCode, text: &str) -> Page {
        let text = escape(text);
        let body = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Console</title>\n\
             <link rel=\"stylesheet\" href=\"/client/console/console.css\"></head>\n\
             <body><p class=\"message\">{text}</p></body></html>\n"
        );
        Page { status, body: body.into(), content: HTML, policy: PLAIN.into() }
    }

    /// A word, as 4.11 answers.
    pub fn text(text: &'static str) -> Page {
        Page { status: StatusCode::OK, body: text.into(), content: HTML, policy: PLAIN.into() }
    }

    /// A picture.
    pub fn image(body: Vec<u8>, content: &'static str) -> Page {
        Page { status: StatusCode::OK, body: body.into(), content, policy: PLAIN.into() }
    }

    /// As HTTP.
    pub fn into_response(self, request_id: &str) -> Response<Full<Bytes>> {
        let mut response = Answer::new(self.status, self.body, Content::Html).into_response(request_id, "", false);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if let Ok(policy) = HeaderValue::from_str(&self.policy) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

/// A text as HTML shows it, within attributes, too.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_the_policy_is_strict() {
        let page = Page::viewer("<script>x</script>\"", "v1.a.b", "cloud:8080");
        let body = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(body.contains("&lt;script&gt;x&lt;/script&gt;&quot;") && !body.contains("<script>x"), "{body}");
        let response = page.into_response("id");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; ") && policy.contains("wss://cloud:8080"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let error = Page::error(StatusCode::FORBIDDEN, "a & b").into_response("id");
        assert_eq!((error.status().as_u16(), error.headers()["content-security-policy"] == PLAIN), (403, true));
    }
}
