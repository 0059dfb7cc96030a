//! Requests as bytes, and answers with everything that HTTP says about them.

use arcus::api_client::ApiClient;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::time::Duration;

/// Longer than this, an answer counts as none.
const PATIENCE: Duration = Duration::from_secs(60);

/// One who sends requests.
#[derive(Clone)]
pub struct Wire {
    pub endpoint: String,
    pub key: String,
    pub secret: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    }

    /// What stands in the wrapper.
    pub fn inner(&self) -> Value {
        self.json().and_then(|b| b.as_object().and_then(|o| o.values().next()).cloned()).unwrap_or_default()
    }
}

pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Parameters as a query string.
pub fn query(pairs: &[(String, String)]) -> String {
    // Names as clients write them: brackets stay.
    let name =
        |n: &str| {
            n.chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || "[]._-".contains(c) {
                        c.to_string()
                    } else {
                        encoded(&c.to_string())
                    }
                })
                .collect::<String>()
        };
    pairs.iter().map(|(k, v)| format!("{}={}", name(k), encoded(v))).collect::<Vec<_>>().join("&")
}

impl Wire {
    pub fn new(endpoint: &str, key: &str, secret: &str) -> Wire {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Wire { endpoint: endpoint.into(), key: key.into(), secret: secret.into(), http }
    }

    /// The same server for somebody else.
    pub fn keyed(&self, key: &str, secret: &str) -> Wire {
        Wire { key: key.into(), secret: secret.into(), ..self.clone() }
    }

    pub fn client(&self) -> ApiClient {
        ApiClient::new(&self.endpoint, &self.key, &self.secret)
    }

    /// Sends a query string that stands as it is; as a form with `post`.
    pub async fn plain(&self, query: &str, post: bool, headers: &[(&str, &str)]) -> Result<Answer, String> {
        let request =
            if post { Request::post(&self.endpoint) } else { Request::get(format!("{}?{query}", self.endpoint)) };
        let mut request = headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        if post {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let body = if post { Bytes::from(query.to_owned()) } else { Bytes::new() };
        let request = request
            .body(Full::new(body))
            .map_err(|e| format!("{e}: {}", query.chars().take(300).collect::<String>()))?;
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|e| format!("no answer: {e:?}"))?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|e| format!("half an answer: {e}"))?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }

    /// The signed query string of a command.
    pub fn signed(&self, command: &str, params: &[(String, String)], language: &str) -> String {
        let mut pairs = params.to_vec();
        let more = [("command", command), ("apiKey", self.key.as_str()), ("response", language)];
        pairs.extend(more.map(|(n, v)| (n.to_owned(), v.to_owned())));
        let query = query(&pairs);
        let signature = gateway::sign_query(&query, self.secret.as_bytes()).unwrap_or_default();
        format!("{query}&signature={}", encoded(&signature))
    }

    /// Sends a signed request.
    pub async fn send(
        &self,
        command: &str,
        params: &[(String, String)],
        language: &str,
        post: bool,
    ) -> Result<Answer, String> {
        self.plain(&self.signed(command, params, language), post, &[]).await
    }
}
