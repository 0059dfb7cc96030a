use crate::world::{World, as_, ok};
use contract::api::RoleType;
use contract_identity::{
    ByApiKeyRequest, GetUserKeysRequest, ListAccountsRequest, ListDomainsRequest, ListRolePermissionsRequest,
    ListRolesRequest, ListUsersRequest, RoleRulesRequest,
};
use store::Sql;

testkit::databases! {
    // covers: IAM-021
    async fn a_fresh_installation_has_the_built_in_rows(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        assert_eq!((root.account_id, root.user_id, root.domain_path.as_str(), root.role()), (2, 2, "/1/", RoleType::Admin));
        let roles = ok(w.roles().list(as_(&root, ListRolesRequest::default()))).await.role;
        let seen: Vec<_> = roles.iter().map(|r| (r.name(), r.r#type(), r.description())).collect();
        assert_eq!(seen, [
            ("Root Admin", "Admin", "Default root admin role"),
            ("Resource Admin", "ResourceAdmin", "Default resource admin role"),
            ("Domain Admin", "DomainAdmin", "Default domain admin role"),
            ("User", "User", "Default user role"),
        ]);
        for (role, rules) in roles.iter().zip([1, 319, 303, 261]) {
            let request = ListRolePermissionsRequest { role_id: role.id.clone() };
            let got = ok(w.roles().list_permissions(as_(&root, request))).await;
            assert_eq!(got.count, Some(rules));
            assert!(got.role_permission.iter().all(|r| r.permission() == "allow" && r.role_id == role.id));
        }
        let rules = w.authority().role_rules(RoleRulesRequest { role_id: 4 }).await.unwrap().into_inner().role.unwrap();
        assert_eq!((rules.name.as_str(), rules.r#type(), rules.rules.len()), ("User", RoleType::User, 261));

        let accounts = ok(w.accounts().list(as_(&root, ListAccountsRequest { list_all: Some(true), ..Default::default() }))).await;
        assert_eq!(accounts.count, Some(1), "the system account is hidden");
        let admin = &accounts.account[0];
        assert_eq!((admin.name(), admin.account_type(), admin.role_name(), admin.domain()), ("admin", 1, "Root Admin", "ROOT"));
        assert_eq!((admin.vm_limit(), admin.vm_total(), admin.secondary_storage_available()), ("Unlimited", 0, "Unlimited"));
        assert_eq!((admin.state(), admin.is_default(), admin.user.len()), ("enabled", true, 1));
        let users = w.usernames(&root, ListUsersRequest { list_all: Some(true), ..Default::default() }).await;
        assert_eq!(users, ["admin"]);
        let domains = ok(w.domains().list(as_(&root, ListDomainsRequest::default()))).await;
        let domain = &domains.domain[0];
        assert_eq!((domain.name(), domain.path(), domain.level(), domain.has_child()), ("ROOT", "ROOT", 0, false));
        assert_eq!(domain.parent_domain_id, None);
    }

    async fn starting_again_changes_nothing(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let keys = identity::admin_keys(&w.node).await.unwrap();
        let count = |table: &'static str| {
            let db = w.node.db.clone();
            async move { db.one(Sql::new(&format!("SELECT COUNT(*) FROM {table}"))).await.unwrap().at::<i64>(0).unwrap() }
        };
        let tables = ["domains", "accounts", "users", "roles", "role_permissions", "resource_counts"];
        let mut before = Vec::new();
        for table in tables {
            before.push(count(table).await);
        }
        // Several replicas at once.
        let (a, b) = tokio::join!(
            identity::start(w.node.clone(), crate::world::options()),
            identity::start(w.node.clone(), crate::world::options())
        );
        assert!(a.is_ok() && b.is_ok());
        for (table, before) in tables.into_iter().zip(before) {
            assert_eq!(count(table).await, before, "{table}");
        }
        assert_eq!(identity::admin_keys(&w.node).await.unwrap(), keys);
        assert_eq!(w.root().await, root);
    }

    async fn the_administrators_keys_sign_and_are_sealed(db: testkit::TestDb) {
        let w = World::new(db).await;
        let root = w.root().await;
        let (api, secret) = identity::admin_keys(&w.node).await.unwrap();
        let found = w.authority().by_api_key(ByApiKeyRequest { api_key: api.clone() }).await.unwrap().into_inner();
        let found = found.credentials.unwrap();
        assert_eq!((found.user_name.as_str(), found.secret_key.as_deref()), ("admin", Some(secret.as_str())));
        assert!(found.user_enabled && found.account_enabled && found.domain_active && found.allowed_cidrs.is_empty());
        let keys = ok(w.users().get_keys(as_(&root, GetUserKeysRequest { id: Some(root.user_uuid.clone()) }))).await;
        assert_eq!((keys.api_key(), keys.secret_key()), (api.as_str(), secret.as_str()));
        let row = w.node.db.one("SELECT secret_key FROM users WHERE id = 2".into()).await.unwrap();
        assert!(row.at::<String>(0).unwrap().starts_with("v1:"));
        let nobody = w.authority().by_api_key(ByApiKeyRequest { api_key: "x".into() }).await.unwrap().into_inner();
        assert!(nobody.credentials.is_none());
    }
}
