use crate::world::{World, as_, code, err, ok};
use contract::api::Caller;
use contract_identity::{
    ByApiKeyRequest, CreateUserRequest, DeleteUserRequest, DisableUserRequest, Domain, EnableUserRequest,
    GetUserKeysRequest, GetUserRequest, ListAccountsRequest, ListUsersRequest, LockUserRequest, MoveUserRequest,
    RegisterUserKeysRequest, UpdateUserRequest, User,
};

fn new_user(name: &str, account: &str, domain: Option<&Domain>) -> CreateUserRequest {
    CreateUserRequest {
        account: Some(account.into()),
        domain_id: domain.and_then(|d| d.id.clone()),
        email: Some("f@example.org".into()),
        first_name: Some("F".into()),
        last_name: Some("L".into()),
        password: Some("pw12345".into()),
        username: Some(name.into()),
        ..Default::default()
    }
}

testkit::databases! {
    // covers: IAM-022, IAM-026, IAM-027, IAM-028
    async fn user_names_are_unique_in_a_domain(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d1 = w.make_domain(&root, "d1", None).await;
        let d11 = w.make_domain(&root, "d11", Some(&d1)).await;
        w.make_account(&root, "x", 0, Some(&d1)).await;
        w.make_account(&root, "y", 0, Some(&d1)).await;
        w.make_account(&root, "x", 0, Some(&d11)).await;
        let made = ok(w.users().create(as_(&root, new_user("u", "x", Some(&d1))))).await;
        assert_eq!((made.username(), made.account(), made.state(), made.role_name()), ("u", "x", "enabled", "User"));
        assert_eq!(code(w.users().create(as_(&root, new_user("u", "x", Some(&d11))))).await, 200);
        let taken = err(w.users().create(as_(&root, new_user("u", "y", Some(&d1))))).await;
        assert_eq!((taken.code, taken.cs_code), (530, 4250));
        assert_eq!(taken.text, format!("The user u already exists in domain {}", w.number("domains", d1.id()).await));
        let other = ok(w.users().create(as_(&root, new_user("v", "y", Some(&d1))))).await;
        let rename = UpdateUserRequest { id: other.id, username: Some("U".into()), ..Default::default() };
        assert_eq!(code(w.users().update(as_(&root, rename))).await, 431);
        assert_eq!(code(w.users().create(as_(&root, new_user("z", "nobody", Some(&d1))))).await, 431);
        let of_account = ListUsersRequest { account: Some("x".into()), domain_id: d1.id.clone(), ..Default::default() };
        assert_eq!(w.usernames(&root, of_account).await, ["x", "u"]);
    }

    // covers: IAM-031
    async fn a_user_is_changed(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let account = w.make_account(&root, "acme", 0, Some(&d)).await;
        let id = account.user[0].id.clone();
        let update = UpdateUserRequest {
            id: id.clone(),
            first_name: Some("G".into()),
            email: Some("g@example.org".into()),
            password: Some("changed".into()),
            timezone: Some("Europe/Berlin".into()),
            ..Default::default()
        };
        let shown = ok(w.users().update(as_(&root, update))).await;
        assert_eq!((shown.first_name(), shown.last_name(), shown.email()), ("G", "L", "g@example.org"));
        assert!(w.login("acme", "changed", Some("d")).await.credentials.is_some());
        assert!(w.login("acme", "secret", Some("d")).await.credentials.is_none());
        // Keys of one's own choice: both or none.
        let half = UpdateUserRequest { id: id.clone(), user_api_key: Some("a".into()), ..Default::default() };
        assert_eq!(code(w.users().update(as_(&root, half.clone()))).await, 431);
        let pair = UpdateUserRequest { user_secret_key: Some("s".into()), ..half };
        assert_eq!(ok(w.users().update(as_(&root, pair))).await.api_key(), "a");
        let found = w.authority().by_api_key(ByApiKeyRequest { api_key: "a".into() }).await.unwrap().into_inner();
        assert_eq!(found.credentials.unwrap().secret_key.as_deref(), Some("s"));
        let stolen = UpdateUserRequest {
            id: Some(root.user_uuid.clone()), user_api_key: Some("a".into()), user_secret_key: Some("t".into()), ..Default::default()
        };
        assert_eq!(code(w.users().update(as_(&root, stolen))).await, 431);
        let blank = UpdateUserRequest { id, username: Some(" ".into()), ..Default::default() };
        assert_eq!(code(w.users().update(as_(&root, blank))).await, 431);
        assert!(w.events().await.contains(&"USER.UPDATE".into()));
    }

    async fn keys_are_replaced(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let account = w.make_account(&root, "acme", 0, None).await;
        let id = account.user[0].id.clone();
        let none = ok(w.users().get_keys(as_(&root, GetUserKeysRequest { id: id.clone() }))).await;
        assert_eq!((none.api_key, none.secret_key), (None, None));
        let first = ok(w.users().register_keys(as_(&root, RegisterUserKeysRequest { id: id.clone() }))).await;
        assert_eq!((first.api_key().len(), first.secret_key().len()), (86, 86));
        let second = ok(w.users().register_keys(as_(&root, RegisterUserKeysRequest { id: id.clone() }))).await;
        assert_ne!(first.api_key, second.api_key);
        let by = |key: &str| {
            let (mut client, request) = (w.authority(), ByApiKeyRequest { api_key: key.to_owned() });
            async move { client.by_api_key(request).await.unwrap().into_inner().credentials }
        };
        assert!(by(first.api_key()).await.is_none(), "the old pair stops working");
        assert_eq!(by(second.api_key()).await.unwrap().secret_key, second.secret_key);
        let shown = ok(w.users().get(as_(&root, GetUserRequest { user_api_key: second.api_key.clone() }))).await;
        assert_eq!((shown.username(), shown.api_key(), shown.secret_key.clone()), ("acme", second.api_key(), None));
        assert_eq!(code(w.users().get(as_(&root, GetUserRequest { user_api_key: Some("x".into()) }))).await, 431);
        // A repeat of the request gets the same pair, and the secret stands nowhere in clear.
        let caller = Caller { idempotency_key: Some("k".into()), request_hash: vec![1], ..root.clone() };
        let one = ok(w.users().register_keys(as_(&caller, RegisterUserKeysRequest { id: id.clone() }))).await;
        let two = ok(w.users().register_keys(as_(&caller, RegisterUserKeysRequest { id }))).await;
        assert_eq!(one, two);
        let kept = w.node.db.all("SELECT answer FROM idempotency WHERE answer IS NOT NULL".into()).await.unwrap();
        for row in kept {
            let answer: Vec<u8> = row.at(0).unwrap();
            assert!(!String::from_utf8_lossy(&answer).contains(one.secret_key()));
        }
    }

    async fn states_of_users(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let account = w.make_account(&root, "acme", 0, None).await;
        let first = account.user[0].id.clone();
        let second = ok(w.users().create(as_(&root, new_user("second", "acme", None)))).await;
        let job = ok(w.users().disable(as_(&root, DisableUserRequest { id: second.id.clone(), custom_job_id: None }))).await;
        assert_eq!(w.job::<User>(job).await.unwrap().state(), "disabled");
        assert!(w.login("second", "pw12345", None).await.credentials.is_none());
        assert_eq!(code(w.users().lock(as_(&root, LockUserRequest { id: second.id.clone() }))).await, 530);
        assert_eq!(ok(w.users().enable(as_(&root, EnableUserRequest { id: second.id.clone() }))).await.state(), "enabled");
        assert!(w.login("second", "pw12345", None).await.credentials.is_some());
        assert_eq!(ok(w.users().lock(as_(&root, LockUserRequest { id: second.id.clone() }))).await.state(), "locked");
        let state = async || {
            let list = ListAccountsRequest { id: account.id.clone(), ..Default::default() };
            ok(w.accounts().list(as_(&root, list))).await.account[0].state().to_owned()
        };
        assert_eq!(state().await, "enabled");
        ok(w.users().lock(as_(&root, LockUserRequest { id: first.clone() }))).await;
        assert_eq!(state().await, "locked", "no enabled user is left");
        ok(w.users().enable(as_(&root, EnableUserRequest { id: first.clone() }))).await;
        assert_eq!(state().await, "enabled");
        assert!(ok(w.users().delete(as_(&root, DeleteUserRequest { id: second.id.clone() }))).await.success);
        assert_eq!(code(w.users().delete(as_(&root, DeleteUserRequest { id: second.id }))).await, 431);
        assert_eq!(code(w.users().create(as_(&root, new_user("second", "acme", None)))).await, 200, "the name is free again");
        for id in ["1", "2"] {
            let id = Some(id.to_owned());
            assert_ne!(code(w.users().delete(as_(&root, DeleteUserRequest { id: id.clone() }))).await, 200);
            assert_ne!(code(w.users().lock(as_(&root, LockUserRequest { id: id.clone() }))).await, 200);
            assert_ne!(code(w.users().disable(as_(&root, DisableUserRequest { id, custom_job_id: None }))).await, 200);
        }
        let events = w.events().await;
        for event in ["USER.DISABLE", "USER.ENABLE", "USER.LOCK", "USER.DELETE"] {
            assert!(events.iter().any(|e| e == event), "{event}");
        }
    }

    // covers: IAM-026, REL-025, REL-026
    async fn users_move_within_their_domain(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let below = w.make_domain(&root, "below", Some(&d)).await;
        let from = w.make_account(&root, "from", 0, Some(&d)).await;
        let to = w.make_account(&root, "to", 0, Some(&d)).await;
        let foreign = w.make_account(&root, "foreign", 0, Some(&below)).await;
        let taken = new_user("mover", "to", Some(&d));
        let user = ok(w.users().create(as_(&root, new_user("mover", "from", Some(&d))))).await;
        assert_ne!(code(w.users().create(as_(&root, taken))).await, 200, "one user of that name a domain");
        let keys = ok(w.users().register_keys(as_(&root, RegisterUserKeysRequest { id: user.id.clone() }))).await;
        let go = |account: Option<&str>, id: Option<&String>| MoveUserRequest {
            id: user.id.clone(), account: account.map(str::to_owned), account_id: id.cloned(),
        };
        let account_of = async || {
            let list = ListUsersRequest { id: user.id.clone(), ..Default::default() };
            let shown = ok(w.users().list(as_(&root, list))).await.user.remove(0);
            let found = w.authority().by_api_key(ByApiKeyRequest { api_key: keys.api_key().to_owned() }).await.unwrap();
            let found = found.into_inner().credentials.unwrap();
            assert_eq!(found.account_name, shown.account());
            assert_eq!(ok(w.users().get_keys(as_(&root, GetUserKeysRequest { id: user.id.clone() }))).await, keys);
            shown.account().to_owned()
        };
        assert_eq!(account_of().await, "from");
        // Whose role lets them call it still reach no further than their domain.
        let admin = w.caller_of(&w.make_account(&root, "ad", 2, Some(&below)).await).await;
        assert_eq!(code(w.users().r#move(as_(&admin, go(Some("to"), None)))).await, 531);
        for (request, expected) in [
            (go(None, None), 431),
            (go(Some("nobody"), None), 431),
            (go(Some("foreign"), None), 431),
            (go(None, foreign.id.as_ref()), 431),
        ] {
            assert_eq!(code(w.users().r#move(as_(&root, request))).await, expected);
        }
        assert_eq!(account_of().await, "from");
        for (request, expected) in [
            (go(Some("to"), None), "to"),
            (go(Some("to"), None), "to"),
            (go(None, from.id.as_ref()), "from"),
            (go(None, to.id.as_ref()), "to"),
        ] {
            assert!(ok(w.users().r#move(as_(&root, request))).await.success);
            assert_eq!(account_of().await, expected);
        }
        assert!(w.login("mover", "pw12345", Some("/d")).await.credentials.is_some());
        assert!(w.events().await.iter().any(|e| e == "USER.MOVE"));
    }

    // covers: IAM-032
    async fn foreign_users_are_out_of_reach(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d1 = w.make_domain(&root, "d1", None).await;
        let d11 = w.make_domain(&root, "d11", Some(&d1)).await;
        let d2 = w.make_domain(&root, "d2", None).await;
        let admin1 = w.caller_of(&w.make_account(&root, "admin1", 2, Some(&d1)).await).await;
        let inside = w.make_account(&root, "inside", 0, Some(&d11)).await;
        let outside = w.make_account(&root, "outside", 0, Some(&d2)).await;
        let plain = w.caller_of(&inside).await;
        let (in_id, out_id) = (inside.user[0].id.clone(), outside.user[0].id.clone());
        let own = ok(w.users().create(as_(&root, new_user("colleague", "inside", Some(&d11))))).await;
        for (by, id, expected) in [
            (&admin1, &in_id, 200),
            (&admin1, &out_id, 531),
            (&admin1, &Some(root.user_uuid.clone()), 531),
            (&plain, &in_id, 200),
            (&plain, &own.id, 531),
            (&plain, &out_id, 531),
        ] {
            let update = UpdateUserRequest { id: id.clone(), first_name: Some("X".into()), ..Default::default() };
            assert_eq!(code(w.users().update(as_(by, update))).await, expected);
            // Members of an account act for each other anyway.
            let keys = if by.account_id == plain.account_id && id == &own.id { 200 } else { expected };
            assert_eq!(code(w.users().register_keys(as_(by, RegisterUserKeysRequest { id: id.clone() }))).await, keys);
            assert_eq!(code(w.users().get_keys(as_(by, GetUserKeysRequest { id: id.clone() }))).await, keys);
            if expected == 531 {
                assert_eq!(code(w.users().lock(as_(by, LockUserRequest { id: id.clone() }))).await, 531);
                assert_eq!(code(w.users().enable(as_(by, EnableUserRequest { id: id.clone() }))).await, 531);
                assert_eq!(code(w.users().delete(as_(by, DeleteUserRequest { id: id.clone() }))).await, 531);
                let disable = DisableUserRequest { id: id.clone(), custom_job_id: None };
                assert_eq!(code(w.users().disable(as_(by, disable))).await, 531);
            }
        }
        assert_eq!(code(w.users().create(as_(&admin1, new_user("n", "outside", Some(&d2))))).await, 531);
        assert_eq!(code(w.users().create(as_(&admin1, new_user("n", "inside", Some(&d11))))).await, 200);
        assert_eq!(code(w.users().create(as_(&plain, new_user("m", "inside", Some(&d11))))).await, 531);
        // What a domain admin may do to users below.
        let job = ok(w.users().disable(as_(&admin1, DisableUserRequest { id: own.id.clone(), custom_job_id: None }))).await;
        assert_eq!(w.job::<User>(job).await.unwrap().state(), "disabled");
        assert_eq!(ok(w.users().enable(as_(&admin1, EnableUserRequest { id: own.id.clone() }))).await.state(), "enabled");
        assert_eq!(ok(w.users().lock(as_(&admin1, LockUserRequest { id: own.id.clone() }))).await.state(), "locked");
        ok(w.users().enable(as_(&admin1, EnableUserRequest { id: own.id.clone() }))).await;
        let spare = ok(w.users().create(as_(&admin1, new_user("spare", "inside", Some(&d11))))).await;
        assert_eq!(code(w.users().delete(as_(&admin1, DeleteUserRequest { id: spare.id }))).await, 200);
        // Lists.
        let all = ListUsersRequest { list_all: Some(true), ..Default::default() };
        assert_eq!(w.usernames(&admin1, all.clone()).await, ["admin1", "inside", "colleague", "n"]);
        assert_eq!(w.usernames(&plain, all.clone()).await, ["inside"], "plain users see themselves");
        let foreign = ListUsersRequest { id: own.id, ..Default::default() };
        assert_eq!(code(w.users().list(as_(&plain, foreign))).await, 531);
        let foreign = ListUsersRequest { domain_id: d2.id.clone(), ..Default::default() };
        assert_eq!(code(w.users().list(as_(&admin1, foreign))).await, 531);
        assert_eq!(w.usernames(&admin1, ListUsersRequest { keyword: Some("COLL".into()), ..all.clone() }).await, ["colleague"]);
        assert_eq!(w.usernames(&admin1, ListUsersRequest { state: Some("Locked".into()), ..all }).await, Vec::<String>::new());
        let seen = ok(w.users().list(as_(&root, ListUsersRequest { id: in_id, ..Default::default() }))).await;
        assert!(seen.user[0].is_caller_child_domain());
    }
}
