//! The gateway before the real identity service: sign-in, roles and changes as users see them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Answer, escape, signed};
use contract::secret::Secret;
use identity::IdentityOptions;
use node::Node;
use serde_json::{Value, json};
use std::net::SocketAddr;
use store::{Db, DbConfig};
use tonic::transport::Server;

struct World {
    node: Node,
    url: String,
    http: reqwest::Client,
    admin: (String, String),
    _db: testkit::TestDb,
}

async fn start(test_db: testkit::TestDb) -> World {
    let db = Db::connect(&DbConfig::new(test_db.url())).await.unwrap();
    let (node, net) = Node::for_tests(db).await;
    for migrations in
        [jobs::MIGRATIONS, events::MIGRATIONS, model::tags::MIGRATIONS, identity::MIGRATIONS, arcus_gateway::MIGRATIONS]
    {
        node.db.migrate(migrations).await.unwrap();
    }
    let options = IdentityOptions {
        admin_password: Secret::new("password".into()),
        ensure_admin_keys: true,
        patience: identity::PATIENCE,
    };
    let routes = identity::start(node.clone(), options).await.unwrap();
    let incoming = net.listen("identity");
    tokio::spawn(async move { Server::builder().add_routes(routes).serve_with_incoming(incoming).await });
    let options = arcus_gateway::Options::http(SocketAddr::from(([127, 0, 0, 1], 0)));
    let serving = arcus_gateway::start(node.clone(), options).await.unwrap();
    let admin = identity::admin_keys(&node).await.unwrap();
    let url = format!("http://{}/client/api", serving.http[0]);
    World { node, url, http: reqwest::Client::new(), admin, _db: test_db }
}

impl World {
    async fn call(&self, keys: &(String, String), pairs: &[(&str, &str)]) -> Answer {
        let url = format!("{}?{}", self.url, signed((&keys.0, &keys.1), pairs));
        Answer::of(self.http.get(url).send().await.unwrap()).await
    }

    /// What the administrator is answered, within the wrapper.
    async fn admin(&self, pairs: &[(&str, &str)]) -> Value {
        let answer = self.call(&self.admin, pairs).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json().as_object().unwrap().values().next().unwrap().clone()
    }

    async fn login(&self, user: &str, password: &str) -> Answer {
        let form = format!("command=login&response=json&username={}&password={}", escape(user), escape(password));
        let request = self.http.post(&self.url).header("content-type", "application/x-www-form-urlencoded");
        Answer::of(request.body(form).send().await.unwrap()).await
    }

    /// Makes an account with one user; gives the user's id and keys.
    async fn account(&self, name: &str) -> (String, (String, String)) {
        let made = self
            .admin(&[
                ("command", "createAccount"),
                ("accounttype", "0"),
                ("email", "a@example.org"),
                ("firstname", "F"),
                ("lastname", "L"),
                ("username", name),
                ("password", "pw-12345"),
            ])
            .await;
        let user = made["account"]["user"][0]["id"].as_str().unwrap().to_owned();
        let keys = self.admin(&[("command", "registerUserKeys"), ("id", &user)]).await["userkeys"].clone();
        let text = |name: &str| keys[name].as_str().unwrap().to_owned();
        (user, (text("apikey"), text("secretkey")))
    }
}

testkit::databases! {
    // covers: API-011 API-014 API-016
    async fn users_sign_in_and_do_what_their_role_allows(db: testkit::TestDb) {
        let world = start(db).await;
        let users = world.admin(&[("command", "listUsers")]).await;
        assert_eq!((&users["count"], &users["user"][0]["username"]), (&json!(1), &json!("admin")));
        let (user, keys) = world.account("jo").await;
        let own = world.call(&keys, &[("command", "listUsers")]).await;
        assert_eq!(own.json()["listusersresponse"]["user"][0]["username"], "jo", "{}", own.body);
        assert_eq!(world.call(&keys, &[("command", "createDomain"), ("name", "x")]).await.status, 401);
        let apis = world.call(&keys, &[("command", "listApis")]).await.json()["listapisresponse"].clone();
        let names: Vec<&str> = apis["api"].as_array().unwrap().iter().filter_map(|a| a["name"].as_str()).collect();
        assert!(names.contains(&"listUsers") && names.contains(&"deployVirtualMachine"));
        assert!(!names.contains(&"addHost") && !names.contains(&"createDomain"));

        assert_eq!(world.login("jo", "wrong").await.status, 531);
        let login = world.login("jo", "pw-12345").await;
        assert_eq!(login.json()["loginresponse"]["account"], "jo", "{}", login.body);

        // New keys replace the old pair at once.
        let new = world.admin(&[("command", "registerUserKeys"), ("id", &user)]).await["userkeys"].clone();
        let new = (new["apikey"].as_str().unwrap().to_owned(), new["secretkey"].as_str().unwrap().to_owned());
        testkit::eventually(|| async {
            (world.call(&keys, &[("command", "listUsers")]).await.status == 401).then_some(())
        }).await;
        assert_eq!(world.call(&new, &[("command", "listUsers")]).await.status, 200);
        world.node.stop.cancel();
    }

    async fn a_disabled_user_is_out_at_once(db: testkit::TestDb) {
        let world = start(db).await;
        let (user, keys) = world.account("jo").await;
        assert_eq!(world.call(&keys, &[("command", "listUsers")]).await.status, 200);
        let login = world.login("jo", "pw-12345").await;
        let session = login.cookies.iter().find(|c| c.starts_with("JSESSIONID=")).unwrap().split(';').next().unwrap();
        let key = login.json()["loginresponse"]["sessionkey"].as_str().unwrap().to_owned();
        let in_session = || async {
            let request = world.http.get(format!("{}?command=listUsers&sessionkey={key}", world.url));
            request.header("cookie", session).send().await.unwrap().status().as_u16()
        };
        assert_eq!(in_session().await, 200);
        world.admin(&[("command", "disableUser"), ("id", &user)]).await;
        testkit::eventually(|| async {
            (world.call(&keys, &[("command", "listUsers")]).await.status == 401).then_some(())
        }).await;
        assert_eq!(in_session().await, 401);
        assert_eq!(world.login("jo", "pw-12345").await.status, 531);
        world.node.stop.cancel();
    }
}
