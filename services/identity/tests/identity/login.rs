use crate::world::{World, as_, ok};
use contract_identity::password_login_answer::Outcome;
use contract_identity::{DisableAccountRequest, EnableUserRequest, PasswordLogin};
use coord::Notice;
use std::time::Duration;

testkit::databases! {
    // covers: IAM-014, IAM-015
    async fn passwords_and_domains(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let answer = w.login("admin", "password", None).await;
        assert_eq!(answer.outcome(), Outcome::Accepted);
        assert_eq!(answer.credentials.unwrap().account_type, 1);
        let comp = w.make_domain(&root, "Comp1", None).await;
        let sales = w.make_domain(&root, "sales", Some(&comp)).await;
        let a = w.make_account(&root, "u", 0, Some(&comp)).await;
        let b = w.make_account(&root, "u", 0, Some(&sales)).await;
        for (path, expected) in [
            ("Comp1/sales", &b), ("/Comp1/sales", &b), ("/Comp1/sales/", &b), ("comp1/Sales", &b), ("Comp1", &a), ("/Comp1/", &a),
        ] {
            let got = w.login("u", "secret", Some(path)).await;
            assert_eq!(got.credentials.map(|c| c.account_uuid), expected.id, "{path}");
        }
        assert_eq!(w.login("u", "secret", None).await.outcome(), Outcome::Refused);
        assert_eq!(w.login("u", "secret", Some("/")).await.outcome(), Outcome::Refused);
        assert_eq!(w.login("u", "secret", Some("/no/such/")).await.outcome(), Outcome::NoDomain);
        assert_eq!(w.login("system", "", None).await.outcome(), Outcome::Refused);
        // The id wins over the path.
        for id in [sales.id().to_owned(), w.number("domains", sales.id()).await.to_string()] {
            let request = PasswordLogin {
                user_name: "u".into(), password: "secret".into(), domain_path: Some("/Comp1/".into()), domain_id: Some(id),
                remote_address: String::new(),
            };
            let got = w.authority().login(request).await.unwrap().into_inner();
            assert_eq!(got.credentials.map(|c| c.account_uuid), b.id);
        }
        assert!(w.events().await.contains(&"USER.LOGIN".into()));
    }

    async fn too_many_failures_disable_a_user(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let account = w.make_account(&root, "u", 0, None).await;
        let mut told = w.node.coord.subscribe("identity");
        for _ in 0..4 {
            assert_eq!(w.login("u", "wrong", None).await.outcome(), Outcome::Refused);
        }
        assert_eq!(w.login("u", "secret", None).await.outcome(), Outcome::Accepted, "which forgets the failures");
        for _ in 0..5 {
            assert_eq!(w.login("u", "wrong", None).await.outcome(), Outcome::Refused);
        }
        assert_eq!(w.login("u", "secret", None).await.outcome(), Outcome::Refused);
        let number = w.number("users", account.user[0].id()).await;
        let notice = tokio::time::timeout(Duration::from_secs(10), told.next()).await.unwrap();
        assert_eq!(notice, Notice::Message(format!("user/{number}")));
        ok(w.users().enable(as_(&root, EnableUserRequest { id: account.user[0].id.clone() }))).await;
        assert_eq!(w.login("u", "secret", None).await.outcome(), Outcome::Accepted);
        for _ in 0..7 {
            w.login("admin", "wrong", None).await;
        }
        assert_eq!(w.login("admin", "password", None).await.outcome(), Outcome::Accepted, "root admins can't be shut out so");
        let disable = DisableAccountRequest { id: account.id, lock: Some(true), ..Default::default() };
        let job = ok(w.accounts().disable(as_(&root, disable))).await;
        w.job::<contract_identity::Account>(job).await.unwrap();
        assert_eq!(w.login("u", "secret", None).await.outcome(), Outcome::Refused, "the account is locked");
    }
}
