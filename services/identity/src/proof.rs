//! Every job of this service, failed and killed at each of its points.

use crate::deletion::{DeleteAccount, DeleteDomain};
use crate::disabling::{DisableAccount, DisableUser};
use crate::{Identity, IdentityOptions, SERVICE, assemble};
use ::store::{Db, DbConfig, Sql};
use contract::ApiError;
use contract::secret::Secret;
use contract_identity::{CreateAccountRequest, CreateDomainRequest};
use jobs::harness::{Scenario, Start, prove};
use jobs::{Accept, Claim, Job, Jobs};
use model::Owner;
use node::Node;

/// A root domain with a domain `d` (2), in it a domain `e` (3) and an account `a` (3) with a user (3), below it an account (4).
struct World {
    node: Node,
    identity: Identity,
    _db: testkit::TestDb,
}

struct Of<J>(J);

fn options() -> IdentityOptions {
    IdentityOptions {
        admin_password: Secret::new("password".into()),
        ensure_admin_keys: false,
        patience: crate::PATIENCE,
    }
}

impl World {
    async fn make() -> Result<World, ApiError> {
        let test_db = testkit::TestDb::sqlite();
        let (node, _) = Node::for_tests(Db::connect(&DbConfig::new(test_db.url())).await?).await;
        for migrations in [jobs::MIGRATIONS, events::MIGRATIONS, crate::MIGRATIONS] {
            node.db.migrate(migrations).await?;
        }
        let builder = Jobs::builder(node.db.clone(), node.coord.clone(), SERVICE, node.replica.clone());
        let (identity, _) = assemble(node.clone(), &options(), builder).await?;
        let root = rpc::cx::system_caller();
        let domain = |name: &str| CreateDomainRequest { name: Some(name.into()), ..CreateDomainRequest::default() };
        let d = identity.create_domain(&root, 1, &domain("d")).await?;
        let e = identity.create_domain(&root, 2, &domain("e")).await?;
        for (name, place) in [("a", d), ("b", e)] {
            let request = CreateAccountRequest {
                account_type: Some(0),
                first_name: Some("F".into()),
                last_name: Some("L".into()),
                password: Some("secret".into()),
                username: Some(name.into()),
                ..CreateAccountRequest::default()
            };
            let domain =
                identity.node.db.one(Sql::new("SELECT id FROM domains WHERE uuid = ?").bind(place.id())).await?;
            identity.create_account(&root, Some(domain.at(0)?), None, &request).await?;
        }
        let row = identity.domain(2).await?;
        ::store::tx!(node.db, "limit", |tx| identity
            .limits
            .set_domain(tx, &row, crate::resource::Resource::Instance, 5)
            .await)
        .await?;
        identity.limits.reserve("vm:1", 3, &[(crate::resource::Resource::Instance, 2)], "test").await?;
        Ok(World { node, identity, _db: test_db })
    }
}

impl<J: Job<World = Identity>> Scenario for Of<J> {
    type World = World;

    async fn world(&self) -> World {
        World::make().await.unwrap()
    }

    fn db<'w>(&self, world: &'w World) -> &'w Db {
        &world.node.db
    }

    fn service(&self) -> &'static str {
        SERVICE
    }

    async fn start(&self, world: &World, start: Start) -> Jobs {
        let builder =
            Jobs::builder(start.db, start.coord.clone(), SERVICE, start.replica).faults(start.faults).pace(start.pace);
        let node = Node { coord: start.coord, ..world.node.clone() };
        let (_, builder) = assemble(node, &options(), builder).await.unwrap();
        builder.start(start.stop, &start.tasks)
    }

    async fn submit(&self, world: &World, jobs: &Jobs) -> Result<String, ApiError> {
        let caller = rpc::cx::system_caller();
        let ticket = jobs.ticket().await?;
        let accept = Accept {
            job: self.0.clone(),
            owner: Owner::caller(&caller),
            caller,
            command: None,
            instance: None,
            claims: vec![Claim::Exclusive("account/3".into())],
            custom_id: None,
            description: "doing it".into(),
            entity_id: None,
        };
        let accepted =
            ::store::tx!(world.identity.node.db, "accept", |tx| jobs.accept(tx, ticket.clone(), accept.clone()).await)
                .await?;
        Ok(accepted.job_id)
    }

    async fn look(&self, world: &World) -> String {
        let mut seen = String::new();
        for sql in [
            "SELECT id, name, state, CASE WHEN removed IS NULL THEN 'here' ELSE 'gone' END FROM domains ORDER BY id",
            "SELECT id, name, state || cleanup_needed, CASE WHEN removed IS NULL THEN 'here' ELSE 'gone' END FROM accounts ORDER BY id",
            "SELECT id, username, state || LENGTH(password), CASE WHEN removed IS NULL THEN 'here' ELSE 'gone' END FROM users ORDER BY id",
            "SELECT used, slot, '', '' FROM resource_counts ORDER BY slot",
            "SELECT amount, holder, '', '' FROM limit_reservations ORDER BY holder, type",
            "SELECT max, slot, '', '' FROM resource_limits ORDER BY slot",
        ] {
            for row in world.node.db.all(sql.into()).await.unwrap() {
                let text = |n| row.at::<String>(n).unwrap();
                seen += &format!("{} {} {} {}\n", row.at::<i64>(0).unwrap(), text(1), text(2), text(3));
            }
        }
        seen
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_an_account() {
    let job = DeleteAccount { account: 3, state: "enabled".into() };
    prove(&Of(job), &["shut-out", "finish"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_domain() {
    let job = DeleteDomain { domain: 2, cleanup: true };
    prove(&Of(job), &["shut-out", "finish"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabling_an_account() {
    let job = DisableAccount { account: 3, lock: false, state: "enabled".into() };
    prove(&Of(job), &["shut-out", "finish"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabling_a_user() {
    let job = DisableUser { user: 3, state: "enabled".into() };
    prove(&Of(job), &["shut-out", "finish"]).await.unwrap();
}
