//! A client of the query API, as small as `--zone` needs it: signed requests, jobs waited for.

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Response, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long what is refused for overload is repeated.
const OVERLOAD: Duration = Duration::from_secs(120);
/// Longest wait for a job.
const JOB_DEADLINE: Duration = Duration::from_secs(300);

/// A client with the keys of one user.
pub struct ApiClient {
    endpoint: String,
    key: String,
    secret: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl ApiClient {
    /// A client for `endpoint`, "http://127.0.0.1:8080/client/api".
    pub fn new(endpoint: &str, key: &str, secret: &str) -> ApiClient {
        ApiClient {
            endpoint: endpoint.to_owned(),
            key: key.to_owned(),
            secret: secret.to_owned(),
            http: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Calls a command; gives the bytes of the answer. What is refused for overload is repeated when it is time.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn raw(&self, command: &str, params: &[(&str, &str)]) -> Result<Bytes> {
        let begun = Instant::now();
        loop {
            let answer = self.once(command, params).await?;
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE || begun.elapsed() > OVERLOAD {
                return Ok(answer.into_body());
            }
            let after = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            tokio::time::sleep(Duration::from_secs(after.unwrap_or(1))).await;
        }
    }

    /// Calls a command once; gives the answer as it is.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn once(&self, command: &str, params: &[(&str, &str)]) -> Result<Response<Bytes>> {
        let uri = format!("{}?{}", self.endpoint, self.signed(command, params)?).parse()?;
        let (head, body) = self.http.get(uri).await.with_context(|| format!("calling {command}"))?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    /// The signed query string of a call.
    ///
    /// # Errors
    /// When there are too many parameters.
    pub fn signed(&self, command: &str, params: &[(&str, &str)]) -> Result<String> {
        let mut pairs: Vec<(&str, &str)> = params.to_vec();
        pairs.extend([("command", command), ("apiKey", self.key.as_str()), ("response", "json")]);
        let text = |v: &str| utf8_percent_encode(v, NON_ALPHANUMERIC).to_string();
        let mut query = pairs.iter().map(|(k, v)| format!("{k}={}", text(v))).collect::<Vec<_>>().join("&");
        let signature = gateway::sign_query(&query, self.secret.as_bytes()).context("too many parameters")?;
        query.push_str("&signature=");
        query.push_str(&text(&signature));
        Ok(query)
    }

    /// Calls a command; gives what stands in its wrapper.
    ///
    /// # Errors
    /// The API's error text.
    pub async fn call(&self, command: &str, params: &[(&str, &str)]) -> Result<Value> {
        let bytes = self.raw(command, params).await?;
        let body: Value = serde_json::from_slice(&bytes).with_context(|| format!("the answer of {command}"))?;
        let inner = body.as_object().and_then(|o| o.values().next()).cloned().unwrap_or_default();
        if let Some(text) = inner.get("errortext").and_then(Value::as_str) {
            bail!("{command}: {text}");
        }
        Ok(inner)
    }

    /// Calls an asynchronous command and waits for its job; gives the job's result.
    ///
    /// # Errors
    /// The job's error text, or that it didn't end in time.
    pub async fn run(&self, command: &str, params: &[(&str, &str)]) -> Result<Value> {
        let accepted = self.call(command, params).await?;
        let Some(job) = accepted.get("jobid").and_then(Value::as_str) else { return Ok(accepted) };
        let start = Instant::now();
        while start.elapsed() < JOB_DEADLINE {
            let state = self.call("queryAsyncJobResult", &[("jobid", job)]).await?;
            let result = state.get("jobresult").cloned().unwrap_or_default();
            match state.get("jobstatus").and_then(Value::as_i64) {
                Some(1) => return Ok(result),
                Some(2) => bail!("{command}: {}", result.get("errortext").and_then(Value::as_str).unwrap_or("failed")),
                _ => tokio::time::sleep(pause(start.elapsed())).await,
            }
        }
        bail!("{command}: its job didn't end within {JOB_DEADLINE:?}")
    }
}

/// How long to wait before a job is asked for again: a tenth of its age, so that a thousand waiting clients don't ask the
/// server to death.
fn pause(age: Duration) -> Duration {
    (age / 10).clamp(Duration::from_millis(20), Duration::from_millis(500))
}
