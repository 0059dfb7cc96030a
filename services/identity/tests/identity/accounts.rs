use crate::world::{World, as_, code, err, new_account, ok};
use contract::api::{Caller, Success};
use contract_identity::{
    Account, CreateAccountRequest, DeleteAccountRequest, DisableAccountRequest, EnableAccountRequest,
    ListAccountsRequest, ListUsersRequest, LockAccountRequest, UpdateAccountRequest,
};

testkit::databases! {
    async fn an_account_is_made_with_its_first_user(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let request = CreateAccountRequest {
            account: Some("acme".into()),
            account_details: [("k".to_owned(), "v".to_owned())].into(),
            network_domain: Some("acme.example".into()),
            timezone: Some("UTC".into()),
            ..new_account("bob", 0, Some(&d))
        };
        let made = ok(w.accounts().create(as_(&root, request))).await;
        assert_eq!((made.name(), made.account_type(), made.role_type(), made.state()), ("acme", 0, "User", "enabled"));
        assert_eq!((made.vm_limit(), made.vm_available(), made.memory_limit()), ("20", "20", "40960"));
        assert_eq!((made.primary_storage_limit(), made.secondary_storage_available()), ("200", "400.0"));
        assert_eq!((made.project_limit(), made.network_domain()), ("Unlimited", "acme.example"));
        assert_eq!(made.account_details["k"], "v");
        assert_eq!((made.vm_stopped, made.vm_running, made.is_default), (Some(0), Some(0), Some(false)));
        let user = &made.user[0];
        assert_eq!((user.username(), user.email(), user.account(), user.timezone()), ("bob", "bob@example.org", "acme", "UTC"));
        assert_eq!((user.user_source(), user.is_caller_child_domain(), user.api_key.clone()), ("native", false, None));
        let events = w.events().await;
        assert!(events.contains(&"ACCOUNT.CREATE".into()) && events.contains(&"USER.CREATE".into()));

        // Names: of accounts and of users, within the domain, whatever their case.
        let taken = err(w.accounts().create(as_(&root, new_account("ACME", 0, Some(&d))))).await;
        assert_eq!((taken.code, taken.text.as_str()), (431, "The specified account: ACME already exists"));
        let request = CreateAccountRequest { account: Some("other".into()), ..new_account("bob", 0, Some(&d)) };
        let taken = err(w.accounts().create(as_(&root, request))).await;
        assert!(taken.text.starts_with("The user bob already exists in domain"), "{taken}");
        assert_eq!(code(w.accounts().create(as_(&root, new_account("bob", 0, None)))).await, 200, "another domain");
        // What can't be.
        let mut request = new_account("x", 0, Some(&d));
        request.account_type = None;
        assert_eq!(code(w.accounts().create(as_(&root, request))).await, 431);
        for kind in [1, 5, 9] {
            assert_eq!(code(w.accounts().create(as_(&root, new_account("x", kind, Some(&d))))).await, 431, "type {kind}");
        }
        let request = CreateAccountRequest { password: Some(String::new()), ..new_account("x", 0, Some(&d)) };
        assert_eq!(code(w.accounts().create(as_(&root, request))).await, 431);
        // A wanted id.
        let uuid = model::new_uuid();
        let request = CreateAccountRequest { account_id: Some(uuid.clone()), ..new_account("y", 0, Some(&d)) };
        assert_eq!(ok(w.accounts().create(as_(&root, request.clone()))).await.id, Some(uuid));
        let request = CreateAccountRequest { account: Some("z".into()), username: Some("z".into()), ..request };
        assert_eq!(code(w.accounts().create(as_(&root, request))).await, 431);
    }

    // covers: IAM-030, IAM-032
    async fn who_may_make_and_change_whom(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d1 = w.make_domain(&root, "d1", None).await;
        let d11 = w.make_domain(&root, "d11", Some(&d1)).await;
        let d2 = w.make_domain(&root, "d2", None).await;
        let admin1 = w.caller_of(&w.make_account(&root, "admin1", 2, Some(&d1)).await).await;
        let user1 = w.make_account(&root, "user1", 0, Some(&d1)).await;
        let user2 = w.make_account(&root, "user2", 0, Some(&d2)).await;
        let plain = w.caller_of(&user1).await;
        // Domain admins: in their subtree, no more than their own kind.
        let below = w.make_account(&admin1, "below", 0, Some(&d11)).await;
        w.make_account(&admin1, "peer", 2, Some(&d11)).await;
        for (kind, domain, expected) in [(3, &d11, 531), (1, &d11, 431), (0, &d2, 531)] {
            let request = new_account("x", kind, Some(domain));
            assert_eq!(code(w.accounts().create(as_(&admin1, request))).await, expected, "type {kind}");
        }
        assert_eq!(code(w.accounts().create(as_(&admin1, new_account("x", 0, None)))).await, 531, "the root domain");
        assert_eq!(code(w.accounts().create(as_(&plain, new_account("x", 0, Some(&d1))))).await, 531);
        // A domain admin of the root domain is no root admin.
        let dad = w.caller_of(&w.make_account(&root, "dad", 2, None).await).await;
        assert_eq!(code(w.accounts().create(as_(&dad, new_account("x", 1, None)))).await, 531);
        let keys = contract_identity::GetUserKeysRequest { id: Some(root.user_uuid.clone()) };
        assert_eq!(code(w.users().get_keys(as_(&dad, keys))).await, 531);

        let update = |a: &Account, name: &str| UpdateAccountRequest {
            id: a.id.clone(), new_name: Some(name.into()), ..Default::default()
        };
        let enable = |a: &Account| EnableAccountRequest { id: a.id.clone(), ..Default::default() };
        assert_eq!(ok(w.accounts().update(as_(&admin1, update(&below, "lower")))).await.name(), "lower");
        assert_eq!(code(w.accounts().update(as_(&admin1, update(&user2, "x")))).await, 531);
        assert_eq!(code(w.accounts().enable(as_(&admin1, enable(&user2)))).await, 531);
        assert_eq!(code(w.accounts().enable(as_(&admin1, enable(&below)))).await, 200);
        assert_eq!(code(w.accounts().delete(as_(&admin1, DeleteAccountRequest { id: user2.id.clone(), custom_job_id: None }))).await, 531);
        let disable = DisableAccountRequest { id: user2.id.clone(), lock: Some(true), ..Default::default() };
        assert_eq!(code(w.accounts().disable(as_(&admin1, disable))).await, 531);
        for lock in [true, false] {
            let request = DisableAccountRequest { id: below.id.clone(), lock: Some(lock), ..Default::default() };
            let job = ok(w.accounts().disable(as_(&admin1, request))).await;
            assert_eq!(w.job::<Account>(job).await.unwrap().state(), if lock { "locked" } else { "disabled" });
            assert_eq!(ok(w.accounts().enable(as_(&admin1, enable(&below)))).await.state(), "enabled");
        }
        for (account, expected) in [("lower", 200), ("user2", 431)] {
            let request = LockAccountRequest { account: Some(account.into()), domain_id: d11.id.clone() };
            assert_eq!(code(w.accounts().lock(as_(&admin1, request))).await, expected);
        }
        let request = LockAccountRequest { account: Some("user2".into()), domain_id: d2.id.clone() };
        assert_eq!(code(w.accounts().lock(as_(&admin1, request))).await, 531);
        // Nobody touches the built-in accounts, or deletes the own one.
        for id in ["1", "2"] {
            let request = DeleteAccountRequest { id: Some(id.into()), custom_job_id: None };
            assert_ne!(code(w.accounts().delete(as_(&root, request))).await, 200);
            let request = DisableAccountRequest { id: Some(id.into()), lock: Some(false), ..Default::default() };
            assert_ne!(code(w.accounts().disable(as_(&root, request))).await, 200);
        }
        let own = DeleteAccountRequest { id: Some(admin1.account_uuid.clone()), custom_job_id: None };
        assert_eq!(code(w.accounts().delete(as_(&admin1, own))).await, 431);
        // Administrators make and delete administrators.
        let second = w.make_account(&root, "second", 1, None).await;
        let third = w.make_account(&root, "third", 1, None).await;
        let second = w.caller_of(&second).await;
        let job = ok(w.accounts().delete(as_(&second, DeleteAccountRequest { id: third.id, custom_job_id: None }))).await;
        assert!(w.job::<Success>(job).await.unwrap().success);
    }

    async fn lists_show_what_is_in_reach(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d1 = w.make_domain(&root, "d1", None).await;
        let d11 = w.make_domain(&root, "d11", Some(&d1)).await;
        let admin1 = w.caller_of(&w.make_account(&root, "admin1", 2, Some(&d1)).await).await;
        let user = w.make_account(&root, "user", 0, Some(&d11)).await;
        let plain = w.caller_of(&user).await;
        let names = |by: &Caller, request: ListAccountsRequest| {
            let (w, by) = (&w, by.clone());
            async move {
                let page = ok(w.accounts().list(as_(&by, request))).await;
                (page.account.iter().map(|a| a.name().to_owned()).collect::<Vec<_>>(), page.count.unwrap())
            }
        };
        let all = ListAccountsRequest { list_all: Some(true), ..Default::default() };
        assert_eq!(names(&root, all.clone()).await.0, ["admin", "admin1", "user"]);
        assert_eq!(names(&root, ListAccountsRequest::default()).await.0, ["admin"]);
        assert_eq!(names(&admin1, all.clone()).await.0, ["admin1", "user"]);
        assert_eq!(names(&plain, all.clone()).await.0, ["user"]);
        let in_d1 = ListAccountsRequest { domain_id: d1.id.clone(), ..Default::default() };
        assert_eq!(names(&root, in_d1.clone()).await.0, ["admin1"]);
        let below = ListAccountsRequest { is_recursive: Some(true), ..in_d1 };
        assert_eq!(names(&root, below).await.0, ["admin1", "user"]);
        let of_type = ListAccountsRequest { account_type: Some(2), ..all.clone() };
        assert_eq!(names(&root, of_type).await.0, ["admin1"]);
        let keyword = ListAccountsRequest { keyword: Some("DMIN".into()), ..all.clone() };
        assert_eq!(names(&root, keyword).await.0, ["admin", "admin1"]);
        let named = ListAccountsRequest { name: Some("USER".into()), ..all.clone() };
        assert_eq!(names(&root, named).await.0, ["user"]);
        let paged = ListAccountsRequest { page: Some(2), page_size: Some(2), ..all.clone() };
        assert_eq!(names(&root, paged).await, (vec!["user".to_owned()], 3));
        let by_id = ListAccountsRequest { id: user.id.clone(), ..Default::default() };
        assert_eq!(names(&root, by_id).await.0, ["user"]);
        let foreign = ListAccountsRequest { id: Some(root.account_uuid.clone()), ..Default::default() };
        assert_eq!(code(w.accounts().list(as_(&admin1, foreign.clone()))).await, 531);
        assert_eq!(code(w.accounts().list(as_(&plain, foreign))).await, 531);
        // One query more or less whatever the number of rows.
        let count = async |request: ListAccountsRequest| {
            testkit::least(|| async {
                let before = w.node.db.stats().statements;
                ok(w.accounts().list(as_(&root, request.clone()))).await;
                w.node.db.stats().statements - before
            }).await
        };
        let one = count(ListAccountsRequest { name: Some("user".into()), ..all.clone() }).await;
        assert_eq!(count(all).await, one);
    }

    async fn states_and_deletion(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let account = w.make_account(&root, "acme", 0, Some(&d)).await;
        let disable = |lock| DisableAccountRequest {
            account: Some("acme".into()), domain_id: d.id.clone(), lock: Some(lock), ..Default::default()
        };
        let job = ok(w.accounts().disable(as_(&root, disable(true)))).await;
        let shown: Account = w.job(job).await.unwrap();
        assert_eq!((shown.state(), shown.id.as_deref(), shown.user.len()), ("locked", account.id.as_deref(), 1));
        let job = ok(w.accounts().disable(as_(&root, disable(false)))).await;
        assert_eq!(w.job::<Account>(job).await.unwrap().state(), "disabled");
        let job = ok(w.accounts().disable(as_(&root, disable(true)))).await;
        assert_eq!(w.job::<Account>(job).await.unwrap_err().code, 530);
        let enable = EnableAccountRequest { account: Some("acme".into()), domain_id: d.id.clone(), ..Default::default() };
        assert_eq!(ok(w.accounts().enable(as_(&root, enable.clone()))).await.state(), "enabled");
        let lock = LockAccountRequest { account: Some("acme".into()), domain_id: d.id.clone() };
        assert!(ok(w.accounts().lock(as_(&root, lock))).await.success);
        assert_eq!(ok(w.accounts().enable(as_(&root, enable))).await.state(), "enabled", "lockAccount does nothing");
        let unknown = EnableAccountRequest { account: Some("nobody".into()), domain_id: d.id.clone(), ..Default::default() };
        assert_eq!(code(w.accounts().enable(as_(&root, unknown))).await, 431);
        assert_eq!(code(w.accounts().enable(as_(&root, EnableAccountRequest::default()))).await, 431);

        let job = ok(w.accounts().delete(as_(&root, DeleteAccountRequest { id: account.id.clone(), custom_job_id: None }))).await;
        assert!(w.job::<Success>(job).await.unwrap().success);
        assert!(w.usernames(&root, ListUsersRequest { list_all: Some(true), ..Default::default() }).await == ["admin"]);
        let again = DeleteAccountRequest { id: account.id, custom_job_id: None };
        assert_eq!(code(w.accounts().delete(as_(&root, again))).await, 431);
        w.make_account(&root, "acme", 0, Some(&d)).await;
    }

    async fn an_account_that_owns_things_stays(db: testkit::TestDb) {
        let w = World::unserved(db).await;
        // A table of another service, as far as it matters here.
        let create = "CREATE TABLE vms (id BIGINT PRIMARY KEY, uuid VARCHAR(40), account_id BIGINT, state VARCHAR(16), \
                      limits_key VARCHAR(128), removed BIGINT)";
        store::tx!(w.node.db, "vms", |tx| tx.exec(create).await).await.unwrap();
        w.serve().await;
        let root = w.root().await;
        let account = w.make_account(&root, "acme", 0, None).await;
        let number = w.number("accounts", account.id.as_deref().unwrap()).await;
        let insert = format!("INSERT INTO vms (id, uuid, account_id, state) VALUES (1, 'u', {number}, 'Stopped')");
        store::tx!(w.node.db, "vm", |tx| tx.exec(insert.as_str()).await).await.unwrap();
        let delete = DeleteAccountRequest { id: account.id.clone(), custom_job_id: None };
        let job = ok(w.accounts().delete(as_(&root, delete.clone()))).await;
        let error = w.job::<Success>(job).await.unwrap_err();
        assert_eq!(error.code, 530);
        assert!(error.text.contains("it still owns 1 virtual machines"), "{error}");
        let list = ListAccountsRequest { id: account.id.clone(), ..Default::default() };
        let shown = ok(w.accounts().list(as_(&root, list))).await.account.remove(0);
        assert_eq!((shown.state(), shown.vm_stopped(), shown.is_cleanup_required), ("enabled", 1, None));
        store::tx!(w.node.db, "vm", |tx| tx.exec("UPDATE vms SET removed = 1").await).await.unwrap();
        let job = ok(w.accounts().delete(as_(&root, delete))).await;
        assert!(w.job::<Success>(job).await.unwrap().success);
    }

    async fn a_repeated_request_is_answered_as_the_first(db: testkit::TestDb) {
        let w = World::new(db).await;
        let caller = Caller { idempotency_key: Some("k".into()), request_hash: vec![1], ..w.root().await };
        let first = ok(w.accounts().create(as_(&caller, new_account("acme", 0, None)))).await;
        let again = ok(w.accounts().create(as_(&caller, new_account("acme", 0, None)))).await;
        assert_eq!(first, again);
    }
}
