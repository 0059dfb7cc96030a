//! A gateway with what it talks to: identity is a double until the real one is wired in by the whole-system tests; the
//! other services are small and real.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::RoleType;
use contract::api::{Caller, JobResult, Success};
use contract_identity::authority_server::{Authority, AuthorityServer};
use contract_identity::password_login_answer::Outcome;
use contract_identity::*;
use contract_infra::async_jobs_server::{AsyncJobs, AsyncJobsServer};
use contract_infra::zones_server::{Zones, ZonesServer};
use contract_infra::*;
use node::Node;
use prost::Message as _;
use store::{Db, DbConfig};
use tonic::{Request, Response, Status};

/// The double of identity: users and roles as a test sets them.
#[derive(Clone, Default)]
pub struct Identity(Arc<Mutex<Known>>, Arc<AtomicUsize>, Arc<tokio::sync::Mutex<()>>);

#[derive(Default)]
struct Known {
    users: HashMap<i64, (Credentials, String)>,
    roles: HashMap<i64, RoleRules>,
}

impl Identity {
    pub fn change(&self, user_id: i64, change: impl FnOnce(&mut Credentials)) {
        change(&mut self.0.lock().unwrap().users.get_mut(&user_id).unwrap().0);
    }

    pub fn put(&self, credentials: Credentials, password: &str) {
        self.0.lock().unwrap().users.insert(credentials.user_id, (credentials, password.into()));
    }

    pub fn role(&self, id: i64, r#type: RoleType, rules: &[(&str, bool)]) {
        let rules = rules.iter().map(|(rule, allow)| RoleRule { rule: (*rule).into(), allow: *allow }).collect();
        let role = RoleRules { id, name: format!("role {id}"), r#type: r#type.into(), rules };
        self.0.lock().unwrap().roles.insert(id, role);
    }

    /// Held while a test wants look-ups to wait.
    pub fn gate(&self) -> Arc<tokio::sync::Mutex<()>> {
        self.2.clone()
    }

    /// Look-ups of users so far.
    pub fn look_ups(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    async fn find(&self, which: impl Fn(&Credentials) -> bool) -> CredentialsAnswer {
        self.1.fetch_add(1, Ordering::SeqCst);
        drop(self.2.lock().await);
        let known = self.0.lock().unwrap();
        CredentialsAnswer { credentials: known.users.values().map(|(c, _)| c).find(|c| which(c)).cloned() }
    }
}

#[tonic::async_trait]
impl Authority for Identity {
    async fn by_api_key(&self, request: Request<ByApiKeyRequest>) -> Result<Response<CredentialsAnswer>, Status> {
        rpc::cx::caller_of(&request)?;
        let key = request.into_inner().api_key;
        Ok(Response::new(self.find(|c| c.api_key.as_deref() == Some(&key)).await))
    }

    async fn by_user(&self, request: Request<ByUserRequest>) -> Result<Response<CredentialsAnswer>, Status> {
        let id = request.into_inner().user_id;
        Ok(Response::new(self.find(|c| c.user_id == id).await))
    }

    async fn login(&self, request: Request<PasswordLogin>) -> Result<Response<PasswordLoginAnswer>, Status> {
        let login = request.into_inner();
        if login.domain_path.as_deref().is_some_and(|p| p != "/a/") || login.domain_id.as_deref() == Some("99") {
            return Ok(Response::new(PasswordLoginAnswer { outcome: Outcome::NoDomain.into(), ..Default::default() }));
        }
        let known = self.0.lock().unwrap();
        let found = known.users.values().find(|(c, password)| {
            c.user_name == login.user_name && *password == login.password && c.user_enabled && c.account_enabled
        });
        Ok(Response::new(match found {
            Some((c, _)) => PasswordLoginAnswer {
                outcome: Outcome::Accepted.into(),
                credentials: Some(c.clone()),
                domain_id: c.domain_id,
            },
            None => PasswordLoginAnswer { outcome: Outcome::Refused.into(), domain_id: 1, credentials: None },
        }))
    }

    async fn role_rules(&self, request: Request<RoleRulesRequest>) -> Result<Response<RoleRulesAnswer>, Status> {
        let role = self.0.lock().unwrap().roles.get(&request.into_inner().role_id).cloned();
        Ok(Response::new(RoleRulesAnswer { role }))
    }
}

/// A small orchestrator: zones by name in memory, and one job.
#[derive(Clone, Default)]
pub struct Orchestrator {
    /// The last caller.
    pub caller: Arc<Mutex<Caller>>,
    /// The last listZones.
    pub listed: Arc<Mutex<ListZonesRequest>>,
    /// What the next call fails with.
    pub fail: Arc<Mutex<Option<contract::ApiError>>>,
    /// Held while a test wants calls to wait.
    pub gate: Arc<tokio::sync::Mutex<()>>,
    /// How many calls came.
    pub calls: Arc<AtomicUsize>,
    /// How long a call's work takes, in milliseconds.
    pub work: Arc<AtomicU64>,
}

impl Orchestrator {
    async fn enter<T>(&self, request: Request<T>) -> Result<T, Status> {
        *self.caller.lock().unwrap() = rpc::cx::caller_of(&request)?;
        self.calls.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock().await);
        match self.work.load(Ordering::SeqCst) {
            0 => {}
            millis => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
        self.answer(request)
    }

    fn answer<T>(&self, request: Request<T>) -> Result<T, Status> {
        match self.fail.lock().unwrap().take() {
            Some(error) => Err(error.into()),
            None => Ok(request.into_inner()),
        }
    }
}

pub fn zone(name: &str) -> Zone {
    Zone {
        id: Some("a1229f2d-3565-484d-bc4f-166606af4da7".into()),
        name: Some(name.into()),
        dns1: Some("10.147.28.6".into()),
        network_type: Some("Advanced".into()),
        security_groups_enabled: Some(false),
        ..Zone::default()
    }
}

#[tonic::async_trait]
impl Zones for Orchestrator {
    async fn create(&self, request: Request<CreateZoneRequest>) -> Result<Response<Zone>, Status> {
        let request = self.enter(request).await?;
        Ok(Response::new(zone(request.name())))
    }

    async fn update(&self, request: Request<UpdateZoneRequest>) -> Result<Response<Zone>, Status> {
        self.enter(request).await?;
        Ok(Response::new(zone("z")))
    }

    async fn delete(&self, request: Request<DeleteZoneRequest>) -> Result<Response<Success>, Status> {
        self.enter(request).await?;
        Ok(Response::new(Success { success: true, display_text: None }))
    }

    async fn list(&self, request: Request<ListZonesRequest>) -> Result<Response<ListZonesResponse>, Status> {
        let request = self.enter(request).await?;
        *self.listed.lock().unwrap() = request.clone();
        if request.keyword() == "nosuchzone" {
            return Ok(Response::new(ListZonesResponse::default()));
        }
        Ok(Response::new(ListZonesResponse { count: Some(1), zone: vec![zone("Sandbox-simulator")] }))
    }
}

#[tonic::async_trait]
impl AsyncJobs for Orchestrator {
    async fn query(&self, request: Request<QueryAsyncJobResultRequest>) -> Result<Response<AsyncJob>, Status> {
        self.answer(request)?;
        let result = JobResult {
            command: "deleteDomain".into(),
            output: Success { success: true, display_text: None }.encode_to_vec(),
            error: None,
        };
        Ok(Response::new(AsyncJob { job_status: Some(1), job_result: Some(result), ..AsyncJob::default() }))
    }

    async fn list(&self, request: Request<ListAsyncJobsRequest>) -> Result<Response<ListAsyncJobsResponse>, Status> {
        self.enter(request).await?;
        Ok(Response::new(ListAsyncJobsResponse::default()))
    }
}

/// A gateway that serves, and what is around it.
pub struct Cloud {
    pub node: Node,
    pub identity: Identity,
    pub orchestrator: Orchestrator,
    pub serving: arcus_gateway::Serving,
    pub http: reqwest::Client,
    pub db: testkit::TestDb,
}

pub const ADMIN: (&str, &str) = ("admin-key", "admin-secret");
pub const USER: (&str, &str) = ("user-key", "user-secret");

/// Another user with a role that lists.
pub fn another(user_id: i64, name: &str, keys: (&str, &str)) -> Credentials {
    credentials(user_id, name, 4, RoleType::User, keys)
}

fn credentials(user_id: i64, name: &str, role_id: i64, role: RoleType, keys: (&str, &str)) -> Credentials {
    Credentials {
        user_id,
        user_uuid: format!("00000000-0000-4000-8000-{user_id:012}"),
        user_name: name.into(),
        first_name: "First".into(),
        last_name: "Last".into(),
        user_enabled: true,
        api_key: Some(keys.0.into()),
        secret_key: Some(keys.1.into()),
        account_id: user_id,
        account_uuid: format!("00000000-0000-4000-9000-{user_id:012}"),
        account_name: name.into(),
        account_type: i32::from(role == RoleType::Admin),
        account_enabled: true,
        domain_id: 1,
        domain_uuid: "00000000-0000-4000-a000-000000000001".into(),
        domain_path: "/1/".into(),
        domain_active: true,
        role_id,
        role_type: role.into(),
        ..Credentials::default()
    }
}

impl Cloud {
    /// A gateway on SQLite.
    pub async fn start() -> Cloud {
        Cloud::with(|_| {}, None).await
    }

    /// A gateway with other options, and settings made before it starts.
    pub async fn with(options: impl FnOnce(&mut arcus_gateway::Options), setting: Option<(&str, &str)>) -> Cloud {
        let test_db = testkit::TestDb::sqlite();
        let db = Db::connect(&DbConfig::new(test_db.url())).await.unwrap();
        let (node, net) = Node::for_tests(db).await;
        node.db.migrate(arcus_gateway::MIGRATIONS).await.unwrap();
        let identity = Identity::default();
        identity.role(1, RoleType::Admin, &[]);
        identity.role(4, RoleType::User, &[("list*", true), ("queryAsyncJobResult", true), ("createNetwork", false)]);
        identity.put(credentials(2, "admin", 1, RoleType::Admin, ADMIN), "password");
        identity.put(credentials(5, "jo", 4, RoleType::User, USER), "secret");
        let orchestrator = Orchestrator::default();
        let routes = tonic::service::Routes::new(AuthorityServer::new(identity.clone()));
        serve(&node, net.listen("identity"), routes);
        let mut routes = tonic::service::Routes::new(ZonesServer::new(orchestrator.clone()));
        routes = routes.add_service(AsyncJobsServer::new(orchestrator.clone()));
        serve(&node, net.listen("orchestrator"), routes);
        let mut made = arcus_gateway::Options::http(SocketAddr::from(([127, 0, 0, 1], 0)));
        options(&mut made);
        let cloud = |serving| Cloud {
            node: node.clone(),
            identity,
            orchestrator,
            serving,
            http: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
            db: test_db,
        };
        if let Some((name, value)) = setting {
            set(&node, name, value).await;
        }
        cloud(arcus_gateway::start(node.clone(), made).await.unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://{}/client/api", self.serving.http[0])
    }

    /// A signed GET.
    pub async fn get(&self, keys: (&str, &str), pairs: &[(&str, &str)]) -> Answer {
        self.raw(&format!("{}?{}", self.url(), signed(keys, pairs))).await
    }

    /// A GET as it stands.
    pub async fn raw(&self, url: &str) -> Answer {
        Answer::of(self.http.get(url).send().await.unwrap()).await
    }

    /// A POST form.
    pub async fn post(&self, pairs: &[(&str, &str)]) -> Answer {
        let body = pairs.iter().map(|(n, v)| format!("{}={}", escape(n), escape(v))).collect::<Vec<_>>().join("&");
        self.post_body(body).await
    }

    pub async fn post_body(&self, body: String) -> Answer {
        let request = self.http.post(self.url()).header("content-type", "application/x-www-form-urlencoded");
        Answer::of(request.body(body).send().await.unwrap()).await
    }

    /// A GET within a session.
    pub async fn session(&self, session: &Login, pairs: &[(&str, &str)]) -> Answer {
        let query = pairs.iter().map(|(n, v)| format!("{}={}", escape(n), escape(v))).collect::<Vec<_>>().join("&");
        let request = self.http.get(format!("{}?{query}", self.url()));
        Answer::of(request.header("cookie", format!("JSESSIONID={}", session.id)).send().await.unwrap()).await
    }

    pub async fn login(&self, user: &str, password: &str) -> Login {
        let answer = self
            .post(&[
                ("command", "login"),
                ("username", user),
                ("password", password),
                ("domain", "/"),
                ("response", "json"),
            ])
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let id = answer.cookies.iter().find_map(|c| c.strip_prefix("JSESSIONID=")).unwrap();
        Login {
            id: id.split(';').next().unwrap().to_owned(),
            key: answer.json()["loginresponse"]["sessionkey"].as_str().unwrap().to_owned(),
            answer,
        }
    }

    pub async fn set(&self, name: &str, value: &str) {
        set(&self.node, name, value).await;
    }
}

async fn set(node: &Node, name: &str, value: &str) {
    store::tx!(node.db, "set", |tx| node.settings.set(tx, name, value, config::Scope::Global).await).await.unwrap();
    testkit::eventually(|| async {
        let setting = config::find(name).unwrap();
        (node.settings.text(setting, config::Scope::Global).as_deref() == Some(value)).then_some(())
    })
    .await;
}

fn serve(node: &Node, incoming: rpc::LocalIncoming, routes: tonic::service::Routes) {
    let stop = node.stop.clone();
    tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await
            .unwrap();
    });
}

/// A session and its login's answer.
pub struct Login {
    pub id: String,
    pub key: String,
    pub answer: Answer,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub cookies: Vec<String>,
    pub body: String,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> Answer {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let cookies = headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        Answer { status, headers, cookies, body: response.text().await.unwrap() }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

pub fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// The signed query string, as the `cs` client makes it.
pub fn signed((key, secret): (&str, &str), pairs: &[(&str, &str)]) -> String {
    let mut all: Vec<(&str, &str)> = pairs.to_vec();
    all.push(("apiKey", key));
    if !pairs.iter().any(|(n, _)| *n == "response") {
        all.push(("response", "json"));
    }
    all.sort_by_key(|(name, _)| name.to_lowercase());
    let plain: Vec<String> =
        all.iter().map(|(n, v)| format!("{n}={}", escape(v).replace("%2A", "*")).to_lowercase()).collect();
    let mac =
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes()), plain.join("&").as_bytes());
    let mut query: Vec<String> = all.iter().map(|(n, v)| format!("{}={}", escape(n), escape(v))).collect();
    query.push(format!("signature={}", escape(&STANDARD.encode(mac))));
    query.join("&")
}
