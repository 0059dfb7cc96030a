use crate::world::{World, as_, code, err, ok};
use contract_identity::limit_transfers_client::LimitTransfersClient;
use contract_identity::{
    Account, Domain, ListAccountsRequest, ListDomainsRequest, ListResourceLimitsRequest, ReleaseRequest,
    ReserveRequest, ResourceAmount, TransferRequest, TransferResponse, UpdateResourceCountRequest,
    UpdateResourceLimitRequest,
};
use jobs::StepKey;
use proptest::prelude::*;
use std::collections::HashMap;
use store::Sql;

const VM: i32 = 0;
const CPU: i32 = 8;
const PRIMARY: i32 = 10;
const GIB: i64 = 1 << 30;

fn items(amounts: &[(i32, i64)]) -> Vec<ResourceAmount> {
    amounts.iter().map(|(kind, amount)| ResourceAmount { r#type: *kind, amount: *amount }).collect()
}

impl World {
    async fn reserve(&self, key: &str, account: i64, amounts: &[(i32, i64)]) -> Result<(), contract::ApiError> {
        let request =
            ReserveRequest { key: key.into(), account_id: account, items: items(amounts), reserver: "test".into() };
        self.limits().reserve(as_(&rpc::cx::system_caller(), request)).await.map(drop).map_err(Into::into)
    }

    async fn release(&self, key: &str, kinds: &[i32]) {
        let kinds: Vec<_> = kinds.iter().map(|k| (*k, 0)).collect();
        let request = ReleaseRequest { key: key.into(), items: items(&kinds) };
        ok(self.limits().release(as_(&rpc::cx::system_caller(), request))).await;
    }

    /// Counts these for another account, as the job with this number asks; an undo takes it back.
    async fn transfer(
        &self,
        job: i64,
        undo: bool,
        keys: &[&str],
        account: i64,
    ) -> Result<TransferResponse, contract::ApiError> {
        let state = if undo { "Undoing" } else { "Running" };
        let known = Sql::new("UPDATE jobs SET state = ? WHERE id = ?").bind(state).bind(job);
        let fresh = format!(
            "INSERT INTO jobs (id, uuid, service, kind, version, command, job_class, input, caller, account_id, user_id, domain_id, \
             domain_path, resource_owner, claims, state, seq, epoch, takeovers, cancel, event, description, created) VALUES ({job}, \
             'job-{job}', 'nobody', 'k', 1, '', '', '', '', 1, 1, 1, '/1/', '', '', '{state}', 0, 1, 0, 0, '', '', 0)"
        );
        store::tx!(self.node.db, "job", |tx| {
            if tx.exec(known.clone()).await? == 0 {
                tx.exec(fresh.as_str()).await?;
            }
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut request = as_(&rpc::cx::system_caller(), TransferRequest { keys, account_id: account });
        StepKey::new(job, "limits", 1, undo).attach(&mut request);
        let mut client = LimitTransfersClient::new(self.node.peers.identity());
        client.transfer(request).await.map(tonic::Response::into_inner).map_err(Into::into)
    }

    async fn used(&self, slot: &str) -> Option<i64> {
        let sql = Sql::new("SELECT used FROM resource_counts WHERE slot = ?").bind(slot);
        self.node.db.optional(sql).await.unwrap().map(|r| r.at(0).unwrap())
    }

    async fn id_of(&self, account: &Account) -> i64 {
        self.number("accounts", account.id()).await
    }

    async fn limit_domain(&self, domain: &Domain, kind: i32, max: i64) {
        let root = self.root().await;
        let request = UpdateResourceLimitRequest {
            domain_id: domain.id.clone(),
            resource_type: Some(kind),
            max: Some(max),
            ..Default::default()
        };
        ok(self.resource_limits().update(as_(&root, request))).await;
    }

    async fn limit_account(&self, account: &Account, kind: i32, max: i64) {
        let root = self.root().await;
        let request = UpdateResourceLimitRequest {
            account: account.name.clone(),
            domain_id: account.domain_id.clone(),
            resource_type: Some(kind),
            max: Some(max),
            ..Default::default()
        };
        ok(self.resource_limits().update(as_(&root, request))).await;
    }
}

testkit::databases! {
    // covers: USG-070, USG-074
    async fn a_reservation_is_counted_once_and_given_back_once(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let account = w.make_account(&root, "acme", 0, None).await;
        let id = w.id_of(&account).await;
        for _ in 0..2 {
            w.reserve("vm:a", id, &[(VM, 1), (CPU, 4)]).await.unwrap();
            assert_eq!((w.used(&format!("account/{id}/0")).await, w.used(&format!("account/{id}/8")).await), (Some(1), Some(4)));
        }
        // Another amount replaces the former one; a type that isn't named stays.
        w.reserve("vm:a", id, &[(CPU, 10)]).await.unwrap();
        assert_eq!(w.used(&format!("account/{id}/8")).await, Some(10));
        w.reserve("vm:a", id, &[(CPU, 2)]).await.unwrap();
        assert_eq!(w.used(&format!("account/{id}/8")).await, Some(2));
        w.limit_account(&account, VM, 2).await;
        w.limit_account(&account, CPU, 5).await;
        let short = w.reserve("vm:b", id, &[(VM, 1), (CPU, 4)]).await.unwrap_err();
        assert_eq!((short.code, short.cs_code), (535, 4370));
        assert!(short.text.contains("'cpu' for account name=acme"), "{short}");
        assert_eq!(w.used(&format!("account/{id}/0")).await, Some(1), "all or nothing");
        w.reserve("vm:b", id, &[(VM, 1), (CPU, 1)]).await.unwrap();
        assert_eq!(w.reserve("vm:c", id, &[(VM, 1)]).await.unwrap_err().code, 535);
        // A limit below what is used takes nothing away.
        w.limit_account(&account, VM, 1).await;
        assert_eq!(w.used(&format!("account/{id}/0")).await, Some(2));
        w.release("vm:b", &[CPU]).await;
        w.release("vm:b", &[CPU]).await;
        assert_eq!(w.used(&format!("account/{id}/8")).await, Some(2));
        for _ in 0..2 {
            w.release("vm:b", &[]).await;
            assert_eq!(w.used(&format!("account/{id}/0")).await, Some(1));
        }
        assert_eq!(w.reserve("vm:c", id, &[(VM, 1)]).await.unwrap_err().code, 535, "the limit is reached");
        w.release("vm:a", &[]).await;
        w.reserve("vm:c", id, &[(VM, 1)]).await.unwrap();
        // What was given back for good, or before it was asked for, stays so.
        assert_eq!(w.reserve("vm:a", id, &[(VM, 1)]).await.unwrap_err().code, 530);
        w.release("vm:late", &[]).await;
        assert_eq!(w.reserve("vm:late", id, &[(CPU, 1)]).await.unwrap_err().code, 530);
        assert_eq!(w.reserve("vm:x", 999, &[(VM, 1)]).await.unwrap_err().code, 431);
    }

    async fn what_has_another_owner_is_counted_for_that_one(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let e = w.make_domain(&root, "e", None).await;
        let a = w.make_account(&root, "a", 0, Some(&d)).await;
        let b = w.make_account(&root, "b", 0, Some(&d)).await;
        let c = w.make_account(&root, "c", 0, Some(&e)).await;
        let (ai, bi, ci) = (w.id_of(&a).await, w.id_of(&b).await, w.id_of(&c).await);
        let (di, ei) = (w.number("domains", d.id()).await, w.number("domains", e.id()).await);
        w.limit_domain(&d, CPU, 4).await;
        w.limit_domain(&e, CPU, 9).await;
        w.reserve("vm:1", ai, &[(VM, 1), (CPU, 4)]).await.unwrap();
        w.reserve("volume:1", ai, &[(PRIMARY, GIB)]).await.unwrap();
        let counts = async || {
            let mut all = Vec::new();
            for slot in [format!("account/{ai}/8"), format!("account/{bi}/8"), format!("account/{ci}/8"), format!("domain/{di}/8"), format!("domain/{ei}/8"), format!("account/{bi}/10")] {
                all.push(w.used(&slot).await.unwrap());
            }
            all
        };
        let keys = ["vm:1", "volume:1", "volume:unknown"];
        assert_eq!(counts().await, [4, 0, 0, 4, 0, 0]);

        // The domain above both is full already, which is no matter: nothing more is in it.
        let moved = w.transfer(900, false, &keys, bi).await.unwrap();
        assert_eq!(moved.former.iter().map(|f| (f.key.as_str(), f.account_id)).collect::<Vec<_>>(), [("vm:1", ai), ("volume:1", ai)]);
        assert_eq!(counts().await, [0, 4, 0, 4, 0, GIB]);
        assert_eq!(w.transfer(900, false, &keys, bi).await.unwrap(), moved, "a repeat answers as the first");
        assert_eq!(counts().await, [0, 4, 0, 4, 0, GIB]);
        // Its holder goes on as before, at its new account.
        w.reserve("vm:1", bi, &[(CPU, 3)]).await.unwrap();
        assert_eq!(counts().await, [0, 3, 0, 3, 0, GIB]);

        // Taken back, whatever the limits say by now; twice is once.
        w.limit_account(&a, CPU, 0).await;
        for _ in 0..2 {
            w.transfer(900, true, &[], 0).await.unwrap();
            assert_eq!(counts().await, [3, 0, 0, 3, 0, 0]);
        }

        // What is short is told, of the account and of its domain, and nothing is moved.
        w.limit_account(&c, PRIMARY, 0).await;
        let short = w.transfer(901, false, &keys, ci).await.unwrap_err();
        assert!(short.code == 535 && short.text.contains("for account name=c"), "{short}");
        w.limit_account(&c, PRIMARY, -1).await;
        w.limit_domain(&e, CPU, 2).await;
        let short = w.transfer(902, false, &keys, ci).await.unwrap_err();
        assert!(short.code == 535 && short.text.contains("for domain ROOT/e"), "{short}");
        assert_eq!(counts().await, [3, 0, 0, 3, 0, 0]);
        w.limit_domain(&e, CPU, 9).await;
        w.transfer(903, false, &keys, ci).await.unwrap();
        assert_eq!(counts().await, [0, 0, 3, 0, 3, 0]);

        // An undo that comes first: it never happens. And nobody who is gone gets anything.
        w.transfer(904, true, &keys, ai).await.unwrap();
        assert_eq!(w.transfer(904, false, &keys, ai).await.unwrap_err().code, 530);
        assert_eq!(w.transfer(905, false, &keys, 999).await.unwrap_err().code, 431);
        w.release("vm:1", &[]).await;
        assert_eq!(counts().await, [0, 0, 0, 0, 0, 0]);
    }

    // covers: USG-073, USG-075
    async fn domains_bound_all_that_is_below(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let d1 = w.make_domain(&root, "d1", Some(&d)).await;
        let a1 = w.make_account(&root, "a1", 0, Some(&d)).await;
        let b1 = w.make_account(&root, "b1", 0, Some(&d1)).await;
        let (a, b) = (w.id_of(&a1).await, w.id_of(&b1).await);
        w.reserve("vm:0", b, &[(CPU, 5)]).await.unwrap();
        let number = w.number("domains", d.id()).await;
        assert_eq!(w.used(&format!("domain/{number}/8")).await, None, "not counted without a limit");
        w.limit_domain(&d, CPU, 40).await;
        assert_eq!(w.used(&format!("domain/{number}/8")).await, Some(5), "what is there already counts");
        w.limit_domain(&d1, CPU, 30).await;
        w.limit_account(&a1, CPU, 30).await;
        w.reserve("vm:1", b, &[(CPU, 25)]).await.unwrap();
        w.reserve("vm:2", a, &[(CPU, 10)]).await.unwrap();
        let short = w.reserve("vm:3", a, &[(CPU, 1)]).await.unwrap_err();
        assert_eq!(short.code, 535);
        assert!(short.text.contains("for domain ROOT/d has been exceeded: limit 40, in use 40, wanted 1"), "{short}");
        let short = w.reserve("vm:3", b, &[(CPU, 1)]).await.unwrap_err();
        assert!(short.text.contains("for domain ROOT/d has"), "{short}");
        // A limit below may not be above the one of the parent; own limits in any sum are fine.
        let request = UpdateResourceLimitRequest {
            domain_id: d1.id.clone(), resource_type: Some(CPU), max: Some(41), ..Default::default()
        };
        assert_eq!(code(w.resource_limits().update(as_(&root, request))).await, 431);
        // Totals and what is left.
        let list = ListDomainsRequest { id: d.id.clone(), ..Default::default() };
        let shown = ok(w.domains().list(as_(&root, list))).await.domain.remove(0);
        assert_eq!((shown.cpu_limit(), shown.cpu_total(), shown.cpu_available()), ("40", 40, "0"));
        let list = ListDomainsRequest { id: d1.id.clone(), ..Default::default() };
        let shown = ok(w.domains().list(as_(&root, list))).await.domain.remove(0);
        assert_eq!((shown.cpu_limit(), shown.cpu_total(), shown.cpu_available()), ("30", 30, "0"));
        // Without the limit it is counted no longer; a later limit begins with what is there.
        w.limit_domain(&d, CPU, -1).await;
        assert_eq!(w.used(&format!("domain/{number}/8")).await, None);
        w.reserve("vm:3", a, &[(CPU, 1)]).await.unwrap();
        w.limit_domain(&d, CPU, 41).await;
        assert_eq!(w.used(&format!("domain/{number}/8")).await, Some(41));
        w.release("vm:1", &[]).await;
        assert_eq!(w.used(&format!("domain/{number}/8")).await, Some(16));
        // The root's limit holds everywhere.
        let top = ok(w.domains().list(as_(&root, ListDomainsRequest::default()))).await.domain.remove(0);
        w.limit_domain(&top, VM, 1).await;
        w.reserve("vm:5", a, &[(VM, 1)]).await.unwrap();
        assert_eq!(w.reserve("vm:6", b, &[(VM, 1)]).await.unwrap_err().code, 535);
        assert!(w.reserve("vm:7", 2, &[(VM, 1)]).await.is_ok(), "root admins are counted, not held back");
        assert_eq!(w.used("domain/1/0").await, Some(2));
    }

    // covers: USG-066, USG-067, USG-068, USG-076, USG-078, USG-079
    async fn limits_are_listed_and_changed_by_those_who_may(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let e = w.make_domain(&root, "e", None).await;
        let sub = w.make_domain(&root, "sub", Some(&d)).await;
        let admin = w.make_account(&root, "ad", 2, Some(&d)).await;
        let user = w.make_account(&root, "u", 0, Some(&d)).await;
        let other = w.make_account(&root, "o", 0, Some(&e)).await;
        let (boss, plain) = (w.caller_of(&admin).await, w.caller_of(&user).await);
        let of = |a: &Account| ListResourceLimitsRequest {
            account: a.name.clone(), domain_id: a.domain_id.clone(), ..Default::default()
        };
        let maxima = |by: &contract::Caller, request: ListResourceLimitsRequest| {
            let (w, by) = (&w, by.clone());
            async move {
                let page = ok(w.resource_limits().list(as_(&by, request))).await;
                assert_eq!(page.count, Some(page.resource_limit.len() as i64));
                page.resource_limit.iter().map(|l| (l.resource_type_name().to_owned(), l.max())).collect::<HashMap<_, _>>()
            }
        };
        let limits = maxima(&plain, ListResourceLimitsRequest::default()).await;
        assert_eq!(limits.len(), 12);
        for name in ["user_vm", "public_ip", "volume", "snapshot", "template", "vpc", "network"] {
            assert_eq!(limits[name], 20, "{name}");
        }
        for (name, max) in
            [("cpu", 40), ("memory", 40960), ("primary_storage", 200), ("secondary_storage", 400), ("project", -1)]
        {
            assert_eq!(limits[name], max, "{name}");
        }
        assert!(maxima(&root, ListResourceLimitsRequest::default()).await.values().all(|m| *m == -1));
        let domain = ListResourceLimitsRequest { domain_id: d.id.clone(), ..Default::default() };
        assert!(maxima(&boss, domain.clone()).await.values().all(|m| *m == -1));
        assert_eq!(code(w.resource_limits().list(as_(&boss, of(&other)))).await, 531);
        assert_eq!(code(w.resource_limits().list(as_(&plain, of(&other)))).await, 531);
        let one = ListResourceLimitsRequest { resource_type: Some(2), ..of(&user) };
        assert_eq!(maxima(&root, one).await, HashMap::from([("volume".to_owned(), 20)]));
        let bad = ListResourceLimitsRequest { resource_type: Some(99), ..of(&user) };
        assert_eq!(code(w.resource_limits().list(as_(&root, bad))).await, 431);

        let set = |account: Option<&Account>, domain: &Domain, kind: i32, max: i64| UpdateResourceLimitRequest {
            account: account.and_then(|a| a.name.clone()),
            domain_id: domain.id.clone(),
            resource_type: Some(kind),
            max: Some(max),
            ..Default::default()
        };
        let changed = ok(w.resource_limits().update(as_(&boss, set(Some(&user), &d, VM, 5)))).await;
        assert_eq!((changed.account(), changed.domain(), changed.resource_type(), changed.max()), ("u", "d", "0", 5));
        ok(w.resource_limits().update(as_(&boss, set(Some(&user), &d, PRIMARY, 7)))).await;
        let limits = maxima(&root, of(&user)).await;
        assert_eq!((limits["user_vm"], limits["primary_storage"]), (5, 7));
        let id = w.id_of(&user).await;
        w.reserve("volume:1", id, &[(PRIMARY, 7 * GIB)]).await.unwrap();
        assert_eq!(w.reserve("volume:2", id, &[(PRIMARY, 1)]).await.unwrap_err().code, 535);
        ok(w.resource_limits().update(as_(&boss, set(None, &sub, VM, 3)))).await;
        for (by, request, expected) in [
            (&boss, set(Some(&admin), &d, VM, 5), 531),   // the own account
            (&boss, set(None, &d, VM, 5), 531),           // the own domain
            (&boss, set(Some(&other), &e, VM, 5), 531),   // another subtree
            (&boss, set(None, &e, VM, 5), 531),
            (&plain, set(Some(&user), &d, CPU, 99), 531), // users change no limits
            (&root, set(Some(&user), &d, VM, -2), 431),
            (&root, set(Some(&user), &d, 77, 1), 431),
        ] {
            assert_eq!(code(w.resource_limits().update(as_(by, request))).await, expected);
        }
        let nobody = UpdateResourceLimitRequest { resource_type: Some(VM), max: Some(1), ..Default::default() };
        assert_eq!(code(w.resource_limits().update(as_(&root, nobody))).await, 431);
        let admin_limit = UpdateResourceLimitRequest {
            account: Some("admin".into()), domain_id: Some(root.domain_uuid.clone()), resource_type: Some(VM), max: Some(1), ..Default::default()
        };
        assert_eq!(code(w.resource_limits().update(as_(&root, admin_limit))).await, 431);
        // Accounts without a limit of their own follow the setting.
        let settings = w.node.settings.clone();
        store::tx!(w.node.db, "set", |tx| settings.set(tx, "max.account.user.vms", "-1", config::Scope::Global).await).await.unwrap();
        assert_eq!(maxima(&root, of(&other)).await["user_vm"], -1);
        assert_eq!(maxima(&root, of(&user)).await["user_vm"], 5);
        let shown = ListAccountsRequest { id: other.id.clone(), ..Default::default() };
        let shown = ok(w.accounts().list(as_(&root, shown))).await.account.remove(0);
        assert_eq!((shown.vm_limit(), shown.vm_available()), ("Unlimited", "Unlimited"));
        // Domains, too: then they begin to be counted with the next reservation.
        store::tx!(w.node.db, "set", |tx| settings.set(tx, "max.domain.cpus", "2", config::Scope::Global).await).await.unwrap();
        assert_eq!(maxima(&root, domain).await["cpu"], 2);
        w.reserve("vm:1", id, &[(CPU, 2)]).await.unwrap();
        assert_eq!(w.reserve("vm:2", id, &[(CPU, 1)]).await.unwrap_err().code, 535);
    }

    async fn counts_are_put_right(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let account = w.make_account(&root, "a", 0, Some(&d)).await;
        let id = w.id_of(&account).await;
        w.limit_domain(&d, VM, 10).await;
        w.reserve("vm:1", id, &[(VM, 1)]).await.unwrap();
        let spoil = "UPDATE resource_counts SET used = 7 WHERE type = 0";
        store::tx!(w.node.db, "spoil", |tx| tx.exec(spoil).await).await.unwrap();
        let recount = |account: Option<String>| UpdateResourceCountRequest {
            account, domain_id: d.id.clone(), resource_type: Some(VM), ..Default::default()
        };
        let counts = ok(w.resource_limits().update_count(as_(&root, recount(Some("a".into()))))).await;
        assert_eq!((counts.count, counts.resource_count[0].resource_count(), counts.resource_count[0].account()), (Some(1), 1, "a"));
        store::tx!(w.node.db, "spoil", |tx| tx.exec(spoil).await).await.unwrap();
        let counts = ok(w.resource_limits().update_count(as_(&root, recount(None)))).await;
        assert_eq!((counts.resource_count[0].resource_count(), counts.resource_count[0].domain()), (1, "d"));
        let number = w.number("domains", d.id()).await;
        assert_eq!(w.used(&format!("domain/{number}/0")).await, Some(1));
        let all = UpdateResourceCountRequest { domain_id: d.id.clone(), ..Default::default() };
        assert_eq!(ok(w.resource_limits().update_count(as_(&root, all))).await.count, Some(12));
        let plain = w.caller_of(&account).await;
        assert_eq!(code(w.resource_limits().update_count(as_(&plain, recount(None)))).await, 531);
    }

    async fn a_race_never_passes_a_limit(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let accounts = [w.make_account(&root, "a", 0, Some(&d)).await, w.make_account(&root, "b", 0, Some(&d)).await];
        let ids = [w.id_of(&accounts[0]).await, w.id_of(&accounts[1]).await];
        w.limit_domain(&d, VM, 10).await;
        let w = std::sync::Arc::new(w);
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                let (w, id) = (w.clone(), ids[n % 2]);
                tokio::spawn(async move { w.reserve(&format!("vm:{n}"), id, &[(VM, 1), (CPU, 1)]).await })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(()) => won += 1,
                Err(e) => assert_eq!(e.code, 535, "{e}"),
            }
        }
        assert_eq!(won, 10);
        let number = w.number("domains", d.id()).await;
        assert_eq!(w.used(&format!("domain/{number}/0")).await, Some(10));
        let sum = w.used(&format!("account/{}/8", ids[0])).await.unwrap() + w.used(&format!("account/{}/8", ids[1])).await.unwrap();
        assert_eq!(sum, 10);
    }

    async fn a_limit_that_comes_meanwhile_counts_all(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let d = w.make_domain(&root, "d", None).await;
        let account = w.make_account(&root, "a", 0, Some(&d)).await;
        let id = w.id_of(&account).await;
        w.limit_account(&account, VM, -1).await;
        let w = std::sync::Arc::new(w);
        let reserving: Vec<_> = (0..30)
            .map(|n| {
                let w = w.clone();
                tokio::spawn(async move { w.reserve(&format!("vm:{n}"), id, &[(VM, 1)]).await })
            })
            .collect();
        w.limit_domain(&d, VM, 15).await;
        let mut won = 0;
        for task in reserving {
            won += i64::from(task.await.unwrap().is_ok());
        }
        let number = w.number("domains", d.id()).await;
        assert_eq!(w.used(&format!("domain/{number}/0")).await, Some(won), "nothing was overlooked");
        assert_eq!(w.used(&format!("account/{id}/0")).await, Some(won));
    }

    async fn lost_reservations_are_given_back(db: testkit::TestDb) {
        let w = World::new(db).await;
        let create = "CREATE TABLE vms (id BIGINT PRIMARY KEY, uuid VARCHAR(40), account_id BIGINT, state VARCHAR(16), \
                      limits_key VARCHAR(128), removed BIGINT)";
        store::tx!(w.node.db, "vms", |tx| tx.exec(create).await).await.unwrap();
        w.serve().await; // a replica that starts when the table is there
        let root = w.root().await;
        let account = w.make_account(&root, "a", 0, None).await;
        let id = w.id_of(&account).await;
        for key in ["vm:there", "vm:lost", "vm:fresh", "vm:expected", "other:1"] {
            w.reserve(key, id, &[(VM, 1)]).await.unwrap();
        }
        let insert = "INSERT INTO vms (id, uuid, account_id, state, limits_key) VALUES (1, 'there', 1, 'Stopped', 'vm:there')";
        store::tx!(w.node.db, "vm", |tx| tx.exec(insert).await).await.unwrap();
        // A job under way that is going to make its holder.
        let job = "INSERT INTO jobs (id, uuid, service, kind, version, command, job_class, input, caller, account_id, user_id, domain_id, \
                   domain_path, resource_owner, claims, state, seq, epoch, takeovers, cancel, event, description, created) VALUES (1, 'j', 'o', \
                   'vm.deploy', 1, '', '', 'a vm, expected, of', '', 1, 1, 1, '/1/', '', '', 'Running', 1, 1, 0, 0, '', '', 1)";
        store::tx!(w.node.db, "job", |tx| tx.exec(job).await).await.unwrap();
        let age = "UPDATE limit_reservations SET created = 1 WHERE holder <> 'vm:fresh'";
        store::tx!(w.node.db, "age", |tx| tx.exec(age).await).await.unwrap();
        let recount = UpdateResourceCountRequest {
            account: Some("a".into()), domain_id: Some(root.domain_uuid.clone()), resource_type: Some(VM), ..Default::default()
        };
        let counts = ok(w.resource_limits().update_count(as_(&root, recount))).await;
        assert_eq!(counts.resource_count[0].resource_count(), 4, "only what surely has no holder goes");
        assert_eq!(w.reserve("vm:lost", id, &[(VM, 1)]).await.unwrap_err().code, 530);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Reserve { holder: u8, account: u8, vms: i64, cpus: i64 },
    Release { holder: u8, only_cpus: bool },
    LimitDomain { top: bool, max: i64 },
    LimitAccount { account: u8, max: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, 0u8..2, 0i64..3, 0i64..4).prop_map(|(holder, account, vms, cpus)| Step::Reserve { holder, account, vms, cpus }),
        2 => (0u8..6, any::<bool>()).prop_map(|(holder, only_cpus)| Step::Release { holder, only_cpus }),
        1 => (any::<bool>(), -1i64..8).prop_map(|(top, max)| Step::LimitDomain { top, max }),
        1 => (0u8..2, -1i64..6).prop_map(|(account, max)| Step::LimitAccount { account, max }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is reserved, given back and limited: counts are the sums of what is held, and nothing is let in above a limit.
    #[test]
    fn counts_follow_a_simple_model(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let w = World::new(testkit::TestDb::sqlite()).await;
            let root = w.root().await;
            let top = w.make_domain(&root, "top", None).await;
            let low = w.make_domain(&root, "low", Some(&top)).await;
            let accounts = [w.make_account(&root, "a", 0, Some(&top)).await, w.make_account(&root, "b", 0, Some(&low)).await];
            let ids = [w.id_of(&accounts[0]).await, w.id_of(&accounts[1]).await];
            let domains = [w.number("domains", top.id()).await, w.number("domains", low.id()).await];
            let mut held: HashMap<u8, (u8, i64, i64)> = HashMap::new();
            let mut ended: Vec<u8> = Vec::new();
            let (mut domain_max, mut account_max) = ([-1i64; 2], [20i64; 2]);
            for step in steps {
                let vms = |held: &HashMap<u8, (u8, i64, i64)>, account: Option<u8>| -> i64 {
                    held.values().filter(|h| account.is_none_or(|a| a == h.0)).map(|h| h.1).sum()
                };
                match step {
                    Step::Reserve { holder, account, vms: wanted, cpus } => {
                        let before = held.get(&holder).copied();
                        let mine = before.map_or(0, |h| h.1);
                        let add = wanted - mine;
                        let fits = |max: i64, used: i64| add <= 0 || max < 0 || used + add <= max;
                        let allowed = !ended.contains(&holder)
                            && before.is_none_or(|h| h.0 == account)
                            && fits(account_max[account as usize], vms(&held, Some(account)))
                            && fits(domain_max[0], vms(&held, None))
                            && (account == 0 || fits(domain_max[1], vms(&held, Some(1))));
                        let got = w.reserve(&format!("vm:{holder}"), ids[account as usize], &[(VM, wanted), (CPU, cpus)]).await;
                        prop_assert_eq!(got.is_ok(), allowed, "{:?}", got);
                        if allowed {
                            held.insert(holder, (account, wanted, cpus));
                        }
                    }
                    Step::Release { holder, only_cpus: true } => {
                        w.release(&format!("vm:{holder}"), &[CPU]).await;
                        if let Some(h) = held.get_mut(&holder) {
                            h.2 = 0;
                        }
                    }
                    Step::Release { holder, only_cpus: false } => {
                        w.release(&format!("vm:{holder}"), &[]).await;
                        held.remove(&holder);
                        ended.push(holder);
                    }
                    Step::LimitDomain { top: true, max } => {
                        w.limit_domain(&top, VM, max).await;
                        domain_max[0] = max;
                    }
                    Step::LimitDomain { top: false, max } => {
                        let request = UpdateResourceLimitRequest {
                            domain_id: low.id.clone(), resource_type: Some(VM), max: Some(max), ..Default::default()
                        };
                        let refused = domain_max[0] >= 0 && max > domain_max[0];
                        if refused {
                            prop_assert_eq!(err(w.resource_limits().update(as_(&root, request))).await.code, 431);
                        } else {
                            ok(w.resource_limits().update(as_(&root, request))).await;
                            domain_max[1] = max;
                        }
                    }
                    Step::LimitAccount { account, max } => {
                        w.limit_account(&accounts[account as usize], VM, max).await;
                        account_max[account as usize] = max;
                    }
                }
                for (n, id) in (0u8..).zip(ids) {
                    let cpus: i64 = held.values().filter(|h| h.0 == n).map(|h| h.2).sum();
                    prop_assert_eq!(w.used(&format!("account/{id}/0")).await, Some(vms(&held, Some(n))));
                    prop_assert_eq!(w.used(&format!("account/{id}/8")).await, Some(cpus));
                }
                for (n, id) in domains.into_iter().enumerate() {
                    let expected = (domain_max[n] >= 0).then(|| vms(&held, (n == 1).then_some(1)));
                    prop_assert_eq!(w.used(&format!("domain/{id}/0")).await, expected);
                }
            }
            Ok(())
        })?;
    }
}
