//! A running identity service with an empty database, and people who call it.

use contract::ApiError;
use contract::api::{Caller, JobRef};
use contract::secret::Secret;
use contract_identity::accounts_client::AccountsClient;
use contract_identity::authority_client::AuthorityClient;
use contract_identity::domains_client::DomainsClient;
use contract_identity::limits_client::LimitsClient;
use contract_identity::resource_limits_client::ResourceLimitsClient;
use contract_identity::roles_client::RolesClient;
use contract_identity::users_client::UsersClient;
use contract_identity::{
    Account, ByUserRequest, CreateAccountRequest, CreateDomainRequest, Credentials, Domain, ListUsersRequest,
    PasswordLogin, PasswordLoginAnswer,
};
use identity::IdentityOptions;
use node::Node;
use rpc::LocalNet;
use rpc::PeerChannel;
use std::future::Future;
use std::sync::Arc;
use store::{Db, DbConfig, Sql};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub struct World {
    pub node: Node,
    pub net: Arc<LocalNet>,
    _db: testkit::TestDb,
}

pub fn options() -> IdentityOptions {
    IdentityOptions {
        admin_password: Secret::new("password".into()),
        ensure_admin_keys: true,
        patience: std::time::Duration::from_secs(1),
    }
}

impl World {
    pub async fn new(test_db: testkit::TestDb) -> World {
        let world = World::unserved(test_db).await;
        world.serve().await;
        world
    }

    /// Without a replica: tables of other services can still be made.
    pub async fn unserved(test_db: testkit::TestDb) -> World {
        let db = Db::connect(&DbConfig::new(test_db.url())).await.unwrap();
        let (node, net) = Node::for_tests(db).await;
        for migrations in [jobs::MIGRATIONS, events::MIGRATIONS, model::tags::MIGRATIONS, identity::MIGRATIONS] {
            node.db.migrate(migrations).await.unwrap();
        }
        World { node, net, _db: test_db }
    }

    pub async fn serve(&self) {
        let routes = identity::start(self.node.clone(), options()).await.unwrap();
        let incoming = self.net.listen("identity");
        tokio::spawn(async move { Server::builder().add_routes(routes).serve_with_incoming(incoming).await });
    }

    fn channel(&self) -> PeerChannel {
        self.node.peers.identity()
    }

    pub fn domains(&self) -> DomainsClient<PeerChannel> {
        DomainsClient::new(self.channel())
    }
    pub fn accounts(&self) -> AccountsClient<PeerChannel> {
        AccountsClient::new(self.channel())
    }
    pub fn users(&self) -> UsersClient<PeerChannel> {
        UsersClient::new(self.channel())
    }
    pub fn roles(&self) -> RolesClient<PeerChannel> {
        RolesClient::new(self.channel())
    }
    pub fn limits(&self) -> LimitsClient<PeerChannel> {
        LimitsClient::new(self.channel())
    }
    pub fn resource_limits(&self) -> ResourceLimitsClient<PeerChannel> {
        ResourceLimitsClient::new(self.channel())
    }
    pub fn authority(&self) -> AuthorityClient<PeerChannel> {
        AuthorityClient::new(self.channel())
    }

    /// The built-in administrator.
    pub async fn root(&self) -> Caller {
        self.caller(2).await
    }

    /// A user as a caller.
    pub async fn caller(&self, user: i64) -> Caller {
        let answer = self.authority().by_user(ByUserRequest { user_id: user }).await.unwrap().into_inner();
        as_caller(&answer.credentials.unwrap())
    }

    /// The only user of an account as a caller.
    pub async fn caller_of(&self, account: &Account) -> Caller {
        self.caller(self.number("users", account.user[0].id.as_deref().unwrap()).await).await
    }

    pub async fn number(&self, table: &str, uuid: &str) -> i64 {
        let sql = Sql::new(&format!("SELECT id FROM {table} WHERE uuid = ?")).bind(uuid);
        self.node.db.one(sql).await.unwrap().at(0).unwrap()
    }

    pub async fn make_domain(&self, by: &Caller, name: &str, parent: Option<&Domain>) -> Domain {
        let request = CreateDomainRequest {
            name: Some(name.into()),
            parent_domain_id: parent.and_then(|p| p.id.clone()),
            ..Default::default()
        };
        ok(self.domains().create(as_(by, request))).await
    }

    pub async fn make_account(&self, by: &Caller, name: &str, kind: i32, domain: Option<&Domain>) -> Account {
        ok(self.accounts().create(as_(by, new_account(name, kind, domain)))).await
    }

    pub async fn login(&self, name: &str, password: &str, path: Option<&str>) -> PasswordLoginAnswer {
        let request = PasswordLogin {
            user_name: name.into(),
            password: password.into(),
            domain_path: path.map(str::to_owned),
            domain_id: None,
            remote_address: "192.0.2.1".into(),
        };
        self.authority().login(request).await.unwrap().into_inner()
    }

    pub async fn usernames(&self, by: &Caller, request: ListUsersRequest) -> Vec<String> {
        let page = ok(self.users().list(as_(by, request))).await;
        assert_eq!(page.count, Some(page.user.len() as i64));
        page.user.into_iter().filter_map(|u| u.username).collect()
    }

    /// The result of a job, once it has ended.
    pub async fn job<M: prost::Message + Default>(&self, job: JobRef) -> Result<M, ApiError> {
        let view = testkit::eventually(|| async {
            jobs::view::find(&self.node.db, &job.job_id).await.unwrap().filter(|j| j.ended.is_some())
        })
        .await;
        view.output()
    }

    /// Types of the events so far.
    pub async fn events(&self) -> Vec<String> {
        let rows = self.node.db.all("SELECT kind FROM outbox WHERE topic = 'event' ORDER BY id".into()).await.unwrap();
        rows.iter().map(|r| r.at(0).unwrap()).collect()
    }
}

pub fn new_account(name: &str, kind: i32, domain: Option<&Domain>) -> CreateAccountRequest {
    CreateAccountRequest {
        account_type: Some(kind),
        domain_id: domain.and_then(|d| d.id.clone()),
        email: Some(format!("{name}@example.org")),
        first_name: Some("F".into()),
        last_name: Some("L".into()),
        password: Some("secret".into()),
        username: Some(name.into()),
        ..Default::default()
    }
}

pub fn as_caller(c: &Credentials) -> Caller {
    Caller {
        user_id: c.user_id,
        user_uuid: c.user_uuid.clone(),
        user_name: c.user_name.clone(),
        account_id: c.account_id,
        account_uuid: c.account_uuid.clone(),
        account_name: c.account_name.clone(),
        domain_id: c.domain_id,
        domain_uuid: c.domain_uuid.clone(),
        domain_path: c.domain_path.clone(),
        role_type: c.role_type,
        role_id: c.role_id,
        ..Caller::default()
    }
}

pub fn as_<T>(caller: &Caller, message: T) -> Request<T> {
    rpc::cx::request(caller, message)
}

pub async fn ok<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> T {
    match answer.await {
        Ok(r) => r.into_inner(),
        Err(status) => panic!("{}", ApiError::from(status)),
    }
}

#[track_caller]
pub fn err<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> impl Future<Output = ApiError> {
    let place = std::panic::Location::caller();
    async move {
        match answer.await {
            Ok(_) => panic!("{place} should have been refused"),
            Err(status) => status.into(),
        }
    }
}

/// The number of an error, for comparing.
pub async fn code<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> u16 {
    match answer.await {
        Ok(_) => 200,
        Err(status) => ApiError::from(status).code,
    }
}
