use crate::world::{World, as_, code, err, ok};
use contract::api::Success;
use contract_identity::{
    CreateDomainRequest, DeleteDomainRequest, ListAccountsRequest, ListDomainsRequest, UpdateDomainRequest,
};

testkit::databases! {
    // covers: IAM-023, IAM-029, IAM-034
    async fn a_tree_and_who_sees_it(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d1 = w.make_domain(&root, "d1", None).await;
        assert_eq!((d1.path(), d1.level(), d1.parent_domain_name(), d1.state()), ("ROOT/d1", 1, "ROOT", "Active"));
        assert_eq!((d1.vm_limit(), d1.vm_total(), d1.has_child()), ("Unlimited", 0, false));
        let d11 = w.make_domain(&root, "d11", Some(&d1)).await;
        let d2 = w.make_domain(&root, "d2", None).await;
        let again = w.make_domain(&root, "d1", Some(&d2)).await;
        assert_eq!(again.path(), "ROOT/d2/d1");
        for name in ["d1", "D1"] {
            let dup = err(w.domains().create(as_(&root, CreateDomainRequest { name: Some(name.into()), ..Default::default() }))).await;
            assert_eq!((dup.code, dup.cs_code), (431, 4350));
        }
        let bad = CreateDomainRequest { name: Some("a/b".into()), ..Default::default() };
        assert_eq!(code(w.domains().create(as_(&root, bad))).await, 431);
        let bad = CreateDomainRequest { name: Some("x".into()), network_domain: Some("-x".into()), ..Default::default() };
        assert_eq!(code(w.domains().create(as_(&root, bad))).await, 431);

        let admin1 = w.caller_of(&w.make_account(&root, "admin1", 2, Some(&d1)).await).await;
        let admin11 = w.caller_of(&w.make_account(&root, "admin11", 2, Some(&d11)).await).await;
        let user1 = w.caller_of(&w.make_account(&root, "user1", 0, Some(&d1)).await).await;
        let names = |request: ListDomainsRequest| {
            let (w, by) = (&w, admin1.clone());
            async move {
                let page = ok(w.domains().list(as_(&by, request))).await;
                page.domain.iter().map(|d| d.path().to_owned()).collect::<Vec<_>>()
            }
        };
        assert_eq!(names(ListDomainsRequest { list_all: Some(true), ..Default::default() }).await, ["ROOT/d1", "ROOT/d1/d11"]);
        assert_eq!(names(ListDomainsRequest::default()).await, ["ROOT/d1"]);
        assert_eq!(names(ListDomainsRequest { id: d11.id.clone(), ..Default::default() }).await, ["ROOT/d1/d11"]);
        let foreign = ListDomainsRequest { id: d2.id.clone(), ..Default::default() };
        assert_eq!(code(w.domains().list(as_(&admin1, foreign))).await, 531);
        // Domain admins make domains below their own only.
        w.make_domain(&admin1, "d12", Some(&d1)).await;
        let up = |parent: &contract_identity::Domain| CreateDomainRequest {
            name: Some("x".into()), parent_domain_id: parent.id.clone(), ..Default::default()
        };
        assert_eq!(code(w.domains().create(as_(&admin11, up(&d1)))).await, 531);
        assert_eq!(code(w.domains().create(as_(&admin1, up(&d2)))).await, 531);
        assert_eq!(code(w.domains().create(as_(&user1, up(&d1)))).await, 531);

        let account = |domain| crate::world::new_account("deep", 0, Some(domain));
        assert_eq!(code(w.accounts().create(as_(&admin11, account(&d1)))).await, 531);
        assert_eq!(code(w.accounts().create(as_(&admin1, account(&d11)))).await, 200);
        let all = ok(w.domains().list(as_(&root, ListDomainsRequest { keyword: Some("D1".into()), ..Default::default() }))).await;
        assert_eq!(all.count, Some(4));
        let paged = ListDomainsRequest { page: Some(2), page_size: Some(2), ..Default::default() };
        let paged = ok(w.domains().list(as_(&root, paged))).await;
        assert_eq!((paged.count, paged.domain.len()), (Some(6), 2));
        let min = ListDomainsRequest { id: d1.id.clone(), details: vec!["min".into()], ..Default::default() };
        let min = ok(w.domains().list(as_(&root, min))).await.domain.remove(0);
        assert_eq!((min.vm_limit, min.has_child), (None, Some(true)));
        let level = ListDomainsRequest { level: Some(2), name: Some("d1".into()), ..Default::default() };
        assert_eq!(ok(w.domains().list(as_(&root, level))).await.domain[0].path(), "ROOT/d2/d1");
    }

    async fn a_rename_moves_the_paths_below(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let a = w.make_domain(&root, "ä", None).await;
        let b = w.make_domain(&root, "b", Some(&a)).await;
        w.make_domain(&root, "c", None).await;
        let rename = |id: &contract_identity::Domain, name: &str| UpdateDomainRequest {
            id: id.id.clone(), name: Some(name.into()), ..Default::default()
        };
        let renamed = ok(w.domains().update(as_(&root, rename(&a, "äö")))).await;
        assert_eq!(renamed.path(), "ROOT/äö");
        let below = ListDomainsRequest { id: b.id.clone(), ..Default::default() };
        assert_eq!(ok(w.domains().list(as_(&root, below))).await.domain[0].path(), "ROOT/äö/b");
        assert_eq!(code(w.domains().update(as_(&root, rename(&a, "c")))).await, 431);
        let net = UpdateDomainRequest { id: a.id.clone(), network_domain: Some("a.example".into()), ..Default::default() };
        assert_eq!(ok(w.domains().update(as_(&root, net))).await.network_domain(), "a.example");
        let net = UpdateDomainRequest { id: a.id.clone(), network_domain: Some(String::new()), ..Default::default() };
        assert_eq!(ok(w.domains().update(as_(&root, net))).await.network_domain, None);
        let top = ok(w.domains().list(as_(&root, ListDomainsRequest::default()))).await.domain.remove(0);
        assert_eq!(code(w.domains().update(as_(&root, rename(&top, "x")))).await, 431);
        let admin = w.caller_of(&w.make_account(&root, "ad", 2, Some(&a)).await).await;
        let c = ok(w.domains().list(as_(&root, ListDomainsRequest { name: Some("c".into()), ..Default::default() }))).await;
        assert_eq!(code(w.domains().update(as_(&admin, rename(&c.domain[0], "x")))).await, 531);
    }

    async fn deletion_takes_all_or_nothing(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let a = w.make_domain(&root, "a", None).await;
        let b = w.make_domain(&root, "b", Some(&a)).await;
        let account = w.make_account(&root, "u", 0, Some(&b)).await;
        let user = w.caller_of(&account).await;
        let delete = |cleanup| DeleteDomainRequest { id: a.id.clone(), cleanup: Some(cleanup), custom_job_id: None };
        let job = ok(w.domains().delete(as_(&root, delete(false)))).await;
        let error = w.job::<Success>(job).await.unwrap_err();
        assert!(error.text.contains("1 accounts and 1 subdomains"), "{error}");
        // It is in use again.
        let state = ok(w.domains().list(as_(&root, ListDomainsRequest { id: a.id.clone(), ..Default::default() }))).await;
        assert_eq!(state.domain[0].state(), "Active");
        w.make_account(&root, "v", 0, Some(&a)).await;

        let admin = w.caller_of(&w.make_account(&root, "ad", 2, Some(&a)).await).await;
        assert_eq!(code(w.domains().delete(as_(&admin, delete(true)))).await, 431, "nobody deletes the own domain");
        let other = w.caller_of(&w.make_account(&root, "bd", 2, Some(&b)).await).await;
        assert_eq!(code(w.domains().delete(as_(&other, delete(true)))).await, 531);
        assert_eq!(code(w.domains().delete(as_(&user, delete(true)))).await, 531);
        let top = ok(w.domains().list(as_(&root, ListDomainsRequest::default()))).await.domain.remove(0);
        let request = DeleteDomainRequest { id: top.id.clone(), ..Default::default() };
        assert_eq!(code(w.domains().delete(as_(&root, request))).await, 531);

        let job = ok(w.domains().delete(as_(&root, delete(true)))).await;
        assert!(w.job::<Success>(job).await.unwrap().success);
        assert_eq!(ok(w.domains().list(as_(&root, ListDomainsRequest::default()))).await.count, Some(1));
        let left = ok(w.accounts().list(as_(&root, ListAccountsRequest { list_all: Some(true), ..Default::default() }))).await;
        assert_eq!(left.count, Some(1));
        assert_eq!(code(w.domains().delete(as_(&root, delete(true)))).await, 431, "it is gone");
        // The names are free again.
        let a = w.make_domain(&root, "a", None).await;
        w.make_account(&root, "u", 0, Some(&a)).await;
        assert!(w.events().await.contains(&"DOMAIN.DELETE".to_owned()));
    }
}
