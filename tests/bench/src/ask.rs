//! Requests, judged: only what was answered well is a measurement.
//!
//! `ApiClient::call` repeats what is refused for overload, which is kind to users and would make a benchmark blind: here every
//! request is sent once, and a refusal is a failure.

use anyhow::{Context, Result, bail, ensure};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest wait for a job.
const JOB: Duration = Duration::from_secs(300);

/// Sends a request once; gives the body of an answer with status 200.
///
/// # Errors
/// No answer in time, or another status, with the beginning of its text.
pub async fn body(api: &ApiClient, command: &str, params: &[(&str, &str)]) -> Result<Vec<u8>> {
    let answer = tokio::time::timeout(ANSWER, api.once(command, params)).await;
    let answer = answer.with_context(|| format!("{command}: no answer within {ANSWER:?}"))??;
    let status = answer.status().as_u16();
    let body = answer.into_body().to_vec();
    if status != 200 {
        let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        bail!("{command}: {status} {text}");
    }
    Ok(body)
}

/// Sends a request once; gives what stands in the answer's wrapper.
///
/// # Errors
/// As [`body`], and the API's own error text.
pub async fn value(api: &ApiClient, command: &str, params: &[(&str, &str)]) -> Result<Value> {
    let body: Value = serde_json::from_slice(&body(api, command, params).await?).with_context(|| command.to_owned())?;
    let inner = body.as_object().and_then(|o| o.values().next()).cloned().unwrap_or_default();
    if let Some(text) = inner.get("errortext").and_then(Value::as_str) {
        bail!("{command}: {text}");
    }
    Ok(inner)
}

/// Sends an asynchronous command once and asks for its job until that has ended; gives the job's result. It is asked for
/// again after a tenth of its age (20 to 500 ms), which a measured time may contain at its end.
///
/// # Errors
/// As [`value`]; the job's error text; that it didn't end in time.
pub async fn job(api: &ApiClient, command: &str, params: &[(&str, &str)]) -> Result<Value> {
    let begun = Instant::now();
    let accepted = value(api, command, params).await?;
    let job = text(&accepted, "/jobid")?;
    loop {
        tokio::time::sleep((begun.elapsed() / 10).clamp(Duration::from_millis(20), Duration::from_millis(500))).await;
        let state = value(api, "queryAsyncJobResult", &[("jobid", &job)]).await?;
        let result = state.get("jobresult").cloned().unwrap_or_default();
        match state.get("jobstatus").and_then(Value::as_i64) {
            Some(1) => return Ok(result),
            Some(2) => bail!("{command}: {}", result.get("errortext").and_then(Value::as_str).unwrap_or("failed")),
            _ => ensure!(begun.elapsed() < JOB, "{command}: its job didn't end within {JOB:?}"),
        }
    }
}

/// The text at a JSON pointer.
///
/// # Errors
/// When there is none.
pub fn text(value: &Value, pointer: &str) -> Result<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("{pointer} in {value}"))
}
