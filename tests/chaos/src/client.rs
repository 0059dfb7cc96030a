//! A client as sane ones are: signed requests, an idempotency key on whatever changes something, the same request again
//! when no answer came or the answer was "not now", and patience with jobs. Everything it sends and gets is written down.

use crate::history::{Answer, Event, Failure, History, Intent, Outcome};
use anyhow::{Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng as _;
use serde_json::Value;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for one answer.
const ANSWER_IN: Duration = Duration::from_secs(15);
/// Longest repetition of one request.
const ACCEPTED_IN: Duration = Duration::from_secs(60);
/// Longest wait for a job.
const JOB_IN: Duration = Duration::from_secs(180);

static NEXT_OP: AtomicU64 = AtomicU64::new(1);

/// One user's keys, and where to send to. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    number: usize,
    account: String,
    key: String,
    secret: String,
    /// The first is the one for everyday; the others when it doesn't answer, or when asked for.
    endpoints: Arc<Vec<String>>,
    history: Arc<History>,
    http: Http<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client. `endpoints` are URLs that end in `/client/api`.
    pub fn new(
        number: usize,
        account: &str,
        keys: (&str, &str),
        endpoints: Vec<String>,
        history: Arc<History>,
    ) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(3)));
        Client {
            number,
            account: account.to_owned(),
            key: keys.0.to_owned(),
            secret: keys.1.to_owned(),
            endpoints: Arc::new(endpoints),
            history,
            http: Http::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// The same for another user.
    #[must_use]
    pub fn keyed(&self, number: usize, account: &str, key: &str, secret: &str) -> Client {
        Client { number, account: account.into(), key: key.into(), secret: secret.into(), ..self.clone() }
    }

    /// Does an operation, to its end.
    pub async fn perform(&self, intent: Intent, command: &str, params: &[(&str, &str)]) -> Outcome {
        self.perform_at(None, intent, command, params).await
    }

    /// Does an operation; the first request goes to the endpoint of this number instead of the everyday one.
    pub async fn perform_at(
        &self,
        first: Option<usize>,
        intent: Intent,
        command: &str,
        params: &[(&str, &str)],
    ) -> Outcome {
        let op = NEXT_OP.fetch_add(1, Ordering::Relaxed);
        let key = intent.mutates().then(|| format!("chaos-{}-{op}-{:08x}", self.number, rand::random::<u32>()));
        self.history.write(Event::Invoke {
            op,
            client: self.number,
            account: self.account.clone(),
            command: command.to_owned(),
            params: params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            key: key.clone(),
            intent,
        });
        let mut pairs = params.to_vec();
        pairs.extend(key.as_deref().map(|key| ("idempotencykey", key)));
        let outcome = self.to_the_end(op, first, command, &pairs).await;
        self.history.write(Event::Done { op, outcome: outcome.clone() });
        outcome
    }

    async fn to_the_end(&self, op: u64, first: Option<usize>, command: &str, params: &[(&str, &str)]) -> Outcome {
        let begun = Instant::now();
        let mut at = first.unwrap_or(0);
        let (value, job) = loop {
            let (answer, value) = self.attempt(op, at, false, command, params).await;
            match &answer {
                Answer::Reply { error: None, job, .. } => break (value, job.clone()),
                Answer::Reply { error: Some(error), .. } if !not_now(error) => {
                    return Outcome::Refused { error: error.clone() };
                }
                other if begun.elapsed() > ACCEPTED_IN => {
                    return Outcome::Unknown { job: None, why: format!("the last answer was {other:?}") };
                }
                _ => {}
            }
            at = self.next(at);
            breathe(begun.elapsed()).await;
        };
        let Some(job) = job.filter(|_| command != "queryAsyncJobResult") else {
            return Outcome::Ok { value, job: None };
        };
        self.await_job(op, at, job).await
    }

    async fn await_job(&self, op: u64, mut at: usize, job: String) -> Outcome {
        let begun = Instant::now();
        loop {
            let (answer, value) = self.attempt(op, at, true, "queryAsyncJobResult", &[("jobid", &job)]).await;
            match answer {
                Answer::Reply { job_status: Some(1), .. } => {
                    return Outcome::Ok { value: result_of(&value), job: Some(job) };
                }
                Answer::Reply { job_status: Some(2), .. } => {
                    return Outcome::Failed { job, error: failure(&result_of(&value)).unwrap_or_default() };
                }
                Answer::Reply { error: None, .. } => {}
                _ => at = self.next(at),
            }
            if begun.elapsed() > JOB_IN {
                return Outcome::Unknown { job: Some(job), why: "its job didn't end in time".into() };
            }
            breathe(begun.elapsed()).await;
            // Any gateway tells the same.
            if rand::rng().random_bool(0.2) {
                at = self.next(at);
            }
        }
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) % self.endpoints.len().max(1)
    }

    async fn attempt(&self, op: u64, at: usize, poll: bool, command: &str, params: &[(&str, &str)]) -> (Answer, Value) {
        let endpoint = &self.endpoints[at % self.endpoints.len()];
        let sent = self.history.now();
        let (answer, value) = self.send(endpoint, command, params).await;
        self.history.write(Event::Attempt { op, endpoint: endpoint.clone(), sent, poll, answer: answer.clone() });
        (answer, value)
    }

    async fn send(&self, endpoint: &str, command: &str, params: &[(&str, &str)]) -> (Answer, Value) {
        let mut pairs = params.to_vec();
        pairs.extend([("command", command), ("apiKey", self.key.as_str()), ("response", "json")]);
        let encode = |v: &str| utf8_percent_encode(v, NON_ALPHANUMERIC).to_string();
        let name = |n: &str| if n.contains('[') { n.to_owned() } else { encode(n) };
        let query: Vec<String> = pairs.iter().map(|(k, v)| format!("{}={}", name(k), encode(v))).collect();
        let mut query = query.join("&");
        let signature = gateway::sign_query(&query, self.secret.as_bytes()).unwrap_or_default();
        query.push_str("&signature=");
        query.push_str(&encode(&signature));
        let Ok(uri) = format!("{endpoint}?{query}").parse() else { return (Answer::NoConnection, Value::Null) };
        let exchange = async {
            let answer = match self.http.get(uri).await {
                Ok(answer) => answer,
                Err(e) if e.is_connect() => return (Answer::NoConnection, Value::Null),
                Err(_) => return (Answer::Lost, Value::Null),
            };
            let status = answer.status().as_u16();
            match answer.into_body().collect().await {
                Ok(body) => read(command, status, &body.to_bytes()),
                Err(_) => (Answer::Lost, Value::Null),
            }
        };
        tokio::time::timeout(ANSWER_IN, exchange).await.unwrap_or((Answer::Lost, Value::Null))
    }

    /// Sends a request that isn't part of the history, to one endpoint, until it is answered; gives what stands in its
    /// wrapper, or its job's result.
    ///
    /// # Errors
    /// The API's error, or that no answer came.
    pub async fn plain(&self, endpoint: &str, command: &str, params: &[(&str, &str)]) -> Result<Value> {
        let begun = Instant::now();
        let value = loop {
            let (answer, value) = self.send(endpoint, command, params).await;
            match answer {
                Answer::Reply { error: None, .. } => break value,
                Answer::Reply { error: Some(error), .. } if !not_now(&error) => {
                    bail!("{command}: {}/{} {}", error.code, error.cs, error.text)
                }
                other if begun.elapsed() > ACCEPTED_IN => bail!("{command} at {endpoint}: {other:?}"),
                _ => breathe(begun.elapsed()).await,
            }
        };
        let job = value.get("jobid").and_then(Value::as_str).filter(|_| command != "queryAsyncJobResult");
        let Some(job) = job else { return Ok(value) };
        loop {
            let state = Box::pin(self.plain(endpoint, "queryAsyncJobResult", &[("jobid", job)])).await?;
            match state.get("jobstatus").and_then(Value::as_i64) {
                Some(1) => return Ok(result_of(&state)),
                Some(2) => bail!("{command}: {}", result_of(&state)),
                _ if begun.elapsed() > JOB_IN => bail!("{command}: its job didn't end in time"),
                _ => breathe(begun.elapsed()).await,
            }
        }
    }

    /// The same at the everyday endpoint.
    ///
    /// # Errors
    /// As [`Client::plain`].
    pub async fn call(&self, command: &str, params: &[(&str, &str)]) -> Result<Value> {
        self.plain(&self.endpoints[0], command, params).await
    }

    /// How many endpoints there are.
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }
}

/// Whether an error asks for the same request again, later.
fn not_now(error: &Failure) -> bool {
    matches!(error.code, 502..=504 | 534)
}

/// A tenth of the age, so that waiting clients don't ask a server to death.
async fn breathe(age: Duration) {
    let pause = (age / 10).clamp(Duration::from_millis(20), Duration::from_millis(500));
    let share = rand::rng().random_range(0.5..1.5);
    tokio::time::sleep(pause.mul_f64(share)).await;
}

fn result_of(value: &Value) -> Value {
    value.get("jobresult").cloned().unwrap_or_default()
}

fn failure(value: &Value) -> Option<Failure> {
    let text = value.get("errortext").and_then(Value::as_str)?;
    let number = |key: &str| value.get(key).and_then(Value::as_i64).unwrap_or_default();
    Some(Failure { code: number("errorcode"), cs: number("cserrorcode"), text: text.to_owned() })
}

/// Reads a body: an answer of the API has one wrapper, named after its command.
fn read(command: &str, status: u16, body: &[u8]) -> (Answer, Value) {
    let garbled = || {
        let body: String = String::from_utf8_lossy(body).chars().take(200).collect();
        (Answer::Garbled { status, body }, Value::Null)
    };
    let Ok(Value::Object(wrapper)) = serde_json::from_slice::<Value>(body) else { return garbled() };
    let Some((name, inner)) = wrapper.into_iter().next() else { return garbled() };
    let expected = format!("{}response", command.to_lowercase());
    let error = failure(&inner);
    if name.to_lowercase() != expected && !(error.is_some() && name == "errorresponse") {
        return garbled();
    }
    let job = inner.get("jobid").and_then(Value::as_str).map(str::to_owned);
    let job_status = inner.get("jobstatus").and_then(Value::as_i64);
    let result = job_status.filter(|s| *s != 0).map(|_| {
        let mut digest = DefaultHasher::new();
        result_of(&inner).to_string().hash(&mut digest);
        digest.finish()
    });
    (Answer::Reply { status, error, job, job_status, result }, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_other_commands_are_garbled() {
        let body = br#"{"listzonesresponse":{"count":1}}"#;
        assert!(matches!(read("listZones", 200, body).0, Answer::Reply { error: None, .. }));
        assert!(matches!(read("listVolumes", 200, body).0, Answer::Garbled { .. }));
        assert!(matches!(read("listZones", 503, b"<html>").0, Answer::Garbled { status: 503, .. }));
        assert!(matches!(read("listZones", 200, br#"{"listzonesresponse":{"cou"#).0, Answer::Garbled { .. }));
    }

    #[test]
    fn errors_and_jobs_are_read() {
        let body =
            br#"{"stopvirtualmachineresponse":{"uuidList":[],"errorcode":534,"cserrorcode":4380,"errortext":"x"}}"#;
        let (Answer::Reply { error: Some(error), .. }, _) = read("stopVirtualMachine", 534, body) else {
            panic!("no error")
        };
        assert_eq!((error.code, error.cs), (534, 4380));
        assert!(not_now(&error));
        let body = br#"{"queryasyncjobresultresponse":{"jobid":"j","jobstatus":1,"jobresult":{"success":true}}}"#;
        let (Answer::Reply { job, job_status, result, .. }, _) = read("queryAsyncJobResult", 200, body) else {
            panic!("no answer")
        };
        assert_eq!((job.as_deref(), job_status, result.is_some()), (Some("j"), Some(1), true));
    }
}
